// Which heads are shown, and in what order. Nothing here knows the page.
import type { HeadScores } from "../../engine/questions";

/** The filter that leaves out heads which rest on the first token. */
export const awake = "-rest";

const rests = ({ roles, scores }: HeadScores, firstToken: string): boolean =>
  roles.includes("first") || (roles.includes("sink") && String(scores["sink_key"]) === firstToken);

/** Heads with the role, or with "-" before it those without. */
export function having(heads: HeadScores[], filter: string, firstToken: string): HeadScores[] {
  if (!filter) return heads;
  if (filter === awake) return heads.filter((head) => !rests(head, firstToken));
  const without = filter.startsWith("-");
  const role = without ? filter.slice(1) : filter;
  return heads.filter(({ roles }) => roles.includes(role) !== without);
}

/** The largest first; heads without that score last; of equals in the order of layer and head. */
export function byScore(heads: HeadScores[], of: (head: HeadScores) => number | null): HeadScores[] {
  const value = (head: HeadScores): number => of(head) ?? -Infinity;
  return heads
    .map((head, place) => ({ head, place }))
    .sort((a, b) => (value(b.head) === value(a.head) ? a.place - b.place : value(b.head) > value(a.head) ? 1 : -1))
    .map(({ head }) => head);
}

/** Where an arrow key leads in a grid of so many columns. */
export function stepIn(key: string, place: number, count: number, columns: number): number | null {
  const by: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const next = key === "Home" ? 0 : key === "End" ? count - 1 : by[key] === undefined ? NaN : place + by[key];
  return next >= 0 && next < count ? next : null;
}
