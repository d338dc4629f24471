// Time against the number of heads, one head = 1, drawn while it is measured.
import type { Cut, Time } from "../../engine/questions";
import { fixed, grouped, t } from "../../texts";
import { inspectable } from "../../ui/inspectable";
import { Picture } from "../../ui/Picture";
import { numHeads } from "./state";
import { failed, measure, measuring, points, stop } from "./measure";
import { duration } from "./units";

const runs = ({ samples, repeats }: Time): string => `${samples} × ${grouped(repeats)}`;

function samples(of: Time[]): string {
  const repeats = of.map((point) => point.repeats);
  return t.value.dimensions.samples(of[0]!.samples, grouped(Math.min(...repeats)), grouped(Math.max(...repeats)));
}

const width = 560;
const height = 240;
const left = 44;
const bottom = 34;

export function Times({ cuts }: { cuts: Cut[] }) {
  const texts = t.value.dimensions;
  const counts = cuts.filter((cut) => cut.divides).map((cut) => cut.heads);
  const measured = [...points.value].sort(([a], [b]) => a - b);
  const where = measured[0]?.[1];
  const top = Math.max(2, ...measured.map(([, point]) => point.over_single_head * 1.1));
  const most = Math.max(16, ...counts);
  const x = (heads: number) => left + 12 + (Math.log2(heads) / Math.log2(most)) * (width - left - 30);
  const y = (ratio: number) => 24 + (1 - ratio / top) * (height - bottom - 24);
  return (
    <Picture
      caption={texts.timeCaption}
      table={() => ({
        columns: [texts.heads, texts.time, texts.over, texts.runs],
        rows: measured.map(([heads, point]) => [heads, duration(point.seconds), fixed(point.over_single_head, 2), runs(point)]),
      })}
    >
      <p class="quiet note">{texts.timeLead}</p>
      <svg class="times" viewBox={`0 0 ${width} ${height}`} role="group" aria-label={texts.timeCaption}>
        {[0, 0.5, 1, 1.5, 2].filter((ratio) => ratio <= top).map((ratio) => (
          <>
            <line class={ratio === 1 ? "one" : "grid"} x1={left} x2={width - 8} y1={y(ratio)} y2={y(ratio)} />
            <text class="figure" x={left - 6} y={y(ratio) + 4} text-anchor="end">{fixed(ratio, 1)}</text>
          </>
        ))}
        {counts.map((heads) => (
          <text class={`figure ${heads === numHeads.value ? "now" : ""}`} x={x(heads)} y={height - bottom + 18} text-anchor="middle">
            {counts.length <= 10 || (heads & (heads - 1)) === 0 ? heads : "·"}
          </text>
        ))}
        <text class="axis" x={left + 4} y={12} text-anchor="start">{texts.timeAxis}</text>
        <text class="axis" x={width - 8} y={height - 4} text-anchor="end">{texts.heads}</text>
        {measured.length > 1 && (
          <polyline points={measured.map(([heads, point]) => `${x(heads)},${y(point.over_single_head)}`).join(" ")} />
        )}
        {measured.map(([heads, point]) => (
          <circle
            class={heads === numHeads.value ? "now" : ""}
            cx={x(heads)}
            cy={y(point.over_single_head)}
            r={6}
            aria-label={`${heads}: ${duration(point.seconds)}, ${fixed(point.over_single_head, 2)}`}
            {...inspectable(() => ({
              key: `time ${heads}`,
              title: `${texts.heads} = ${heads}`,
              value: duration(point.seconds),
              rows: [[texts.over, fixed(point.over_single_head, 2)], [texts.runs, runs(point)]],
              source: `${texts.where[point.where]}, ${texts.threads(point.threads)}, ${point.isa}`,
            }))}
          />
        ))}
      </svg>
      <div class="beside">
        {measuring.value === null ? (
          <button type="button" onClick={() => void measure(counts)}>{texts.measure}</button>
        ) : (
          <button type="button" onClick={stop}>{texts.stop}</button>
        )}
        <span class="quiet" role="status">
          {measuring.value !== null
            ? texts.measuring(measuring.value)
            : where && `${texts.where[where.where]}, ${texts.threads(where.threads)}, ${where.isa}. ${samples(measured.map(([, point]) => point))}`}
        </span>
      </div>
      {failed.value && <p class="trouble" role="alert">{t.value.frame.failed(failed.value)}</p>}
    </Picture>
  );
}
