// The whole matrix, small, with the part that is seen outlined: pressed or pulled it moves the map.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Cells } from "../engine/pyramid";
import { dark } from "../state/app";
import { t } from "../texts";
import { keepInside, seen, type Camera, type Size } from "./geometry";
import { palette } from "./palette";
import { largestOf } from "./ramp";
import type { Painted, Store } from "./store";

const longest = 112;

export interface MiniMapProps {
  store: Store;
  painted: Painted;
  root: boolean;
  camera: Camera;
  size: Size;
  onMove: (camera: Camera) => void;
}

export function MiniMap({ store, painted, root, camera, size, onMove }: MiniMapProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { extent, signed } = store.source;
  const share = longest / Math.max(extent.rows, extent.keys);
  const width = Math.max(8, extent.keys * share);
  const height = Math.max(8, extent.rows * share);
  const [cells, setCells] = useState<{ cells: Cells; side: number } | null>(null);
  useEffect(() => {
    let wanted = true;
    void store.overview(longest).then((found) => wanted && setCells(found));
    return () => {
      wanted = false;
    };
  }, [store, store.pyramid]);
  useEffect(() => {
    const surface = canvas.current!;
    const ratio = devicePixelRatio || 1;
    surface.width = Math.round(width * ratio);
    surface.height = Math.round(height * ratio);
    const context = surface.getContext("2d")!;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const colours = palette(dark.value, signed);
    context.fillStyle = colours.paper;
    context.fillRect(0, 0, width, height);
    if (cells) {
      const { values } = cells.cells;
      const scale = { largest: largestOf(values), root, signed };
      context.imageSmoothingEnabled = false;
      context.drawImage(
        painted.of(cells.cells, values, colours.ramp, scale, colours.name),
        0, 0, cells.cells.keys * cells.side * share, cells.cells.rows * cells.side * share,
      );
    }
    const view = seen(camera, extent, size);
    context.strokeStyle = colours.ink;
    context.lineWidth = 2;
    context.strokeRect(
      view.keys[0] * share, view.rows[0] * share,
      Math.max(3, (view.keys[1] - view.keys[0]) * share), Math.max(3, (view.rows[1] - view.rows[0]) * share),
    );
  });
  const go = (event: PointerEvent) => {
    if (event.buttons === 0 && event.type === "pointermove") return;
    const { left, top } = canvas.current!.getBoundingClientRect();
    canvas.current!.setPointerCapture(event.pointerId);
    const row = (event.clientY - top) / share - size.height / camera.zoom / 2;
    const key = (event.clientX - left) / share - size.width / camera.zoom / 2;
    onMove(keepInside({ ...camera, row, key }, extent, size));
  };
  // Keys move the map itself, so the small one is for the pointer alone.
  return (
    <canvas
      ref={canvas}
      class="mini-map"
      aria-hidden="true"
      title={t.value.heads.miniMap}
      style={{ width: `${width}px`, height: `${height}px` }}
      onPointerDown={go}
      onPointerMove={go}
    />
  );
}
