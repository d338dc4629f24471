import type { Texts } from "../en";

export const heads: Texts["heads"] = {
  heading: "Alle Köpfe dieses Textes",
  head: "Kopf",
  roles: "Rollen",
  map: (head) => `Gewichte von Kopf ${head}`,
  query: "von",
  key: "nach",
};
