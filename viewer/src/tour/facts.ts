// What the engine says of the open text and of the model, for the tour's sentences and for the pieces on the stage.
import { computed, effect, signal, type ReadonlySignal, type Signal } from "@preact/signals";
import type { AskOptions, Engine } from "../engine/engine";
import { ablations, links, relations, type Ablations, type LinkWeights, type Relations } from "../engine/questions";
import { chosenHead, tourStep, view } from "../state/app";
import { engine, head, messageOf, opened } from "../state/session";
import type { Asked } from "../ui/useAnswer";
import { mostOf } from "../views/heads/most";
import { pairs } from "./pairs";

type Ask<T> = (engine: Engine, options: AskOptions) => Promise<T>;

/** Asked again whenever what `question` reads changes; nothing is asked while it gives null. */
function fact<T>(question: () => Ask<T> | null): Signal<Asked<T>> {
  const value = signal<Asked<T>>({ state: "waiting" });
  let before: Engine | null = null;
  effect(() => {
    const whom = engine.value;
    const ask = question();
    if (!whom || !ask) return;
    // Where another engine answers the same question, what stands stays until then.
    if (before === whom || value.peek().state !== "ready") value.value = { state: "waiting" };
    before = whom;
    const control = new AbortController();
    ask(whom, { signal: control.signal }).then(
      (answer) => control.signal.aborted || (value.value = { state: "ready", value: answer }),
      (error: unknown) => control.signal.aborted || (value.value = { state: "failed", why: messageOf(error) }),
    );
    return () => control.abort();
  });
  return value;
}

export const ready = <T>(asked: Asked<T>): T | null => (asked.state === "ready" ? asked.value : null);

export const linkWeights = fact<LinkWeights[]>(() => {
  const now = opened.value;
  const wanted = pairs.value;
  if (!now || wanted.length === 0) return null;
  // A long text's links take every weight of every head: they wait until the story is on the stage.
  if (now.layers * now.heads * now.queries * now.keys > mostOf() && view.value !== "story") return null;
  return (whom, options) => links(whom, now.id, wanted, options).then((answer) => answer.links);
});

/** True from the first time that the tour stands at this step. */
function since(step: number): ReadonlySignal<boolean> {
  let reached = false;
  return computed(() => (reached ||= tourStep.value >= step));
}

const wantsRelations = since(3);
export const onSentences = fact<Relations>(() => (wantsRelations.value ? relations : null));

const wantsAblations = since(7);
export const switchedOff = fact<Ablations>(() => {
  const now = opened.value;
  return wantsAblations.value && now ? (whom, options) => ablations(whom, now.text, options) : null;
});

export interface Reader {
  layer: number;
  head: number;
  weight: number;
  /** The head's mean weight at that distance, over the other words; null where no other word has it. */
  offsetMean: number | null;
}

/** All heads on a link: those first whose weight most exceeds what they give at that distance anyway. */
export function readersOf({ heads }: LinkWeights): Reader[] {
  const over = ({ weight, offsetMean }: Reader) => weight - (offsetMean ?? 0);
  return heads
    .flatMap((row, layer) => row.map(({ weight, offset_mean }, head) => ({ layer, head, weight, offsetMean: offset_mean })))
    .sort((a, b) => over(b) - over(a));
}

/** The head that gives a link the most weight, whatever it gives at that distance. */
export const heaviestOf = (link: LinkWeights): Reader => readersOf(link).reduce((a, b) => (b.weight > a.weight ? b : a));

/** Two heads of one layer, whose outputs stand side by side: the best for the first link, and in its layer for the second. */
export const sideBySide = computed<[Reader, Reader] | null>(() => {
  const [first, second] = ready(linkWeights.value) ?? [];
  if (!first || !second) return null;
  const a = readersOf(first)[0]!;
  const b = readersOf(second).find(({ layer, head }) => layer === a.layer && head !== a.head);
  return b ? [a, b] : null;
});

/** The head whose row is shown: the chosen one, else the best for the second link. */
export const rowHead = computed<{ layer: number; head: number }>(() => {
  const second = ready(linkWeights.value)?.[1];
  const [layer, index] = head.value;
  return chosenHead.value || !second ? { layer, head: index } : readersOf(second)[0]!;
});

export const nameOf = ({ layer, head }: { layer: number; head: number }): string => `${layer}.${head}`;
