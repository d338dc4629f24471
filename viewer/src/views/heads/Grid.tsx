// All heads, small: layer by layer, or sorted by a score and without those that are not asked for.
import { useRef } from "preact/hooks";
import { clusters, thumbnails as askThumbnails, type Thumbnails } from "../../engine/heads";
import type { HeadScores, ScoreRule, Trace } from "../../engine/questions";
import { chosenHead } from "../../state/app";
import { head } from "../../state/session";
import { fixed, grouped, t } from "../../texts";
import { Picture } from "../../ui/Picture";
import { useAnswer, type Asked } from "../../ui/useAnswer";
import { awake, byScore, having, stepIn } from "./order";
import { chosenScan, scannedNow, useScanned, withRoles } from "./scanned";
import { filter, rolesFrom, shown, sort } from "./state";
import { Thumb } from "./Thumb";

export const thumbnailSize = 48;
/** The sort that is no score. */
export const likeness = "~";

/** null: not asked now. */
export const useThumbnails = (trace: Trace | null): Asked<Thumbnails> =>
  useAnswer(trace && ((engine, options) => askThumbnails(engine, trace.id, thumbnailSize, options)), [trace?.id]);

export function open([layer, index]: [number, number]): void {
  chosenHead.value = [layer, index];
  shown.value = "one";
}

const rolesOf = (rules: ScoreRule[]): string[] => [...new Set(rules.flatMap(({ role }) => (role ? [role] : [])))];

export interface GridProps {
  trace: Trace;
  heads: HeadScores[];
  rules: ScoreRule[];
  asked: Asked<Thumbnails>;
}

export function Grid({ trace, heads: ofText, rules, asked }: GridProps) {
  const texts = t.value.heads;
  const asksScan = useScanned(trace);
  const scanned = scannedNow(asksScan);
  const scan = chosenScan(scanned);
  const heads = withRoles(ofText, scan);
  const [layer, index] = head.value;
  const alike = sort.value === likeness;
  const distances = useAnswer(
    alike ? (engine, options) => clusters(engine, trace.id, 2, options) : null,
    [trace.id, alike],
  );
  const chosen = layer * trace.heads + index;
  const valueOf = ({ layer: l, head: h, scores }: HeadScores): number | null => {
    if (!sort.value) return null;
    if (!alike) return scores[sort.value] ?? null;
    return distances.state === "ready" ? -distances.value.distances[chosen]![l * trace.heads + h]! : null;
  };
  const kept = having(heads, filter.value, trace.tokens[0] ?? "");
  const ordered = sort.value ? byScore(kept, valueOf) : kept;
  const plain = !sort.value && !filter.value;
  const box = useRef<HTMLDivElement>(null);
  const here = Math.max(0, ordered.findIndex((each) => each.layer === layer && each.head === index));
  const onKeyDown = (event: KeyboardEvent) => {
    const buttons = [...box.current!.querySelectorAll<HTMLButtonElement>(".thumb")];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (at < 0) return;
    const top = buttons[0]!.offsetTop;
    const columns = plain ? trace.heads : Math.max(1, buttons.filter((button) => button.offsetTop === top).length);
    const next = stepIn(event.key, at, buttons.length, columns);
    if (next === null) return;
    event.preventDefault();
    const { layer: l, head: h } = ordered[next]!;
    chosenHead.value = [l, h];
    buttons[next]!.focus();
  };
  const written = (each: HeadScores): string | undefined => {
    const value = valueOf(each);
    return sort.value ? (value === null ? "–" : fixed(Math.abs(value), 2)) : undefined;
  };
  const thumbs = ordered.map((each, place) => (
    <Thumb
      key={`${each.layer}.${each.head}`}
      scores={each}
      read={rules.length > 0}
      scan={scan}
      thumbnails={asked.state === "ready" ? asked.value : null}
      pressed={each.layer === layer && each.head === index}
      tabbable={place === here}
      value={written(each)}
      onPress={() => open([each.layer, each.head])}
    />
  ));
  return (
    <>
      <div class="map-bar">
        <label>
          {texts.sortBy}{" "}
          <select value={sort.value} onChange={(event) => (sort.value = event.currentTarget.value)}>
            <option value="">{texts.byLayer}</option>
            {rules.map(({ score }) => <option value={score}>{texts.scoreNames[score] ?? score}</option>)}
            <option value={likeness}>{texts.likeness}</option>
          </select>
        </label>
        <label>
          {texts.show}{" "}
          <select value={filter.value} onChange={(event) => (filter.value = event.currentTarget.value)}>
            <option value="">{texts.allHeads}</option>
            <option value={awake}>{texts.awake(trace.tokens[0] ?? "")}</option>
            <optgroup label={texts.onlyGroup}>
              {rolesOf(rules).map((role) => <option value={role}>{texts.only(texts.roleNames[role] ?? role)}</option>)}
            </optgroup>
            <optgroup label={texts.withoutGroup}>
              {rolesOf(rules).map((role) => <option value={`-${role}`}>{texts.without(texts.roleNames[role] ?? role)}</option>)}
            </optgroup>
          </select>
        </label>
        {scanned && (
          <label>
            {texts.rolesOf}{" "}
            <select value={rolesFrom.value} onChange={(event) => (rolesFrom.value = event.currentTarget.value === "scan" ? "scan" : "text")}>
              <option value="scan">{texts.theScan(grouped(scanned.passages))}</option>
              <option value="text">{texts.thisText}</option>
            </select>
          </label>
        )}
        <span class="quiet" role="status">{texts.headsShown(ordered.length, heads.length)}</span>
      </div>
      {distances.state === "failed" && alike && <p class="trouble" role="alert">{t.value.frame.failed(distances.why)}</p>}
      <Picture
        caption={texts.gridCaption}
        table={() => ({
          columns: [texts.head, texts.roles, ...rules.map(({ score }) => texts.scoreNames[score] ?? score)],
          rows: ordered.map((each) => [
            `${each.layer}.${each.head}`,
            each.roles.map((role) => (scan ? texts.fromScan(role, grouped(scan.passages)) : texts.fromText(role))).join(", ") || "–",
            ...rules.map(({ score }) => {
              const value = each.scores[score];
              return typeof value === "number" ? fixed(value, 3) : "–";
            }),
          ]),
        })}
      >
        <div class="scroll-x">
          <div
            ref={box}
            class={plain ? "thumbs by-layer" : "thumbs"}
            role="group"
            aria-label={texts.gridKeys}
            style={plain ? { gridTemplateColumns: `repeat(${trace.heads}, minmax(41px, 1fr))`, minWidth: `${trace.heads * 47}px` } : {}}
            onKeyDown={onKeyDown}
          >
            {thumbs}
          </div>
        </div>
      </Picture>
      <p class="quiet small">
        {asked.state === "ready" && texts.thumbNote(asked.value.cell, asked.value.rowStep)} {scan ? texts.badgeScanned(grouped(scan.passages)) : texts.badgeNote}
      </p>
      {asksScan?.state === "failed" && <p class="trouble" role="alert">{t.value.frame.failed(asksScan.why)}</p>}
      {asked.state === "failed" && <p class="trouble" role="alert">{t.value.frame.failed(asked.why)}</p>}
    </>
  );
}
