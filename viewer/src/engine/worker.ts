// Runs in a worker of its own: holds the engine's WebAssembly and answers one question after the other.
import type { FromWorker, ToWorker } from "./messages";

interface Exports {
  memory: WebAssembly.Memory;
  _initialize?: () => void;
  mh_alloc(size: number): number;
  mh_free(at: number): void;
  mh_open_trace(at: number, size: number): number;
  mh_open_model(name: number, nameSize: number, config: number, configSize: number, weights: number, weightsSize: number): number;
  mh_ask(at: number, size: number): number;
  mh_answer_data(): number;
  mh_answer_size(): number;
}

let engine: Exports;
let current = 0;
let failure: string | null = null;

const post = (message: FromWorker, transfer: Transferable[] = []): void =>
  (self as unknown as { postMessage(message: unknown, transfer: Transferable[]): void }).postMessage(message, transfer);

const text = (at: number, size: number): string => new TextDecoder().decode(new Uint8Array(engine.memory.buffer, at, size));

// What the C library asks of a system: the clock, and nothing else.
function system(name: string): (...values: (number | bigint)[]) => number {
  const kNotSupported = 52;
  if (name === "clock_time_get") {
    return (_clock, _precision, at) => {
      const now = BigInt(Math.round(performance.now() * 1e6));
      new DataView(engine.memory.buffer).setBigUint64(Number(at), now, true);
      return 0;
    };
  }
  return () => kNotSupported;
}

async function start(wasm: ArrayBuffer): Promise<void> {
  const module = await WebAssembly.compile(wasm);
  const imports: Record<string, Record<string, WebAssembly.ImportValue>> = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    (imports[from] ??= {})[name] =
      name === "progress"
        ? (share: number) => {
            post({ id: current, progress: share });
            return 1;
          }
        : name === "error"
          ? (at: number, size: number) => {
              failure = text(at, size);
            }
          : system(name);
  }
  const instance = await WebAssembly.instantiate(module, imports);
  engine = instance.exports as unknown as Exports;
  engine._initialize?.();
}

function lay(bytes: ArrayBuffer): number {
  const at = engine.mh_alloc(bytes.byteLength);
  new Uint8Array(engine.memory.buffer, at, bytes.byteLength).set(new Uint8Array(bytes));
  return at;
}

function withBytes<T>(all: ArrayBuffer[], use: (...at: number[]) => T): T {
  const places = all.map(lay);
  try {
    return use(...places.flatMap((at, i) => [at, all[i]!.byteLength]));
  } finally {
    places.forEach((at) => engine.mh_free(at));
  }
}

const encode = (value: string): ArrayBuffer => new TextEncoder().encode(value).buffer as ArrayBuffer;

async function answer(message: ToWorker): Promise<void> {
  const { id } = message;
  switch (message.do) {
    case "start":
      await start(message.wasm);
      post({ id, started: true });
      return;
    case "open_trace":
      post({ id, opened: withBytes([message.bytes], engine.mh_open_trace) });
      return;
    case "open_model":
      post({ id, opened: withBytes([encode(message.name), message.config, message.weights], engine.mh_open_model) });
      return;
    case "ask": {
      withBytes([encode(message.question)], engine.mh_ask);
      const at = engine.mh_answer_data();
      const bytes = engine.memory.buffer.slice(at, at + engine.mh_answer_size());
      const first = new Uint8Array(bytes)[0];
      post({ id, answer: bytes, json: first === 0x7b && new Uint8Array(bytes)[7] !== 0 }, [bytes]);
      return;
    }
  }
}

// One after the other: a message waits until the one before it is answered.
let turn = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  turn = turn.then(async () => {
    current = data.id;
    failure = null;
    try {
      await answer(data);
    } catch (error) {
      post({ id: data.id, error: failure ?? (error instanceof Error ? error.message : String(error)) });
    }
  });
};
