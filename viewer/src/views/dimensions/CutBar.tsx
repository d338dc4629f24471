// d_model as a bar: one segment a head, and hatched what no head would read.
import type { Cut } from "../../engine/questions";
import { t } from "../../texts";
import { inspectable } from "../../ui/inspectable";
import { Picture } from "../../ui/Picture";
import { dModel } from "./state";

const height = 44;

export function CutBar({ cut }: { cut: Cut }) {
  const texts = t.value.dimensions;
  const d = dModel.value;
  const h = cut.heads;
  const dk = cut.divides ? cut.d_k : cut.floor_d_k;
  const dropped = cut.divides ? 0 : cut.dropped;
  const columns = (from: number, to: number) => texts.columns(from, to - 1);
  return (
    <Picture
      caption={texts.cutCaption}
      table={() => ({
        columns: ["", texts.shape],
        rows: [
          ...Array.from({ length: h }, (_, i): [string, string] => [texts.headOf(i), columns(i * dk, (i + 1) * dk)]),
          ...(dropped ? [[texts.leftOver, columns(h * dk, d)]] : []),
        ],
      })}
    >
      <div class="cut-bar" role="group" aria-label={texts.cutCaption}>
        {Array.from({ length: h }, (_, i) => (
          <span
            class="part"
            style={{ flexGrow: dk }}
            aria-label={`${texts.headOf(i)}, ${columns(i * dk, (i + 1) * dk)}`}
            {...inspectable(() => ({
              key: `cut ${i}`,
              title: texts.headOf(i),
              value: `d_k = ${dk}`,
              shape: columns(i * dk, (i + 1) * dk),
              formula: "d_k = d_model / num_heads",
              source: texts.engineFormula,
            }))}
          >
            {h <= 16 ? i : ""}
          </span>
        ))}
        {dropped > 0 && (
          <span
            class="part left-over"
            style={{ flexGrow: dropped }}
            aria-label={`${texts.leftOver}: ${dropped}`}
            {...inspectable(() => ({
              key: "cut left over",
              title: texts.leftOver,
              value: String(dropped),
              shape: columns(h * dk, d),
              formula: `${d} = ${h} · ${dk} + ${dropped}`,
              source: texts.engineFormula,
              note: texts.leftOverNote,
            }))}
          >
            <svg width="100%" height={height} aria-hidden="true">
              <rect width="100%" height={height} fill="url(#left-over)" />
            </svg>
          </span>
        )}
      </div>
      {cut.divides ? (
        <p class="figure cut-sum">{texts.cut(d, h, dk)}</p>
      ) : (
        <div class="refused" role="status">
          <p class="figure cut-sum">{`${texts.cut(d, h, dk)} + ${dropped}`}</p>
          <p>{texts.floor(d, h, dk, dropped)}</p>
          <p>
            {texts.manyheadsSays} <q lang="en">{cut.problem}</q>
          </p>
        </div>
      )}
    </Picture>
  );
}

/** The hatching of what is left over: drawn once, used by every picture of this view. */
export function Hatching() {
  return (
    <svg class="hidden" aria-hidden="true">
      <pattern id="left-over" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect class="hatch-ground" width="7" height="7" />
        <rect class="hatch-line" width="2.5" height="7" />
      </pattern>
    </svg>
  );
}
