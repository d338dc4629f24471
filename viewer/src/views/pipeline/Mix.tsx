// The values, times their weights, and their sum.
import { fixed, t } from "../../texts";
import { Bars } from "../../ui/Bars";
import { Picture } from "../../ui/Picture";
import type { Flow } from "./flow";
import { sourceOf, TokenRows } from "./TokenRows";

export function Mix({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { v, output, weights, d, trace, query } = flow;
  if (!v || !output) return <p class="quiet">{texts.mix.noValues}</p>;
  const parts = v.map((value: number, i: number) => value * weights[Math.floor(i / d)]!);
  return (
    <>
      <p>{texts.mix.text(trace.tokens[query]!, d)}</p>
      <Picture
        caption={texts.mix.parts}
        table={() => ({
          columns: ["", texts.softmax.weight, ...Array.from({ length: d }, (_, i) => String(i))],
          rows: trace.tokens.map((token, i) => [token, fixed(weights[i]!, 4), ...Array.from(parts.subarray(i * d, (i + 1) * d), (value) => fixed(value, 3))]),
        })}
      >
        <TokenRows flow={flow} name="w · v" colour="v" values={parts} cols={d} formula={texts.mix.formula} chooses="key" />
        <div class="under-rows">
          <p class="matrix-name v">{texts.mix.output} <span class="figure quiet">[{d}]</span></p>
          <Bars
            label={texts.mix.output}
            colour="v"
            values={output}
            height={84}
            item={(i) => ({
              key: `output ${i}`,
              title: texts.element(texts.mix.output, trace.tokens[query]!, i),
              value: fixed(output[i]!, 4),
              shape: `[${d}]`,
              formula: texts.mix.formula,
              source: sourceOf(flow),
            })}
          />
        </div>
      </Picture>
    </>
  );
}
