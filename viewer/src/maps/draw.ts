// One frame of a map on a 2D canvas: cells, numbers, token strips, tracks at the edges, the chosen pair.
import type { Tracks } from "../engine/pyramid";
import { labels, numberZoom, onScreen, seen, trackPixels, type Camera, type Extent, type Size } from "./geometry";
import { cssOf, entryOf, readableOn, type Ramp, type Scale } from "./ramp";
import type { Drawn, Painted, Store } from "./store";

/** Strips and tracks around the cells, in pixels. */
export interface Margins {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Colours {
  paper: string;
  line: string;
  ink: string;
  quiet: string;
  q: string;
  k: string;
  ramp: Ramp;
  /** Two palettes never share a name. */
  name: string;
}

export interface Frame {
  context: CanvasRenderingContext2D;
  /** Of the cells alone. */
  size: Size;
  margins: Margins;
  camera: Camera;
  store: Store;
  painted: Painted;
  colours: Colours;
  root: boolean;
  /** Weights that a view may cost. */
  most: number;
  names: { rows: (place: number) => string; keys: (place: number) => string };
  chosen: { row: number; key: number } | null;
  pointed: { row: number; key: number } | null;
  number: (value: number) => string;
}

/** What the frame shows, for whoever names it. */
export interface Seen {
  /** Side of the cells that are drawn on top. */
  side: number;
  /** Patches that are still awaited. */
  missing: number;
  scale: Scale;
}

export function draw(frame: Frame): Seen {
  const { context, size, margins, camera, store, colours } = frame;
  const { extent, signed } = store.source;
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, size.width + margins.left + margins.right, size.height + margins.top + margins.bottom);

  const { detail, patches, missing } = store.view(camera, size, frame.most);
  const side = detail.side !== null && (patches.length > 0 || detail.level === null) ? detail.side : (detail.level ?? 1);
  const scaleOf = (of: number): Scale => ({ largest: store.largestOf(of), root: frame.root, signed });

  context.save();
  context.translate(margins.left, margins.top);
  const whole = onScreen(camera, { rows: [0, extent.rows], keys: [0, extent.keys] });
  context.beginPath();
  context.rect(Math.max(0, whole.x), Math.max(0, whole.y), Math.min(size.width, whole.width), Math.min(size.height, whole.height));
  context.clip();
  context.imageSmoothingEnabled = false;
  const level = detail.level === null ? undefined : store.level(detail.level);
  const coarse = level && (detail.side === null || missing > 0) && Math.max(level.rows, level.keys) > 8;
  if (coarse) copy(frame, level, level[store.pool], { row: 0, key: 0, side: level.side }, scaleOf(level.side));
  for (const { cells, rows, keys, side: own } of patches) {
    copy(frame, cells, cells.values, { row: rows[0], key: keys[0], side: own }, scaleOf(own));
  }
  if (side === 1 && camera.zoom >= numberZoom) for (const patch of patches) writeNumbers(frame, patch, scaleOf(1));
  if (frame.chosen) outline(frame, frame.chosen, 2.5);
  if (frame.pointed) outline(frame, frame.pointed, 1);
  context.restore();

  frameEdges(frame, whole);
  if (store.pyramid?.tracks) drawTracks(frame, store.pyramid.tracks);
  return { side, missing, scale: scaleOf(side) };
}

/** Copies the part of painted cells that is in view. */
function copy(
  { context, camera, size, painted, colours }: Frame,
  cells: { rows: number; keys: number },
  values: Float32Array | Float64Array,
  at: { row: number; key: number; side: number },
  scale: Scale,
): void {
  const canvas = painted.of(cells, values, colours.ramp, scale, colours.name);
  const pixels = at.side * camera.zoom;
  const x = (at.key - camera.key) * camera.zoom;
  const y = (at.row - camera.row) * camera.zoom;
  const first = (start: number): number => Math.max(0, Math.floor(-start / pixels));
  const last = (start: number, count: number, room: number): number => Math.min(count, Math.ceil((room - start) / pixels));
  const [left, top] = [first(x), first(y)];
  const width = last(x, cells.keys, size.width) - left;
  const height = last(y, cells.rows, size.height) - top;
  if (width <= 0 || height <= 0) return;
  context.drawImage(canvas, left, top, width, height, x + left * pixels, y + top * pixels, width * pixels, height * pixels);
}

