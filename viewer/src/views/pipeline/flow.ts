// All that the view shows of one head, one query and one key, asked together so that it fits together.
import type { AskOptions, Engine } from "../../engine/engine";
import { headOutput, pipeline, row, why, type Trace } from "../../engine/questions";
import { numbers, shapeOf, type TensorFile } from "../../engine/safetensors";

export type Numbers = Float32Array | Float64Array;

/** What only a model, or an answer stored with the page, can give. */
export interface Around {
  dModel: number;
  x: Numbers;
  slabs: Record<"q" | "k" | "v", Numbers>;
  concat: Numbers;
  wo: Numbers;
  y: Numbers;
  norm: string;
  rope: boolean;
}

export interface Flow {
  trace: Trace;
  layer: number;
  head: number;
  query: number;
  key: number;
  d: number;
  q: Numbers;
  k: Numbers;
  v: Numbers | null;
  around: Around | null;
  products: Numbers;
  dot: number;
  scores: Numbers;
  weights: Numbers;
  output: Numbers | null;
}

export interface Place {
  trace: Trace;
  model: number | undefined;
  layer: number;
  head: number;
  query: number;
  key: number;
}

function aroundOf(file: TensorFile): Around | null {
  if (!file.tensors.has("x")) return null;
  return {
    dModel: shapeOf(file, "x")[1] ?? 0,
    x: numbers(file, "x"),
    slabs: { q: numbers(file, "W_q"), k: numbers(file, "W_k"), v: numbers(file, "W_v") },
    concat: numbers(file, "concat"),
    wo: numbers(file, "W_o"),
    y: numbers(file, "y"),
    norm: file.metadata["norm"] ?? "none",
    rope: file.metadata["rope"] === "true",
  };
}

export function sumOf(values: Numbers): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

export async function askFlow(engine: Engine, { trace, model, layer, head, query, key }: Place, options: AskOptions): Promise<Flow> {
  const place = { trace: trace.id, layer, head };
  const [all, scored, pair, mixed] = await Promise.all([
    pipeline(engine, model === undefined ? place : { ...place, model }, options),
    row(engine, { ...place, row: query }, options),
    why(engine, { ...place, row: query, key }, options),
    trace.has_values ? headOutput(engine, { ...place, row: query }, options) : null,
  ]);
  const products = numbers(pair, "products");
  return {
    trace, layer, head, query, key,
    d: trace.d,
    q: numbers(all, "q"),
    k: numbers(all, "k"),
    v: all.tensors.has("v") ? numbers(all, "v") : null,
    around: aroundOf(all),
    products,
    dot: pair.metadata["dot"] === undefined ? sumOf(products) : Number(pair.metadata["dot"]),
    scores: numbers(scored, "scores"),
    weights: numbers(scored, "weights"),
    output: mixed && numbers(mixed, "output"),
  };
}

const most = 48;

/** The tokens that have room: all, or those around the query and the key. */
export function shownTokens({ query, key }: Flow, count: number): number[] {
  if (count <= most) return Array.from({ length: count }, (_, i) => i);
  const shown = new Set<number>();
  for (let by = 0; shown.size < most && by < count; ++by) {
    for (const token of [query - by, query + by, key - by, key + by]) {
      if (token >= 0 && token < count && shown.size < most) shown.add(token);
    }
  }
  return [...shown].sort((a, b) => a - b);
}
