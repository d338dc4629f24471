// The links that the tour follows: those of the chapter's sentence, or in another sentence three that the reader may choose.
import { computed } from "@preact/signals";
import type { Trace } from "../engine/questions";
import { linked, listOf } from "../state/link";
import { opened } from "../state/session";

export type Pair = [query: number, key: number];

/** Numbers of words; empty: the page's own choice. */
export const chosenPairs = linked<Pair[]>(
  "links",
  listOf(
    {
      read: (text) => {
        const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
        return match && match[1] !== match[2] ? [Number(match[1]), Number(match[2])] : undefined;
      },
      write: ([query, key]) => `${query}-${key}`,
    },
    3,
  ),
  [],
);

const chapter = ["black", "cat", "sat", "mat"];

// Words that rarely say what a sentence is about, English and German.
const small = new Set(
  ("a an the this that these those my your his her its our their and or but of in on at to from with by for as into near is was " +
    "were are be been has have had do does did not it he she they we you i der die das den dem des ein eine einen einem einer " +
    "und oder aber von in im auf an am zu zum zur mit bei für als ist war sind hat haben hatte nicht er sie es wir ihr ich").split(" "),
);

const lower = (trace: Trace): string[] => trace.words.map(({ text }) => text.toLowerCase());

/** Whether the open text has the chapter's words, in their order, and each sees the other: then we know what each link is. */
export const isChapters = computed<boolean>(() => {
  const now = opened.value;
  if (!now || now.causal) return false;
  const at = chapter.map((word) => lower(now).indexOf(word));
  return at.every((place, i) => place > (at[i - 1] ?? -1));
});

function guessed(trace: Trace): Pair[] {
  const words = lower(trace);
  const letters = words.map((word, i) => [word, i] as const).filter(([word]) => /\p{L}/u.test(word));
  const telling = letters.filter(([word]) => !small.has(word));
  const at = isChapters.value ? chapter.map((word) => words.indexOf(word)) : (telling.length > 1 ? telling : letters).slice(0, 4).map(([, i]) => i);
  // Where words see only earlier ones, the later word of a link is the one that looks.
  return at.slice(1).map((later, i): Pair => (trace.causal ? [later, at[i]!] : [at[i]!, later]));
}

export const pairs = computed<Pair[]>(() => {
  const now = opened.value;
  if (!now) return [];
  const fits = chosenPairs.value.filter(([query, key]) => Math.max(query, key) < now.words.length);
  return fits.length > 0 ? fits : guessed(now);
});

export const wordOf = (index: number): string => opened.value?.words[index]?.text ?? "";

export const pairName = ([query, key]: Pair): string => `${wordOf(query)} → ${wordOf(key)}`;
