import type { Texts } from "../en";

export const dimensions: Texts["dimensions"] = {
  heading: "Wie d_model in Köpfe geteilt wird",
  heads: "num_heads",
  dModel: "d_model",
};
