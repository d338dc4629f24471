// What the engine says of a map: its numbers, and the same ever more coarsely.
export type Pool = "mean" | "max";

/** Numbers of a rectangle: one for each cell, row by row. */
export interface Cells {
  rows: number;
  keys: number;
  values: Float32Array | Float64Array;
}

export interface Level extends Record<Pool, Float32Array | Float64Array> {
  side: number;
  rows: number;
  keys: number;
}

export interface Tracks {
  columnMass: Float64Array;
  entropy: Float64Array;
  distanceMass: Float64Array;
  firstDistance: number;
  distanceMean: number;
  distanceVariance: number;
}

export interface Pyramid {
  levels: Level[];
  /** null in an estimate from every so many-th row. */
  tracks: Tracks | null;
  rowStep: number;
}
