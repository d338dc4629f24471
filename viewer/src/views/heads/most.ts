// How many weights a view may cost: a second of work or two, by whoever computes.
import { who } from "../../state/session";

export const mostOf = (): number => (who.value?.computes === "native" ? 2 ** 28 : 2 ** 25);

/** Scores of every head read every weight: so many are read without being asked for. */
export const mostRead = (): number => 16 * mostOf();
