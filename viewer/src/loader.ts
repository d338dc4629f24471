// Unpacks the page's own script and runs it, while the page's data may still be read (main.tsx awaits it). The security policy names both by
// their hashes.
import { bytesOfBase64 } from "./base64";
import { early } from "./early";

declare const TOO_OLD: string;
declare const WORKER_SOURCE: string;

function startWorker(): void {
  const worker = new Worker(URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" })));
  worker.onerror = ({ message }) => (early.workerFailed = message || "the worker did not start");
  early.engineWorker = worker;
}

async function load(): Promise<void> {
  startWorker(); // the page's own script ends it where a server answers
  const bytes = bytesOfBase64(document.getElementById("code")?.textContent ?? "");
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.body.append(script);
}

load().catch(() => {
  document.getElementById("page")!.textContent = TOO_OLD;
});
