// Where a map's numbers come from: one head, a mean over several, a difference of two. All answer the same two questions.
import type { Engine } from "../engine/engine";
import { mapOf, meanPatch, type HeadName } from "../engine/heads";
import type { Cells, Pool, Pyramid } from "../engine/pyramid";
import { patch as askPatch } from "../engine/questions";
import type { Extent, Patch } from "./geometry";

export interface Source {
  /** Two sources with the same id have the same numbers. */
  id: string;
  extent: Extent;
  /** A difference: its numbers have a sign. */
  signed: boolean;
  patch(patch: Patch, pool: Pool, signal: AbortSignal): Promise<Cells>;
  /** null: this source has none, and its patches are pooled one by one. */
  pyramid: ((coarse: boolean, progress: (share: number) => void, signal: AbortSignal) => Promise<Pyramid>) | null;
}

const sizeOf = ({ rows, keys, side }: Patch): number => Math.ceil(Math.max(rows[1] - rows[0], keys[1] - keys[0]) / side);

export function headSource(engine: Engine, trace: { id: number; queries: number; keys: number }, [layer, head]: HeadName): Source {
  return {
    id: `${trace.id}/${layer}.${head}`,
    extent: { rows: trace.queries, keys: trace.keys },
    signed: false,
    patch: async (patch, pool, signal) => {
      const { rows, keys } = patch;
      const found = await askPatch(engine, { trace: trace.id, layer, head, rows, keys, pool, size: sizeOf(patch) }, { signal });
      return { rows: found.rows, keys: found.keys, values: found.weights };
    },
    pyramid: (coarse, progress, signal) => mapOf(engine, { trace: trace.id, layer, head, coarse }, { progress, signal }),
  };
}

/** The mean of several heads' weights. */
export function meanSource(engine: Engine, trace: { id: number; queries: number; keys: number }, heads: HeadName[]): Source {
  return {
    id: `${trace.id}/mean ${heads.map(([layer, head]) => `${layer}.${head}`).join(" ")}`,
    extent: { rows: trace.queries, keys: trace.keys },
    signed: false,
    patch: (patch, pool, signal) =>
      meanPatch(engine, { trace: trace.id, heads, rows: patch.rows, keys: patch.keys, pool, size: sizeOf(patch) }, { signal }),
    pyramid: null,
  };
}

/** second - first, number by number: of matrices of one extent. */
export function differenceSource(first: Source, second: Source): Source {
  const less = (a: Float32Array | Float64Array, b: Float32Array | Float64Array): Float64Array =>
    Float64Array.from(a, (value, i) => b[i]! - value);
  const both = first.pyramid && second.pyramid;
  return {
    id: `${second.id} - ${first.id}`,
    extent: first.extent,
    signed: true,
    patch: async (patch, pool, signal) => {
      const [a, b] = await Promise.all([first.patch(patch, pool, signal), second.patch(patch, pool, signal)]);
      return { rows: a.rows, keys: a.keys, values: less(a.values, b.values) };
    },
    pyramid: both
      ? async (coarse, progress, signal) => {
          const a = await first.pyramid!(coarse, (share) => progress(share / 2), signal);
          const b = await second.pyramid!(coarse, (share) => progress((1 + share) / 2), signal);
          const levels = a.levels.map((level, i) => ({
            ...level,
            mean: less(level.mean, b.levels[i]!.mean),
            max: less(level.max, b.levels[i]!.max),
          }));
          return { levels, tracks: null, rowStep: Math.max(a.rowStep, b.rowStep) };
        }
      : null,
  };
}
