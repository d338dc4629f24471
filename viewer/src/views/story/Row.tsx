// One row of weights as bars that can be pulled: what one gets, the others lose.
import { useEffect, useState } from "preact/hooks";
import { row } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { opened } from "../../state/session";
import { fixed, t } from "../../texts";
import { finish } from "../../tour/done";
import { nameOf, rowHead } from "../../tour/facts";
import { middle } from "../../tour/say";
import { wordOf } from "../../tour/pairs";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";

export function Row() {
  const now = opened.value!;
  const { layer, head: index } = rowHead.value;
  const at = middle.value;
  const token = at && now.words[at.b]!.first_token;
  const asked = useAnswer(
    token === null ? null : (engine, options) => row(engine, { trace: now.id, layer, head: index, row: token }, options).then((file) => numbers(file, "weights")),
    [now.id, layer, index, token],
  );
  if (!at) return <p>{t.value.story.noLinks}</p>;
  return <Ready asked={asked}>{(weights) => <Bars weights={weights} a={at.a} b={at.b} c={at.c} />}</Ready>;
}

const much = 0.9;

function Bars({ weights, a, b, c }: { weights: ArrayLike<number>; a: number; b: number; c: number }) {
  const texts = t.value.story;
  const { tokens, words } = opened.value!;
  const [now, setNow] = useState<number[]>(() => Array.from(weights));
  const [said, setSaid] = useState<string | null>(null);
  const [pulled, setPulled] = useState<ReadonlySet<number>>(new Set());
  useEffect(() => {
    setNow(Array.from(weights));
    setSaid(null);
    setPulled(new Set());
  }, [weights]);

  const pull = (at: number, to: number) => {
    const before = now;
    const rest = 1 - before[at]!;
    const next = before.map((weight, i) => (i === at ? to : rest > 0 ? (weight * (1 - to)) / rest : (1 - to) / (before.length - 1)));
    setNow(next);
    const loser = before.reduce((most, weight, i) => (i !== at && weight - next[i]! > before[most]! - next[most]! ? i : most), at === 0 ? 1 : 0);
    setSaid(to > before[at]! ? texts.pulled(tokens[at]!, fixed(to, 2), tokens[loser]!, fixed(before[loser]!, 2), fixed(next[loser]!, 2)) : null);
    if (to >= much) {
      const all = new Set(pulled).add(at);
      setPulled(all);
      if (all.size > 1) finish(1);
    }
  };
  const give = (word: number) => pull(words[word]!.first_token, much);
  return (
    <Picture
      caption={texts.rowOf(wordOf(b), nameOf(rowHead.value))}
      table={() => ({ columns: ["", texts.weight, texts.pulledTo], rows: now.map((weight, i) => [tokens[i]!, fixed(weights[i]!, 3), fixed(weight, 3)]) })}
    >
      <div class="row-bars target">
        {now.map((weight, i) => (
          <label class="row-bar">
            <span class="row-token">{tokens[i]}</span>
            <input
              type="range"
              min={0}
              max={100}
              step={1}
              value={Math.round(100 * weight)}
              aria-label={texts.weightOf(tokens[i]!)}
              aria-valuetext={fixed(weight, 2)}
              onInput={({ currentTarget }) => pull(i, Number(currentTarget.value) / 100)}
            />
            <b class="figure">{fixed(weight, 3)}</b>
          </label>
        ))}
        <p class="row-sum">
          <span>{texts.sum}</span> <b class="figure">{fixed(now.reduce((sum, weight) => sum + weight, 0), 3)}</b>
        </p>
      </div>
      <div class="beside">
        {[a, c].map((word) => <button type="button" onClick={() => give(word)}>{texts.give(fixed(much, 1), wordOf(word))}</button>)}
        <button type="button" class="plain" onClick={() => { setNow(Array.from(weights)); setSaid(null); }}>{texts.asComputed}</button>
      </div>
      <p class="said" aria-live="polite">{said ?? ""}</p>
    </Picture>
  );
}
