import type { Texts } from "../en";

export const corpus: Texts["corpus"] = {
  heading: "Ein Kopf über viele Texte",
  none: "Kein Scan ist geöffnet. Ein Scan geht durch viele Texte: manyheads scan TEXTE --model ORDNER -o scan.safetensors, dann manyheads view scan.safetensors.",
};
