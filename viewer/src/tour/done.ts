// What the reader has done in each step.
import { computed, effect, signal } from "@preact/signals";
import { parts, part, type Part } from "../views/pipeline/state";
import { numHeads } from "../views/dimensions/state";
import { text, tourStep } from "../state/app";
import { chosenPairs } from "./pairs";

export const done = signal<ReadonlySet<number>>(new Set());

export function finish(step: number): void {
  if (!done.peek().has(step)) done.value = new Set(done.peek()).add(step);
}

/** The parts of the pipeline that were opened since its step began. */
const seen = signal<ReadonlySet<Part>>(new Set());
const followed: readonly Part[] = ["product", "softmax", "mix"];
export const partsLeft = computed<Part[]>(() => parts.filter((each) => followed.includes(each) && !seen.value.has(each)));

export function watchOtherViews(): void {
  // Links that were chosen name the words of one text.
  let last = text.peek();
  effect(() => {
    if (text.value !== last) chosenPairs.value = [];
    last = text.value;
  });
  effect(() => {
    if (tourStep.value !== 5) return;
    const now = part.value;
    if (!seen.peek().has(now)) seen.value = new Set(seen.peek()).add(now);
    if (followed.every((each) => seen.value.has(each))) finish(5);
  });
  effect(() => {
    if (tourStep.value === 6 && numHeads.value === 7) finish(6);
  });
}
