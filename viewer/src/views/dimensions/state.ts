// What is set in this view, as the link carries it.
import { computed } from "@preact/signals";
import type { Layer } from "../../engine/questions";
import { linked, oneOf, whole } from "../../state/link";

export const mostHeads = 64;
export const mostModel = 65536;
export const dtypes = ["f32", "bf16", "f16"] as const;

export const dModel = linked("d", whole(1, mostModel), 512);
export const numHeads = linked("h", whole(1, mostHeads), 8);
/** 0: as many as there are heads. */
export const kvHeads = linked("kv", whole(0, mostHeads), 0);
export const tokens = linked("n", whole(1, 1 << 20), 128);
export const batch = linked("b", whole(1, 4096), 1);
export const dtype = linked("t", oneOf(...dtypes), "f32");

/** The slider's numbers of tokens: powers of two, and one between each. */
export const tokenSteps: number[] = Array.from({ length: 28 }, (_, i) => (i % 2 ? 12 : 8) * 2 ** Math.floor(i / 2));

/** Key/value heads that this number of heads can share. */
export const kvChoices = computed<number[]>(() =>
  Array.from({ length: numHeads.value }, (_, i) => i + 1).filter((count) => numHeads.value % count === 0),
);

export const kvShown = computed<number>(() => (kvChoices.value.includes(kvHeads.value) ? kvHeads.value : numHeads.value));

/** The layer without its number of heads. Shared key/value heads are named where they are fewer. */
export const sizes = computed<Omit<Layer, "heads">>(() => ({
  d_model: dModel.value,
  tokens: tokens.value,
  batch: batch.value,
  dtype: dtype.value,
  ...(kvShown.value < numHeads.value ? { kv_heads: kvShown.value } : {}),
}));
