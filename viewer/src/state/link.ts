// The page's state lives behind the # of its address, so that a view can be sent. A link is written by anyone: whatever a
// codec does not accept becomes the fallback.
import { effect, signal, type Signal } from "@preact/signals";

export interface Codec<T> {
  /** undefined: not a value of this kind. */
  read(text: string): T | undefined;
  write(value: T): string;
}

export const oneOf = <T extends string>(...choices: readonly T[]): Codec<T> => ({
  read: (text) => choices.find((choice) => choice === text),
  write: (value) => value,
});

export const whole = (least: number, most: number): Codec<number> => ({
  read: (text) => {
    if (!/^-?\d{1,9}$/.test(text)) return undefined;
    const value = Number(text);
    return value >= least && value <= most ? value : undefined;
  },
  write: String,
});

export const words = (longest: number): Codec<string> => ({
  read: (text) => (text.length <= longest ? text : undefined),
  write: (value) => value,
});

export const flag: Codec<boolean> = {
  read: (text) => (text === "1" ? true : text === "0" ? false : undefined),
  write: (value) => (value ? "1" : "0"),
};

export const listOf = <T>(item: Codec<T>, most: number): Codec<T[]> => ({
  read: (text) => {
    const parts = text === "" ? [] : text.split(",");
    if (parts.length > most) return undefined;
    const values = parts.map((part) => item.read(part));
    return values.every((value) => value !== undefined) ? (values as T[]) : undefined;
  },
  write: (values) => values.map((value) => item.write(value)).join(","),
});

/** A head as "2.8". */
export const headName: Codec<[number, number]> = {
  read: (text) => {
    const match = /^(\d{1,3})\.(\d{1,3})$/.exec(text);
    return match ? [Number(match[1]), Number(match[2])] : undefined;
  },
  write: ([layer, head]) => `${layer}.${head}`,
};

const longestLink = 65536;

interface Part {
  read(text: string | null): void;
  /** null: the fallback, which the link leaves out. */
  write(): string | null;
}

const parts = new Map<string, Part>();

/** A signal that the link carries as name=value. Call it once, at a module's top level. */
export function linked<T>(name: string, codec: Codec<T>, fallback: T): Signal<T> {
  if (parts.has(name)) throw new Error(`two parts of the link are named ${name}`);
  const value = signal(fallback);
  const plain = codec.write(fallback);
  parts.set(name, {
    read: (text) => {
      const read = text === null ? undefined : codec.read(text);
      const next = read === undefined ? fallback : read;
      if (codec.write(value.peek()) !== codec.write(next)) value.value = next;
    },
    write: () => {
      const text = codec.write(value.value);
      return text === plain ? null : text;
    },
  });
  return value;
}

function readLink(): void {
  const hash = location.hash.slice(1);
  const given = new URLSearchParams(hash.length <= longestLink ? hash : "");
  for (const [name, part] of parts) part.read(given.get(name));
}

function linkOf(): string {
  const written = new URLSearchParams();
  for (const [name, part] of parts) {
    const text = part.write();
    if (text !== null) written.set(name, text);
  }
  return written.toString();
}

/** Reads the link now and whenever it changes; writes it when the state does. */
export function keepLink(): void {
  readLink();
  addEventListener("hashchange", readLink);
  let timer: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    const hash = linkOf();
    clearTimeout(timer);
    // Browsers limit how often a page may write its address; a slider moves faster.
    timer = setTimeout(() => {
      if (location.hash.slice(1) !== hash) history.replaceState(null, "", `#${hash}`);
    }, 100);
  });
}

/** The address of what is seen now. */
export const address = (): string => `${location.href.split("#")[0]!}#${linkOf()}`;
