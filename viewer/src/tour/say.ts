// The facts as the tour's sentences take them.
import { computed } from "@preact/signals";
import type { HeadOnRelation, Relation, Relations } from "../engine/questions";
import type { Share } from "../texts/en/tour";
import { linkWeights, heaviestOf, nameOf, onSentences, ready } from "./facts";
import { pairs } from "./pairs";

/** A word that needs two others: b needs a and c. */
export const middle = computed<{ a: number; b: number; c: number } | null>(() => {
  const [first, second] = pairs.value;
  if (!first) return null;
  const b = first.find((word) => second?.includes(word)) ?? first[1];
  const a = first.find((word) => word !== b)!;
  const c = second?.find((word) => word !== a && word !== b);
  return c === undefined ? null : { a, b, c };
});

export const percent = (share: number): number => Math.round(100 * share);

export const shareOf = (head: HeadOnRelation, { scored_on: of }: Relation): Share => ({
  head: nameOf(head),
  right: Math.round(head.accuracy * of),
  of,
  percent: percent(head.accuracy),
  low: percent(head.interval[0]),
  high: percent(head.interval[1]),
});

/**
 * The relation of each of the tour's links, in its direction: modifier → noun, subject → verb, verb → place. Where words see
 * only earlier ones, the other way.
 */
export const linkRelations = ({ causal }: Relations): readonly [number, number, number] => (causal ? [1, 3, 4] : [0, 2, 5]);

export const enough = (relation: Relation): boolean => relation.chosen_on >= 20 && relation.scored_on >= 20;

export const signed = (offset: number | null): string => (offset === null ? "–" : offset > 0 ? `+${offset}` : `−${-offset}`);

/** Distance of a link, in the direction in which the tour reads it. */
export const distanceOf = ({ causal }: Relations, text: Relations["texts"][number], link: number): number | null => {
  const offset = text.links[link]?.offset ?? null;
  return offset === null ? null : (link === 2) !== causal ? -offset : offset;
};

/** How often the next word is the noun that a modifier belongs to, on the half that is counted. */
export function nextWordShare(found: Relations): number {
  const counted = found.texts.filter((_, i) => i % 2 === 1);
  return counted.filter((text) => distanceOf(found, text, 0) === 1).length / Math.max(1, counted.length);
}

export type Verdict =
  | { kind: "reads"; heads: Share[]; offset: string; percent: number }
  | { kind: "none"; best: Share; offset: string; percent: number }
  | { kind: "few" };

/** What the intervals say of one link. */
export function verdictOf(relation: Relation): Verdict {
  if (!enough(relation) || relation.heads.length === 0) return { kind: "few" };
  const offset = signed(relation.offset);
  const beside = percent(relation.offset_accuracy);
  const reading = relation.heads.filter(({ reads }) => reads).sort((a, b) => b.interval[0] - a.interval[0]);
  if (reading.length === 0) return { kind: "none", best: shareOf(relation.heads[0]!, relation), offset, percent: beside };
  return { kind: "reads", heads: reading.slice(0, 3).map((head) => shareOf(head, relation)), offset, percent: beside };
}

export interface NextWord {
  kind: "asNext" | "aboveNext" | "belowNext";
  found: Share;
  percent: number;
}

/** Whether the head that gives the first link most weight in the open text does more than take the next word. */
export const nextWordVerdict = computed<NextWord | null>(() => {
  const [link] = ready(linkWeights.value) ?? [];
  const found = ready(onSentences.value);
  const relation = found?.relations[linkRelations(found)[0]];
  if (!link || !found || found.causal || !relation || !enough(relation)) return null;
  const heaviest = heaviestOf(link);
  const head = relation.heads.find((each) => each.layer === heaviest.layer && each.head === heaviest.head);
  if (!head) return null;
  const next = nextWordShare(found);
  const kind = head.interval[0] > next ? "aboveNext" : head.interval[1] < next ? "belowNext" : "asNext";
  return { kind, found: shareOf(head, relation), percent: percent(next) };
});
