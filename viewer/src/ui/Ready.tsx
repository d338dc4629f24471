import type { ComponentChildren } from "preact";
import { t } from "../texts";
import type { Asked } from "./useAnswer";

/** Shows what was asked once it is there; else that it is awaited, or why it is not. */
export function Ready<T>({ asked, children }: { asked: Asked<T>; children: (value: T) => ComponentChildren }) {
  if (asked.state === "failed") return <p class="trouble" role="alert">{t.value.frame.failed(asked.why)}</p>;
  if (asked.state === "waiting") return <p class="quiet" role="status">{t.value.frame.opening}</p>;
  return <>{children(asked.value)}</>;
}
