// One typed function for each question that the engine answers.
import type { AskOptions, Engine, Question } from "./engine";
import { numbers, shapeOf, type TensorFile } from "./safetensors";

export interface About {
  computes: "WebAssembly" | "native";
  isa: string;
  version: string;
  max_error: number;
  traces: { id: number; model: string; text: string }[];
  scans?: { id: number; model: string }[];
  models: { id: number; name: string; layers: number; heads: number; kv_heads: number; d_model: number; max_tokens: number }[];
}

export interface Word {
  text: string;
  first_token: number;
  num_tokens: number;
  sequence: number;
}

export interface Trace {
  id: number;
  model: string;
  text: string;
  text2: string | null;
  tokens: string[];
  words: Word[];
  word_of_token: number[];
  layers: number;
  heads: number;
  kv_heads: number;
  d: number;
  queries: number;
  keys: number;
  causal: boolean;
  scale: number;
  has_values: boolean;
}

export async function json<T>(engine: Engine, question: Question, options?: AskOptions): Promise<T> {
  const answer = await engine.ask(question, options);
  if (answer.kind !== "json") throw new Error(`${question.ask}: numbers came instead of JSON`);
  return answer.value as T;
}

export async function tensors(engine: Engine, question: Question, options?: AskOptions): Promise<TensorFile> {
  const answer = await engine.ask(question, options);
  if (answer.kind !== "tensors") throw new Error(`${question.ask}: JSON came instead of numbers`);
  return answer.file;
}

export const about = (engine: Engine): Promise<About> => json(engine, { ask: "about" });
export const trace = (engine: Engine, id: number): Promise<Trace> => json(engine, { ask: "trace", trace: id });

export interface Encoded {
  trace: number;
  embedding: number[] | null;
  next: { token: string; id: number; probability: number }[] | null;
}

export interface EncodeQuestion {
  model: number;
  text: string;
  values: boolean;
  heads_off?: [layer: number, head: number, scale: number][];
  /** Where the page has cut the text itself. */
  ids?: number[];
  tokens?: string[];
  words?: number[];
  offsets?: [number, number][];
  sequences?: number[];
}

export const encode = (engine: Engine, given: EncodeQuestion, options?: AskOptions): Promise<Encoded> =>
  json(engine, { ask: "encode", ...given }, options);

export interface LinkWeights {
  query_word: number;
  key_word: number;
  offset: number;
  mean: number;
  heads: { weight: number; offset_mean: number | null }[][];
}

export const links = (
  engine: Engine,
  id: number,
  pairs: [number, number][],
  options?: AskOptions,
): Promise<{ links: LinkWeights[] }> => json(engine, { ask: "links", trace: id, pairs }, options);

export interface HeadScores {
  layer: number;
  head: number;
  scores: Record<string, number | null>;
  roles: string[];
}

export interface ScoreRule {
  score: string;
  role: string | null;
  threshold: number | null;
  threshold_from: string | null;
  formula: string;
  source: string;
}

export const heads = (
  engine: Engine,
  id: number,
  options?: AskOptions,
): Promise<{ heads: HeadScores[]; score_rules: ScoreRule[] }> => json(engine, { ask: "heads", trace: id }, options);

export interface Patch {
  rows: number;
  keys: number;
  weights: Float32Array | Float64Array;
  metadata: Record<string, string>;
}

export async function patch(
  engine: Engine,
  given: { trace: number; layer: number; head: number; rows: [number, number]; keys: [number, number]; pool?: string; size?: number },
  options?: AskOptions,
): Promise<Patch> {
  const file = await tensors(engine, { ask: "patch", ...given }, options);
  const [rows = 0, keys = 0] = shapeOf(file, "weights");
  return { rows, keys, weights: numbers(file, "weights"), metadata: file.metadata };
}

export interface Place {
  trace: number;
  layer: number;
  head: number;
  row: number;
}

export const row = (engine: Engine, place: Place, options?: AskOptions): Promise<TensorFile> =>
  tensors(engine, { ask: "row", ...place }, options);

