// What the view Heads remembers in the link.
import { signal } from "@preact/signals";
import type { Camera } from "../../maps/geometry";
import { flag, headName, linked, listOf, oneOf, whole, words } from "../../state/link";

export const overviews = ["grid", "scatter", "clusters", "mean", "rollout"] as const;
export type Overview = (typeof overviews)[number];
export const details = ["map", "links", "why", "distance", "compare", "off"] as const;
export type Detail = (typeof details)[number];

/** On a narrow stage one of the two is shown: all heads, or the chosen one. */
export const shown = linked<"all" | "one">("h.show", oneOf("all", "one"), "all");
export const overview = linked<Overview>("h.all", oneOf(...overviews), "grid");
export const detail = linked<Detail>("h.one", oneOf(...details), "map");

export const sort = linked("h.sort", words(60), "");
/** A role; with "-" before it, the heads that do not have it. */
export const filter = linked("h.role", words(60), "");

/** Whose roles the badges tell and the filter asks for, where a scan is open beside the text. */
export const rolesFrom = linked<"scan" | "text">("h.from", oneOf("scan", "text"), "scan");

export const across = linked("h.x", words(60), "");
export const upwards = linked("h.y", words(60), "");
export const shade = linked("h.c", words(60), "");
export const groups = linked("h.groups", whole(2, 24), 8);

export const chosenHeads = linked<[number, number][]>("h.heads", listOf(headName, 64), []);
export const other = linked<[number, number] | null>(
  "h.other",
  { read: (text) => headName.read(text), write: (value) => (value ? headName.write(value) : "") },
  null,
);
export const otherText = linked("h.text", words(20000), "");

export const pool = linked<"mean" | "max">("m.pool", oneOf("mean", "max"), "mean");
export const root = linked("m.root", flag, false);

const places = /^(\d{1,7}(?:\.\d{1,4})?),(\d{1,7}(?:\.\d{1,4})?),(\d{1,2}(?:\.\d{1,9})?)$/;
/** null: the whole matrix. */
export const camera = linked<Camera | null>(
  "m.at",
  {
    read: (text) => {
      const match = places.exec(text);
      return match ? { row: Number(match[1]), key: Number(match[2]), zoom: Math.max(1e-6, Number(match[3])) } : undefined;
    },
    write: (value) => (value ? `${value.row.toFixed(2)},${value.key.toFixed(2)},${value.zoom.toFixed(6)}` : ""),
  },
  null,
);

export const topLinks = linked("l.top", whole(1, 8), 2);
export const asWords = linked("l.words", flag, true);
export const hideSpecial = linked("l.special", flag, false);
/** The token or word whose links stay; -1: none. */
export const pinned = linked("l.pin", whole(-1, 1e6), -1);
export const scaleOff = signal(0);
