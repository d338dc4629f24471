export const story = {
  heading: "One sentence, three links",
  link: (query: string, key: string) => `${query} → ${key}`,
  best: "Best head",
  mean: "Mean of all heads",
  weight: "Weight",
  offsetMean: "Mean of that head at this distance",
  formula: "weight(q, k) = exp(q·k / √d − lse)",
  source: "the attention weights of the open text",
};
