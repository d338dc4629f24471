// The questions of the views Heads and Corpus.
import type { AskOptions, Engine } from "./engine";
import type { Cells, Level, Pool, Pyramid } from "./pyramid";
import { json, tensors } from "./questions";
import { numbers, shapeOf, type TensorFile } from "./safetensors";

export type HeadName = [layer: number, head: number];

const metadata = (file: TensorFile, name: string): number => Number(file.metadata[name] ?? NaN);
const doubles = (file: TensorFile, name: string): Float64Array => Float64Array.from(numbers(file, name));

/** A head's pyramid and tracks; `coarse`: from every eighth row. */
export async function mapOf(
  engine: Engine,
  given: { trace: number; layer: number; head: number; coarse: boolean },
  options?: AskOptions,
): Promise<Pyramid> {
  const file = await tensors(engine, { ask: "map", ...given }, options);
  const levels: Level[] = [];
  for (const name of file.tensors.keys()) {
    const side = Number(/^mean\.(\d+)$/.exec(name)?.[1] ?? NaN);
    if (Number.isNaN(side)) continue;
    const [rows = 0, keys = 0] = shapeOf(file, name);
    levels.push({ side, rows, keys, mean: numbers(file, name), max: numbers(file, `max.${side}`) });
  }
  levels.sort((a, b) => a.side - b.side);
  const tracks = file.tensors.has("entropy")
    ? {
        columnMass: doubles(file, "column_mass"),
        entropy: doubles(file, "entropy"),
        distanceMass: doubles(file, "distance_mass"),
        firstDistance: metadata(file, "first_distance"),
        distanceMean: metadata(file, "distance_mean"),
        distanceVariance: metadata(file, "distance_variance"),
      }
    : null;
  return { levels, tracks, rowStep: metadata(file, "row_step") };
}

/** Small pictures of all heads, [layers, heads, rows, keys]. */
export interface Thumbnails {
  rows: number;
  keys: number;
  /** Side of a cell in tokens. */
  cell: number;
  rowStep: number;
  of(layer: number, head: number): Float32Array | Float64Array;
}

export async function thumbnails(engine: Engine, trace: number, size: number, options?: AskOptions): Promise<Thumbnails> {
  const file = await tensors(engine, { ask: "thumbnails", trace, size }, options);
  const [, heads = 0, rows = 0, keys = 0] = shapeOf(file, "thumbnails");
  const values = numbers(file, "thumbnails");
  return {
    rows,
    keys,
    cell: metadata(file, "cell"),
    rowStep: metadata(file, "row_step"),
    of: (layer, head) => {
      const at = (layer * heads + head) * rows * keys;
      return values.subarray(at, at + rows * keys);
    },
  };
}

export async function meanPatch(
  engine: Engine,
  given: { trace: number; heads: HeadName[]; rows: [number, number]; keys: [number, number]; pool: Pool; size: number },
  options?: AskOptions,
): Promise<Cells> {
  const file = await tensors(engine, { ask: "mean", ...given }, options);
  const [rows = 0, keys = 0] = shapeOf(file, "weights");
  return { rows, keys, values: numbers(file, "weights") };
}

/** What each token of the input gets of the output, over all layers; adds up to 1. */
export const rollout = async (engine: Engine, trace: number, options?: AskOptions): Promise<Float64Array> =>
  doubles(await tensors(engine, { ask: "rollout", trace }, options), "rollout");

export interface Clusters {
  clusters: { heads: HeadName[]; mean_distance: number }[];
  /** Jensen-Shannon divergence in nats, by layer and head. */
  distances: number[][];
}

export const clusters = (engine: Engine, trace: number, count: number, options?: AskOptions): Promise<Clusters> =>
  json(engine, { ask: "clusters", trace, clusters: count }, options);

/** Forgets a trace that was encoded for one figure alone. */
export const closeTrace = (engine: Engine, trace: number): Promise<unknown> => json(engine, { ask: "close", trace });
