// The text twice, and lines from each word to those that it looks at most. Only what is in view is drawn.
import { useRef, useState } from "preact/hooks";
import { patch } from "../../engine/questions";
import type { Trace } from "../../engine/questions";
import { chosenQuery } from "../../state/app";
import { point } from "../../state/inspect";
import { head, query } from "../../state/session";
import { t } from "../../texts";
import { figure } from "../../ui/figures";
import { Picture } from "../../ui/Picture";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";
import { asWords, hideSpecial, pinned, topLinks } from "./state";
import { strongest, unitRow, unitsOf, type Link, type Unit } from "./units";

const line = 30;
const tallest = 600;
/** Rows are asked for in blocks, so that a scroll by a line asks for nothing. */
const block = 32;

export function Links({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const units = unitsOf(trace.tokens, trace.word_of_token, trace.words, asWords.value, hideSpecial.value);
  const height = Math.min(tallest, Math.round(innerHeight * 0.66), units.length * line + 4);
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [hovered, setHovered] = useState<{ side: "q" | "k"; unit: number } | null>(null);
  const firstBlock = Math.floor(top / line / block);
  const lastBlock = Math.floor((top + height) / line / block) + 1;
  const from = Math.min(units.length, firstBlock * block);
  const to = Math.min(units.length, lastBlock * block);
  const rows: [number, number] = [units[from]?.begin ?? 0, units[to - 1]?.end ?? 0];
  const asked = useAnswer(
    rows[1] > rows[0]
      ? (engine, options) => patch(engine, { trace: trace.id, layer, head: index, rows, keys: [0, trace.keys] }, options).then((found) => ({ ...found, first: rows[0] }))
      : null,
    [trace.id, layer, index, rows[0], rows[1], trace.keys],
  );
  const answer = asked.state === "ready" && asked.value.first <= rows[0] && asked.value.first + asked.value.rows >= rows[1] ? asked.value : null;
  const rowOf = (unit: number): Float64Array | null =>
    answer && unit >= from && unit < to ? unitRow(units[unit]!, units, answer.weights, trace.keys, answer.first, hideSpecial.value) : null;
  const seenFrom = Math.max(from, Math.floor(top / line) - 2);
  const seenTo = Math.min(to, Math.ceil((top + height) / line) + 2);
  const links: Link[] = [];
  const all = new Map<number, Float64Array>();
  for (let unit = seenFrom; unit < seenTo; ++unit) {
    const row = rowOf(unit);
    if (!row) continue;
    all.set(unit, row);
    links.push(...strongest(unit, row, topLinks.value));
  }
  const unitOf = (token: number): number => units.findIndex(({ begin, end }) => token >= begin && token < end);
  const chosen = unitOf(query.value);
  const pin = pinned.value < 0 ? -1 : unitOf(pinned.value);
  const focus = hovered ?? (pin >= 0 ? { side: "q" as const, unit: pin } : null);
  const shownLinks = !focus
    ? links
    : focus.side === "q"
      ? strongest(focus.unit, all.get(focus.unit) ?? new Float64Array(0), Math.max(8, topLinks.value))
      : [...all].map(([unit, row]) => ({ query: unit, key: focus.unit, weight: row[focus.unit] ?? 0 })).filter(({ weight }) => weight >= 0.001);
  const told = focus?.side === "q" ? focus.unit : focus ? -1 : chosen;
  const toldRow = told >= 0 ? all.get(told) : undefined;
  const told3 = toldRow ? strongest(told, toldRow, Math.max(3, topLinks.value)) : [];
  const name = `${layer}.${index}`;

  const scrollTo = (unit: number) => {
    const at = unit * line;
    const now = box.current!;
    if (at < now.scrollTop) now.scrollTop = at;
    else if (at + line > now.scrollTop + height) now.scrollTop = at + line - height;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const by: Record<string, number> = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -units.length, End: units.length };
    const step = by[event.key];
    if (event.key === "Enter" || event.key === " ") pinned.value = pin === chosen ? -1 : units[Math.max(0, chosen)]!.begin;
    else if (event.key === "Escape") pinned.value = -1;
    else if (step !== undefined) {
      const next = Math.max(0, Math.min(units.length - 1, Math.max(0, chosen) + step));
      chosenQuery.value = units[next]!.begin;
      scrollTo(next);
    } else return;
    event.preventDefault();
  };
  return (
    <>
      <div class="map-bar">
        <Slider label={texts.topLinks} value={topLinks.value} least={1} most={8} onValue={(value) => (topLinks.value = value)} />
        <label><input type="checkbox" checked={asWords.value} onChange={(event) => (asWords.value = event.currentTarget.checked)} /> {texts.wordsNotPieces}</label>
        <label><input type="checkbox" checked={hideSpecial.value} onChange={(event) => (hideSpecial.value = event.currentTarget.checked)} /> {texts.hideSpecial}</label>
        {pin >= 0 && <button type="button" onClick={() => (pinned.value = -1)}>{texts.unpin(units[pin]!.text)}</button>}
      </div>
      <Picture
        caption={texts.linksCaption(name, topLinks.value)}
        table={() => ({
          columns: [texts.query, texts.key, texts.weight],
          rows: links.map(({ query: q, key: k, weight }) => [units[q]!.text, units[k]!.text, figure(weight)]),
        })}
      >
        <div
          ref={box}
          class="links"
          style={{ height: `${height}px` }}
          tabIndex={0}
          role="application"
          aria-label={texts.linksKeys}
          aria-describedby="links-told"
          onScroll={(event) => setTop(event.currentTarget.scrollTop)}
          onKeyDown={onKeyDown}
        >
          <div class="links-all" style={{ height: `${units.length * line}px` }}>
            <svg class="links-lines" style={{ top: `${top}px`, height: `${height}px` }} viewBox={`0 ${top} 100 ${height}`} preserveAspectRatio="none" aria-hidden="true">
              {shownLinks.map(({ query: q, key: k, weight }) => (
                <path
                  class={focus ? "link focused" : "link"}
                  d={`M 0 ${(q + 0.5) * line} C 50 ${(q + 0.5) * line} 50 ${(k + 0.5) * line} 100 ${(k + 0.5) * line}`}
                  style={{ strokeWidth: `${(1 + 6 * weight).toFixed(2)}px`, opacity: Math.min(1, 0.12 + weight).toFixed(3) }}
                />
              ))}
            </svg>
            {(["q", "k"] as const).map((side) =>
              units.slice(seenFrom, seenTo).map((unit, i) => (
                <UnitLabel
                  key={`${side} ${unit.begin}`}
                  side={side}
                  unit={unit}
                  place={seenFrom + i}
                  chosen={side === "q" && seenFrom + i === chosen}
                  pinned={side === "q" && seenFrom + i === pin}
                  weight={side === "k" && focus?.side === "q" ? (all.get(focus.unit)?.[seenFrom + i] ?? null) : side === "q" && focus?.side === "k" ? (all.get(seenFrom + i)?.[focus.unit] ?? null) : null}
                  onHover={(over) => {
                    setHovered(over ? { side, unit: seenFrom + i } : null);
                    if (!over) point(null);
                  }}
                  onPress={() => {
                    if (side === "k") return;
                    chosenQuery.value = unit.begin;
                    pinned.value = pinned.value === unit.begin ? -1 : unit.begin;
                  }}
                />
              )),
            )}
          </div>
        </div>
      </Picture>
      <p id="links-told" role="status" aria-live="polite">
        {told3.length > 0 && texts.linksTold(units[told]!.text, told3.map(({ key: k, weight }) => `${units[k]!.text} ${figure(weight)}`))}
      </p>
      <p class="quiet small">{asWords.value ? texts.wordsNote : texts.piecesNote} {hideSpecial.value ? texts.renormalised : ""} {texts.linksHint}</p>
      {asked.state === "failed" && <p class="trouble" role="alert">{t.value.frame.failed(asked.why)}</p>}
    </>
  );
}

interface LabelProps {
  side: "q" | "k";
  unit: Unit;
  place: number;
  chosen: boolean;
  pinned: boolean;
  weight: number | null;
  onHover: (over: boolean) => void;
  onPress: () => void;
}

function UnitLabel({ side, unit, place, chosen, pinned: held, weight, onHover, onPress }: LabelProps) {
  return (
    <span
      class={`unit unit-${side} ${chosen ? "chosen" : ""} ${held ? "pinned" : ""}`}
      style={{ top: `${place * line}px`, height: `${line}px` }}
      onPointerEnter={(event) => event.pointerType !== "touch" && onHover(true)}
      onPointerLeave={() => onHover(false)}
      onClick={onPress}
    >
      {side === "k" && weight !== null && <small class="figure">{figure(weight)}</small>}
      <span>{unit.text}</span>
      {side === "q" && weight !== null && <small class="figure">{figure(weight)}</small>}
    </span>
  );
}
