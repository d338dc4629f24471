import { useEffect, useState } from "preact/hooks";
import { dark, language, longestText, spoken, theme } from "../state/app";
import { address } from "../state/link";
import { canEncode, opened, start, takeText, who, working } from "../state/session";
import { t } from "../texts";

function Sentence() {
  const shown = opened.value?.text ?? "";
  const [draft, setDraft] = useState(shown);
  useEffect(() => setDraft(shown), [shown]);
  const texts = t.value.frame;
  const fixed = !canEncode.value;
  const submit = (event: Event) => {
    event.preventDefault();
    if (draft.trim() && draft !== shown) void takeText(draft);
  };
  return (
    <form class="sentence" onSubmit={submit}>
      <label>
        <span class="hidden">{texts.sentence}</span>
        <input
          type="text"
          name="sentence"
          value={draft}
          maxLength={longestText}
          readOnly={fixed}
          title={fixed ? texts.sentenceFixed : texts.sentenceHelp}
          spellcheck={false}
          autocomplete="off"
          onInput={(event) => setDraft(event.currentTarget.value)}
        />
      </label>
      {!fixed && draft !== shown && <button type="submit">{texts.apply}</button>}
    </form>
  );
}

/** A model that breaks the words of a text into pieces hardly knows its language: said, since its heads then tell little. */
function Foreign() {
  const now = opened.value;
  if (!now) return null;
  const broken = now.words.filter(({ num_tokens }) => num_tokens > 1);
  if (broken.length < 3 || broken.length < now.words.length / 3) return null;
  const { first_token, num_tokens } = broken[broken.length - 1]!;
  const pieces = now.tokens.slice(first_token, first_token + num_tokens).join(" ");
  return <p class="foreign" role="status">{t.value.frame.foreign(broken.length, now.words.length, pieces)}</p>;
}

function Examples() {
  const examples = start.value?.examples ?? [];
  if (!canEncode.value || examples.length === 0) return null;
  return (
    <select
      aria-label={t.value.frame.examples}
      value=""
      onChange={(event) => {
        if (event.currentTarget.value) void takeText(event.currentTarget.value);
        event.currentTarget.value = "";
      }}
    >
      <option value="">{t.value.frame.examples}</option>
      {examples.map((example) => <option>{example}</option>)}
    </select>
  );
}

function Model() {
  const now = opened.value;
  if (!now) return null;
  return (
    <p class="model">
      <b>{now.model || who.value?.models[0]?.name}</b> <span>{t.value.frame.shape(now.layers, now.heads)}</span>
    </p>
  );
}

function CopyLink() {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 2000);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <button type="button" onClick={() => void navigator.clipboard.writeText(address()).then(() => setCopied(true))}>
      <span aria-live="polite">{copied ? t.value.frame.copied : t.value.frame.copyLink}</span>
    </button>
  );
}

export function Header() {
  const texts = t.value.frame;
  return (
    <header class="header">
      <h1>manyheads</h1>
      <Sentence />
      <Examples />
      <Model />
      {working.value !== null && <p class="working" role="status">{texts.working[working.value.what](working.value.share)}</p>}
      <Foreign />
      <div class="settings">
        <select
          aria-label={texts.language}
          value={spoken.value}
          onChange={(event) => (language.value = event.currentTarget.value === "de" ? "de" : "en")}
        >
          <option value="en">English</option>
          <option value="de">Deutsch</option>
        </select>
        <button type="button" title={texts.lightDark} onClick={() => (theme.value = dark.value ? "light" : "dark")}>
          {dark.value ? texts.toLight : texts.toDark}
        </button>
        <CopyLink />
      </div>
    </header>
  );
}