export const why = (engine: Engine, place: Place & { key: number }, options?: AskOptions): Promise<TensorFile> =>
  tensors(engine, { ask: "why", ...place }, options);

export const headOutput = (engine: Engine, place: Place, options?: AskOptions): Promise<TensorFile> =>
  tensors(engine, { ask: "head_output", ...place }, options);

/** q, k and v of a head; where there is a model, or a stored answer, what stands before and behind them too. */
export const pipeline = (
  engine: Engine,
  given: { trace: number; layer: number; head: number; model?: number },
  options?: AskOptions,
): Promise<TensorFile> => tensors(engine, { ask: "pipeline", ...given }, options);

export interface Layer {
  d_model: number;
  heads: number[];
  kv_heads?: number;
  tokens: number;
  batch: number;
  dtype: string;
}

export interface Step {
  step: string;
  flop: number;
  bytes: number;
  intensity: number;
  limit: "fma" | "memory" | null;
}

export type Cut =
  | {
      heads: number;
      divides: true;
      d_k: number;
      shapes: Record<string, [number, number]>;
      parameters: number;
      steps: Step[];
      fused: Step;
    }
  | { heads: number; divides: false; problem: string; floor_d_k: number; dropped: number };

export interface Dims {
  limits: { isa: string; fma_gflops: number; memory_gbs: number } | null;
  heads: Cut[];
}

export const dims = (engine: Engine, layer: Layer, options?: AskOptions): Promise<Dims> =>
  json(engine, { ask: "dims", ...layer }, options);

/** What the machine, or this browser on it, reaches at most. */
export interface Limits {
  fma_gflops: number;
  memory_gbs: number;
  /** So much memory was read. */
  memory_bytes: number;
  where: "native" | "WebAssembly";
  threads: number;
  isa: string;
}

/** Measured the first time, in a second or so; from then on `dims` says what binds each step. */
export const limits = (engine: Engine, options?: AskOptions): Promise<Limits> => json(engine, { ask: "limits" }, options);

export interface Time {
  seconds: number;
  over_single_head: number;
  /** The seconds are the median of so many samples, each of so many runs: more than one where the clock is too slow for one. */
  samples: number;
  repeats: number;
  where: "native" | "WebAssembly";
  threads: number;
  isa: string;
}

export const time = (engine: Engine, layer: Omit<Layer, "heads"> & { heads: number }, options?: AskOptions): Promise<Time> =>
  json(engine, { ask: "time", ...layer }, options);

export interface HeadOnRelation {
  layer: number;
  head: number;
  accuracy: number;
  interval: [number, number];
  mean_weight: number;
  /** In both halves of the sentences its interval lies above the best fixed distance. */
  reads: boolean;
}

export interface Relation {
  relation: string;
  direction: "to_head" | "to_word";
  chosen_on: number;
  scored_on: number;
  /** key - query, in words, of the fixed distance that finds most. */
  offset: number | null;
  offset_accuracy: number;
  /** Every head; the best on the half on which heads are chosen stands first. */
  heads: HeadOnRelation[];
}

export interface TourText {
  text: string;
  /** Modifier and noun, subject and verb, place and verb; offset is head - word. */
  links: { word: string; head: string; offset: number | null }[];
  /** For each relation the heads that are right on this text. */
  hits: [number, number][][];
}

export interface Relations {
  model: string;
  sentences: number;
  causal: boolean;
  relations: Relation[];
  texts: TourText[];
}

/** How often each head finds the links of the tour's sentences. */
export const relations = (engine: Engine, options?: AskOptions): Promise<Relations> => json(engine, { ask: "relations" }, options);

/** Cosines: `self` between the text's vector with all heads and without some; `other` to another text's, both without. */
export interface Left {
  self: number;
  other: number;
}

export interface Ablations {
  model: string;
  text: string;
  other: string;
  similarity: number;
  alone: Left[][];
  in_order: (Left & { layer: number; head: number })[];
}

/** What is left of a text's vector with heads switched off. */
export const ablations = (engine: Engine, text: string, options?: AskOptions): Promise<Ablations> =>
  json(engine, { ask: "ablations", text }, options);
