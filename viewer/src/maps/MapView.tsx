// One matrix from 100,000 tokens to one number: pan and zoom by hand, wheel, fingers or keys; strips, tracks, a small map.
import type { Signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Pool } from "../engine/pyramid";
import { dark } from "../state/app";
import { point, select, type Item } from "../state/inspect";
import { grouped, t } from "../texts";
import { figure, inCell } from "../ui/figures";
import { NumberField } from "../ui/NumberField";
import { Picture, type TableData } from "../ui/Picture";
import { draw, legendStops, type Margins, type Seen } from "./draw";
import { fit, fitZoom, keepInside, pan, placeAt, reveal, seen, zoomAt, type Camera, type Size } from "./geometry";
import { MiniMap } from "./MiniMap";
import { palette } from "./palette";
import type { Source } from "./source";
import { Painted, Store } from "./store";
import { tableOf } from "./table";
import "./maps.css";

export interface MapProps {
  caption: string;
  source: Source;
  /** The names of the tokens at the sides. */
  rows: readonly string[];
  keys: readonly string[];
  pool: Signal<Pool>;
  root: Signal<boolean>;
  /** null: the whole matrix. Maps that share it move together. */
  camera: Signal<Camera | null>;
  chosen: { row: number; key: number };
  onChoose: (row: number, key: number) => void;
  /** Weights that a view may cost before it is drawn coarser. */
  most: number;
  /** What the inspector says of a number beside the number itself. */
  formula: string;
  /** The map stands beside another that has the controls for both. */
  bare?: boolean;
}

const steps: Record<string, [number, number]> = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Strips as wide as the names need, within limits: a long text's names are not measured. */
function marginsOf(width: number, hasTracks: boolean, rows: readonly string[], keys: readonly string[]): Margins {
  const most = width >= 560 ? 96 : 68;
  const roomOf = (names: readonly string[]): number =>
    names.length > 2048 ? most : Math.min(most, 18 + 8 * names.reduce((longest, name) => Math.max(longest, name.length), 3));
  const track = hasTracks ? 30 : 0;
  return { left: roomOf(rows), top: roomOf(keys), right: track, bottom: track };
}

