// The tour: each step names the view that it speaks of.
import type { View } from "../state/app";
import type { Texts } from "../texts/en";

export interface TourStep {
  view: View;
  texts: (texts: Texts["tour"]) => { title: string; text: string; act: string; keep: string };
}

export const steps: TourStep[] = [{ view: "story", texts: ({ three }) => three }];
