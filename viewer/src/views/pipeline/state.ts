import { linked, oneOf } from "../../state/link";

export const parts = ["x", "qkv", "product", "softmax", "mix", "output"] as const;
export type Part = (typeof parts)[number];

/** The part of the pipeline that is open. */
export const part = linked<Part>("part", oneOf(...parts), "product");
