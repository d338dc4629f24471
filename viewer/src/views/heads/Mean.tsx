// The mean of the weights of chosen heads: pressed one by one, layer by layer, or all.
import { useMemo } from "preact/hooks";
import { meanSource } from "../../maps/source";
import type { HeadName } from "../../engine/heads";
import type { Trace } from "../../engine/questions";
import { engine } from "../../state/session";
import { t } from "../../texts";
import { chosenHeads } from "./state";
import { TextMap } from "./TextMap";

const same = ([a, b]: HeadName, [c, d]: HeadName): boolean => a === c && b === d;

export function Mean({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const all: HeadName[] = Array.from({ length: trace.layers * trace.heads }, (_, i) => [Math.floor(i / trace.heads), i % trace.heads]);
  const valid = chosenHeads.value.filter(([l, h]) => l < trace.layers && h < trace.heads);
  // Nothing chosen: all heads, which a link need not list.
  const chosen = valid.length > 0 ? valid : all;
  const name = chosen.map(([l, h]) => `${l}.${h}`).join(" ");
  const source = useMemo(() => engine.value && meanSource(engine.value, trace, chosen), [engine.value, trace.id, name]);
  const has = (given: HeadName): boolean => valid.some((each) => same(each, given));
  const toggle = (given: HeadName[]): void => {
    const every = given.every(has);
    const rest = valid.filter((each) => !given.some((other) => same(each, other)));
    chosenHeads.value = (every ? rest : [...rest, ...given]).sort(([a, b], [c, d]) => a - c || b - d).slice(0, 64);
  };
  return (
    <>
      <p>{texts.meanLead}</p>
      <div class="scroll-x">
        <table class="pick-heads">
          <tbody>
            {Array.from({ length: trace.layers }, (_, l) => (
              <tr>
                <th scope="row">
                  <button type="button" class="plain" onClick={() => toggle(all.filter(([layer]) => layer === l))}>{texts.layer(l)}</button>
                </th>
                {Array.from({ length: trace.heads }, (_, h) => (
                  <td>
                    <button type="button" class="pick figure" aria-pressed={has([l, h])} aria-label={`${texts.head} ${l}.${h}`} onClick={() => toggle([[l, h]])}>
                      {l}.{h}
                    </button>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p>
        <span role="status">{valid.length > 0 ? texts.meanOf(valid.length) : texts.meanOfAll(all.length)}</span>{" "}
        <button type="button" class="plain" disabled={valid.length === 0} onClick={() => (chosenHeads.value = [])}>{texts.chooseAll}</button>
      </p>
      {source && (
        <TextMap
          caption={valid.length > 0 && valid.length <= 8 ? texts.meanCaption(valid.map(([l, h]) => `${l}.${h}`).join(", ")) : texts.meanOf(chosen.length)}
          source={source}
          trace={trace}
          formula={texts.meanFormula}
          share={1 / chosen.length}
        />
      )}
    </>
  );
}
