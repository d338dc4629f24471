// A head switched off or scaled, and what changes: the text's vector, its likeness to another text, the next words.
import { useEffect, useState } from "preact/hooks";
import { ablate, type HeadName, type NextToken } from "../../engine/heads";
import type { Trace } from "../../engine/questions";
import { canEncode, head, who } from "../../state/session";
import { fixed, t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";
import { chosenHeads, otherText, scaleOff } from "./state";

/** The value once it has rested: a slider moves faster than a model runs. */
function useRested<T>(value: T, key: string): T {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), 120);
    return () => clearTimeout(timer);
  }, [key]);
  return rested;
}

const name = ([layer, index]: HeadName): string => `${layer}.${index}`;

export function Off({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const chosen = chosenHeads.value.filter(([l, h]) => l < trace.layers && h < trace.heads);
  const off: HeadName[] = chosen.some((each) => name(each) === name(head.value)) ? chosen : [head.value, ...chosen];
  const [draft, setDraft] = useState(otherText.value);
  const scale = scaleOff.value / 10;
  const model = who.value?.models[0];
  const wanted = { off: off.map(([l, h]): [number, number, number] => [l, h, scale]), other: otherText.value };
  const rested = useRested(wanted, JSON.stringify(wanted));
  const asked = useAnswer(
    canEncode.value && model
      ? (engine, options) => ablate(engine, { model: model.id, text: trace.text, ...(rested.other ? { other: rested.other } : {}), heads_off: rested.off }, options)
      : null,
    [trace.id, model?.id, JSON.stringify(rested)],
  );
  if (!canEncode.value) return <p>{t.value.frame.noModel}</p>;
  return (
    <>
      <p>{texts.offLead(off.map(name).join(", "))}</p>
      <Slider label={texts.scale} value={scaleOff.value} least={0} most={20} said={scale === 0 ? texts.isOff : `× ${fixed(scale, 1)}`} onValue={(value) => (scaleOff.value = value)} />
      <form
        class="map-bar"
        onSubmit={(event) => {
          event.preventDefault();
          otherText.value = draft.trim();
        }}
      >
        <label class="grow">
          {texts.otherText}{" "}
          <input type="text" value={draft} maxLength={20000} onInput={(event) => setDraft(event.currentTarget.value)} />
        </label>
        <button type="submit">{texts.compareWith}</button>
      </form>
      <Ready asked={asked}>
        {({ similarity, other, next }) => (
          <>
            <dl class="facts" aria-live="polite">
              {similarity !== null && <div><dt>{texts.toItself}</dt><dd class="figure">{fixed(similarity, 4)}</dd></div>}
              {other && (
                <div>
                  <dt>{texts.toOther}</dt>
                  <dd class="figure">{fixed(other.before, 4)} → {fixed(other.after, 4)}</dd>
                </div>
              )}
            </dl>
            {next && <Next before={next.before} after={next.after} />}
          </>
        )}
      </Ready>
      <p class="quiet small">{texts.offNote}</p>
    </>
  );
}

function Next({ before, after }: { before: NextToken[]; after: NextToken[] }) {
  const texts = t.value.heads;
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">{texts.rank}</th>
          <th scope="col">{texts.nextBefore}</th>
          <th scope="col">{texts.nextAfter}</th>
        </tr>
      </thead>
      <tbody>
        {before.map((each, i) => (
          <tr>
            <th scope="row">{i + 1}</th>
            <td>{each.token} <span class="figure">{fixed(each.probability, 3)}</span></td>
            <td>{after[i]?.token} <span class="figure">{after[i] && fixed(after[i].probability, 3)}</span></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
