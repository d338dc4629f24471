// Bundles the page into one file, dist/page.html: style, script and engine inlined, the latter two gzipped; style and script named by
// hash in its security policy.
//   node build.mjs [--wasm FILE]     with FILE inside, the page computes without a server
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const { wasm: wasmFile } = parseArgs({ options: { wasm: { type: "string" } } }).values;

const common = { bundle: true, write: false, minify: true, target: "es2022", charset: "utf8", legalComments: "none", logLevel: "warning" };

// The worker starts from a blob, so its source travels as text inside the loader.
const worker = await build({ ...common, entryPoints: ["src/engine/worker.ts"], format: "iife" });

const page = await build({
  ...common,
  entryPoints: ["src/main.tsx"],
  format: "iife",
  outdir: "dist",
  jsx: "automatic",
  jsxImportSource: "preact",
});
const output = (end) => page.outputFiles.find((file) => file.path.endsWith(end)).text.trim();

const loader = await build({
  ...common,
  entryPoints: ["src/loader.ts"],
  format: "iife",
  define: {
    WORKER_SOURCE: JSON.stringify(worker.outputFiles[0].text.trim()).replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--"),
    TOO_OLD: JSON.stringify(
      "This page needs a browser of 2023 or later, and all of its file. Diese Seite braucht einen Browser ab 2023 und ihre ganze Datei.",
    ),
  },
});

const script = output(".js");
const loading = loader.outputFiles[0].text.trim();
const style = output(".css");
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(loading)} ${hash(script)} 'wasm-unsafe-eval'`,
  `style-src ${hash(style)}`,
  "img-src data: blob:",
  "worker-src blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** What the page unpacks itself. */
const packed = (id, bytes) =>
  `<script id="${id}" type="application/octet-stream">${gzipSync(bytes, { level: 9 }).toString("base64")}</script>`;

const filled = {
  __WASM__: wasmFile ? packed("wasm", readFileSync(wasmFile)) : "",
  __CSP__: policy,
  __STYLE__: style,
  __CODE__: packed("code", script),
  __LOADER__: loading,
};
const html = readFileSync("page.html", "utf8").replace(/__(CSP|STYLE|CODE|LOADER|WASM)__/g, (name) => filled[name]);
mkdirSync("dist", { recursive: true });
writeFileSync("dist/page.html", html);
console.log(`dist/page.html: ${html.length.toLocaleString("en")} characters`);
