// Distances in bins: one each near 0, wider and wider further away. Nothing here knows the page.

export interface Bin {
  /** Distances [begin, end]. */
  begin: number;
  end: number;
  mass: number;
}

/** Up to so far each distance has its own bin where there are many; a short text has one for every distance. */
const near = 16;

export function distanceBins(mass: ArrayLike<number>, first: number): Bin[] {
  const last = first + mass.length - 1;
  const short = mass.length <= 4 * near + 1;
  const edges: number[] = [];
  for (let distance = 0; distance <= Math.max(last, -first); distance = short || distance < near ? distance + 1 : distance * 2) edges.push(distance);
  const bins = new Map<number, Bin>();
  for (let i = 0; i < mass.length; ++i) {
    const distance = first + i;
    let low = 0;
    for (let high = edges.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (edges[middle]! <= Math.abs(distance)) low = middle;
      else high = middle;
    }
    const place = distance < 0 ? -low : low;
    const bin = bins.get(place);
    if (bin) {
      bin.begin = Math.min(bin.begin, distance);
      bin.end = Math.max(bin.end, distance);
      bin.mass += mass[i]!;
    } else {
      bins.set(place, { begin: distance, end: distance, mass: mass[i]! });
    }
  }
  return [...bins].sort(([a], [b]) => a - b).map(([, bin]) => bin);
}