function writeNumbers({ context, camera, size, store, number, colours }: Frame, patch: Drawn, scale: Scale): void {
  const view = seen(camera, store.source.extent, size);
  const { zoom } = camera;
  context.font = `${Math.round(Math.min(16, zoom / 3.4))}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let row = Math.max(view.rows[0], patch.rows[0]); row < Math.min(view.rows[1], patch.rows[1]); ++row) {
    for (let key = Math.max(view.keys[0], patch.keys[0]); key < Math.min(view.keys[1], patch.keys[1]); ++key) {
      const value = patch.cells.values[(row - patch.rows[0]) * patch.cells.keys + key - patch.keys[0]]!;
      context.fillStyle = readableOn(colours.ramp, entryOf(value, scale), colours.paper, colours.ink);
      context.fillText(number(value), (key + 0.5 - camera.key) * zoom, (row + 0.5 - camera.row) * zoom);
    }
  }
}

function outline({ context, camera, colours }: Frame, { row, key }: { row: number; key: number }, width: number): void {
  const { x, y, width: w } = onScreen(camera, { rows: [row, row + 1], keys: [key, key + 1] });
  const side = Math.max(5, w);
  context.lineWidth = width + 2;
  context.strokeStyle = colours.paper;
  context.strokeRect(x + (w - side) / 2, y + (w - side) / 2, side, side);
  context.lineWidth = width;
  context.strokeStyle = colours.ink;
  context.strokeRect(x + (w - side) / 2, y + (w - side) / 2, side, side);
}

/** Room that a token's name needs along its strip. */
const lineRoom = 17;

function frameEdges(frame: Frame, whole: { width: number; height: number }): void {
  const { context, camera, size, margins, store, colours, chosen } = frame;
  const view = seen(camera, store.source.extent, size);
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.strokeRect(margins.left - 0.5, margins.top - 0.5, Math.min(size.width, whole.width) + 1, Math.min(size.height, whole.height) + 1);
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  const write = (place: number, name: (place: number) => string, bold: boolean, colour: string, room: number): void => {
    context.font = `${bold ? "700 " : ""}13px system-ui, sans-serif`;
    context.fillStyle = bold ? colour : colours.quiet;
    context.fillText(shorten(context, name(place), room), 0, 0);
  };
  const near = (place: number, other: number): boolean => place !== other && Math.abs(place - other) * camera.zoom < lineRoom;

  context.textAlign = "right";
  const rows = labels(view.rows, camera.zoom, lineRoom).filter((place) => !chosen || !near(place, chosen.row));
  if (chosen && chosen.row >= view.rows[0] && chosen.row < view.rows[1] && !rows.includes(chosen.row)) rows.push(chosen.row);
  for (const place of rows) {
    const y = (place + 0.5 - camera.row) * camera.zoom;
    if (y < 0 || y > size.height) continue;
    context.save();
    context.translate(margins.left - 6, margins.top + y);
    write(place, frame.names.rows, place === chosen?.row, colours.q, margins.left - 10);
    context.restore();
  }
  context.textAlign = "left";
  const keys = labels(view.keys, camera.zoom, lineRoom).filter((place) => !chosen || !near(place, chosen.key));
  if (chosen && chosen.key >= view.keys[0] && chosen.key < view.keys[1] && !keys.includes(chosen.key)) keys.push(chosen.key);
  for (const place of keys) {
    const x = (place + 0.5 - camera.key) * camera.zoom;
    if (x < 0 || x > size.width) continue;
    context.save();
    context.translate(margins.left + x, margins.top - 6);
    context.rotate(-Math.PI / 2);
    write(place, frame.names.keys, place === chosen?.key, colours.k, margins.top - 10);
    context.restore();
  }
}

function shorten(context: CanvasRenderingContext2D, text: string, room: number): string {
  if (context.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > room) --length;
  return `${text.slice(0, length)}…`;
}

/** What each key receives, below; the entropy of each row, at the right. */
function drawTracks({ context, camera, size, margins, colours, store }: Frame, tracks: Tracks): void {
  const { extent } = store.source;
  const bars = (values: Float64Array, first: number, length: number, colour: string, room: number, at: (pixel: number, share: number) => void): void => {
    const pixels = trackPixels(values, first, camera.zoom, length);
    const largest = trackLargest(values);
    context.fillStyle = colour;
    if (largest > 0) pixels.forEach((value, pixel) => at(pixel, (value / largest) * room));
  };
  const width = Math.min(size.width, (extent.keys - camera.key) * camera.zoom);
  const height = Math.min(size.height, (extent.rows - camera.row) * camera.zoom);
  const below = margins.top + Math.min(size.height, extent.rows * camera.zoom) + 4;
  const beside = margins.left + Math.min(size.width, extent.keys * camera.zoom) + 4;
  if (margins.bottom > 8) {
    bars(tracks.columnMass, camera.key, width, colours.k, margins.bottom - 8, (pixel, share) => context.fillRect(margins.left + pixel, below, 1, share));
  }
  if (margins.right > 8) {
    bars(tracks.entropy, camera.row, height, colours.q, margins.right - 8, (pixel, share) => context.fillRect(beside, margins.top + pixel, share, 1));
  }
}

const largestTracks = new WeakMap<Float64Array, number>();

function trackLargest(values: Float64Array): number {
  let largest = largestTracks.get(values);
  if (largest === undefined) {
    largest = values.reduce((a, b) => Math.max(a, b), 0);
    largestTracks.set(values, largest);
  }
  return largest;
}

/** The legend's colours, from one end to the other. */
export const legendStops = (ramp: Ramp, root: boolean, signed: boolean, steps: number): string[] =>
  Array.from({ length: steps }, (_, i) => {
    const share = signed ? (2 * i) / (steps - 1) - 1 : i / (steps - 1);
    return cssOf(ramp, entryOf(share, { largest: 1, root, signed }));
  });

export const extentText = ({ rows, keys }: Extent): string => `${rows} × ${keys}`;
