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
  /** The name of a study's report beside the page. */
  study: string | null;
}

/** What a page that nobody serves knows at once: the answers of its first picture. */
export interface First extends Omit<Start, "traces" | "answers"> {
  answers: { question: Record<string, unknown>; answer: unknown }[];
}

const list = <T>(value: unknown, is: (each: unknown) => boolean): T[] => (Array.isArray(value) ? (value.filter(is) as T[]) : []);
const isText = (value: unknown): boolean => typeof value === "string";

const given = (id: string): Record<string, unknown> => JSON.parse(document.getElementById(id)?.textContent || "{}") as Record<string, unknown>;

/** What both begin with; null where the page holds no data. */
function common({ mode, model, examples, study }: Record<string, unknown>): Omit<Start, "traces" | "answers"> | null {
  if (mode === undefined) return null;
  if (mode !== "server" && mode !== "file" && mode !== "site") throw new Error(`start: unknown mode ${String(mode)}`);
  return { mode, model: (model as SiteModel | undefined) ?? null, examples: list(examples, isText), study: typeof study === "string" ? study : null };
}

const isObject = (each: unknown): boolean => typeof each === "object" && each !== null;

/** null where the page holds no data. */
export function readStart(): Start | null {
  const start = given("start");
  const begins = common(start);
  return begins && { ...begins, traces: list(start["traces"], isText), answers: list(start["answers"], isObject) };
}

/** null where the page has to wait for its engine, or its server. */
export function readFirst(): First | null {
  const first = given("first");
  const begins = common(first);
  const answers = list<First["answers"][number]>(first["answers"], isObject);
  return begins && answers.length > 0 ? { ...begins, answers } : null;
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
