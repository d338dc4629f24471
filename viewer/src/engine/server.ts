// Questions to the program that serves the page, on the same origin.
import { aborted, readAnswer, type Answer, type AskOptions, type Engine, type Question } from "./engine";

const pollEvery = 200; // milliseconds between two looks at a job's share

async function failure(response: Response): Promise<Error> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === "string") return new Error(error);
  } catch {
    // No JSON: the status line has to do.
  }
  return new Error(`${response.status} ${response.statusText}`);
}

export class ServerEngine implements Engine {
  private jobs = 0;

  constructor(private readonly base: string) {}

  async ask(question: Question, { progress, signal }: AskOptions = {}): Promise<Answer> {
    const job = progress ? `${Date.now().toString(36)}-${++this.jobs}` : null;
    let poll: ReturnType<typeof setInterval> | undefined;
    if (job && progress) {
      poll = setInterval(() => void this.share(job, progress), pollEvery);
      signal?.addEventListener("abort", () => void fetch(`${this.base}job/${job}`, { method: "DELETE" }).catch(() => {}));
    }
    try {
      const response = await fetch(`${this.base}ask${job ? `?job=${job}` : ""}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(question),
        signal: signal ?? null,
      });
      if (signal?.aborted) throw aborted();
      if (!response.ok) throw await failure(response);
      const json = response.headers.get("Content-Type")?.startsWith("application/json") ?? false;
      return readAnswer(await response.arrayBuffer(), json);
    } finally {
      clearInterval(poll);
    }
  }

  private async share(job: string, progress: (share: number) => void): Promise<void> {
    try {
      const response = await fetch(`${this.base}job/${job}`);
      if (response.ok) progress(((await response.json()) as { share: number }).share);
    } catch {
      // The question itself reports what is wrong.
    }
  }
}
