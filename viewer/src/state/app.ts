// What every part of the page shares. A view's own settings stand in its folder, as linked() signals with its prefix.
import { computed, effect, signal } from "@preact/signals";
import { flag, headName, linked, oneOf, whole, words } from "./link";

export const views = ["story", "pipeline", "dimensions", "heads", "corpus"] as const;
export type View = (typeof views)[number];

export const longestText = 20000;

export const view = linked<View>("v", oneOf(...views), "story");
/** One view alone, for the frame of another page. */
export const embed = linked("embed", flag, false);
export const language = linked<"" | "en" | "de">("lang", oneOf("", "en", "de"), "");
export const theme = linked<"" | "light" | "dark">("theme", oneOf("", "light", "dark"), "");
/** The sentence; empty: the one that the page came with. */
export const text = linked("text", words(longestText), "");
/** The chosen head; null: what the page finds worth showing. */
export const chosenHead = linked<[number, number] | null>(
  "head",
  { read: (given) => headName.read(given), write: (value) => (value ? headName.write(value) : "") },
  null,
);
/** The chosen tokens; -1: what the page finds worth showing. */
export const chosenQuery = linked("q", whole(-1, 1e6), -1);
export const chosenKey = linked("k", whole(-1, 1e6), -1);
export const tourStep = linked("step", whole(0, 8), 0);
export const tourOpen = linked("tour", flag, true);

export const spoken = computed<"en" | "de">(
  () => language.value || (navigator.language.toLowerCase().startsWith("de") ? "de" : "en"),
);

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(prefersDark.matches);
prefersDark.addEventListener("change", () => (systemDark.value = prefersDark.matches));
export const dark = computed(() => (theme.value ? theme.value === "dark" : systemDark.value));

export function keepDocument(): void {
  effect(() => {
    document.documentElement.lang = spoken.value;
    document.documentElement.dataset["theme"] = dark.value ? "dark" : "light";
  });
}
