// The chosen head as a map.
import { useMemo } from "preact/hooks";
import type { Trace } from "../../engine/questions";
import { MapView } from "../../maps/MapView";
import { headSource } from "../../maps/source";
import { chosenKey, chosenQuery } from "../../state/app";
import { engine, head, key, query } from "../../state/session";
import { t } from "../../texts";
import { mostOf } from "./most";
import { camera, pool, root } from "./state";

export function HeadMap({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const source = useMemo(() => engine.value && headSource(engine.value, trace, [layer, index]), [engine.value, trace.id, layer, index]);
  if (!source) return null;
  return (
    <MapView
      caption={texts.mapCaption(`${layer}.${index}`)}
      source={source}
      rows={trace.tokens}
      keys={trace.tokens}
      pool={pool}
      root={root}
      camera={camera}
      chosen={{ row: query.value, key: key.value }}
      onChoose={(row, column) => {
        chosenQuery.value = row;
        chosenKey.value = column;
      }}
      most={mostOf()}
      formula={texts.weightFormula}
    />
  );
}
