// What stands under the pointer, and what was selected: the inspector shows it.
import { signal } from "@preact/signals";

export interface Item {
  /** Two items with the same key are the same thing. */
  key: string;
  title: string;
  /** The figure, as the page writes it. */
  value?: string;
  shape?: string;
  formula?: string;
  source?: string;
  rows?: [name: string, value: string][];
  note?: string;
}

export const pointed = signal<Item | null>(null);
export const selected = signal<Item | null>(null);

export function point(item: Item | null): void {
  if (pointed.peek()?.key !== item?.key) pointed.value = item;
}

export function select(item: Item | null): void {
  selected.value = item;
}
