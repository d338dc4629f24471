// All heads at the one hand, the chosen head at the other; on a narrow stage one of the two.
import { useState } from "preact/hooks";
import type { Thumbnails } from "../../engine/heads";
import { heads as askHeads, type HeadScores, type ScoreRule, type Trace } from "../../engine/questions";
import { head, opened } from "../../state/session";
import { fixed, grouped, t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { useAnswer, type Asked } from "../../ui/useAnswer";
import { Clusters } from "./Clusters";
import { Compare } from "./Compare";
import { Distance } from "./Distance";
import { Grid, useThumbnails } from "./Grid";
import { HeadMap } from "./HeadMap";
import { Links } from "./Links";
import { Mean } from "./Mean";
import { mostRead } from "./most";
import { Off } from "./Off";
import { Rollout } from "./Rollout";
import { Scatter } from "./Scatter";
import { detail, details, filter, overview, overviews, shown, sort } from "./state";
import { scannedNow, useScanned } from "./scanned";
import { Tabs } from "../../ui/Tabs";
import { Badges } from "./Thumb";
import { Why } from "./Why";
import "./heads.css";

/** Heads whose scores are still being read: pictures come first. */
const unread = ({ layers, heads }: Trace): HeadScores[] =>
  Array.from({ length: layers * heads }, (_, i) => ({ layer: Math.floor(i / heads), head: i % heads, scores: {}, roles: [] }));

export function Heads() {
  const now = opened.value;
  // A long text's scores take a while, in which nothing else is computed: they wait until someone wants them.
  const [wanted, setWanted] = useState(-1);
  const long = now !== null && now.layers * now.heads * now.queries * now.keys > mostRead() && wanted !== now.id;
  // Asked first: a picture of a head costs less than its scores.
  const pictures = useThumbnails(!long && overview.value === "grid" ? now : null);
  const asked = useAnswer(now && !long ? (engine, options) => askHeads(engine, now.id, options) : null, [now?.id, long]);
  const texts = t.value.heads;
  if (!now) return <p class="quiet">{t.value.frame.opening}</p>;
  const waiting = asked.state === "waiting" && !long;
  const bare = waiting && overview.value === "grid" && !sort.value && !filter.value;
  const found = asked.state === "ready" ? asked.value : bare ? { heads: unread(now), score_rules: [] } : null;
  return (
    <div class="heads" data-shown={shown.value}>
      <div class="heads-switch" role="group" aria-label={texts.heading}>
        <button type="button" aria-pressed={shown.value === "all"} onClick={() => (shown.value = "all")}>{texts.heading}</button>
        <button type="button" aria-pressed={shown.value === "one"} onClick={() => (shown.value = "one")}>{texts.oneHead(head.value.join("."))}</button>
      </div>
      <section class="heads-all" aria-labelledby="heads-all-title" aria-busy={waiting}>
        <h2 id="heads-all-title">{texts.heading}</h2>
        <Tabs id="h-all" label={texts.heading} names={overviews} now={overview} said={texts.overviews}>
          {long ? (
            <p>
              {texts.long(grouped(now.layers * now.heads), grouped(now.queries))}{" "}
              <button type="button" onClick={() => setWanted(now.id)}>{texts.readHeads}</button>
            </p>
          ) : found ? (
            <Overview trace={now} heads={found.heads} rules={found.score_rules} pictures={pictures} />
          ) : (
            <Ready asked={asked}>{() => null}</Ready>
          )}
          {bare && <p class="quiet small" role="status">{texts.reading}</p>}
        </Tabs>
      </section>
      <section class="heads-one" aria-labelledby="heads-one-title">
        <h2 id="heads-one-title">{texts.oneHead(head.value.join("."))}</h2>
        {asked.state === "ready" && <Roles trace={now} heads={asked.value.heads} rules={asked.value.score_rules} />}
        <Tabs id="h-one" label={texts.oneHead(head.value.join("."))} names={details} now={detail} said={texts.details}>
          <One trace={now} />
        </Tabs>
      </section>
    </div>
  );
}

interface OverviewProps {
  trace: Trace;
  heads: HeadScores[];
  rules: ScoreRule[];
  pictures: Asked<Thumbnails>;
}

function Overview({ trace, heads, rules, pictures }: OverviewProps) {
  switch (overview.value) {
    case "grid":
      return <Grid trace={trace} heads={heads} rules={rules} asked={pictures} />;
    case "scatter":
      return <Scatter heads={heads} rules={rules} />;
    case "clusters":
      return <Clusters trace={trace} heads={heads} />;
    case "mean":
      return <Mean trace={trace} />;
    case "rollout":
      return <Rollout trace={trace} />;
  }
}

function One({ trace }: { trace: Trace }) {
  switch (detail.value) {
    case "map":
      return <HeadMap trace={trace} />;
    case "links":
      return <Links trace={trace} />;
    case "why":
      return <Why trace={trace} />;
    case "distance":
      return <Distance trace={trace} />;
    case "compare":
      return <Compare trace={trace} />;
    case "off":
      return <Off trace={trace} />;
  }
}

/** The head's roles, each with the score that gives it, the threshold and the formula. */
function Roles({ trace, heads, rules }: { trace: Trace; heads: HeadScores[]; rules: ScoreRule[] }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const scores = heads[layer * trace.heads + index];
  const scanned = scannedNow(useScanned(trace));
  if (!scores) return null;
  const over = scanned?.of(layer, index);
  const passages = grouped(scanned?.passages ?? 0);
  const meanOf = (score: string): number | undefined => over?.scores.find(({ name, count }) => name === score && count > 0)?.mean;
  return (
    <details class="roles">
      <summary>
        {scores.roles.length > 0 ? <Badges roles={scores.roles} scan={null} /> : texts.noRole} <span class="quiet small">{texts.rolesFrom}</span>
        {over && (
          <span class="over-scan">
            {over.roles.length > 0 ? <Badges roles={over.roles} scan={scanned} /> : texts.noRole} <span class="quiet small">{texts.rolesOver(passages)}</span>
          </span>
        )}
      </summary>
      <div class="scroll" tabIndex={0} role="region" aria-label={texts.scores}>
        <table>
          <thead>
            <tr>
              <th scope="col">{texts.score}</th>
              <th scope="col">{texts.value}</th>
              {over && <th scope="col">{texts.meanOver(passages)}</th>}
              <th scope="col">{texts.threshold}</th>
              <th scope="col">{texts.formula}</th>
              <th scope="col">{texts.source}</th>
            </tr>
          </thead>
          <tbody>
            {rules.map(({ score, threshold, formula, source }) => {
              const value = scores.scores[score];
              return (
                <tr>
                  <th scope="row">{texts.scoreNames[score] ?? score}</th>
                  <td class="figure">{typeof value === "number" ? fixed(value, 3) : "–"}</td>
                  {over && <td class="figure">{meanOf(score) === undefined ? "–" : fixed(meanOf(score)!, 3)}</td>}
                  <td class="figure">{threshold === null ? "–" : fixed(threshold, 2)}</td>
                  <td>{formula}</td>
                  <td>{source}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </details>
  );
}
