// The page's colours for a canvas, read from its style once for each theme.
import type { Colours } from "./draw";
import { differenceRamp, rgbOf, weightRamp } from "./ramp";

const made = new Map<string, Colours>();

/** `signed`: for a difference, whose numbers have a sign. */
export function palette(dark: boolean, signed: boolean): Colours {
  const name = `${dark ? "dark" : "light"}${signed ? " signed" : ""}`;
  let colours = made.get(name);
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const of = (property: string): string => style.getPropertyValue(property).trim();
    const paper = rgbOf(of("--paper"));
    colours = {
      name,
      paper: of("--paper"),
      line: of("--line-strong"),
      ink: of("--ink"),
      quiet: of("--ink-2"),
      q: of("--q-text"),
      k: of("--k-text"),
      ramp: signed ? differenceRamp(rgbOf(of("--less")), paper, rgbOf(of("--more"))) : weightRamp(paper, rgbOf(of("--w"))),
    };
    made.set(name, colours);
  }
  return colours;
}
