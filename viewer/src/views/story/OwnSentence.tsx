// A sentence of the reader's own for the chosen head. It needs the model, which a file without one has not.
import { useState } from "preact/hooks";
import { row, trace, type Trace } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { longestText } from "../../state/app";
import { canEncode, encodeText, engine, messageOf } from "../../state/session";
import { fixed, t } from "../../texts";
import { finish } from "../../tour/done";

interface Looked {
  now: Trace;
  query: number;
  head: string;
  /** By word: what it gets from the query word. */
  weights: number[];
}

export function OwnSentence({ head }: { head: string }) {
  const texts = t.value.story;
  const [draft, setDraft] = useState("");
  const [looked, setLooked] = useState<Looked | null>(null);
  const [failed, setFailed] = useState<string | null>(null);
  if (!canEncode.value) return <p class="quiet">{texts.ownNeedsModel}</p>;

  const look = async (now: Trace, query: number) => {
    const [layer, index] = head.split(".").map(Number) as [number, number];
    const { first_token, num_tokens } = now.words[query]!;
    const weights = now.words.map(() => 0);
    for (let token = first_token; token < first_token + num_tokens; ++token) {
      const given = numbers(await row(engine.value!, { trace: now.id, layer, head: index, row: token }), "weights");
      now.words.forEach((word, i) => {
        for (let k = 0; k < word.num_tokens; ++k) weights[i]! += given[word.first_token + k]! / num_tokens;
      });
    }
    setLooked({ now, query, head, weights });
    finish(4);
  };
  const attempt = (work: Promise<void>) => {
    setFailed(null);
    work.catch((error: unknown) => setFailed(messageOf(error)));
  };
  const submit = (event: Event) => {
    event.preventDefault();
    if (!draft.trim()) return;
    attempt((async () => {
      const asked = engine.value!;
      const { trace: id } = await encodeText(asked, { text: draft, values: true });
      const now = await trace(asked, id);
      if (now.words.length < 2) throw new Error(texts.twoWords);
      await look(now, 0);
    })());
  };
  const partner = looked && looked.weights.reduce((best, weight, i) => (i !== looked.query && (best === looked.query || weight > looked.weights[best]!) ? i : best), looked.query);
  return (
    <form class="own" onSubmit={submit}>
      <label>
        <span>{texts.own}</span>
        <input type="text" value={draft} maxLength={longestText} autocomplete="off" spellcheck={false} onInput={({ currentTarget }) => setDraft(currentTarget.value)} />
      </label>
      <button type="submit">{texts.ownLook}</button>
      {failed !== null && <p class="trouble" role="alert">{t.value.frame.failed(failed)}</p>}
      {looked && partner !== null && (
        <>
          <div class="own-words" role="group" aria-label={texts.ownPress}>
            {looked.now.words.map(({ text }, i) => (
              <button type="button" aria-pressed={i === looked.query} class={i === partner ? "partner" : ""} onClick={() => attempt(look(looked.now, i))}>{text}</button>
            ))}
          </div>
          <p aria-live="polite">
            {texts.ownFound(looked.head, looked.now.words[looked.query]!.text, looked.now.words[partner]!.text, fixed(looked.weights[partner]!, 3))}
          </p>
        </>
      )}
    </form>
  );
}
