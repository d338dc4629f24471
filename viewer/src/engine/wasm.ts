// Questions to WebAssembly in a worker, which starts from a blob: the page asks nobody for it.
import { aborted, readAnswer, type Answer, type AskOptions, type Engine, type Question } from "./engine";
import type { FromWorker, ToWorker } from "./messages";

declare const WORKER_SOURCE: string;

interface Waiting {
  done: (message: FromWorker) => void;
  failed: (error: Error) => void;
  progress: ((share: number) => void) | undefined;
}

type Request = ToWorker extends infer Each ? (Each extends ToWorker ? Omit<Each, "id"> : never) : never;

export class WasmEngine implements Engine {
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor(wasm: ArrayBuffer) {
    this.worker = new Worker(URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.heard(data);
    this.worker.onerror = (event) => this.fail(new Error(event.message || "the worker did not start"));
    void this.send({ do: "start", wasm }).catch((error: Error) => this.fail(error));
  }

  async openTrace(bytes: ArrayBuffer): Promise<number> {
    const message = await this.send({ do: "open_trace", bytes });
    return "opened" in message ? message.opened : NaN;
  }

  async openModel(name: string, config: ArrayBuffer, weights: ArrayBuffer): Promise<number> {
    const message = await this.send({ do: "open_model", name, config, weights });
    return "opened" in message ? message.opened : NaN;
  }

  async ask(question: Question, { progress, signal }: AskOptions = {}): Promise<Answer> {
    if (signal?.aborted) throw aborted();
    const asked = this.send({ do: "ask", question: JSON.stringify(question) }, progress);
    const message = await (signal ? Promise.race([asked, ended(signal)]) : asked);
    if (!("answer" in message)) throw new Error("the worker gave no answer");
    return readAnswer(message.answer, message.json);
  }

  private send(request: Request, progress?: (share: number) => void): Promise<FromWorker> {
    const id = ++this.last;
    return new Promise((done, failed) => {
      this.waiting.set(id, { done, failed, progress });
      this.worker.postMessage({ ...request, id } satisfies ToWorker);
    });
  }

  private heard(message: FromWorker): void {
    const waiting = this.waiting.get(message.id);
    if (!waiting) return;
    if ("progress" in message) {
      waiting.progress?.(message.progress);
      return;
    }
    this.waiting.delete(message.id);
    if ("error" in message) waiting.failed(new Error(message.error));
    else waiting.done(message);
  }

  private fail(error: Error): void {
    for (const { failed } of this.waiting.values()) failed(error);
    this.waiting.clear();
  }
}

function ended(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted()), { once: true }));
}
