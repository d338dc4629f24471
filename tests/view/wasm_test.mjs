// The engine in WebAssembly answers as the native one does: scripts/wasm --test. The last line counts.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine, readTensors, writeTensors } from "./engine.mjs";

// Of two families of bits on the same q, k and lse, with keys of unit size. A whole encoder is compared to the bit alone:
// there q and k differ too, and weights by up to half of what scores do (docs/wasm.md).
const kMostError = 1e-6;
const folder = mkdtempSync(join(tmpdir(), "manyheads-wasm-"));
const model = "models/all-MiniLM-L6-v2";
const config = readFileSync(`${model}/config.json`, "utf8");
const weights = readFileSync(`${model}/model.safetensors`);
const goldens = ["cat", "pair", "unicode", "longer", "batch", "full"];

// The same numbers in any run.
let state = 7;
const random = (below) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};
const normal = () => Math.sqrt(-2 * Math.log((random(1e6) + 1) / 1e6)) * Math.cos((2 * Math.PI * random(1e6)) / 1e6);

function native(lines, isa = "") {
  const out = execFileSync(process.env.MANYHEADS_ANSWERS, {
    input: lines.map((line) => JSON.stringify(line) + "\n").join(""),
    env: { ...process.env, MANYHEADS_ISA: isa },
    maxBuffer: 1 << 30,
  });
  const answers = [];
  for (let at = 0; at < out.length; ) {
    const size = out.readUInt32LE(at), kind = out[at + 4];
    const bytes = new Uint8Array(out.subarray(at + 5, at + 5 + size));
    answers.push(kind === 1 ? readTensors(bytes) : kind === 0 ? JSON.parse(new TextDecoder().decode(bytes)) : new TextDecoder().decode(bytes));
    at += 5 + size;
  }
  return answers;
}

const check = (holds, what) => {
  if (!holds) throw new Error(what);
};

// The largest difference of two answers' numbers; texts and shapes must be equal.
function difference(a, b, where = "") {
  if (typeof a === "number" && typeof b === "number") return a === b ? 0 : Math.abs(a - b);
  if (ArrayBuffer.isView(a)) {
    check(a.length === b.length, `${where}: ${a.length} and ${b.length} numbers`);
    let most = 0;
    for (let i = 0; i < a.length; ++i) if (a[i] !== b[i]) most = Math.max(most, Math.abs(Number(a[i]) - Number(b[i])) || Infinity);
    return most;
  }
  if (typeof a === "string" && a !== b && a.trim() !== "" && b.trim() !== "") {
    const off = Math.abs(Number(a) - Number(b));  // metadata are texts
    if (!Number.isNaN(off)) return off;
  }
  if (a === null || typeof a !== "object") {
    check(a === b, `${where}: ${a} and ${b}`);
    return 0;
  }
  check(JSON.stringify(Object.keys(a)) === JSON.stringify(Object.keys(b)), `${where}: other names`);
  return Math.max(0, ...Object.keys(a).map((key) => difference(a[key], b[key], `${where}.${key}`)));
}

// Answers have the bits of the native engine without fused multiply-adds, which WebAssembly has not.
function checkBits(lines, found) {
  native(lines, process.env.MANYHEADS_PLAIN_ISA).forEach((expected, i) => {
    if (lines[i].ask === undefined) return;
    check(typeof expected !== "string", expected);
    const off = difference(found[i], expected, lines[i].ask);
    check(off === 0, `${JSON.stringify(lines[i]).slice(0, 200)}: off by ${off}`);
  });
}

// A trace of random heads, written as any program may.
function randomTrace({ heads = 2, kvHeads = 1, tokens, d = 32, causal = false, large = 1 }) {
  const q = Float32Array.from({ length: heads * tokens * d }, normal);
  const k = Float32Array.from({ length: kvHeads * tokens * d }, () => large * normal());
  const lse = new Float32Array(heads * tokens), scale = 1 / Math.sqrt(d);
  for (let h = 0; h < heads; ++h) {
    const from = Math.floor(h / (heads / kvHeads)) * tokens * d;
    for (let i = 0; i < tokens; ++i) {
      const scores = [];
      for (let j = 0; j < (causal ? i + 1 : tokens); ++j) {
        let sum = 0;
        for (let c = 0; c < d; ++c) sum += q[(h * tokens + i) * d + c] * k[from + j * d + c];
        scores.push(scale * sum);
      }
      const most = Math.max(...scores);
      lse[h * tokens + i] = most + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - most), 0));
    }
  }
  return writeTensors(
    {
      "layers.0.q": { dtype: "F32", shape: [heads, tokens, d], data: q },
      "layers.0.k": { dtype: "F32", shape: [kvHeads, tokens, d], data: k },
      "layers.0.lse": { dtype: "F32", shape: [heads, tokens], data: lse },
    },
    { manyheads_trace: "1", tokens: JSON.stringify(Array(tokens).fill("a")), scale: String(scale), causal: String(causal) },
  );
}

