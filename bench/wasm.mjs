// Times of the engine in WebAssembly, one thread, beside the native one's: scripts/wasm --bench. Medians.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Engine, writeTensors } from "../tests/view/engine.mjs";

const folder = mkdtempSync(join(tmpdir(), "manyheads-wasm-"));
const model = "models/all-MiniLM-L6-v2";
const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
const show = (what, ms, goal) => console.log(`${what.padEnd(58)} ${ms.toFixed(1).padStart(8)} ms  goal ${goal} ms, ${(ms / goal).toFixed(2)} of it`);

function timed(rounds, run) {
  run();
  return median(Array.from({ length: rounds }, () => {
    const begin = performance.now();
    run();
    return performance.now() - begin;
  }));
}

const engine = await Engine.make();
const id = engine.openModel("minilm", readFileSync(`${model}/config.json`, "utf8"), readFileSync(`${model}/model.safetensors`));
for (const [tokens, goal] of [[10, 40], [128, 250]]) {
  const ids = Array.from({ length: tokens }, (_, i) => 1000 + ((i * 37) % 20000));
  show(`MiniLM, ${tokens} tokens, with the row sums of every head`, timed(9, () => {
    engine.close(engine.ask({ ask: "encode", model: id, ids, tokens: Array(tokens).fill("a"), text: "" }).trace);
  }), goal);
}

// A head whose keys are all alike: lse follows at once.
const tokens = 100000, d = 64;
const q = Float32Array.from({ length: tokens * d }, (_, i) => Math.sin(i));
const k = Float32Array.from({ length: tokens * d }, (_, i) => Math.sin(i % d));
const lse = Float32Array.from({ length: tokens }, (_, i) => {
  let sum = 0;
  for (let c = 0; c < d; ++c) sum += q[i * d + c] * k[c];
  return sum / 8 + Math.log(tokens);
});
const bytes = writeTensors(
  {
    "layers.0.q": { dtype: "F32", shape: [1, tokens, d], data: q },
    "layers.0.k": { dtype: "F32", shape: [1, tokens, d], data: k },
    "layers.0.lse": { dtype: "F32", shape: [1, tokens], data: lse },
    "layers.0.row_sum": { dtype: "F32", shape: [1, tokens], data: new Float32Array(tokens).fill(1) },
  },
  { manyheads_trace: "1", tokens: JSON.stringify(Array(tokens).fill("a")), scale: "0.125" },
);
const trace = engine.openTrace(bytes);
const patch = { ask: "patch", trace, layer: 0, head: 0, rows: [70000, 70512], keys: [12345, 12857] };
show("patch 512 x 512 of 100,000 tokens, D 64, sums known", timed(9, () => engine.ask(patch)), 10);
const path = join(folder, "long");
writeFileSync(path, bytes);
const native = (count) => {
  const begin = performance.now();
  const lines = [{ open_trace: path }, ...Array(count).fill({ ...patch, trace: 1 })];
  execFileSync(process.env.MANYHEADS_ANSWERS, { input: lines.map((line) => JSON.stringify(line) + "\n").join(""), maxBuffer: 1 << 30 });
  return performance.now() - begin;
};
native(1);
show("the same, native, one thread (with the pipe to Node)", (native(101) - native(1)) / 100, 3);
rmSync(folder, { recursive: true });
