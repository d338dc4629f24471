// Runs the tests of what needs no page: each file of ../tests/viewer/unit bundled and handed to node's own runner.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const folder = "../tests/viewer/unit";
const out = mkdtempSync(join(tmpdir(), "manyheads-viewer-"));
try {
  const entryPoints = readdirSync(folder).filter((name) => name.endsWith("_test.ts")).map((name) => join(folder, name));
  await build({ entryPoints, outdir: out, bundle: true, platform: "node", format: "esm", outExtension: { ".js": ".mjs" }, logLevel: "warning" });
  const bundles = readdirSync(out).map((name) => join(out, name));
  const { status } = spawnSync(process.execPath, ["--test", ...bundles], { stdio: "inherit" });
  process.exitCode = status ?? 1;
} finally {
  rmSync(out, { recursive: true });
}
