import { computed } from "@preact/signals";
import { spoken } from "../state/app";
import { de } from "./de";
import { en } from "./en";

/** The texts of the language that is spoken now. */
export const t = computed(() => (spoken.value === "de" ? de : en));

/** A number with a fixed count of decimals, as the language writes it. */
export const fixed = (value: number, decimals: number): string =>
  value
    .toLocaleString(spoken.value, { minimumFractionDigits: decimals, maximumFractionDigits: decimals, useGrouping: false })
    .replace("-", "−");

/** A whole number with its thousands grouped. */
export const grouped = (value: number): string => value.toLocaleString(spoken.value, { maximumFractionDigits: 0, useGrouping: true });
