// The patches and the pyramid of one source: asked for as they come into view, kept while there is room, painted once.
import type { Cells, Level, Pool, Pyramid } from "../engine/pyramid";
import { detail, patchesOf, seen, smallMatrix, type Camera, type Detail, type Patch, type Rectangle, type Size } from "./geometry";
import { largestOf, paint, type Ramp } from "./ramp";
import type { Source } from "./source";

export interface Drawn extends Patch {
  cells: Cells;
}

/** So many numbers are kept, and the patches that were longest out of view go first. */
const mostKept = 12e6;

const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";

export class Store {
  pyramid: Pyramid | null = null;
  /** The share of the pyramid that is done; null: it stands, or is not asked for. */
  share: number | null = null;
  failure: string | null = null;
  private readonly patches = new Map<string, Drawn>();
  private readonly asked = new Set<string>();
  private queue: Patch[] = [];
  private running = 0;
  private kept = 0;
  private readonly control = new AbortController();
  private readonly largest = new Map<number, number>();

  /** changed: something new can be drawn. atOnce: how many patches are asked for at a time. */
  constructor(
    readonly source: Source,
    readonly pool: Pool,
    private readonly changed: () => void,
    private readonly atOnce = 2,
  ) {}

  close(): void {
    this.control.abort();
  }

  /**
   * Asks for the pyramid. A matrix of more than `most` weights is read by every eighth row first, in an eighth of the time;
   * with `whole` then every row, while nothing else is computed.
   */
  async build(most: number, whole: boolean): Promise<void> {
    const { pyramid, extent } = this.source;
    if (!pyramid) return;
    const long = extent.rows * extent.keys > most;
    this.share = 0;
    try {
      this.pyramid = await pyramid(
        long && !whole,
        (share) => {
          this.share = share;
          this.changed();
        },
        this.control.signal,
      );
      this.largest.clear();
    } catch (error) {
      this.fail(error);
    } finally {
      this.share = null;
      this.changed();
    }
  }

  sides(): number[] {
    return this.pyramid?.levels.map(({ side }) => side) ?? [];
  }

  level(side: number): Level | undefined {
    return this.pyramid?.levels.find((level) => level.side === side);
  }

  /** What can be drawn of this view now; asks for what is missing. */
  view(camera: Camera, size: Size, most: number): { detail: Detail; patches: Drawn[]; missing: number } {
    const { extent } = this.source;
    const found = detail(camera, extent, size, this.sides(), most);
    if (found.side === null) {
      this.queue = [];
      return { detail: found, patches: [], missing: 0 };
    }
    const drawn: Drawn[] = [];
    const missing: Patch[] = [];
    for (const patch of patchesOf(seen(camera, extent, size), extent, found.side)) {
      const known = this.patches.get(patch.id);
      if (known) {
        drawn.push(known);
        this.patches.delete(patch.id);
        this.patches.set(patch.id, known);
      } else {
        missing.push(patch);
      }
    }
    this.queue = missing.filter(({ id }) => !this.asked.has(id));
    this.forget(new Set(drawn.map(({ id }) => id)));
    this.next();
    return { detail: found, patches: drawn, missing: missing.length };
  }

  /** The number of a token pair at the finest that is there. */
  at(row: number, key: number, side: number): number | null {
    for (const { rows, keys, cells, side: own } of this.patches.values()) {
      if (own !== side || row < rows[0] || row >= rows[1] || key < keys[0] || key >= keys[1]) continue;
      return cells.values[Math.floor((row - rows[0]) / side) * cells.keys + Math.floor((key - keys[0]) / side)]!;
    }
    const level = this.level(side);
    return level ? level[this.pool][Math.floor(row / side) * level.keys + Math.floor(key / side)]! : null;
  }

  /** The largest number that was seen in cells of that side: the end of their colours. */
  largestOf(side: number): number {
    const level = this.level(side);
    const known = this.largest.get(side);
    if (known !== undefined || !level) return known ?? 0;
    const found = largestOf(level[this.pool]);
    this.largest.set(side, found);
    return found;
  }

