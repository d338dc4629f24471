// What whoever served or exported the page put into it (viewer/README.md, "Data in the page").
import { bytesOfBase64 } from "./base64";
import { t } from "./texts";

export interface SiteModel {
  name: string;
  folder: string;
  dtype: string;
  bytes: number;
  files: string[];
}

/** An answer that is stored because nobody beside the page can give it: in the page, or in a file beside it. */
export interface StoredAnswer {
  question: Record<string, unknown>;
  type: string;
  /** Packed, in base64. */
  base64?: string;
  /** Its address beside the page, where it lies packed. */
  file?: string;
}

export interface Start {
  mode: "server" | "file" | "site";
  /** Trace files, packed, in base64; opened in this order. */
  traces: string[];
  answers: StoredAnswer[];
  model: SiteModel | null;
  examples: string[];
}

const list = <T>(value: unknown, is: (each: unknown) => boolean): T[] => (Array.isArray(value) ? (value.filter(is) as T[]) : []);
const isText = (value: unknown): boolean => typeof value === "string";

/** null where the page holds no data. */
export function readStart(): Start | null {
  const given = JSON.parse(document.getElementById("start")?.textContent || "{}") as Record<string, unknown>;
  const { mode } = given;
  if (mode === undefined) return null;
  if (mode !== "server" && mode !== "file" && mode !== "site") throw new Error(`start: unknown mode ${String(mode)}`);
  return {
    mode,
    traces: list(given["traces"], isText),
    answers: list(given["answers"], (each) => typeof each === "object" && each !== null),
    model: (given["model"] as SiteModel | undefined) ?? null,
    examples: list(given["examples"], isText),
  };
}

/** The page's own WebAssembly, gzipped. */
export function packedWasm(): ArrayBuffer {
  const text = document.getElementById("wasm")?.textContent;
  if (!text) throw new Error("this page was built without WebAssembly");
  return bytesOfBase64(text);
}

/** What a stored answer holds. */
export async function storedBytes({ type, base64, file }: StoredAnswer): Promise<ArrayBuffer> {
  const unpack = type === "application/json" ? unzipped : unpackedNumbers;
  if (file === undefined) return unpack(bytesOfBase64(base64 ?? ""));
  const response = await fetch(file).catch((error: Error) => {
    throw new Error(`${file}: ${error.message}`);
  });
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  return unpack(await response.arrayBuffer());
}

export const unpackedTrace = (base64: string): Promise<ArrayBuffer> => unpackedNumbers(bytesOfBase64(base64));

/** Undoes cli/view/packed.hpp: the first bytes of all words come first, then the second ones. */
async function unpackedNumbers(packed: ArrayBuffer): Promise<ArrayBuffer> {
  const planes = new Uint8Array(await unzipped(packed));
  const bytes = new Uint8Array(planes.length);
  const words = planes.length >> 2;
  for (let plane = 0; plane < 4; ++plane) {
    for (let word = 0; word < words; ++word) bytes[4 * word + plane] = planes[plane * words + word]!;
  }
  bytes.set(planes.subarray(4 * words), 4 * words);
  return bytes.buffer;
}

async function unzipped(packed: ArrayBuffer): Promise<ArrayBuffer> {
  try {
    return await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  } catch {
    throw new Error(t.peek().frame.damaged);
  }
}
