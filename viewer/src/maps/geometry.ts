// Where a map's weights stand on the screen, from 100,000 tokens to one number. Places are tokens, lengths CSS pixels;
// ranges are [begin, end). Nothing here knows the page.

export type Range = [begin: number, end: number];

/** A matrix: queries down, keys across. */
export interface Extent {
  rows: number;
  keys: number;
}

export interface Size {
  width: number;
  height: number;
}

/** The place at the upper left corner, and how many pixels a token takes. */
export interface Camera {
  row: number;
  key: number;
  zoom: number;
}

export interface Rectangle {
  rows: Range;
  keys: Range;
}

/** So large that a weight stands written in its cell. */
export const largestZoom = 64;
/** A cell of that many pixels has room for its number. */
export const numberZoom = 34;

const clamp = (value: number, least: number, most: number): number => Math.max(least, Math.min(most, value));

/** The zoom at which the whole matrix is seen. */
export const fitZoom = (extent: Extent, size: Size): number =>
  Math.min(largestZoom, size.width / extent.keys, size.height / extent.rows);

export const fit = (extent: Extent, size: Size): Camera => ({ row: 0, key: 0, zoom: fitZoom(extent, size) });

/** The nearest camera that shows as much of the matrix as there is room for. */
export function keepInside(camera: Camera, extent: Extent, size: Size): Camera {
  const zoom = clamp(camera.zoom, fitZoom(extent, size), largestZoom);
  return {
    zoom,
    row: clamp(camera.row, 0, Math.max(0, extent.rows - size.height / zoom)),
    key: clamp(camera.key, 0, Math.max(0, extent.keys - size.width / zoom)),
  };
}

/** Zooms; the place under (x, y) stays there, as far as the matrix reaches. */
export function zoomAt(camera: Camera, extent: Extent, size: Size, x: number, y: number, factor: number): Camera {
  const zoom = clamp(camera.zoom * factor, fitZoom(extent, size), largestZoom);
  return keepInside(
    { zoom, row: camera.row + y / camera.zoom - y / zoom, key: camera.key + x / camera.zoom - x / zoom },
    extent,
    size,
  );
}

export const pan = (camera: Camera, extent: Extent, size: Size, dx: number, dy: number): Camera =>
  keepInside({ ...camera, row: camera.row - dy / camera.zoom, key: camera.key - dx / camera.zoom }, extent, size);

/** Moves as little as needed for the cell to be seen whole. */
export function reveal(camera: Camera, extent: Extent, size: Size, row: number, key: number): Camera {
  const along = (first: number, place: number, length: number): number =>
    place < first ? place : place + 1 > first + length ? place + 1 - length : first;
  return keepInside(
    {
      ...camera,
      row: along(camera.row, row, size.height / camera.zoom),
      key: along(camera.key, key, size.width / camera.zoom),
    },
    extent,
    size,
  );
}

/** The places that are seen, whole or in part. */
export function seen(camera: Camera, extent: Extent, size: Size): Rectangle {
  const along = (first: number, length: number, count: number): Range => [
    clamp(Math.floor(first), 0, count),
    clamp(Math.ceil(first + length), 0, count),
  ];
  return {
    rows: along(camera.row, size.height / camera.zoom, extent.rows),
    keys: along(camera.key, size.width / camera.zoom, extent.keys),
  };
}

/** The token pair under (x, y); null beside the matrix. */
export function placeAt(camera: Camera, extent: Extent, x: number, y: number): { row: number; key: number } | null {
  const row = Math.floor(camera.row + y / camera.zoom);
  const key = Math.floor(camera.key + x / camera.zoom);
  return row >= 0 && row < extent.rows && key >= 0 && key < extent.keys ? { row, key } : null;
}

/** The side of the cells that a zoom asks for: the largest power of two whose cell is at most a pixel wide. */
export const wantedSide = (zoom: number): number => (zoom >= 1 ? 1 : 2 ** Math.floor(Math.log2(1 / zoom) + 1e-9));

/** Which cells are drawn: those of the pyramid, and over them patches where they cost little. */
export interface Detail {
  /** Side of the pyramid's level; null: there is none. */
  level: number | null;
  /** Side of the patches' cells; null: the level shows all that the screen can. */
  side: number | null;
}

