import type { Texts } from "../en";

export const pipeline: Texts["pipeline"] = {
  heading: (head) => `In Kopf ${head}`,
  lead: (query) => `Was „${query}“ fragt, und von wem die Antwort kommt.`,
  scores: "Scores",
  weights: "Gewichte",
};
