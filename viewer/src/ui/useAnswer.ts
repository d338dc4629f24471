// An answer of the engine for what is shown now; a newer question ends the one before it.
import { useEffect, useState } from "preact/hooks";
import type { AskOptions, Engine } from "../engine/engine";
import { engine, messageOf } from "../state/session";

export type Asked<T> = { state: "waiting"; share: number } | { state: "ready"; value: T } | { state: "failed"; why: string };

/** `question` is null where there is nothing to ask yet. Asked again when one of `parts` changes. */
export function useAnswer<T>(question: ((engine: Engine, options: AskOptions) => Promise<T>) | null, parts: readonly unknown[]): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ state: "waiting", share: 0 });
  const whom = engine.value;
  useEffect(() => {
    if (!whom || !question) return;
    const control = new AbortController();
    question(whom, { signal: control.signal }).then(
      (value) => control.signal.aborted || setAsked({ state: "ready", value }),
      (error: unknown) => control.signal.aborted || setAsked({ state: "failed", why: messageOf(error) }),
    );
    return () => control.abort();
  }, [whom, question === null, ...parts]);
  return asked;
}
