// Answers that the page carries: a file without a model holds those that a trace alone cannot give.
import { storedBytes, type StoredAnswer } from "../start";
import { readAnswer, type Answer, type AskOptions, type Engine, type Question } from "./engine";

export const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, each: unknown) =>
    typeof each === "object" && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );

/** Looks among the stored answers first, then asks. */
export class StoredFirst implements Engine {
  private readonly stored: Map<string, StoredAnswer>;

  constructor(
    private readonly behind: Engine,
    answers: StoredAnswer[],
  ) {
    this.stored = new Map(answers.map((answer) => [canonical(answer.question), answer]));
  }

  async ask(question: Question, options?: AskOptions): Promise<Answer> {
    const stored = this.stored.get(canonical(question));
    if (!stored) return this.behind.ask(question, options);
    return readAnswer(await storedBytes(stored), stored.type === "application/json");
  }
}
