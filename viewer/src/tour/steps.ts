// The tour: each step names the view that it speaks of, and what is set there when it begins.
import type { View } from "../state/app";
import { chosenHead, chosenKey, chosenQuery } from "../state/app";
import { opened } from "../state/session";
import type { Texts } from "../texts/en";
import { dModel, numHeads } from "../views/dimensions/state";
import { part } from "../views/pipeline/state";
import { linkWeights, readersOf, ready } from "./facts";
import { pairs } from "./pairs";

export interface TourStep {
  name: keyof Texts["tour"]["steps"];
  view: View;
  begin?: () => void;
}

/** The first link in the head that reads it best in this sentence. */
function toPipeline(): void {
  const [pair] = pairs.peek();
  const [link] = ready(linkWeights.peek()) ?? [];
  const words = opened.peek()?.words;
  if (!pair || !link || !words) return;
  const best = readersOf(link)[0]!;
  chosenHead.value = [best.layer, best.head];
  chosenQuery.value = words[pair[0]]!.first_token;
  chosenKey.value = words[pair[1]]!.first_token;
  part.value = "product";
}

function toDimensions(): void {
  dModel.value = 512;
  numHeads.value = 8;
}

export const steps: readonly TourStep[] = [
  { name: "three", view: "story" },
  { name: "row", view: "story" },
  { name: "sum", view: "story" },
  { name: "readers", view: "story" },
  { name: "grammar", view: "story" },
  { name: "inside", view: "pipeline", begin: toPipeline },
  { name: "cut", view: "dimensions", begin: toDimensions },
  { name: "work", view: "story" },
  { name: "quiz", view: "story" },
];
