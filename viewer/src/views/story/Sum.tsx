// Two words that change places: one head's sum does not see it, two heads side by side do.
import { useEffect, useState } from "preact/hooks";
import { headOutput } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { opened } from "../../state/session";
import { fixed, t } from "../../texts";
import { finish } from "../../tour/done";
import { nameOf, sideBySide, type Reader } from "../../tour/facts";
import { wordOf } from "../../tour/pairs";
import { middle } from "../../tour/say";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { Strip } from "../../ui/Strip";
import { useAnswer } from "../../ui/useAnswer";

type Numbers = Float32Array | Float64Array;

interface Values {
  /** v of the two words in both heads. */
  first: [a: Numbers, c: Numbers];
  second: [a: Numbers, c: Numbers];
}

export function Sum() {
  const now = opened.value!;
  const at = middle.value;
  const both = sideBySide.value;
  const texts = t.value.story;
  const asked = useAnswer<Values>(
    at && both && now.has_values
      ? async (engine, options) => {
          const token = (word: number) => now.words[word]!.first_token;
          const of = async ({ layer, head }: Reader): Promise<[Numbers, Numbers]> => {
            const v = numbers(await headOutput(engine, { trace: now.id, layer, head, row: token(at.b) }, options), "v");
            const row = (word: number) => v.slice(token(word) * now.d, (token(word) + 1) * now.d);
            return [row(at.a), row(at.c)];
          };
          return { first: await of(both[0]), second: await of(both[1]) };
        }
      : null,
    [now.id, at?.a, at?.b, at?.c, both && nameOf(both[0]), both && nameOf(both[1])],
  );
  if (!at) return <p>{texts.noLinks}</p>;
  if (!now.has_values) return <p>{texts.noValues}</p>;
  return <Ready asked={asked}>{(values) => both && <Swap values={values} heads={both} a={wordOf(at.a)} c={wordOf(at.c)} />}</Ready>;
}

const half = 0.5;
const mixed = (x: Numbers, y: Numbers): number[] => Array.from(x, (each, i) => half * each + half * y[i]!);
const largestChange = (x: number[], y: number[]): number => x.reduce((most, each, i) => Math.max(most, Math.abs(each - y[i]!)), 0);

function Swap({ values: { first, second }, heads, a, c }: { values: Values; heads: [Reader, Reader]; a: string; c: string }) {
  const texts = t.value.story;
  const [swapped, setSwapped] = useState(false);
  useEffect(() => setSwapped(false), [first]);
  const summed = (turned: boolean) => (turned ? mixed(first[1], first[0]) : mixed(first[0], first[1]));
  const beside = (turned: boolean) => (turned ? [...first[1], ...second[0]] : [...first[0], ...second[1]]);
  const shown = [
    { name: texts.oneHead(nameOf(heads[0])), formula: texts.sumFormula(fixed(half, 1), swapped ? c : a, swapped ? a : c), before: summed(false), now: summed(swapped) },
    {
      name: texts.twoHeads(nameOf(heads[0]), nameOf(heads[1])),
      formula: texts.besideFormula(nameOf(heads[0]), swapped ? c : a, nameOf(heads[1]), swapped ? a : c),
      before: beside(false),
      now: beside(swapped),
    },
  ];
  return (
    <Picture
      caption={texts.swapCaption}
      table={() => ({
        columns: ["", texts.place, texts.before, texts.after],
        rows: shown.flatMap(({ name, before }, which) => before.map((value, i) => [
          name, String(i), fixed(value, 4), fixed((which === 0 ? summed(true) : beside(true))[i]!, 4),
        ])),
      })}
    >
      <div class="beside">
        <button
          type="button"
          class="target"
          aria-pressed={swapped}
          onClick={() => {
            setSwapped(!swapped);
            finish(2);
          }}
        >
          {texts.swap(a, c)}
        </button>
      </div>
      {shown.map(({ name, formula, before, now }, which) => (
        <section class="sum">
          <h3>{name}</h3>
          <p class="figure">{formula}</p>
          {[before, now].map((row, i) => (
            <div class="sum-row">
              <span class="quiet">{i === 0 ? texts.before : swapped ? texts.after : texts.now}</span>
              <Strip
                label={`${name}, ${i === 0 ? texts.before : texts.now}`}
                colour="v"
                rows={1}
                cols={row.length}
                at={(_, col) => row[col]!}
                height={24}
                item={(_, col) => ({ key: `sum-${which}-${i}-${col}`, title: `${name} [${col}]`, value: fixed(row[col]!, 4), formula })}
              />
            </div>
          ))}
          <p class="change" aria-live="polite">
            {texts.change} <b class="figure">{fixed(largestChange(before, now), 3)}</b>
          </p>
        </section>
      ))}
    </Picture>
  );
}
