// An answer of the engine for what is shown now; a newer question ends the one before it.
import { useEffect, useState } from "preact/hooks";
import type { AskOptions, Engine } from "../engine/engine";
import { engine, messageOf } from "../state/session";

export type Asked<T> = { state: "waiting" } | { state: "ready"; value: T } | { state: "failed"; why: string };

/**
 * Asked again when one of `parts` changes. The answer before stays until then, unless the first part changed: it is of something
 * else (another text, say) and goes at once. `question` is null where there is nothing to ask yet.
 */
export function useAnswer<T>(
  question: ((engine: Engine, options: AskOptions) => Promise<T>) | null,
  parts: readonly [subject: unknown, ...others: unknown[]],
): Asked<T> {
  const [last, setLast] = useState<{ asked: Asked<T>; subject: unknown }>({ asked: { state: "waiting" }, subject: undefined });
  const whom = engine.value;
  const [subject] = parts;
  useEffect(() => {
    if (!whom || !question) return;
    const control = new AbortController();
    const answered = (asked: Asked<T>): void => {
      if (!control.signal.aborted) setLast({ asked, subject });
    };
    question(whom, { signal: control.signal }).then(
      (value) => answered({ state: "ready", value }),
      (error: unknown) => answered({ state: "failed", why: messageOf(error) }),
    );
    return () => control.abort();
  }, [whom, question === null, ...parts]);
  return last.subject === subject ? last.asked : { state: "waiting" };
}
