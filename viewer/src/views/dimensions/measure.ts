// Measures the layer for one number of heads after the other; the points stay until the sizes change.
import { effect, signal } from "@preact/signals";
import { time, TooQuick, type Time } from "../../engine/questions";
import { engine, messageOf } from "../../state/session";
import { t } from "../../texts";
import { sizes } from "./state";

export const points = signal<Map<number, Time>>(new Map());
/** The number of heads that is measured now. */
export const measuring = signal<number | null>(null);
export const failed = signal<string | null>(null);

let control: AbortController | null = null;

export function stop(): void {
  control?.abort();
  control = null;
  measuring.value = null;
}

export async function measure(counts: number[]): Promise<void> {
  const whom = engine.peek();
  if (!whom || measuring.peek() !== null) return;
  failed.value = null;
  if (counts.every((heads) => points.peek().has(heads))) points.value = new Map();
  const mine = (control = new AbortController());
  const { kv_heads: _, ...layer } = sizes.peek();
  try {
    for (const heads of counts) {
      if (points.peek().has(heads)) continue;
      measuring.value = heads;
      const point = await time(whom, { ...layer, heads }, { signal: mine.signal });
      if (mine.signal.aborted) return;
      points.value = new Map(points.peek()).set(heads, point);
    }
  } catch (error) {
    if (!mine.signal.aborted) failed.value = error instanceof TooQuick ? t.peek().dimensions.tooQuick : messageOf(error);
  } finally {
    if (control === mine) stop();
  }
}

// Other sizes, other times. Shared key/value heads change with the heads, so they are left out of what is measured.
let last = "";
effect(() => {
  const { d_model, tokens, batch, dtype } = sizes.value;
  const now = JSON.stringify([d_model, tokens, batch, dtype]);
  if (now === last) return;
  last = now;
  stop();
  points.value = new Map();
});