export function MapView(props: MapProps) {
  const { source, pool, root, camera, chosen, onChoose, most } = props;
  const texts = t.value.heads;
  const [holder, setHolder] = useState<HTMLDivElement | null>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [, redraw] = useState(0);
  const [seenNow, setSeenNow] = useState<Seen | null>(null);
  const pointedAt = useRef<{ row: number; key: number } | null>(null);
  const fingers = useRef(new Map<number, { x: number; y: number }>());
  const moved = useRef(0);
  const painted = useMemo(() => new Painted(), []);

  const waits = useRef(0);
  const changed = () => {
    cancelAnimationFrame(waits.current);
    waits.current = requestAnimationFrame(() => redraw((n) => n + 1));
  };
  const store = useMemo(() => new Store(source, pool.value, changed), [source.id, pool.value]);
  useEffect(() => {
    void store.build(8 * most, false);
    return () => {
      store.close();
      cancelAnimationFrame(waits.current);
    };
  }, [store]);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    if (holder) observer.observe(holder);
    return () => observer.disconnect();
  }, [holder]);

  const { extent } = source;
  const margins = useMemo(() => marginsOf(width, source.pyramid !== null, props.rows, props.keys), [width, source.id]);
  const size = useMemo<Size>(() => {
    const across = Math.max(40, width - margins.left - margins.right);
    const tall = Math.min(across, Math.max(220, innerHeight * (innerWidth < 720 ? 0.52 : 0.62)));
    return { width: across, height: Math.min(tall, Math.max(40, extent.rows * fitZoom(extent, { width: across, height: tall }))) };
  }, [width, extent.rows, extent.keys]);
  const now = camera.value ? keepInside(camera.value, extent, size) : fit(extent, size);
  const move = (next: Camera) => {
    const kept = keepInside(next, extent, size);
    camera.value = kept.zoom <= fitZoom(extent, size) * 1.0001 ? null : kept;
  };

  const itemAt = (row: number, key: number): Item => {
    const side = seenNow?.side ?? 1;
    const value = store.at(row, key, side);
    const part = (place: number, count: number): string =>
      side === 1 ? `${place}` : `${Math.floor(place / side) * side}–${Math.min(count, (Math.floor(place / side) + 1) * side) - 1}`;
    return {
      key: `${source.id} ${pool.value} ${side} ${Math.floor(row / side)} ${Math.floor(key / side)}`,
      title: side === 1 ? `${props.rows[row] ?? row} → ${props.keys[key] ?? key}` : texts.cellOf(part(row, extent.rows), part(key, extent.keys)),
      value: value === null ? "…" : figure(value),
      rows: [
        [texts.queryPlace, part(row, extent.rows)],
        [texts.keyPlace, part(key, extent.keys)],
        [texts.pooled, side === 1 ? texts.exact : texts.pooledAs(pool.value, side, source.signed)],
      ],
      formula: props.formula,
      source: props.caption,
    };
  };

  useLayoutEffect(() => {
    const surface = canvas.current;
    if (!surface || width === 0) return;
    const ratio = devicePixelRatio || 1;
    const full = { width: size.width + margins.left + margins.right, height: size.height + margins.top + margins.bottom };
    if (surface.width !== Math.round(full.width * ratio) || surface.height !== Math.round(full.height * ratio)) {
      surface.width = Math.round(full.width * ratio);
      surface.height = Math.round(full.height * ratio);
      surface.style.height = `${full.height}px`;
    }
    const context = surface.getContext("2d")!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const found = draw({
      context, size, margins, camera: now, store, painted, colours: palette(dark.value, source.signed), root: root.value, most,
      names: { rows: (place) => props.rows[place] ?? String(place), keys: (place) => props.keys[place] ?? String(place) },
      chosen, pointed: pointedAt.current, number: (value) => inCell(value, now.zoom),
    });
    if (!seenNow || found.side !== seenNow.side || found.missing !== seenNow.missing || found.scale.largest !== seenNow.scale.largest) setSeenNow(found);
  });

  const inside = (event: { clientX: number; clientY: number }): { x: number; y: number } => {
    const { left, top } = canvas.current!.getBoundingClientRect();
    return { x: event.clientX - left - margins.left, y: event.clientY - top - margins.top };
  };
  const under = (x: number, y: number) => (x < 0 || y < 0 || x > size.width || y > size.height ? null : placeAt(now, extent, x, y));

  useEffect(() => {
    const surface = canvas.current;
    if (!surface) return;
    const onWheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== surface) return;
      event.preventDefault();
      const { x, y } = inside(event);
      move(zoomAt(now, extent, size, x, y, Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.002))));
    };
    surface.addEventListener("wheel", onWheel, { passive: false });
    return () => surface.removeEventListener("wheel", onWheel);
  });

  const onPointerDown = (event: PointerEvent) => {
    canvas.current!.setPointerCapture(event.pointerId);
    fingers.current.set(event.pointerId, inside(event));
    if (fingers.current.size === 1) moved.current = 0;
  };
  const onPointerMove = (event: PointerEvent) => {
    const at = inside(event);
    const before = fingers.current.get(event.pointerId);
    if (before) {
      const others = [...fingers.current].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      moved.current += Math.hypot(at.x - before.x, at.y - before.y);
      const other = others[0];
      if (other) {
        const spread = (place: { x: number; y: number }) => Math.max(10, Math.hypot(place.x - other.x, place.y - other.y));
        const zoomed = zoomAt(now, extent, size, (before.x + other.x) / 2, (before.y + other.y) / 2, spread(at) / spread(before));
        move(pan(zoomed, extent, size, (at.x - before.x) / 2, (at.y - before.y) / 2));
      } else if (moved.current > 4) {
        move(pan(now, extent, size, at.x - before.x, at.y - before.y));
      }
      fingers.current.set(event.pointerId, at);
      return;
    }
    const place = under(at.x, at.y);
    pointedAt.current = place;
    point(place && itemAt(place.row, place.key));
    changed();
  };
  const onPointerUp = (event: PointerEvent) => {
    const wasOne = fingers.current.size === 1;
    fingers.current.delete(event.pointerId);
    if (event.type === "pointercancel" || !wasOne || moved.current > 4) return;
    const { x, y } = inside(event);
    const place = under(x, y);
    if (!place) return;
    onChoose(place.row, place.key);
    select(itemAt(place.row, place.key));
  };
  const onPointerLeave = () => {
    pointedAt.current = null;
    point(null);
    changed();
  };

  const centre = () => {
    const { rows, keys } = seen(now, extent, size);
    const known = chosen.row >= rows[0] && chosen.row < rows[1] && chosen.key >= keys[0] && chosen.key < keys[1];
    return known
      ? { x: (chosen.key + 0.5 - now.key) * now.zoom, y: (chosen.row + 0.5 - now.row) * now.zoom }
      : { x: size.width / 2, y: size.height / 2 };
  };
  const zoomBy = (factor: number) => {
    const { x, y } = centre();
    move(zoomAt(now, extent, size, x, y, factor));
  };
  const choose = (row: number, key: number) => {
    const kept = { row: Math.max(0, Math.min(extent.rows - 1, row)), key: Math.max(0, Math.min(extent.keys - 1, key)) };
    onChoose(kept.row, kept.key);
    if (camera.value) move(reveal(now, extent, size, kept.row, kept.key));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = steps[event.key];
    const page = seen(now, extent, size);
    const by = event.shiftKey ? 10 : 1;
    if (step) choose(chosen.row + step[0] * by, chosen.key + step[1] * by);
    else if (event.key === "PageDown") choose(chosen.row + (page.rows[1] - page.rows[0]), chosen.key);
    else if (event.key === "PageUp") choose(chosen.row - (page.rows[1] - page.rows[0]), chosen.key);
    else if (event.key === "Home") choose(chosen.row, 0);
    else if (event.key === "End") choose(chosen.row, extent.keys - 1);
    else if (event.key === "+" || event.key === "=") zoomBy(2);
    else if (event.key === "-") zoomBy(0.5);
    else if (event.key === "0") camera.value = null;
    else if (event.key === "Enter" || event.key === " ") select(itemAt(chosen.row, chosen.key));
    else return;
    event.preventDefault();
  };

  const spoken = itemAt(chosen.row, chosen.key);
  const zoomed = camera.value !== null;
  const table = (): TableData => tableOf(store, now, size, seenNow?.side ?? 1, props.rows, props.keys, figure);
  const side = seenNow?.side ?? 1;
  return (
    <Picture caption={props.caption} table={table}>
      <div class="map" ref={setHolder}>
        {!props.bare && (
        <div class="map-bar">
          <div class="buttons" role="group" aria-label={texts.zoom}>
            <button type="button" onClick={() => zoomBy(2)} aria-label={texts.zoomIn}>+</button>
            <button type="button" onClick={() => zoomBy(0.5)} aria-label={texts.zoomOut} disabled={!zoomed}>−</button>
            <button type="button" onClick={() => (camera.value = null)} disabled={!zoomed}>{texts.fit}</button>
          </div>
          <Place label={texts.queryPlace} letter="q" value={chosen.row} most={extent.rows - 1} onValue={(row) => choose(row, chosen.key)} />
          <Place label={texts.keyPlace} letter="k" value={chosen.key} most={extent.keys - 1} onValue={(key) => choose(chosen.row, key)} />
        </div>
        )}
        <canvas
          ref={canvas}
          class="map-canvas"
          tabIndex={0}
          role="application"
          aria-roledescription={texts.mapRole}
          aria-label={`${props.caption}. ${texts.mapKeys}`}
          style={{ touchAction: zoomed ? "none" : "pan-y" }}
          data-left={margins.left}
          data-top={margins.top}
          data-zoom={now.zoom}
          onPointerDown={onPointerDown}
          onPointerMove={onPointerMove}
          onPointerUp={onPointerUp}
          onPointerCancel={onPointerUp}
          onPointerLeave={onPointerLeave}
          onKeyDown={onKeyDown}
        />
        {zoomed && <MiniMap store={store} painted={painted} root={root.value} camera={now} size={size} onMove={move} />}
        <p class="map-said" role="status" aria-live="polite">
          <span><b class="q">q</b> <b class="k">k</b> {spoken.title}</span> <output class="figure">{spoken.value}</output>
        </p>
        <div class="legend">
          <span class="figure">{source.signed ? `−${figure(seenNow?.scale.largest ?? 0)}` : "0"}</span>
          <span class="legend-colours" aria-hidden="true">
            {legendStops(palette(dark.value, source.signed).ramp, root.value, source.signed, 24).map((colour) => <i style={{ background: colour }} />)}
          </span>
          <span class="figure">{figure(seenNow?.scale.largest ?? 0)}</span>
          {!props.bare && <label><input type="checkbox" checked={root.value} onChange={(event) => (root.value = event.currentTarget.checked)} /> {texts.rootScale}</label>}
        </div>
        <p class="quiet map-note">
          <span>
            {side === 1 ? texts.exactCells : texts.pooledCells(pool.value, side, source.signed)} {texts.extent(grouped(extent.rows), grouped(extent.keys))}
          </span>{" "}
          {!props.bare && <label>
            {texts.pooling}{" "}
            <select value={pool.value} onChange={(event) => (pool.value = event.currentTarget.value as Pool)}>
              <option value="mean">{texts.mean}</option>
              <option value="max">{texts.largest}</option>
            </select>
          </label>}
          {store.pyramid && store.pyramid.rowStep > 1 && (
            <span>
              {" "}{texts.estimate(store.pyramid.rowStep)}{" "}
              {store.share === null && <button type="button" class="plain" onClick={() => void store.build(8 * most, true)}>{texts.readAll}</button>}
            </span>
          )}
          {(seenNow?.missing ?? 0) > 0 && <span role="status"> {texts.awaited}</span>}
          {store.share !== null && extent.rows > 2048 && <span role="status"> {texts.building(store.share)}</span>}
          {store.pyramid?.tracks && !props.bare && <span> {texts.tracks}</span>}
        </p>
        {store.failure && <p class="trouble" role="alert">{t.value.frame.failed(store.failure)}</p>}
      </div>
    </Picture>
  );
}

interface PlaceProps {
  label: string;
  letter: "q" | "k";
  value: number;
  most: number;
  onValue: (value: number) => void;
}

function Place({ label, letter, value, most, onValue }: PlaceProps) {
  return (
    <label class="place">
      <span class={letter}>{label}</span>{" "}
      <NumberField value={value} least={0} most={most} onValue={onValue} />
    </label>
  );
}
