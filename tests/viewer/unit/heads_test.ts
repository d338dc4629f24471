// Which heads are shown in what order, what links join, how distances are counted.
import assert from "node:assert/strict";
import { test } from "node:test";
import { distanceBins } from "../../../viewer/src/views/heads/bins";
import { awake, byScore, having, stepIn } from "../../../viewer/src/views/heads/order";
import { strongest, unitRow, unitsOf } from "../../../viewer/src/views/heads/units";

const head = (layer: number, roles: string[], scores: Record<string, number | string | null>) =>
  ({ layer, head: 0, roles, scores }) as { layer: number; head: number; roles: string[]; scores: Record<string, number | null> };
const heads = [
  head(0, ["sink"], { next: 0.1, sink_key: "[CLS]" }),
  head(1, ["sink"], { next: null, sink_key: "cat" }),
  head(2, ["first", "next"], { next: 0.9, sink_key: null }),
  head(3, [], { next: 0.9, sink_key: null }),
];
const layers = (of: typeof heads): number[] => of.map(({ layer }) => layer);

test("heads are filtered by role, without a role, and without resting on the first token", () => {
  assert.deepEqual(layers(having(heads, "", "[CLS]")), [0, 1, 2, 3]);
  assert.deepEqual(layers(having(heads, "sink", "[CLS]")), [0, 1]);
  assert.deepEqual(layers(having(heads, "-sink", "[CLS]")), [2, 3]);
  assert.deepEqual(layers(having(heads, awake, "[CLS]")), [1, 3]);
});

test("the largest score comes first, equals in their order, and heads without it last", () => {
  assert.deepEqual(layers(byScore(heads, ({ scores }) => scores["next"] ?? null)), [2, 3, 0, 1]);
});

test("arrow keys stay in the grid", () => {
  assert.equal(stepIn("ArrowDown", 3, 24, 12), 15);
  assert.equal(stepIn("ArrowUp", 3, 24, 12), null);
  assert.equal(stepIn("End", 3, 24, 12), 23);
  assert.equal(stepIn("x", 3, 24, 12), null);
});

const tokens = ["[CLS]", "un", "##like", "cats", "[SEP]"];
const wordOf = [-1, 0, 0, 1, -1];
const words = [{ text: "unlike" }, { text: "cats" }];

test("units are pieces or words, with special tokens or without", () => {
  const texts = (asWords: boolean, hide: boolean) => unitsOf(tokens, wordOf, words, asWords, hide).map(({ text }) => text);
  assert.deepEqual(texts(false, false), tokens);
  assert.deepEqual(texts(true, false), ["[CLS]", "unlike", "cats", "[SEP]"]);
  assert.deepEqual(texts(false, true), ["un", "##like", "cats"]);
  assert.deepEqual(unitsOf(tokens, [], [], true, true).length, 5);
});

test("a word's row is the mean of its pieces' sums; without special tokens it adds up to 1 again", () => {
  const rows = [0.5, 0.1, 0.1, 0.2, 0.1, 0.3, 0.3, 0.1, 0.2, 0.1]; // of "un" and "##like"
  const near = (found: Float64Array, wanted: number[]): void => wanted.forEach((value, i) => assert.ok(Math.abs(found[i]! - value) < 1e-12));
  const all = unitsOf(tokens, wordOf, words, true, false);
  near(unitRow(all[1]!, all, rows, 5, 1, false), [0.4, 0.3, 0.2, 0.1]);
  const kept = unitsOf(tokens, wordOf, words, true, true);
  near(unitRow(kept[0]!, kept, rows, 5, 1, true), [0.6, 0.4]);
});

test("the strongest links come by weight, of equals the first key, and nothing is no link", () => {
  const found = strongest(7, Float64Array.from([0.1, 0.4, 0, 0.4, 0.3]), 3);
  assert.deepEqual(found, [{ query: 7, key: 1, weight: 0.4 }, { query: 7, key: 3, weight: 0.4 }, { query: 7, key: 4, weight: 0.3 }]);
  assert.equal(strongest(0, Float64Array.from([0, 0.2]), 4).length, 1);
});

test("bins of distances hold all mass once, each distance alone while the text is short", () => {
  assert.deepEqual(distanceBins([1, 2, 3], -1), [{ begin: -1, end: -1, mass: 1 }, { begin: 0, end: 0, mass: 2 }, { begin: 1, end: 1, mass: 3 }]);
  const mass = Float64Array.from({ length: 2001 }, (_, i) => i);
  const bins = distanceBins(mass, -1000);
  assert.equal(bins.reduce((sum, bin) => sum + bin.mass, 0), mass.reduce((a, b) => a + b, 0));
  for (let i = 1; i < bins.length; ++i) assert.equal(bins[i]!.begin, bins[i - 1]!.end + 1);
  assert.ok(bins.length < 60);
  assert.deepEqual([bins[0]!.begin, bins[bins.length - 1]!.end], [-1000, 1000]);
});
