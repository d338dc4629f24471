// An instance of the engine's module, as a page makes it: docs/wasm.md.
import { readFileSync } from "node:fs";

const module = await WebAssembly.compile(readFileSync(process.env.MANYHEADS_WASM));
const letters = new TextEncoder();

export class Engine {
  static async make(progress = () => 1, milliseconds = () => performance.now()) {
    const engine = new Engine();
    const imports = {};
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      const known = {
        error: (at, size) => (engine.failure = engine.text(at, size)),
        progress,
        is_punctuation: (c) => /\p{P}|[$+<=>^`|~]/u.test(String.fromCodePoint(c)),
        is_mark: (c) => /\p{M}/u.test(String.fromCodePoint(c)),
        clock_time_get: (_clock, _precision, at) => {
          new DataView(engine.all.memory.buffer).setBigUint64(at, BigInt(Math.round(milliseconds() * 1e6)), true);
          return 0;
        },
      };
      (imports[from] ??= {})[name] = known[name] ?? (() => 52); // WASI's "not supported"
    }
    engine.all = (await WebAssembly.instantiate(module, imports)).exports;
    engine.all._initialize();
    engine.stack = engine.all.__stack_pointer.value;
    return engine;
  }

  text(at, size) {
    return new TextDecoder().decode(new Uint8Array(this.all.memory.buffer, at, size));
  }

  // Calls a function with bytes or texts laid into memory. An error takes the stack back to where it began.
  call(name, ...parts) {
    this.failure = null;
    const places = [];
    try {
      const args = parts.flatMap((part) => {
        const bytes = typeof part === "string" ? letters.encode(part) : part;
        const at = this.all.mh_alloc(bytes.length);
        places.push(at);
        new Uint8Array(this.all.memory.buffer, at, bytes.length).set(bytes);
        return [at, bytes.length];
      });
      return this.all[name](...args);
    } catch (trap) {
      this.all.__stack_pointer.value = this.stack;
      throw new Error(this.failure ?? `without a text: ${trap.message}`);
    } finally {
      for (const at of places) this.all.mh_free(at);
    }
  }

  openTrace(bytes) {
    return this.call("mh_open_trace", bytes);
  }
  openTensors(bytes) {
    return this.call("mh_open_tensors", bytes);
  }
  openModel(name, config, weights) {
    return this.call("mh_open_model", name, config, weights);
  }
  close(id) {
    try {
      this.all.mh_close(id);
    } catch {
      this.all.__stack_pointer.value = this.stack;
      throw new Error(this.failure);
    }
  }

  ask(question) {
    const numbers = this.call("mh_ask", JSON.stringify(question)) === 1;
    const at = this.all.mh_answer_data();
    const bytes = new Uint8Array(this.all.memory.buffer.slice(at, at + this.all.mh_answer_size()));
    return numbers ? readTensors(bytes) : JSON.parse(new TextDecoder().decode(bytes));
  }
}

const kinds = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array, I32: Int32Array, BOOL: Uint8Array, U8: Uint8Array };

export function readTensors(bytes) {
  const head = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const entries = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + head)));
  const file = { metadata: entries.__metadata__ ?? {}, tensors: {} };
  for (const [name, entry] of Object.entries(entries)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [begin, end] } = entry;
    const data = bytes.slice(8 + head + begin, 8 + head + end);
    file.tensors[name] = { dtype, shape, data: kinds[dtype] ? new kinds[dtype](data.buffer) : data };
  }
  return file;
}

export function writeTensors(tensors, metadata = {}) {
  let end = 0;
  const entries = { __metadata__: metadata };
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    entries[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  let head = JSON.stringify(entries);
  while (letters.encode(head).length % 8 !== 0) head += " ";
  const text = letters.encode(head);
  const bytes = new Uint8Array(8 + text.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  let at = 8 + text.length;
  for (const { data } of Object.values(tensors)) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}
