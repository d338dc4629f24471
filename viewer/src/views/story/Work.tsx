// The same work with 1 to 16 heads, measured now, and the two limits that stand beside it.
import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { dims, time, type Cut, type Dims, type Time } from "../../engine/questions";
import { engine, messageOf } from "../../state/session";
import { fixed, grouped, t } from "../../texts";
import { finish } from "../../tour/done";
import { Ready } from "../../ui/Ready";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";
import { SwitchedOff } from "./SwitchedOff";

export const counts = [1, 2, 4, 8, 16];
const layer = { d_model: 512, tokens: 128, batch: 1, dtype: "f32" };

/** Times by number of heads. */
export const measured = signal<ReadonlyMap<number, Time>>(new Map());

export function Work() {
  const asked = useAnswer((whom, options) => dims(whom, { ...layer, heads: counts }, options), ["work"]);
  return (
    <>
      <Ready asked={asked}>{(answer) => <Same answer={answer} />}</Ready>
      <h3>{t.value.story.limits}</h3>
      <p>{t.value.story.rank}</p>
      <SwitchedOff />
    </>
  );
}

type Divided = Extract<Cut, { divides: true }>;

const products = ({ steps }: Divided): number => steps.reduce((sum, { step, flop }) => sum + (step === "softmax" ? 0 : flop), 0);
const softmax = ({ steps }: Divided): number => steps.find(({ step }) => step === "softmax")!.flop;

function Same({ answer }: { answer: Dims }) {
  const texts = t.value.story;
  const [at, setAt] = useState(0);
  const [failed, setFailed] = useState<string | null>(null);
  const busy = useRef(false);
  const cuts = answer.heads.filter((cut): cut is Divided => cut.divides);
  const wanted = counts.slice(0, at + 1);
  const whom = engine.value;
  useEffect(() => {
    if (!whom || busy.current) return;
    busy.current = true;
    void (async () => {
      try {
        for (const heads of wanted) {
          if (!measured.peek().has(heads)) measured.value = new Map(measured.peek()).set(heads, await time(whom, { ...layer, heads }));
        }
      } catch (error) {
        setFailed(messageOf(error));
      } finally {
        busy.current = false;
      }
    })();
  }, [whom, at, measured.value.size]);
  useEffect(() => {
    if (at === counts.length - 1) finish(7);
  }, [at]);
  const one = cuts[0]!;
  const over = (value: number, of: number) => `× ${fixed(value / of, 2)}`;
  const timeOf = (heads: number) => {
    const point = measured.value.get(heads);
    const first = measured.value.get(1);
    return point && first ? `× ${fixed(point.seconds / first.seconds, 2)}` : texts.measuring;
  };
  const shown = cuts.slice(0, at + 1);
  const cells = (cut: Divided): string[] => [
    String(cut.heads), String(cut.d_k), grouped(cut.parameters), over(products(cut), products(one)), over(softmax(cut), softmax(one)), timeOf(cut.heads),
  ];
  const where = measured.value.get(1);
  return (
    <section>
      <div class="target">
        <Slider label={texts.numHeads} value={at} least={0} most={counts.length - 1} said={String(counts[at])} onValue={setAt} />
      </div>
      <p class="quiet">{texts.workNote(layer.d_model, layer.tokens)}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label={texts.workCaption}>
        <table class="same-work">
          <caption class="hidden">{texts.workCaption}</caption>
          <thead>
            <tr>{texts.workColumns.map((name) => <th scope="col">{name}</th>)}</tr>
          </thead>
          <tbody>
            {shown.map((cut) => (
              <tr class={cut.heads === counts[at] ? "now" : ""}>
                {cells(cut).map((cell, i) => (i === 0 ? <th scope="row" class="figure">{cell}</th> : <td class="figure">{cell}</td>))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {where && <p class="quiet">{texts.measuredBy(where.where === "native", where.threads, fixed(1000 * where.seconds, 2))}</p>}
      {failed !== null && <p class="trouble" role="alert">{t.value.frame.failed(failed)}</p>}
    </section>
  );
}
