// The questions of the view Corpus: what a scan found, and which heads find a word's partner in a tree.
import type { AskOptions, Engine } from "./engine";
import { json } from "./questions";

export interface ScanExample {
  value: number;
  passage: number;
  file: string;
  /** null: its file cannot be read, or has changed. */
  text: string | null;
}

export interface ScanScore {
  name: string;
  count: number;
  mean: number;
  min: number;
  max: number;
  deciles: number[];
  range: [number, number];
  histogram: number[];
  /** Of one head alone. */
  top?: ScanExample[];
  samples?: ScanExample[][];
}

export interface ScanToken {
  token: string;
  id: number;
  mass: number;
  count: number;
}

export interface ScanHead {
  layer: number;
  head: number;
  /** Those whose score is beyond its threshold in the mean over the passages. */
  roles: string[];
  scores: ScanScore[];
  /** Of one head alone, as what follows. */
  asking?: ScanToken[];
  asked?: ScanToken[];
  /** Shares of all weights by query - key, [begin, end]. */
  distances?: { begin: number; end: number; share: number }[];
  /** Shares of the variance along the first components. */
  query_components?: number[];
  key_components?: number[];
}

export interface Scan {
  model: string;
  files: string[];
  passages: number;
  tokens: number;
  score_rules: { name: string; formula: string; source: string }[];
  heads: ScanHead[];
}

export const scan = (engine: Engine, id: number, options?: AskOptions): Promise<Scan> => json(engine, { ask: "scan", scan: id }, options);

/** One head, with the examples of one score. */
export const scanHead = (engine: Engine, id: number, head: [number, number], score: string, options?: AskOptions): Promise<Scan> =>
  json(engine, { ask: "scan", scan: id, head, score }, options);

export interface Relation {
  relation: string;
  direction: "to_head" | "to_word";
  chosen_on: number;
  scored_on: number;
  unseen: number;
  left_out: number;
  offset: number | null;
  offset_accuracy: number;
  heads: { layer: number; head: number; chosen_by: number; accuracy: number; interval: [number, number]; mean_weight: number; reads: boolean }[];
}

export interface Relations {
  model: string;
  treebank: string;
  sentences: number;
  relations: Relation[];
}

export const treebank = (engine: Engine, options?: AskOptions): Promise<Relations> => json(engine, { ask: "treebank" }, options);
