// Large and small quantities, as a reader says them.
import { fixed } from "../../texts";

const steps = ["", "k", "M", "G", "T", "P"];

/** 201,326,592 -> "201 M". */
export function counted(value: number): string {
  let step = 0;
  while (value >= 1000 && step + 1 < steps.length) {
    value /= 1000;
    ++step;
  }
  return step === 0 ? fixed(value, 0) : `${fixed(value, value < 10 ? 2 : value < 100 ? 1 : 0)} ${steps[step]}`;
}

export function duration(seconds: number): string {
  if (seconds < 1e-3) return `${fixed(seconds * 1e6, seconds < 1e-5 ? 2 : 0)} µs`;
  return seconds < 1 ? `${fixed(seconds * 1e3, 2)} ms` : `${fixed(seconds, 2)} s`;
}
