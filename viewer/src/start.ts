// What whoever served or exported the page put into it (viewer/README.md, "Data in the page").

export interface SiteModel {
  name: string;
  folder: string;
  dtype: string;
  bytes: number;
  files: string[];
}

/** An answer that is stored because nobody beside the page can give it. */
export interface StoredAnswer {
  question: Record<string, unknown>;
  type: string;
  base64: string;
}

export interface Start {
  mode: "server" | "file" | "site";
  /** Trace files in base64, opened in this order. */
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

/** The page's own WebAssembly: base64 of gzip. */
export async function readWasm(): Promise<ArrayBuffer> {
  const text = document.getElementById("wasm")?.textContent;
  if (!text) throw new Error("this page was built without WebAssembly");
  const stream = new Blob([bytesOfBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

export function bytesOfBase64(text: string): ArrayBuffer {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; ++i) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}
