import type { Texts } from "../en";

export const tour: Texts["tour"] = {
  step: (now, all) => `${now} von ${all}`,
  back: "Zurück",
  next: "Weiter",
  keep: "Merksatz",
  three: {
    title: "Drei Dinge zugleich",
    text: "Um „cat“ zu verstehen, braucht ein Modell black (welche Katze?), sat (was tat sie?) und mat (wo?). Drei Verbindungen halten den Satz zusammen.",
    act: "Drücken Sie jeden Bogen.",
    keep: "Ein Wort braucht mehrere andere zugleich.",
  },
};
