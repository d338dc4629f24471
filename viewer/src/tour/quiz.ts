// What the reader has answered: for each question the number of the answer, or null.
import { computed, signal } from "@preact/signals";
import { finish } from "./done";

/** The right answer of each question, in the order of the texts. */
export const right = [1, 0, 1, 0, 2] as const;

export const answered = signal<readonly (number | null)[]>(right.map(() => null));
export const questionsLeft = computed(() => answered.value.filter((each) => each === null).length);

export function answer(question: number, choice: number): void {
  answered.value = answered.value.map((each, i) => (i === question ? choice : each));
  if (questionsLeft.value === 0) finish(8);
}
