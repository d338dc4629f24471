// Measures the machine's limits once, and the layer for one number of heads after the other; the points stay until the sizes change.
import { effect, signal } from "@preact/signals";
import type { Engine } from "../../engine/engine";
import { limits, time, type Limits, type Time } from "../../engine/questions";
import { engine, messageOf } from "../../state/session";
import { sizes } from "./state";

export const points = signal<Map<number, Time>>(new Map());
/** The number of heads that is measured now. */
export const measuring = signal<number | null>(null);
export const failed = signal<string | null>(null);

/** What binds each step follows from these. */
export const machine = signal<Limits | null>(null);
export const machineFailed = signal<string | null>(null);

let measuredBy: Engine | null = null;

/** The first time the view is shown. The engine keeps what it found. */
export async function measureMachine(): Promise<void> {
  const whom = engine.peek();
  if (!whom || measuredBy === whom) return;
  measuredBy = whom;
  try {
    machine.value = await limits(whom);
  } catch (error) {
    machineFailed.value = messageOf(error);
  }
}

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
    if (!mine.signal.aborted) failed.value = messageOf(error);
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
