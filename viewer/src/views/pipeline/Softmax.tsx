// A row of scores, and the three steps that make weights of it.
import { chosenKey } from "../../state/app";
import { fixed, t } from "../../texts";
import type { Flow } from "./flow";
import { shownTokens, sumOf } from "./flow";

const shown = (value: number, decimals: number): string => (value === -Infinity ? "−∞" : fixed(value, decimals));

function Cell({ value, most, decimals, colour }: { value: number; most: number; decimals: number; colour: string }) {
  const share = Number.isFinite(value) && most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
  return (
    <td class="bar">
      <span class={`fill ${value < 0 ? "negative" : ""} of-${colour}`} style={{ width: `${100 * share}%` }} />
      <span class="figure">{shown(value, decimals)}</span>
    </td>
  );
}

const largest = (values: ArrayLike<number>): number => {
  let most = 0;
  for (let i = 0; i < values.length; ++i) if (Number.isFinite(values[i])) most = Math.max(most, Math.abs(values[i]!));
  return most;
};

export function Softmax({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { scores, weights, trace, query, key } = flow;
  const tokens = shownTokens(flow, scores.length);
  let most = -Infinity;
  for (const score of scores) most = Math.max(most, score);
  const below = Float64Array.from(scores, (score) => score - most);
  const exps = below.map(Math.exp);
  const sum = sumOf(exps);
  const scale = { score: largest(scores), below: largest(below) };
  return (
    <>
      <p>{texts.softmax.text(trace.tokens[query]!)}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label={texts.parts.softmax.title}>
        <table class="softmax">
          <thead>
            <tr>
              <th scope="col">{texts.softmax.key}</th>
              <th scope="col">{texts.softmax.score}</th>
              <th scope="col">{texts.softmax.subtract(fixed(most, 3))}</th>
              <th scope="col">{texts.softmax.exp}</th>
              <th scope="col">{texts.softmax.divide(fixed(sum, 3))}</th>
            </tr>
          </thead>
          <tbody>
            {tokens.map((token) => (
              <tr class={token === key ? "now" : ""}>
                <th scope="row">
                  <button type="button" class={`plain ${token === key ? "k" : ""}`} aria-pressed={token === key} onClick={() => (chosenKey.value = token)}>
                    {trace.tokens[token]}
                  </button>
                </th>
                <Cell value={scores[token]!} most={scale.score} decimals={3} colour="x" />
                <Cell value={below[token]!} most={scale.below} decimals={3} colour="x" />
                <Cell value={exps[token]!} most={1} decimals={4} colour="x" />
                <Cell value={weights[token]!} most={1} decimals={4} colour="w" />
              </tr>
            ))}
          </tbody>
          <tfoot>
            <tr>
              <th scope="row">{texts.softmax.sum}</th>
              <td />
              <td />
              <td class="figure">{fixed(sum, 4)}</td>
              <td class="figure">{fixed(sumOf(weights), 4)}</td>
            </tr>
          </tfoot>
        </table>
      </div>
      <p class="note"><code>{texts.softmax.formula}</code></p>
      {tokens.length < scores.length && <p class="quiet note">{texts.some(tokens.length, scores.length)}</p>}
    </>
  );
}
