// How a weight is written: with four decimals, and where they would say nothing, by its power of ten.
import { fixed } from "../texts";
import { spoken } from "../state/app";

export function figure(value: number): string {
  if (value === 0 || Math.abs(value) >= 0.001) return fixed(value, 4);
  const [digits = "", power = ""] = value.toExponential(2).split("e");
  return `${spoken.value === "de" ? digits.replace(".", ",") : digits}e${power}`;
}

/** In a map's cell of that many pixels. */
export const inCell = (value: number, pixels: number): string => fixed(value, pixels < 48 ? 2 : 3);
