import assert from "node:assert/strict";
import { test } from "node:test";
import { cssOf, differenceRamp, entries, entryOf, largestOf, paint, readableOn, rgbOf, weightRamp } from "../../../viewer/src/maps/ramp";

const ramp = weightRamp([255, 255, 255], [59, 31, 122]);
const lightness = (entry: number): number => rgbOf(cssOf(ramp, entry)).reduce((sum, part) => sum + part, 0);

test("colours are read as style sheets write them", () => {
  assert.deepEqual(rgbOf(" #3b1f7a "), [59, 31, 122]);
  assert.deepEqual(rgbOf("#fff"), [255, 255, 255]);
  assert.deepEqual(rgbOf("rgb(1, 2, 3)"), [1, 2, 3]);
});

test("the ramp runs from paper to ink and never turns back", () => {
  assert.equal(cssOf(ramp, 0), "rgb(255, 255, 255)");
  assert.equal(cssOf(ramp, entries - 1), "rgb(59, 31, 122)");
  for (let entry = 1; entry < entries; ++entry) assert.ok(lightness(entry) <= lightness(entry - 1));
});

test("a difference of nothing is paper, and its sides have their own colours", () => {
  const difference = differenceRamp([200, 100, 0], [250, 250, 250], [0, 100, 200]);
  const scale = { largest: 0.5, root: false, signed: true };
  assert.equal(cssOf(difference, entryOf(0, scale)), "rgb(250, 250, 250)");
  assert.equal(cssOf(difference, entryOf(-0.5, scale)), "rgb(200, 100, 0)");
  assert.equal(cssOf(difference, entryOf(0.7, scale)), "rgb(0, 100, 200)");
});

test("each pixel has its value's entry, on every scale", () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => (i - 100) / 700);
  for (const root of [false, true]) {
    for (const signed of [false, true]) {
      for (const largest of [0, 0.37, 1]) {
        const pixels = new Uint32Array(values.length);
        const scale = { largest, root, signed };
        paint(values, ramp, scale, pixels);
        pixels.forEach((pixel, i) => assert.equal(pixel, ramp[entryOf(values[i]!, scale)]));
      }
    }
  }
});

test("the largest is that of the sizes", () => assert.equal(largestOf([0.25, -0.5, 0.125]), 0.5));

const contrast = (one: string, other: string): number => {
  const light = (colour: string): number =>
    rgbOf(colour).map((byte) => (byte / 255 <= 0.03928 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i]!, 0.05);
  return Math.max(light(one), light(other)) / Math.min(light(one), light(other));
};

test("a number in a cell can be read on every weight", () => {
  for (let entry = 0; entry < entries; ++entry) assert.ok(contrast(readableOn(ramp, entry, "#fff", "#000"), cssOf(ramp, entry)) >= 4.5);
});