// F32 weights as BF16, rounded to nearest even.
function rounded(bytes) {
  const { tensors, metadata } = readTensors(new Uint8Array(bytes));
  for (const tensor of Object.values(tensors)) {
    if (tensor.dtype !== "F32") continue;
    const words = new Uint32Array(tensor.data.buffer);
    tensor.dtype = "BF16";
    tensor.data = Uint16Array.from(words, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
  }
  return writeTensors(tensors, metadata);
}

function texts() {
  return goldens.flatMap((name) => {
    const { tensors, metadata } = readTensors(new Uint8Array(readFileSync(`tests/golden/model/minilm_${name}.safetensors`)));
    const [rows, tokens] = tensors.input_ids.shape;
    return Array.from({ length: rows }, (_, row) => {
      const count = Number(tensors.lengths.data[row]);
      const part = (all) => Array.from(all.data.slice(row * tokens, row * tokens + count), Number);
      const [text, text2] = JSON.parse(metadata.texts)[row];
      return {
        name: `${name} ${row}`,
        embedding: tensors.sentence_embedding.data.slice(row * 384, row * 384 + 384),
        question: { ask: "encode", ids: part(tensors.input_ids), type_ids: part(tensors.token_type_ids), text, ...(text2 === null ? {} : { text2 }),
          tokens: Array(count).fill("a") },
      };
    });
  });
}

async function encodes(engine, bytes, path) {
  writeFileSync(path, bytes);
  const id = engine.openModel("minilm", config, bytes);
  const lines = [{ open_model: ["minilm", `${model}/config.json`, path] }], found = [null];
  for (const { question, name } of texts()) {
    const ask = (line) => (lines.push(line), found.push(engine.ask(line)));
    ask({ ...question, model: id });
    const trace = found.at(-1).trace;
    for (let i = 0; i < 3; ++i) ask({ ask: "patch", trace, layer: random(6), head: random(12) });
    if (name === "cat 0") {
      ask({ ask: "pipeline", trace, model: id, layer: 2, head: 8 });
      ask({ ask: "row", trace, layer: 1, head: 8, row: 2 });
      ask({ ask: "why", trace, layer: 1, head: 8, row: 2, key: 3 });
      ask({ ask: "head_output", trace, layer: 1, head: 8, row: 2 });
      ask({ ask: "thumbnails", trace, size: 16 });
      ask({ ...question, model: id, heads_off: [[1, 8, 0], [2, 3, 0.5]] });
    }
  }
  checkBits(lines, found);
  return id;
}

const tests = {
  async "MiniLM in F32 has the native bits, and is PyTorch's"() {
    const engine = await Engine.make();
    const id = await encodes(engine, new Uint8Array(weights), join(folder, "f32.safetensors"));
    for (const { question, embedding, name } of texts()) {
      const off = difference(Float32Array.from(engine.ask({ ...question, model: id }).embedding), embedding);
      check(off <= 2e-6, `${name}: off from transformers by ${off}`);
    }
    return "";
  },
  async "MiniLM in BF16 has the native bits"() {
    await encodes(await Engine.make(), rounded(weights), join(folder, "bf16.safetensors"));
    return "";
  },
  async "200 random patches, maps and means have the native bits"() {
    const engine = await Engine.make(), lines = [], found = [];
    const shapes = [{ tokens: 150 }, { tokens: 333, causal: true, heads: 4, kvHeads: 2, d: 64 }, { tokens: 97, d: 33, large: 30 }];
    shapes.forEach((shape, i) => {
      const bytes = randomTrace(shape);
      writeFileSync(join(folder, `t${i}`), bytes);
      lines.push({ open_trace: join(folder, `t${i}`) });
      found.push(engine.openTrace(bytes));
    });
    const ask = (line) => (lines.push(line), found.push(engine.ask(line)));
    for (let i = 0; i < 200; ++i) {
      const trace = 1 + random(3), { tokens, heads = 2 } = shapes[trace - 1];
      const range = () => [random(tokens), random(tokens)].sort((a, b) => a - b).map((at, end) => at + end);
      ask({ ask: "patch", trace, layer: 0, head: random(heads), rows: range(), keys: range(), size: [512, 16][random(2)], pool: ["mean", "max"][random(2)] });
    }
    for (const trace of [1, 2, 3]) {
      for (const coarse of [false, true]) ask({ ask: "map", trace, layer: 0, head: 1, coarse });
      ask({ ask: "mean", trace, heads: [[0, 0], [0, 1]], size: 64 });
    }
    checkBits(lines, found);
    // And those of this machine's fused products, up to their roundings.
    const expected = native(lines);
    let most = 0;
    for (let i = 0; i < lines.length; ++i) {
      if (lines[i].ask === "map") {
        // Sums over all queries grow with the text; of almost equal weights another key may stand. Their bits are checked above.
        for (const file of [found[i], expected[i]]) {
          for (const name of ["column_mass", "distance_mass", "entropy", "top_keys"]) delete file.tensors[name];
          delete file.metadata.distance_mean;
          delete file.metadata.distance_variance;
        }
      }
      const off = difference(found[i], expected[i], JSON.stringify(lines[i]));
      // 1e-5 is what a patch promises where keys are large.
      const large = (shapes[lines[i].trace - 1]?.large ?? 1) > 1;
      check(off <= (large ? 1e-5 : kMostError), `${JSON.stringify(lines[i])}: off by ${off}`);
      if (!large) most = Math.max(most, off);
    }
    return `largest difference ${most}`;
  },
  async "a layer on given weights has the native bits"() {
    const engine = await Engine.make(), lines = [], found = [];
    const tensor = (...shape) => ({ dtype: "F32", shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, normal) });
    const open = (name, tensors) => {
      const bytes = writeTensors(tensors), path = join(folder, name);
      writeFileSync(path, bytes);
      lines.push({ open_tensors: path });
      found.push(engine.openTensors(bytes));
      return found.at(-1);
    };
    const weights = open("layer", { in_proj_weight: tensor(144, 48), in_proj_bias: tensor(144), "out_proj.weight": tensor(48, 48), "out_proj.bias": tensor(48) });
    const input = open("input", { query: tensor(2, 37, 48), key: tensor(2, 91, 48) });
    for (const heads of [1, 3, 16]) {
      for (const causal of [false, true]) {
        lines.push({ ask: "layer", weights, input, heads, causal, with_weights: true });
        found.push(engine.ask(lines.at(-1)));
      }
    }
    checkBits(lines, found);
    return "";
  },
  async "errors arrive as text, and the next question is answered"() {
    const engine = await Engine.make();
    const id = engine.openTrace(randomTrace({ tokens: 9 }));
    const lines = [{}, { ask: "nothing" }, { ask: "trace", trace: 9 }, { ask: "time", d_model: 512, heads: 7 },
      { ask: "patch", trace: 1, layer: 0, head: 0, rows: [0, 10] }, { ask: "patch", trace: 1, layer: 1, head: 0 },
      { ask: "head_output", trace: 1, layer: 0, head: 0, row: 1 }, { ask: "encode", model: 1 }];
    const expected = native([{ open_trace: join(folder, "t0") }, ...lines.slice(0, 4)]).slice(1);
    const before = JSON.stringify(engine.ask({ ask: "trace", trace: id }));
    for (let round = 0; round < 50; ++round) {
      lines.forEach((line, i) => {
        let text = "";
        try {
          engine.ask(line);
        } catch (error) {
          text = error.message;
        }
        check(text !== "" && !text.startsWith("without a text"), `${JSON.stringify(line)}: ${text || "answered"}`);
        if (i < expected.length) check(text === expected[i], `${text}; natively ${expected[i]}`);
      });
      check(JSON.stringify(engine.ask({ ask: "trace", trace: id })) === before, "another answer after an error");
    }
    check(engine.ask({ ask: "dims", d_model: 512, heads: [7] }).heads[0].dropped === 1, "dims");
    return "";
  },
  async "100 malformed traces are refused by a text"() {
    const engine = await Engine.make();
    const good = randomTrace({ tokens: 5, d: 4 });
    const id = engine.openTrace(good);
    const head = new TextDecoder().decode(good.subarray(8, 8 + Number(new DataView(good.buffer).getBigUint64(0, true))));
    const withHead = (text) => {
      const bytes = new TextEncoder().encode(text), out = new Uint8Array(8 + bytes.length + good.length - 8 - head.length);
      new DataView(out.buffer).setBigUint64(0, BigInt(bytes.length), true);
      out.set(bytes, 8);
      out.set(good.subarray(8 + head.length), 8 + bytes.length);
      return out;
    };
    const bad = Array.from({ length: 60 }, (_, i) => good.subarray(0, Math.floor((i * (good.length - 1)) / 60)));
    for (const [from, to] of [["F32", "F16"], ["F32", "U8"], ["F32", "X"], ['"1"', '"2"'], ["[2,5,4]", "[2,4,5]"], ["[2,5,4]", "[3,5,4]"],
      ["[2,5,4]", "[-2,5,4]"], ["[1,5,4]", "[1,4,5]"], ["[2,5]", "[5,2]"], ["[2,5]", "[10]"], ["layers.0.k", "layers.1.k"], ["layers.0.lse", "layers.0.x"],
      ["layers.0.q", "layers.7.q"], ["manyheads_trace", "other_trace"], ["tokens", "token"], ["scale", "size"], ['"false"', '"maybe"'], ["data_offsets", "offsets"],
      ["[0,160]", "[0,161]"], ["[0,160]", "[160,0]"], ["[0,160]", "[0,1e99]"], ["dtype", "type"], ["shape", "form"], ["{", "["], ["}", "]"], ["\\\"a\\\"", "7"]]) {
      check(head.includes(from), from);
      bad.push(withHead(head.replace(from, to)));
    }
    for (let i = 0; bad.length < 100; ++i) bad.push(withHead("[".repeat(10 ** (i % 5)) + String.fromCharCode(i)));
    let answered = 0;
    for (const bytes of bad) {
      try {
        engine.openTrace(bytes);
        ++answered;
      } catch (error) {
        check(!error.message.startsWith("without a text") && error.message.length > 5, error.message);
      }
    }
    check(answered === 0, `${answered} malformed traces were opened`);
    check(engine.ask({ ask: "trace", trace: id }).queries === 5, "the good one is gone");
    return `${bad.length} traces`;
  },
  async "layers below the clock's step are repeated, and what binds each step is measured"() {
    for (const step of [0.1, 1, 5]) {  // milliseconds
      const engine = await Engine.make(() => 1, () => Math.floor(performance.now() / step) * step);
      const time = engine.ask({ ask: "time", d_model: 8, heads: 4, tokens: 1 });
      const lasted = 1e3 * time.seconds * time.repeats;
      // One run takes some microseconds, which such a clock sees as none. How long the counted ones take depends on what
      // else runs.
      check(time.repeats > 100 && lasted >= step, `${step} ms: ${time.repeats} runs in ${lasted} ms`);
      check(time.over_single_head > 0 && time.where === "WebAssembly", JSON.stringify(time));
      if (step > 1) continue;
      const dims = () => engine.ask({ ask: "dims", d_model: 512, heads: [8], tokens: 2048 });
      check(dims().limits === null, "limits before they are measured");
      const limits = engine.ask({ ask: "limits" });
      check(limits.fma_gflops > 0 && limits.memory_gbs > 0 && limits.memory_bytes === 2 ** 26, JSON.stringify(limits));
      check(difference(engine.ask({ ask: "limits" }), limits) === 0, "limits are measured again");
      const { heads: [cut], limits: said } = dims();
      check(said.fma_gflops === limits.fma_gflops && said.memory_gbs === limits.memory_gbs, JSON.stringify(said));
      for (const each of [...cut.steps, cut.fused]) {
        const binds = each.intensity < limits.fma_gflops / limits.memory_gbs ? "memory" : "fma";
        check(each.limit === binds, `${each.step}: ${each.limit}, not ${binds}`);
      }
    }
    return "";
  },
  async "progress cancels"() {
    const shares = [];
    const engine = await Engine.make((share) => (shares.push(share), shares.length < 2 ? 1 : 0));
    engine.openTrace(randomTrace({ tokens: 300, d: 8 }));
    check(engine.ask({ ask: "map", trace: 1, layer: 0, head: 0 }).cancelled === true, "was not cancelled");
    check(shares.length === 2, `progress was told ${shares.length} times`);
    return "";
  },
};

let passed = 0, failed = 0;
for (const [name, test] of Object.entries(tests)) {
  try {
    const said = await test();
    ++passed;
    console.log(`${name}${said ? ": " + said : ""}`);
  } catch (error) {
    ++failed;
    console.error(`FAILED ${name}: ${error.message}`);
  }
}
rmSync(folder, { recursive: true });
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed === 0 ? 0 : 1;
