// Numbers as coloured cells: paper at zero, the colour of what they are above it, pink below.
import { useEffect, useRef } from "preact/hooks";
import { dark } from "../state/app";
import { colour, mixed, type Colour } from "./colours";
import { useCursor, type Cells } from "./cursor";

export interface StripProps extends Cells {
  label: string;
  colour: Colour;
  at: (row: number, col: number) => number;
  /** Pixels; as wide as there is room where no width is given. */
  height: number;
  width?: number;
}

export function Strip({ label, colour: name, at, height, width, ...cells }: StripProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { rows, cols } = cells;
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || rows * cols === 0) return;
    const sizes = new Float64Array(rows * cols);
    for (let r = 0; r < rows; ++r) for (let c = 0; c < cols; ++c) sizes[r * cols + c] = Math.abs(at(r, c));
    // One number in a hundred may be as large as it likes: a single spike would leave the others pale.
    const most = sizes.sort()[Math.floor(0.99 * (sizes.length - 1))]!;
    const image = context.createImageData(cols, rows);
    const paper = colour("paper");
    const above = colour(name);
    const below = colour("below");
    for (let r = 0; r < rows; ++r) {
      for (let c = 0; c < cols; ++c) {
        const value = at(r, c);
        image.data.set(mixed(paper, value < 0 ? below : above, most ? Math.min(1, Math.abs(value) / most) ** 0.7 : 0), 4 * (r * cols + c));
      }
    }
    context.putImageData(image, 0, 0);
  }, [at, rows, cols, name, dark.value]);
  return (
    <canvas
      ref={canvas}
      class="strip"
      width={cols}
      height={rows}
      role="img"
      aria-label={label}
      style={{ height: `${height}px`, width: width === undefined ? "100%" : `${width}px` }}
      {...useCursor(cells)}
    />
  );
}
