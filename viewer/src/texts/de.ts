import type { Texts } from "./en";
import { corpus } from "./de/corpus";
import { dimensions } from "./de/dimensions";
import { frame } from "./de/frame";
import { heads } from "./de/heads";
import { pipeline } from "./de/pipeline";
import { story } from "./de/story";
import { tour } from "./de/tour";

export const de: Texts = { frame, tour, story, pipeline, dimensions, heads, corpus };
