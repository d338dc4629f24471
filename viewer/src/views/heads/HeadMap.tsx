// The chosen head as a map.
import { useMemo } from "preact/hooks";
import type { Trace } from "../../engine/questions";
import { headSource } from "../../maps/source";
import { engine, head } from "../../state/session";
import { t } from "../../texts";
import { TextMap } from "./TextMap";

export function HeadMap({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const source = useMemo(() => engine.value && headSource(engine.value, trace, [layer, index]), [engine.value, trace.id, layer, index]);
  if (!source) return null;
  return <TextMap caption={texts.mapCaption(`${layer}.${index}`)} source={source} trace={trace} formula={texts.weightFormula} />;
}
