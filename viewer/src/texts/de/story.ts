import type { Texts } from "../en";

export const story: Texts["story"] = {
  heading: "Ein Satz, drei Verbindungen",
  link: (query, key) => `${query} → ${key}`,
  best: "Bester Kopf",
  mean: "Mittel aller Köpfe",
  weight: "Gewicht",
  offsetMean: "Mittel dieses Kopfes in diesem Abstand",
  formula: "Gewicht(q, k) = exp(q·k / √d − lse)",
  source: "die Attention-Gewichte des offenen Textes",
};
