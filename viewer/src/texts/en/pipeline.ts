export const pipeline = {
  heading: (head: string) => `Inside head ${head}`,
  lead: (query: string) => `What “${query}” asks, and whom it gets its answer from.`,
  scores: "Scores",
  weights: "Weights",
};
