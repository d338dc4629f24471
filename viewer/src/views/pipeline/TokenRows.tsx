// Tokens and, beside them, their rows of numbers.
import { chosenKey, chosenQuery } from "../../state/app";
import type { Item } from "../../state/inspect";
import { fixed, t } from "../../texts";
import type { Colour } from "../../ui/colours";
import { Strip } from "../../ui/Strip";
import type { Flow, Numbers } from "./flow";
import { shownTokens } from "./flow";

const rowHeight = 24;

export interface TokenRowsProps {
  flow: Flow;
  name: string;
  colour: Colour;
  values: Numbers;
  cols: number;
  formula: string;
  /** Which word a press on a token chooses. */
  chooses: "query" | "key";
}

export const sourceOf = ({ trace, layer, head }: Flow): string => t.value.pipeline.source(trace.model, layer, head);

export function TokenRows({ flow, name, colour, values, cols, formula, chooses }: TokenRowsProps) {
  const texts = t.value.pipeline;
  const count = Math.floor(values.length / cols);
  const tokens = shownTokens(flow, count);
  const marked = chooses === "query" ? flow.query : flow.key;
  const at = (row: number, col: number) => values[tokens[row]! * cols + col]!;
  const item = (row: number, col: number): Item => ({
    key: `${name} ${tokens[row]} ${col}`,
    title: texts.element(name, flow.trace.tokens[tokens[row]!]!, col),
    value: fixed(at(row, col), 4),
    shape: `${name} [${count}, ${cols}]`,
    formula,
    source: sourceOf(flow),
  });
  return (
    <div class="token-rows">
      <ol class="tokens">
        {tokens.map((token) => (
          <li>
            <button
              type="button"
              class={token === marked ? `marked ${chooses === "query" ? "q" : "k"}` : ""}
              aria-pressed={token === marked}
              onClick={() => ((chooses === "query" ? chosenQuery : chosenKey).value = token)}
            >
              {flow.trace.tokens[token]}
            </button>
          </li>
        ))}
      </ol>
      <Strip label={`${name} [${count}, ${cols}]`} colour={colour} rows={tokens.length} cols={cols} at={at} item={item} height={rowHeight * tokens.length} />
      {tokens.length < count && <p class="quiet note some">{texts.some(tokens.length, count)}</p>}
    </div>
  );
}
