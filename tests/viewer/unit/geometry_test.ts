// Geometry of maps, from 100,000 tokens to one number.
import assert from "node:assert/strict";
import { test } from "node:test";
import { detail, fit, fitZoom, keepInside, labels, largestZoom, onScreen, pan, patchesOf, placeAt, reveal, seen, trackPixels, wantedSide, zoomAt } from "../../../viewer/src/maps/geometry";

const long = { rows: 100000, keys: 100000 };
const size = { width: 800, height: 600 };
const near = (a: number, b: number, within = 1e-6): void => assert.ok(Math.abs(a - b) <= within, `${a} is not ${b}`);

test("the whole of 100,000 tokens fits, and its corners are under the corners", () => {
  const camera = fit(long, size);
  near(camera.zoom, 0.006);
  assert.deepEqual(placeAt(camera, long, 0, 0), { row: 0, key: 0 });
  assert.deepEqual(placeAt(camera, long, 599.999, 599.999), { row: 99999, key: 99999 });
  assert.equal(placeAt(camera, long, 601, 10), null);
  assert.equal(placeAt(camera, long, 10, -1), null);
});

test("a few tokens do not grow without end", () => assert.equal(fitZoom({ rows: 2, keys: 2 }, size), largestZoom));

test("what is under the pointer stays there from the whole to one token and back", () => {
  let camera = fit(long, size);
  const [x, y] = [300.5, 250.5];
  const row = camera.row + y / camera.zoom;
  const key = camera.key + x / camera.zoom;
  while (camera.zoom < largestZoom) {
    camera = zoomAt(camera, long, size, x, y, 1.7);
    near(camera.row + y / camera.zoom, row, 1e-5);
    near(camera.key + x / camera.zoom, key, 1e-5);
  }
  assert.equal(camera.zoom, largestZoom);
  for (let i = 0; i < 60; ++i) camera = zoomAt(camera, long, size, x, y, 0.6);
  assert.deepEqual(camera, fit(long, size));
});

test("the map ends where the matrix ends", () => {
  const camera = keepInside({ row: -50, key: 1e9, zoom: 2 }, long, size);
  assert.deepEqual(camera, { row: 0, key: 100000 - 400, zoom: 2 });
  assert.deepEqual(pan(camera, long, size, -1000, 1000), camera);
  assert.deepEqual(pan(camera, long, size, 20, -30), { row: 15, key: 100000 - 410, zoom: 2 });
});

test("a pair is brought into view by the shortest way, and not when it is seen", () => {
  const camera = { row: 100, key: 100, zoom: 10 };
  assert.deepEqual(reveal(camera, long, size, 120, 120), camera);
  assert.deepEqual(reveal(camera, long, size, 160, 99), { row: 101, key: 99, zoom: 10 });
});

test("seen counts places that are seen in part", () => {
  assert.deepEqual(seen({ row: 1.5, key: 2.25, zoom: 100 }, { rows: 10, keys: 10 }, { width: 300, height: 200 }), { rows: [1, 4], keys: [2, 6] });
});

test("cells are powers of two at most a pixel wide", () => {
  assert.equal(wantedSide(3), 1);
  assert.equal(wantedSide(1), 1);
  assert.equal(wantedSide(0.5), 2);
  assert.equal(wantedSide(0.3), 2);
  assert.equal(wantedSide(0.25), 4);
  assert.equal(wantedSide(0.006), 128);
});

test("far away the pyramid is drawn, near by patches over it, and only coarser cells where patches cost too much", () => {
  const sides = [64, 128, 256, 512];
  assert.deepEqual(detail(fit(long, size), long, size, sides, 2 ** 25), { level: 128, side: null });
  assert.deepEqual(detail({ row: 0, key: 0, zoom: 1 / 64 }, long, size, sides, 2 ** 25), { level: 64, side: null });
  assert.deepEqual(detail({ row: 0, key: 0, zoom: 1 / 32 }, long, size, sides, 2 ** 25), { level: 64, side: null });
  assert.deepEqual(detail({ row: 0, key: 0, zoom: 1 / 4 }, long, size, sides, 2 ** 25), { level: 64, side: 4 });
  assert.deepEqual(detail({ row: 0, key: 0, zoom: 20 }, long, size, sides, 2 ** 25), { level: 64, side: 1 });
  assert.deepEqual(detail(fit(long, size), long, size, [], 2 ** 25), { level: null, side: null });
  assert.deepEqual(detail(fit({ rows: 2000, keys: 2000 }, size), { rows: 2000, keys: 2000 }, size, [], 1), { level: null, side: 2 });
});

test("patches cover what is seen without overlap, the nearest to its centre first", () => {
  const extent = { rows: 1300, keys: 700 };
  const view = { rows: [500, 1300] as [number, number], keys: [10, 700] as [number, number] };
  const patches = patchesOf(view, extent, 1);
  const covered = new Set<string>();
  for (const { rows, keys } of patches) {
    assert.ok(rows[1] <= extent.rows && keys[1] <= extent.keys);
    for (let row = rows[0]; row < rows[1]; ++row) {
      for (let key = keys[0]; key < keys[1]; key += 7) {
        const place = `${row} ${key}`;
        assert.ok(!covered.has(place));
        covered.add(place);
      }
    }
  }
  for (let row = view.rows[0]; row < view.rows[1]; row += 11) assert.ok([...covered].some((place) => place.startsWith(`${row} `)));
  assert.deepEqual([patches[0]!.rows, patches[0]!.keys], [[512, 1024], [0, 512]]);
  assert.equal(new Set(patches.map(({ id }) => id)).size, patches.length);
});

test("no patch covers more than is computed between two frames", () => {
  for (const side of [1, 2, 4, 8, 16, 32]) {
    for (const { rows, keys } of patchesOf({ rows: [0, 50000], keys: [0, 50000] }, long, side)) {
      assert.ok(rows[1] - rows[0] <= 2048 && keys[1] - keys[0] <= 2048);
    }
  }
});

test("a rectangle stands where its first token stands", () => {
  assert.deepEqual(onScreen({ row: 10, key: 20, zoom: 4 }, { rows: [12, 14], keys: [25, 30] }), { x: 20, y: 8, width: 20, height: 8 });
});

test("names never touch, whatever the zoom, and a strip of any length writes only what fits", () => {
  for (const zoom of [0.006, 0.1, 0.9, 3, 17, 64]) {
    const end = Math.min(100000, Math.ceil(800 / zoom));
    const places = labels([0, end], zoom, 17);
    assert.ok(places.length <= 800 / 17 + 2);
    for (let i = 1; i < places.length; ++i) assert.ok((places[i]! - places[i - 1]!) * zoom >= 17 - 1e-9);
  }
  assert.deepEqual(labels([3, 7], 20, 17), [3, 4, 5, 6]);
  assert.deepEqual(labels([95, 131], 2, 17), [100, 110, 120, 130]);
});

test("a track keeps its largest value at every zoom", () => {
  const values = new Float64Array(100000);
  values[77777] = 5;
  const pixels = trackPixels(values, 0, 0.006, 600);
  assert.equal(Math.max(...pixels), 5);
  assert.equal(pixels.indexOf(5), Math.floor(77777 * 0.006));
  assert.deepEqual([...trackPixels([1, 2, 3], 1, 2, 4)], [2, 2, 3, 3]);
});
