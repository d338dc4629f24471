// Colours of weights: one ramp of one hue from paper to ink; for differences two, from paper to either side.

export type Rgb = [red: number, green: number, blue: number];

/** "#rgb", "#rrggbb" or "rgb(r, g, b)"; black where it is neither. */
export function rgbOf(text: string): Rgb {
  const hex = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(text.trim())?.[1];
  if (hex) {
    const wide = hex.length === 3 ? [...hex].map((digit) => digit + digit).join("") : hex;
    return [0, 2, 4].map((at) => parseInt(wide.slice(at, at + 2), 16)) as Rgb;
  }
  const parts = /^rgba?\(([^)]*)\)$/.exec(text.trim())?.[1]?.split(/[\s,/]+/).map(Number);
  return [parts?.[0] ?? 0, parts?.[1] ?? 0, parts?.[2] ?? 0];
}

const linear = (byte: number): number => (byte <= 10 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
const byteOf = (light: number): number =>
  Math.round(255 * Math.max(0, Math.min(1, light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055)));

// Oklab: equal steps look equal.
function oklab([red, green, blue]: Rgb): Rgb {
  const [r, g, b] = [linear(red), linear(green), linear(blue)];
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklab([lightness, a, b]: Rgb): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    byteOf(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    byteOf(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    byteOf(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

/** Entries of a ramp; the middle one of a difference is its 0. */
export const entries = 511;
const middle = (entries - 1) / 2;

/** Pixels of ImageData, one for each step from paper to ink. */
export type Ramp = Uint32Array;

function between(from: Rgb, to: Rgb, share: number): Rgb {
  const [a, b] = [oklab(from), oklab(to)];
  return fromOklab([0, 1, 2].map((i) => a[i]! + (b[i]! - a[i]!) * share) as Rgb);
}

function ramp(colour: (entry: number) => Rgb): Ramp {
  const pixels = new Uint32Array(entries);
  const bytes = new Uint8Array(pixels.buffer);
  for (let entry = 0; entry < entries; ++entry) bytes.set([...colour(entry), 255], 4 * entry);
  return pixels;
}

/** 0 to 1, from paper to ink. */
export const weightRamp = (paper: Rgb, ink: Rgb): Ramp => ramp((entry) => between(paper, ink, entry / (entries - 1)));

/** -1 to 1: less, paper, more. */
export const differenceRamp = (less: Rgb, paper: Rgb, more: Rgb): Ramp =>
  ramp((entry) => between(paper, entry < middle ? less : more, Math.abs(entry - middle) / middle));

export const cssOf = (ramp: Ramp, entry: number): string => {
  const [red, green, blue] = new Uint8Array(ramp.buffer, 4 * Math.max(0, Math.min(entries - 1, Math.round(entry))), 3);
  return `rgb(${red}, ${green}, ${blue})`;
};

const luminance = ([red, green, blue]: Rgb): number => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);

/** Which of two colours stands out more from a ramp's entry. */
export function readableOn(ramp: Ramp, entry: number, one: string, other: string): string {
  const under = luminance(rgbOf(cssOf(ramp, entry))) + 0.05;
  const contrast = (colour: string): number => {
    const over = luminance(rgbOf(colour)) + 0.05;
    return over > under ? over / under : under / over;
  };
  return contrast(one) > contrast(other) ? one : other;
}

/** What the ends of the colours stand for. */
export interface Scale {
  largest: number;
  /** The square root makes small weights visible; the legend says so. */
  root: boolean;
  /** From -largest to largest instead of from 0. */
  signed: boolean;
}

/** The entry of a value; exactly what paint() gives each pixel. */
export function entryOf(value: number, { largest, root, signed }: Scale): number {
  if (!(largest > 0)) return signed ? middle : 0;
  const share = Math.min(1, Math.abs(value) / largest);
  const bent = root ? Math.sqrt(share) : share;
  return Math.round(signed ? middle + Math.sign(value) * middle * bent : (value > 0 ? bent : 0) * (entries - 1));
}

/** Colours one pixel for each value. */
export function paint(values: ArrayLike<number>, ramp: Ramp, scale: Scale, pixels: Uint32Array): void {
  const { largest, root, signed } = scale;
  if (root || signed || !(largest > 0)) {
    for (let i = 0; i < pixels.length; ++i) pixels[i] = ramp[entryOf(values[i]!, scale)]!;
    return;
  }
  const factor = (entries - 1) / largest;
  for (let i = 0; i < pixels.length; ++i) {
    const entry = (values[i]! * factor + 0.5) | 0;
    pixels[i] = ramp[entry < 0 ? 0 : entry >= entries ? entries - 1 : entry]!;
  }
}

export function largestOf(values: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < values.length; ++i) {
    const value = Math.abs(values[i]!);
    if (value > largest) largest = value;
  }
  return largest;
}