  /** The largest numbers of a rectangle, by size. */
  largestIn(view: Rectangle, side: number, count: number): { row: number; key: number; value: number }[] {
    const found: { row: number; key: number; value: number }[] = [];
    let least = 0;
    const first = (place: number): number => Math.floor(place / side) * side;
    for (let row = first(view.rows[0]); row < view.rows[1]; row += side) {
      for (let key = first(view.keys[0]); key < view.keys[1]; key += side) {
        const value = this.at(row, key, side);
        if (value === null || Math.abs(value) <= least) continue;
        found.push({ row, key, value });
        if (found.length < 20 * count) continue;
        found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).length = count;
        least = Math.abs(found[count - 1]!.value);
      }
    }
    return found.sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, count);
  }

  /** The whole matrix in at most so many cells a side; null where that would take long. */
  async overview(most: number): Promise<{ cells: Cells; side: number } | null> {
    const { rows, keys } = this.source.extent;
    const level = this.pyramid?.levels.find((each) => Math.max(each.rows, each.keys) <= 4 * most);
    if (level && Math.max(level.rows, level.keys) > most / 4) {
      return { cells: { rows: level.rows, keys: level.keys, values: level[this.pool] }, side: level.side };
    }
    if (Math.max(rows, keys) > smallMatrix) return null;
    const side = Math.ceil(Math.max(rows, keys) / most);
    const whole: Patch = { side, rows: [0, rows], keys: [0, keys], id: "" };
    try {
      return { cells: await this.source.patch(whole, this.pool, this.control.signal), side };
    } catch (error) {
      this.fail(error);
      return null;
    }
  }

  private next(): void {
    while (this.running < this.atOnce && this.queue.length > 0) void this.ask(this.queue.shift()!);
  }

  private async ask(patch: Patch): Promise<void> {
    this.asked.add(patch.id);
    ++this.running;
    try {
      const cells = await this.source.patch(patch, this.pool, this.control.signal);
      this.patches.set(patch.id, { ...patch, cells });
      this.kept += cells.values.length;
      this.largest.set(patch.side, Math.max(this.largest.get(patch.side) ?? 0, largestOf(cells.values)));
    } catch (error) {
      this.fail(error);
    } finally {
      --this.running;
      this.asked.delete(patch.id);
      if (!this.control.signal.aborted) {
        this.changed();
        if (!this.failure) this.next();
      }
    }
  }

  private fail(error: unknown): void {
    if (isAbort(error) || this.control.signal.aborted) return;
    this.failure = error instanceof Error ? error.message : String(error);
    this.queue = [];
  }

  private forget(inView: Set<string>): void {
    for (const [id, { cells }] of this.patches) {
      if (this.kept <= mostKept) return;
      if (inView.has(id)) continue;
      this.patches.delete(id);
      this.kept -= cells.values.length;
    }
  }
}

/** Painted cells, ready to be copied to the screen. Painted anew where colours or scale changed. */
export class Painted {
  private readonly kept = new WeakMap<object, { canvas: HTMLCanvasElement; key: string }>();

  of(cells: { rows: number; keys: number }, values: Float32Array | Float64Array, ramp: Ramp, scale: Parameters<typeof paint>[2], colours: string): HTMLCanvasElement {
    const key = `${colours} ${scale.largest} ${scale.root} ${scale.signed}`;
    const known = this.kept.get(values);
    if (known?.key === key) return known.canvas;
    const canvas = known?.canvas ?? document.createElement("canvas");
    canvas.width = cells.keys;
    canvas.height = cells.rows;
    const context = canvas.getContext("2d")!;
    const image = context.createImageData(cells.keys, cells.rows);
    paint(values, ramp, scale, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
    this.kept.set(values, { canvas, key });
    return canvas;
  }
}
