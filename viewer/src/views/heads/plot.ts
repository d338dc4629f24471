// Axes of the plots. Nothing here knows the page but how it writes numbers.
import { fixed } from "../../texts";

export interface Spread {
  least: number;
  most: number;
  ticks: number[];
  /** 0 at the least value, 1 at the most. */
  share(value: number): number;
  write(value: number): string;
}

/** The range of some values, widened to round numbers. */
export function spread(values: number[]): Spread {
  const least = values.length ? Math.min(...values) : 0;
  const most = values.length ? Math.max(...values) : 1;
  const rough = (most - least || Math.abs(most) || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.floor(least / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(most / step - 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
  const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  return {
    least: first * step,
    most: last * step,
    ticks,
    share: (value) => (value - first * step) / ((last - first) * step),
    write: (value) => fixed(value, decimals),
  };
}
