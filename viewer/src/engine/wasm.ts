// Questions to WebAssembly in a worker, which the loader has started from a blob: the page asks nobody for it.
import { early } from "../early";
import { aborted, readAnswer, type Answer, type AskOptions, type Engine, type Question } from "./engine";
import type { FromWorker, ToWorker } from "./messages";

interface Task {
  message: ToWorker;
  done: (message: FromWorker) => void;
  failed: (error: Error) => void;
  progress: ((share: number) => void) | undefined;
}

export class WasmEngine implements Engine {
  private readonly worker: Worker;
  /** The worker hears nothing while it computes: what waits, waits here, where it can still be taken back. */
  private readonly waiting: Task[] = [];
  private running: Task | null = null;
  private broken: Error | null = null;

  constructor(gzippedWasm: ArrayBuffer) {
    this.worker = early.engineWorker!;
    this.broken = early.workerFailed === undefined ? null : new Error(early.workerFailed);
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.heard(data);
    this.worker.onerror = (event) => this.fail(new Error(event.message || "the worker did not start"));
    this.send({ do: "start", gzippedWasm }).catch((error: Error) => this.fail(error));
  }

  openTrace(bytes: ArrayBuffer): Promise<number> {
    return this.open({ do: "open_trace", bytes });
  }

  openModel(name: string, config: ArrayBuffer, weights: ArrayBuffer): Promise<number> {
    return this.open({ do: "open_model", name, config, weights });
  }

  async ask(question: Question, options: AskOptions = {}): Promise<Answer> {
    const message = await this.send({ do: "ask", question: JSON.stringify(question) }, options);
    if (message.kind !== "answer") throw new Error("the worker gave no answer");
    return readAnswer(message.bytes, message.json);
  }

  private async open(message: ToWorker): Promise<number> {
    const answer = await this.send(message);
    if (answer.kind !== "opened") throw new Error("the worker opened nothing");
    return answer.id;
  }

  private send(message: ToWorker, { progress, signal }: AskOptions = {}): Promise<FromWorker> {
    return new Promise((done, failed) => {
      if (this.broken) return failed(this.broken);
      if (signal?.aborted) return failed(aborted());
      const task: Task = { message, done, failed, progress };
      signal?.addEventListener(
        "abort",
        () => {
          const at = this.waiting.indexOf(task);
          if (at >= 0) this.waiting.splice(at, 1);
          failed(aborted()); // what runs already runs to its end, unheard
        },
        { once: true },
      );
      this.waiting.push(task);
      this.next();
    });
  }

  private next(): void {
    if (this.running) return;
    this.running = this.waiting.shift() ?? null;
    if (this.running) this.worker.postMessage(this.running.message);
  }

  private heard(message: FromWorker): void {
    if (message.kind === "progress") {
      this.running?.progress?.(message.share);
      return;
    }
    const task = this.running;
    this.running = null;
    if (message.kind === "failed") task?.failed(new Error(message.why));
    else task?.done(message);
    this.next();
  }

  private fail(error: Error): void {
    this.broken = error;
    for (const task of [this.running, ...this.waiting.splice(0)]) task?.failed(error);
    this.running = null;
  }
}
