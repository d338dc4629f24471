// Runs in a worker of its own: holds the engine's WebAssembly and does one thing after the other.
import type { FromWorker, ToWorker } from "./messages";

interface Exports {
  memory: WebAssembly.Memory;
  __stack_pointer: WebAssembly.Global<"i32">;
  _initialize(): void;
  mh_alloc(size: number): number;
  mh_free(at: number): void;
  mh_open_trace(at: number, size: number): number;
  mh_open_model(name: number, nameSize: number, config: number, configSize: number, weights: number, weightsSize: number): number;
  /** 0: the answer is JSON, 1: a safetensors file. */
  mh_ask(at: number, size: number): number;
  mh_answer_data(): number;
  mh_answer_size(): number;
}

let engine: Exports;
let stack = 0;
let failure: string | null = null;

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  (self as unknown as { postMessage(message: unknown, transfer: Transferable[]): void }).postMessage(message, transfer);

// What the engine asks of its host, beside the clock nothing of a system.
const host: Record<string, (...values: number[]) => number | void> = {
  error: (at, size) => {
    failure = new TextDecoder().decode(new Uint8Array(engine.memory.buffer, at, size));
  },
  progress: (share) => {
    post({ kind: "progress", share: share! });
    return 1;
  },
  is_punctuation: (code) => Number(/\p{P}|[$+<=>^`|~]/u.test(String.fromCodePoint(code!))),
  is_mark: (code) => Number(/\p{M}/u.test(String.fromCodePoint(code!))),
  clock_time_get: (_clock, _precision, at) => {
    new DataView(engine.memory.buffer).setBigUint64(at!, BigInt(Math.round(performance.now() * 1e6)), true);
    return 0;
  },
};

const notSupported = (): number => 52; // WASI's errno

async function start(gzipped: ArrayBuffer): Promise<void> {
  // Compiled while it is unzipped.
  const stream = new Blob([gzipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  const module = await WebAssembly.compileStreaming(new Response(stream, { headers: { "content-type": "application/wasm" } }));
  const imports: Record<string, Record<string, WebAssembly.ImportValue>> = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    (imports[from] ??= {})[name] = host[name] ?? notSupported;
  }
  engine = (await WebAssembly.instantiate(module, imports)).exports as unknown as Exports;
  engine._initialize();
  stack = engine.__stack_pointer.value;
}

/** Calls with each part's bytes laid into the engine's memory. An error takes the stack back to where it began. */
function call(use: (...at: number[]) => number, ...parts: ArrayBuffer[]): number {
  failure = null;
  const places: number[] = [];
  try {
    const given = parts.flatMap((part) => {
      const at = engine.mh_alloc(part.byteLength);
      places.push(at);
      new Uint8Array(engine.memory.buffer, at, part.byteLength).set(new Uint8Array(part));
      return [at, part.byteLength];
    });
    return use(...given);
  } catch (trap) {
    engine.__stack_pointer.value = stack;
    throw failure === null ? trap : new Error(failure);
  } finally {
    for (const at of places) engine.mh_free(at);
  }
}

const bytesOf = (text: string): ArrayBuffer => new TextEncoder().encode(text).buffer as ArrayBuffer;

async function act(message: ToWorker): Promise<void> {
  switch (message.do) {
    case "start":
      await start(message.gzippedWasm);
      post({ kind: "started" });
      return;
    case "open_trace":
      post({ kind: "opened", id: call(engine.mh_open_trace, message.bytes) });
      return;
    case "open_model":
      post({ kind: "opened", id: call(engine.mh_open_model, bytesOf(message.name), message.config, message.weights) });
      return;
    case "ask": {
      const json = call(engine.mh_ask, bytesOf(message.question)) === 0;
      const at = engine.mh_answer_data();
      const bytes = engine.memory.buffer.slice(at, at + engine.mh_answer_size());
      post({ kind: "answer", bytes, json }, [bytes]);
      return;
    }
  }
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  act(data).catch((error: unknown) => post({ kind: "failed", why: error instanceof Error ? error.message : String(error) }));
};
