// Signed numbers as bars around a line at zero.
import type { Colour } from "./colours";
import { useCursor, type Cells } from "./cursor";

export interface BarsProps {
  label: string;
  colour: Colour;
  values: ArrayLike<number>;
  item: (index: number) => ReturnType<Cells["item"]>;
  height: number;
  /** Each bar begins where the one before it ended. */
  running?: boolean;
}

export function Bars({ label, colour, values, item, height, running = false }: BarsProps) {
  const count = values.length;
  const ends: [number, number][] = [];
  let sum = 0;
  for (let i = 0; i < count; ++i) {
    const from = running ? sum : 0;
    sum += values[i]!;
    ends.push([from, running ? sum : values[i]!]);
  }
  const top = Math.max(1e-12, ...ends.map(([from, to]) => Math.max(from, to)));
  const bottom = Math.min(0, ...ends.map(([from, to]) => Math.min(from, to)));
  const y = (value: number) => ((top - value) / (top - bottom)) * height;
  const cursor = useCursor({ rows: 1, cols: count, item: (_, i) => item(i) });
  return (
    <svg class={`bars of-${colour}`} viewBox={`0 0 ${count} ${height}`} preserveAspectRatio="none" style={{ height: `${height}px` }} role="img" aria-label={label} {...cursor}>
      <rect class="reach" width={count} height={height} />
      {ends.map(([from, to], i) => (
        <rect
          class={to < from ? "below" : "above"}
          x={i + 0.1}
          width={0.8}
          y={y(Math.max(from, to))}
          height={Math.max(0.5, Math.abs(y(from) - y(to)))}
        />
      ))}
      <line x1={0} x2={count} y1={y(0)} y2={y(0)} />
    </svg>
  );
}
