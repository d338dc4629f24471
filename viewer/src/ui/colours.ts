// The colours of src/style/tokens.css, as a canvas needs them.

export type Colour = "q" | "k" | "v" | "w" | "x";
type Rgb = readonly [number, number, number];

const properties = { q: "--q", k: "--k", v: "--v", w: "--w", x: "--ink", paper: "--paper", below: "--below" } as const;

/** A colour of the theme that is shown now; the tokens are written #rrggbb. */
export function colour(name: keyof typeof properties): Rgb {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(properties[name]).trim();
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** From `from` to `to` by `share`, with full opacity. */
export const mixed = (from: Rgb, to: Rgb, share: number): [number, number, number, number] => [
  from[0] + (to[0] - from[0]) * share,
  from[1] + (to[1] - from[1]) * share,
  from[2] + (to[2] - from[2]) * share,
  255,
];
