// What the view Corpus remembers in the link.
import { linked, oneOf, words } from "../../state/link";

export const parts = ["heads", "distribution", "examples", "tokens", "components", "distances", "relations"] as const;
export type Part = (typeof parts)[number];
export const part = linked<Part>("c.part", oneOf(...parts), "heads");
export const score = linked("c.score", words(60), "");
