// A grid of numbers drawn as one picture: the pointer or the arrow keys choose a cell, which then tells of itself.
import { useRef } from "preact/hooks";
import { point, select, type Item } from "../state/inspect";

export interface Cells {
  rows: number;
  cols: number;
  item: (row: number, col: number) => Item;
}

const moves: Record<string, [number, number]> = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const within = (value: number, length: number): number => Math.min(length - 1, Math.max(0, value));

export function useCursor({ rows, cols, item }: Cells) {
  const at = useRef<[number, number]>([0, 0]);
  const here = (): Item => item(within(at.current[0], rows), within(at.current[1], cols));
  const under = (event: PointerEvent | MouseEvent): void => {
    const { left, top, width, height } = (event.currentTarget as Element).getBoundingClientRect();
    at.current = [
      within(Math.floor(((event.clientY - top) / height) * rows), rows),
      within(Math.floor(((event.clientX - left) / width) * cols), cols),
    ];
  };
  return {
    tabIndex: 0,
    "data-cursor": "",
    onPointerMove: (event: PointerEvent) => {
      under(event);
      point(here());
    },
    onPointerLeave: () => point(null),
    onFocus: () => point(here()),
    onBlur: () => point(null),
    onClick: (event: MouseEvent) => {
      under(event);
      select(here());
    },
    onKeyDown: (event: KeyboardEvent) => {
      const move = moves[event.key];
      if (move) {
        at.current = [within(at.current[0] + move[0], rows), within(at.current[1] + move[1], cols)];
        point(here());
      } else if (event.key === "Enter" || event.key === " ") {
        select(here());
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    },
  } as const;
}
