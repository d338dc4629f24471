// How a score lies over the passages: of one head as a histogram, of all heads as ranges.
import { chosenHead } from "../../state/app";
import { point } from "../../state/inspect";
import type { ScanHead, ScanScore } from "../../engine/corpus";
import { fixed, grouped, t } from "../../texts";
import { Picture } from "../../ui/Picture";
import { spread } from "../heads/plot";

const width = 720;
const height = 300;
const edge = { left: 56, right: 16, top: 12, bottom: 36 };

export function Distribution({ head, score }: { head: ScanHead; score: ScanScore }) {
  const texts = t.value.corpus;
  if (score.count === 0) return <p>{texts.inNone}</p>;
  const name = t.value.heads.scoreNames[score.name] ?? score.name;
  const [first, last] = score.range;
  const step = (last - first) / score.histogram.length;
  const most = Math.max(1, ...score.histogram);
  const xs = spread([first, last]);
  const atX = (value: number): number => edge.left + xs.share(value) * (width - edge.left - edge.right);
  const room = height - edge.top - edge.bottom;
  const caption = texts.distributionCaption(name, `${head.layer}.${head.head}`);
  const between = (i: number): string => `${fixed(first + i * step, 3)} – ${fixed(first + (i + 1) * step, 3)}`;
  return (
    <>
      <dl class="facts">
        <div><dt>{texts.passages}</dt><dd class="figure">{grouped(score.count)}</dd></div>
        <div><dt>{texts.mean}</dt><dd class="figure">{fixed(score.mean, 3)}</dd></div>
        <div><dt>{texts.least}</dt><dd class="figure">{fixed(score.min, 3)}</dd></div>
        <div><dt>{texts.median}</dt><dd class="figure">{fixed(score.deciles[4] ?? NaN, 3)}</dd></div>
        <div><dt>{texts.most}</dt><dd class="figure">{fixed(score.max, 3)}</dd></div>
      </dl>
      <Picture caption={caption} table={() => ({ columns: [name, texts.passages], rows: score.histogram.map((count, i) => [between(i), count]) })}>
        <svg class="plot" viewBox={`0 0 ${width} ${height}`} role="img" aria-label={caption}>
          {xs.ticks.map((tick) => (
            <g>
              <line class="grid-line" x1={atX(tick)} x2={atX(tick)} y1={edge.top} y2={height - edge.bottom} />
              <text x={atX(tick)} y={height - edge.bottom + 20} text-anchor="middle">{xs.write(tick)}</text>
            </g>
          ))}
          {score.histogram.map((count, i) => (
            <rect
              class="histogram"
              x={atX(first + i * step)}
              width={Math.max(1, atX(first + (i + 1) * step) - atX(first + i * step) - 1)}
              y={height - edge.bottom - (count / most) * room}
              height={(count / most) * room}
              onPointerEnter={() => point({ key: `${caption} ${i}`, title: between(i), value: grouped(count) })}
              onPointerLeave={() => point(null)}
            />
          ))}
          {score.deciles.map((value) => <line class="decile" x1={atX(value)} x2={atX(value)} y1={height - edge.bottom} y2={height - edge.bottom + 6} />)}
          <line class="mean-line" x1={atX(score.mean)} x2={atX(score.mean)} y1={edge.top} y2={height - edge.bottom} />
        </svg>
      </Picture>
      <p class="quiet small">{texts.distributionNote}</p>
    </>
  );
}

const line = 26;

export function HeadRanges({ heads, score, chosen }: { heads: ScanHead[]; score: string; chosen: ScanHead }) {
  const texts = t.value.corpus;
  const name = t.value.heads.scoreNames[score] ?? score;
  const found = heads
    .flatMap((head) => {
      const of = head.scores.find((each) => each.name === score);
      return of && of.count > 0 ? [{ head, of }] : [];
    })
    .sort((a, b) => b.of.mean - a.of.mean);
  const xs = spread(found.flatMap(({ of }) => [of.min, of.max]));
  const share = (value: number): string => `${(100 * xs.share(value)).toFixed(3)}%`;
  return (
    <>
      <Picture
        caption={texts.rangesCaption(name)}
        table={() => ({
          columns: [texts.head, texts.mean, texts.least, "10 %", texts.median, "90 %", texts.most, texts.passages],
          rows: found.map(({ head, of }) => [
            `${head.layer}.${head.head}`, ...[of.mean, of.min, of.deciles[0]!, of.deciles[4]!, of.deciles[8]!, of.max].map((value) => fixed(value, 3)), grouped(of.count),
          ]),
        })}
      >
        <div class="scroll ranges" tabIndex={0} role="region" aria-label={texts.rangesCaption(name)}>
          {found.map(({ head, of }) => (
            <button
              type="button"
              class="range"
              style={{ height: `${line}px` }}
              aria-pressed={head === chosen}
              onClick={() => (chosenHead.value = [head.layer, head.head])}
            >
              <span class="figure" aria-hidden="true">{head.layer}.{head.head}</span>
              <span class="range-room" aria-hidden="true">
                <i class="whole" style={{ left: share(of.min), right: `calc(100% - ${share(of.max)})` }} />
                <i class="middle" style={{ left: share(of.deciles[0]!), right: `calc(100% - ${share(of.deciles[8]!)})` }} />
                <i class="at" style={{ left: share(of.mean) }} />
              </span>
              <span class="figure" aria-hidden="true">{fixed(of.mean, 3)}</span>
              <span class="hidden">
                {texts.rangeSaid(`${head.layer}.${head.head}`, fixed(of.mean, 3), fixed(of.deciles[0]!, 3), fixed(of.deciles[8]!, 3))}
              </span>
            </button>
          ))}
        </div>
      </Picture>
      <p class="quiet small">{texts.rangesNote(xs.write(xs.least), xs.write(xs.most))}</p>
    </>
  );
}
