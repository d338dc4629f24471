// Heads switched off with the reader's hand, and what is left of the text's vector.
import { useState } from "preact/hooks";
import type { Ablations } from "../../engine/questions";
import { fixed, t } from "../../texts";
import { nameOf, switchedOff } from "../../tour/facts";
import { Picture } from "../../ui/Picture";
import { Slider } from "../../ui/Slider";

export function SwitchedOff() {
  const texts = t.value.story;
  const asked = switchedOff.value;
  if (asked.state === "failed") return <p class="quiet">{texts.offFailed(asked.why)}</p>;
  if (asked.state === "waiting") return <p class="quiet" role="status">{t.value.frame.opening}</p>;
  return <Off found={asked.value} />;
}

const wide = 300;
const high = 90;

function Off({ found }: { found: Ablations }) {
  const texts = t.value.story;
  const [count, setCount] = useState(0);
  const all = found.in_order;
  const left = count === 0 ? { self: 1, other: found.similarity } : all[count - 1]!;
  const points = (of: "self" | "other") =>
    [of === "self" ? 1 : found.similarity, ...all.map((each) => each[of])]
      .map((value, i) => `${(i / all.length) * wide},${(1 - Math.max(0, value)) * high}`)
      .join(" ");
  return (
    <Picture
      caption={texts.offCaption}
      table={() => ({
        columns: [texts.offCount, texts.head, texts.toItself, texts.toOther],
        rows: all.map((each, i) => [i + 1, nameOf(each), fixed(each.self, 3), fixed(each.other, 3)]),
      })}
    >
      <p>{texts.offText(found.other)}</p>
      <Slider label={texts.offCount} value={count} least={0} most={all.length} onValue={setCount} />
      <svg class="off" viewBox={`-2 -4 ${wide + 4} ${high + 8}`} role="img" aria-label={texts.offCaption}>
        <line x1={0} x2={wide} y1={high} y2={high} />
        <polyline class="self" points={points("self")} />
        <polyline class="other" points={points("other")} />
        <line class="at" x1={(count / all.length) * wide} x2={(count / all.length) * wide} y1={-2} y2={high} />
      </svg>
      <dl class="off-figures" aria-live="polite">
        <div><dt><i class="self" aria-hidden="true" />{texts.toItself}</dt><dd class="figure">{fixed(left.self, 3)}</dd></div>
        <div><dt><i class="other" aria-hidden="true" />{texts.toOther}</dt><dd class="figure">{fixed(left.other, 3)}</dd></div>
      </dl>
      <p class="quiet">{count === 0 ? texts.offNone : texts.offThese(all.slice(0, count).map(nameOf).slice(-8).join(", "), count)}</p>
    </Picture>
  );
}
