import { corpus } from "./en/corpus";
import { dimensions } from "./en/dimensions";
import { frame } from "./en/frame";
import { heads } from "./en/heads";
import { pipeline } from "./en/pipeline";
import { story } from "./en/story";
import { tour } from "./en/tour";

// English is the page's first language: its type is what the others have to fill.
export const en = { frame, tour, story, pipeline, dimensions, heads, corpus };
export type Texts = typeof en;