/** A matrix of so many tokens a side needs no pyramid. */
export const smallMatrix = 2048;

/**
 * sides: those of the pyramid's levels, ascending; empty where it does not stand yet.
 * most: so many weights may be computed for one view.
 */
export function detail(camera: Camera, extent: Extent, size: Size, sides: number[], most: number): Detail {
  const wanted = wantedSide(camera.zoom);
  const finest = sides[0];
  const level = finest === undefined ? null : sides.reduce((best, side) => (side <= wanted ? side : best), finest);
  if (level !== null && level <= wanted) return { level, side: null };
  const { rows, keys } = seen(camera, extent, size);
  const small = Math.max(extent.rows, extent.keys) <= smallMatrix;
  return { level, side: small || (rows[1] - rows[0]) * (keys[1] - keys[0]) <= most ? wanted : null };
}

/** One patch of a map: its cells' side and the places it covers. */
export interface Patch extends Rectangle {
  side: number;
  /** The same for the same places: the cache's key. */
  id: string;
}

const longRow = 16384;

/** A patch has at most so many cells a side, and covers no more tokens than are computed between two frames. */
const cellsOf = (side: number): number => clamp(2048 / side, 64, 512);

/** The patches that cover a rectangle, those next to its centre first. */
export function patchesOf(seen: Rectangle, extent: Extent, side: number): Patch[] {
  const step = cellsOf(side) * side;
  // A row's weights need its sum over all keys: of a long text a patch takes few rows.
  const tall = extent.keys > longRow ? Math.min(step, 64 * side) : step;
  const centre = { row: (seen.rows[0] + seen.rows[1]) / 2, key: (seen.keys[0] + seen.keys[1]) / 2 };
  const found: { patch: Patch; distance: number }[] = [];
  for (let row = Math.floor(seen.rows[0] / tall) * tall; row < seen.rows[1]; row += tall) {
    for (let key = Math.floor(seen.keys[0] / step) * step; key < seen.keys[1]; key += step) {
      const rows: Range = [row, Math.min(row + tall, extent.rows)];
      const keys: Range = [key, Math.min(key + step, extent.keys)];
      const distance = Math.hypot((rows[0] + rows[1]) / 2 - centre.row, (keys[0] + keys[1]) / 2 - centre.key);
      found.push({ patch: { side, rows, keys, id: `${side}:${row}:${key}` }, distance });
    }
  }
  return found.sort((a, b) => a.distance - b.distance).map(({ patch }) => patch);
}

/** Where a rectangle of the matrix stands on the screen. */
export const onScreen = (camera: Camera, { rows, keys }: Rectangle): { x: number; y: number; width: number; height: number } => ({
  x: (keys[0] - camera.key) * camera.zoom,
  y: (rows[0] - camera.row) * camera.zoom,
  width: (keys[1] - keys[0]) * camera.zoom,
  height: (rows[1] - rows[0]) * camera.zoom,
});

/** Which of a strip's places are written, so that none touches the next: every so many-th, at round places. */
export function labels([begin, end]: Range, zoom: number, room: number): number[] {
  let step = 1;
  for (const factor of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6]) {
    step = factor;
    if (factor * zoom >= room) break;
  }
  const places: number[] = [];
  for (let place = Math.ceil(begin / step) * step; place < end; place += step) places.push(place);
  return places;
}

/** A track's values as one number a pixel: the largest of those that fall on it. */
export function trackPixels(values: ArrayLike<number>, first: number, zoom: number, length: number): Float64Array {
  const pixels = new Float64Array(Math.max(0, Math.ceil(length)));
  for (let pixel = 0; pixel < pixels.length; ++pixel) {
    const begin = Math.floor(first + pixel / zoom);
    const end = Math.max(begin + 1, Math.floor(first + (pixel + 1) / zoom));
    let largest = 0;
    for (let place = Math.max(0, begin); place < Math.min(end, values.length); ++place) {
      largest = Math.max(largest, values[place]!);
    }
    pixels[pixel] = largest;
  }
  return pixels;
}
