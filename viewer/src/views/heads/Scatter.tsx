// Heads as points: any two scores, a third as colour.
import { useRef } from "preact/hooks";
import type { HeadScores, ScoreRule } from "../../engine/questions";
import { palette } from "../../maps/palette";
import { cssOf, entries } from "../../maps/ramp";
import { chosenHead, dark } from "../../state/app";
import { point, select, type Item } from "../../state/inspect";
import { head } from "../../state/session";
import { fixed, t } from "../../texts";
import { Picture } from "../../ui/Picture";
import { open } from "./Grid";
import { stepIn } from "./order";
import { spread } from "./plot";
import { across, shade, upwards } from "./state";

const width = 720;
const height = 460;
const edge = { left: 64, right: 20, top: 16, bottom: 52 };

export function Scatter({ heads, rules }: { heads: HeadScores[]; rules: ScoreRule[] }) {
  const texts = t.value.heads;
  const box = useRef<SVGSVGElement>(null);
  const known = (name: string, fallback: string): string => (rules.some(({ score }) => score === name) ? name : fallback);
  const x = known(across.value, "distance");
  const y = known(upwards.value, "entropy");
  const c = known(shade.value, "sink");
  const value = (each: HeadScores, score: string): number | null => {
    const found = each.scores[score];
    return typeof found === "number" ? found : null;
  };
  const shownHeads = heads.filter((each) => value(each, x) !== null && value(each, y) !== null);
  const xs = spread(shownHeads.map((each) => value(each, x)!));
  const ys = spread(shownHeads.map((each) => value(each, y)!));
  const cs = spread(shownHeads.flatMap((each) => value(each, c) ?? []));
  const atX = (v: number): number => edge.left + xs.share(v) * (width - edge.left - edge.right);
  const atY = (v: number): number => height - edge.bottom - ys.share(v) * (height - edge.top - edge.bottom);
  const colours = palette(dark.value, false);
  const nameOf = (score: string): string => texts.scoreNames[score] ?? score;
  const [layer, index] = head.value;
  const here = Math.max(0, shownHeads.findIndex((each) => each.layer === layer && each.head === index));
  const written = (each: HeadScores, score: string): string => {
    const found = value(each, score);
    return found === null ? "–" : fixed(found, 3);
  };
  const itemOf = (each: HeadScores): Item => ({
    key: `head ${each.layer}.${each.head}`,
    title: `${texts.head} ${each.layer}.${each.head}`,
    rows: [...[x, y, c].map((score): [string, string] => [nameOf(score), written(each, score)]), [texts.roles, each.roles.map((role) => texts.fromText(role)).join(", ") || "–"]],
    note: texts.badgeNote,
  });
  const onKeyDown = (event: KeyboardEvent) => {
    const points = [...box.current!.querySelectorAll<SVGElement>(".dot")];
    const at = points.indexOf(document.activeElement as unknown as SVGElement);
    if (at < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open([shownHeads[at]!.layer, shownHeads[at]!.head]);
      return;
    }
    const next = stepIn(event.key, at, points.length, 1);
    if (next === null) return;
    event.preventDefault();
    chosenHead.value = [shownHeads[next]!.layer, shownHeads[next]!.head];
    points[next]!.focus();
  };
  const choice = (label: string, now: string, set: (score: string) => void) => (
    <label>
      {label}{" "}
      <select value={now} onChange={(event) => set(event.currentTarget.value)}>
        {rules.map(({ score }) => <option value={score}>{nameOf(score)}</option>)}
      </select>
    </label>
  );
  return (
    <>
      <div class="map-bar">
        {choice(texts.across, x, (score) => (across.value = score))}
        {choice(texts.upwards, y, (score) => (upwards.value = score))}
        {choice(texts.colour, c, (score) => (shade.value = score))}
        {shownHeads.length < heads.length && <span class="quiet">{texts.withoutScore(heads.length - shownHeads.length)}</span>}
      </div>
      <Picture
        caption={texts.scatterCaption(nameOf(x), nameOf(y), nameOf(c))}
        table={() => ({
          columns: [texts.head, nameOf(x), nameOf(y), nameOf(c)],
          rows: shownHeads.map((each) => [`${each.layer}.${each.head}`, written(each, x), written(each, y), written(each, c)]),
        })}
      >
        <svg ref={box} class="plot" viewBox={`0 0 ${width} ${height}`} role="group" aria-label={texts.scatterKeys} onKeyDown={onKeyDown}>
          {xs.ticks.map((tick) => (
            <g>
              <line class="grid-line" x1={atX(tick)} x2={atX(tick)} y1={edge.top} y2={height - edge.bottom} />
              <text x={atX(tick)} y={height - edge.bottom + 20} text-anchor="middle">{xs.write(tick)}</text>
            </g>
          ))}
          {ys.ticks.map((tick) => (
            <g>
              <line class="grid-line" x1={edge.left} x2={width - edge.right} y1={atY(tick)} y2={atY(tick)} />
              <text x={edge.left - 8} y={atY(tick) + 5} text-anchor="end">{ys.write(tick)}</text>
            </g>
          ))}
          <text class="axis" x={(edge.left + width - edge.right) / 2} y={height - 8} text-anchor="middle">{nameOf(x)}</text>
          <text class="axis" transform={`translate(16 ${(edge.top + height - edge.bottom) / 2}) rotate(-90)`} text-anchor="middle">{nameOf(y)}</text>
          {shownHeads.map((each, place) => {
            const shadeOf = value(each, c);
            const chosen = each.layer === layer && each.head === index;
            const [px, py] = [atX(value(each, x)!), atY(value(each, y)!)];
            return (
              <g
                class={chosen ? "dot chosen" : "dot"}
                data-head={`${each.layer}.${each.head}`}
                role="button"
                tabIndex={place === here ? 0 : -1}
                aria-label={`${each.layer}.${each.head}: ${nameOf(x)} ${written(each, x)}, ${nameOf(y)} ${written(each, y)}, ${nameOf(c)} ${written(each, c)}`}
                onPointerEnter={() => point(itemOf(each))}
                onPointerLeave={() => point(null)}
                onFocus={() => point(itemOf(each))}
                onBlur={() => point(null)}
                onClick={() => {
                  select(itemOf(each));
                  open([each.layer, each.head]);
                }}
              >
                <circle class="reach" cx={px} cy={py} r={14} />
                <circle cx={px} cy={py} r={chosen ? 9 : 7} style={{ fill: shadeOf === null ? "none" : cssOf(colours.ramp, cs.share(shadeOf) * (entries - 1)) }} />
                {chosen && <text x={px + 13} y={py + 5}>{each.layer}.{each.head}</text>}
              </g>
            );
          })}
        </svg>
      </Picture>
      <p class="quiet small">{texts.colourEnds(nameOf(c), cs.write(cs.least), cs.write(cs.most))}</p>
    </>
  );
}
