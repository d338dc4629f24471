// A map over a text's tokens; all of them look at the same place, and choose the same query and key.
import type { Trace } from "../../engine/questions";
import { MapView } from "../../maps/MapView";
import type { Source } from "../../maps/source";
import { chosenKey, chosenQuery } from "../../state/app";
import { key, query } from "../../state/session";
import { mostOf } from "./most";
import { camera, pool, root } from "./state";

interface TextMapProps {
  caption: string;
  source: Source;
  trace: Trace;
  formula: string;
  /** The share of the work that this map may take at once. */
  share?: number;
  bare?: boolean;
}

export function TextMap({ caption, source, trace, formula, share = 1, bare = false }: TextMapProps) {
  return (
    <MapView
      caption={caption}
      source={source}
      rows={trace.tokens}
      keys={trace.tokens}
      pool={pool}
      root={root}
      camera={camera}
      chosen={{ row: Math.min(query.value, trace.queries - 1), key: Math.min(key.value, trace.keys - 1) }}
      onChoose={(row, column) => {
        chosenQuery.value = row;
        chosenKey.value = column;
      }}
      most={mostOf() * share}
      formula={formula}
      bare={bare}
    />
  );
}
