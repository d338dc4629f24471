// Two heads, or one head on two texts, side by side, with the difference where the two have one shape.
import { useMemo } from "preact/hooks";
import { trace as askTrace, type Trace } from "../../engine/questions";
import type { HeadName } from "../../engine/heads";
import { differenceSource, headSource } from "../../maps/source";
import { canEncode, encodeText, engine, head, who } from "../../state/session";
import { t } from "../../texts";
import { useAnswer, type Asked } from "../../ui/useAnswer";
import { OtherText } from "./OtherText";
import { other, otherText } from "./state";
import { TextMap } from "./TextMap";

function useOtherTrace(): Asked<Trace | null> {
  const known = who.value?.traces.find(({ text }) => text === otherText.value);
  return useAnswer(
    !otherText.value
      ? async () => null
      : known
        ? (asked) => askTrace(asked, known.id)
        : async (asked, options) => askTrace(asked, (await encodeText(asked, { text: otherText.value, values: false }, options)).trace),
    [otherText.value, known?.id],
  );
}

export function Compare({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const second: HeadName = other.value && other.value[0] < trace.layers && other.value[1] < trace.heads ? other.value : [layer, index];
  const found = useOtherTrace();
  const secondTrace = found.state === "ready" && found.value ? found.value : trace;
  const asked = engine.value;
  const name = `${layer}.${index}`;
  const secondName = `${second[0]}.${second[1]}`;
  const sameHead = name === secondName;
  const sameText = secondTrace.id === trace.id;
  const sources = useMemo(() => {
    if (!asked || (sameHead && sameText)) return null;
    const a = headSource(asked, trace, [layer, index]);
    const b = headSource(asked, secondTrace, second);
    const oneShape = trace.queries === secondTrace.queries && trace.keys === secondTrace.keys;
    return { a, b, difference: oneShape ? differenceSource(a, b) : null };
  }, [asked, trace.id, secondTrace.id, name, secondName]);
  const label = (head: string, of: Trace): string => (sameText ? texts.mapCaption(head) : texts.mapOfText(head, of.text.slice(0, 60)));
  return (
    <>
      <div class="map-bar">
        <label>
          {texts.otherHead}{" "}
          <select
            value={secondName}
            onChange={(event) => {
              const [l = 0, h = 0] = event.currentTarget.value.split(".").map(Number);
              other.value = [l, h];
            }}
          >
            {Array.from({ length: trace.layers * trace.heads }, (_, i) => `${Math.floor(i / trace.heads)}.${i % trace.heads}`).map((each) => <option value={each}>{each}</option>)}
          </select>
        </label>
      </div>
      <OtherText />
      {!canEncode.value && <p class="quiet small">{t.value.frame.noModel}</p>}
      {found.state === "failed" && <p class="trouble" role="alert">{t.value.frame.failed(found.why)}</p>}
      {!sources && <p>{texts.chooseOther}</p>}
      {sources && (
        <div class="side-by-side">
          <TextMap share={1 / 2} caption={label(name, trace)} source={sources.a} trace={trace} formula={texts.weightFormula} />
          <TextMap share={1 / 2} caption={label(secondName, secondTrace)} source={sources.b} trace={secondTrace} formula={texts.weightFormula} bare />
          {sources.difference ? (
            <TextMap share={1 / 2} caption={texts.differenceCaption(sameHead ? texts.textOne : name, sameHead ? texts.textTwo : secondName)} source={sources.difference} trace={trace} formula={texts.differenceFormula} bare />
          ) : (
            <p>{texts.otherShape(trace.tokens.length, secondTrace.tokens.length)}</p>
          )}
        </div>
      )}
    </>
  );
}
