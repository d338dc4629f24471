// Who answers the page's questions: the program beside it (server.ts) or WebAssembly inside it (wasm.ts).
import { readSafetensors, type TensorFile } from "./safetensors";

export interface Question {
  ask: string;
  [argument: string]: unknown;
}

export interface AskOptions {
  /** Called with the share that is done, 0 to 1. */
  progress?: (share: number) => void;
  /** Ends the work; the promise then rejects with an AbortError. */
  signal?: AbortSignal;
}

export type Answer = { kind: "json"; value: unknown } | { kind: "tensors"; file: TensorFile };

export interface Engine {
  ask(question: Question, options?: AskOptions): Promise<Answer>;
}

/** An answer's bytes: JSON starts with "{" or "[", a safetensors file with its header's length. */
export function readAnswer(bytes: ArrayBuffer, json: boolean): Answer {
  return json
    ? { kind: "json", value: JSON.parse(new TextDecoder().decode(bytes)) as unknown }
    : { kind: "tensors", file: readSafetensors(bytes) };
}

export const aborted = (): DOMException => new DOMException("no longer wanted", "AbortError");
