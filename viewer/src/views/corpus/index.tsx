// One head over many texts: what a scan found, and which heads find a word's partner in a tree.
import { scan as askScan, scanHead, type Scan, type ScanHead, type ScanScore } from "../../engine/corpus";
import { chosenHead } from "../../state/app";
import { who } from "../../state/session";
import { grouped, t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { Tabs } from "../../ui/Tabs";
import { useAnswer } from "../../ui/useAnswer";
import { Components, Distances, Tokens } from "./OneHead";
import { Distribution, HeadRanges } from "./Distribution";
import { Examples } from "./Examples";
import { RelationTable } from "./RelationTable";
import { part, parts, score } from "./state";
import "./corpus.css";

export function Corpus() {
  const texts = t.value.corpus;
  const open = who.value?.scans?.[0];
  const asked = useAnswer(open ? (engine, options) => askScan(engine, open.id, options) : null, [open?.id]);
  if (!open) {
    return (
      <>
        <h2>{texts.heading}</h2>
        <p>{texts.none}</p>
        <RelationTable />
      </>
    );
  }
  return (
    <>
      <h2>{texts.heading}</h2>
      <Ready asked={asked}>{(scan) => <Scanned id={open.id} scan={scan} />}</Ready>
    </>
  );
}

function Scanned({ id, scan }: { id: number; scan: Scan }) {
  const texts = t.value.corpus;
  const name = scan.score_rules.some((rule) => rule.name === score.value) ? score.value : (scan.score_rules[0]?.name ?? "");
  const rule = scan.score_rules.find((each) => each.name === name);
  const wanted = chosenHead.value;
  const overview = scan.heads.find(({ layer, head }) => wanted && layer === wanted[0] && head === wanted[1]) ?? scan.heads[0];
  const asked = useAnswer(
    overview ? (engine, options) => scanHead(engine, id, [overview.layer, overview.head], name, options) : null,
    [id, overview?.layer, overview?.head, name],
  );
  if (!overview) return null;
  return (
    <>
      <p class="figure">{texts.about(scan.model, scan.files.join(", "), grouped(scan.passages), grouped(scan.tokens))}</p>
      <div class="map-bar">
        <label>
          {texts.head}{" "}
          <select
            value={`${overview.layer}.${overview.head}`}
            onChange={(event) => {
              const [layer = 0, head = 0] = event.currentTarget.value.split(".").map(Number);
              chosenHead.value = [layer, head];
            }}
          >
            {scan.heads.map(({ layer, head }) => <option value={`${layer}.${head}`}>{layer}.{head}</option>)}
          </select>
        </label>
        <label>
          {texts.score}{" "}
          <select value={name} onChange={(event) => (score.value = event.currentTarget.value)}>
            {scan.score_rules.map((each) => <option value={each.name}>{t.value.heads.scoreNames[each.name] ?? each.name}</option>)}
          </select>
        </label>
      </div>
      {rule && <p class="quiet small">{rule.formula} ({rule.source})</p>}
      <Tabs id="corpus" label={texts.heading} names={parts} now={part} said={texts.parts}>
        {part.value === "heads" ? (
          <HeadRanges heads={scan.heads} score={name} chosen={overview} />
        ) : part.value === "relations" ? (
          <RelationTable />
        ) : (
          <Ready asked={asked}>{(one) => <One head={one.heads[0]!} score={name} />}</Ready>
        )}
      </Tabs>
    </>
  );
}

function One({ head, score: name }: { head: ScanHead; score: string }) {
  const found: ScanScore | undefined = head.scores.find((each) => each.name === name);
  if (!found) return null;
  switch (part.value) {
    case "distribution":
      return <Distribution head={head} score={found} />;
    case "examples":
      return <Examples score={found} />;
    case "tokens":
      return <Tokens head={head} />;
    case "components":
      return <Components head={head} />;
    default:
      return <Distances head={head} />;
  }
}
