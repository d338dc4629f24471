// Five questions; an answer shows the picture that says why.
import type { ComponentType } from "preact";
import { row } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { opened } from "../../state/session";
import { fixed, t } from "../../texts";
import { heaviestOf, linkWeights, nameOf, ready, rowHead } from "../../tour/facts";
import { pairName, pairs, wordOf } from "../../tour/pairs";
import { answer, answered, right } from "../../tour/quiz";
import { middle } from "../../tour/say";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";

const pictures: ComponentType[] = [ManyLinks, OneRow, () => <Slices heads={8} />, () => <Slices heads={4} />, Beside];

export function Quiz() {
  const texts = t.value.story.quiz;
  return (
    <ol class="quiz target">
      {texts.questions.map(({ question, answers, why }, i) => {
        const given = answered.value[i]!;
        const Shown = pictures[i]!;
        return (
          <li>
            <fieldset>
              <legend>{i + 1}. {question}</legend>
              {answers.map((text, choice) => (
                <label>
                  <input type="radio" name={`question-${i}`} checked={given === choice} onChange={() => answer(i, choice)} /> {text}
                </label>
              ))}
            </fieldset>
            <div aria-live="polite">
              {given !== null && (
                <>
                  <p class="why"><b>{given === right[i] ? texts.yes : texts.no}</b> {why}</p>
                  <Shown />
                </>
              )}
            </div>
          </li>
        );
      })}
    </ol>
  );
}

/** d_model 512 as a bar, cut for so many heads. */
function Slices({ heads }: { heads: number }) {
  const wide = 512 / heads;
  return (
    <svg class="slices" viewBox="0 0 512 40" role="img" aria-label={t.value.story.quiz.slices(heads, wide)}>
      {Array.from({ length: heads }, (_, i) => (
        <g>
          <rect x={i * wide + 1} y={1} width={wide - 2} height={38} />
          <text x={(i + 0.5) * wide} y={26}>{wide}</text>
        </g>
      ))}
    </svg>
  );
}

/** Each link with the head that gives it most. */
function ManyLinks() {
  const links = ready(linkWeights.value) ?? [];
  return (
    <table>
      <tbody>
        {links.map((link) => {
          const best = heaviestOf(link);
          return (
            <tr>
              <th scope="row">{pairName([link.query_word, link.key_word])}</th>
              <td>{t.value.story.headNamed(nameOf(best))}</td>
              <td class="figure">{fixed(best.weight, 2)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** A row of weights end to end: the bar is always as long as 1. */
function OneRow() {
  const now = opened.value!;
  const at = middle.value?.b ?? 0;
  const token = now.words[at]!.first_token;
  const { layer, head: index } = rowHead.value;
  const asked = useAnswer((engine, options) => row(engine, { trace: now.id, layer, head: index, row: token }, options).then((file) => numbers(file, "weights")), [now.id, layer, index, token]);
  return (
    <Ready asked={asked}>
      {(weights) => {
        let from = 0;
        return (
          <svg class="one-row" viewBox="0 0 512 40" role="img" aria-label={t.value.story.quiz.oneRow(wordOf(at))}>
            {Array.from(weights, (weight, i) => {
              const x = from;
              from += 512 * weight;
              return (
                <g>
                  <rect x={x} y={1} width={Math.max(0, 512 * weight - 1)} height={38} />
                  {weight > 0.08 && <text x={x + 256 * weight} y={26}>{now.tokens[i]}</text>}
                </g>
              );
            })}
          </svg>
        );
      }}
    </Ready>
  );
}

/** The head that gives the first link most, beside what it gives at that distance anyway. */
function Beside() {
  const [link] = ready(linkWeights.value) ?? [];
  const [pair] = pairs.value;
  if (!link || !pair) return null;
  const best = heaviestOf(link);
  const bars: [string, number][] = [[pairName(pair), best.weight], [t.value.story.offsetMean, best.offsetMean ?? 0]];
  return (
    <div>
      {bars.map(([name, value]) => (
        <div class="share">
          <span>{name}</span>
          <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect class="ground" width={100} height={10} />
            <rect class="lit" width={100 * value} height={10} />
          </svg>
          <b class="figure">{fixed(value, 2)}</b>
        </div>
      ))}
      <p class="quiet">{t.value.story.headNamed(nameOf(best))}</p>
    </div>
  );
}
