// Unpacks the page's own script and runs it, while the page's data may still be read (main.tsx awaits it). The security policy names both by
// their hashes.
import { gunzipSync, strFromU8 } from "fflate";
import { bytesOfBase64 } from "./base64";
import { early } from "./early";

declare const TOO_OLD: string;
declare const WORKER_SOURCE: string;

function startWorker(): void {
  const worker = new Worker(URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" })));
  worker.onerror = ({ message }) => (early.workerFailed = message || "the worker did not start");
  early.engineWorker = worker;
}

function load(): void {
  const packed = new Uint8Array(bytesOfBase64(document.getElementById("code")?.textContent ?? ""));
  const script = document.createElement("script");
  // At once: the browser's own stream takes its turns behind those that read the page's data, 100 ms in all.
  script.textContent = strFromU8(gunzipSync(packed));
  document.body.append(script);
  if (!early.begun || typeof DecompressionStream === "undefined") throw new Error("the script does not run");
  startWorker(); // beside the first picture's frame; the page's own script ends it where a server answers
}

try {
  load();
} catch {
  document.getElementById("page")!.textContent = TOO_OLD;
}
