// Which heads find a word's grammatical partner, beside the fixed offset that finds most: bars with their intervals.
import { useState } from "preact/hooks";
import { treebank, type Relation, type Relations } from "../../engine/corpus";
import { chosenHead, view } from "../../state/app";
import { fixed, t } from "../../texts";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import { shown } from "../heads/state";

/** Measured when asked for: it runs the model over a whole treebank. */
export function RelationTable() {
  const texts = t.value.corpus;
  const [wanted, setWanted] = useState(false);
  return (
    <section class="relations" aria-labelledby="relations-title">
      <h3 id="relations-title">{texts.relations}</h3>
      <p>{texts.relationsLead}</p>
      {wanted ? <Measured /> : <button type="button" onClick={() => setWanted(true)}>{texts.measure}</button>}
    </section>
  );
}

function Measured() {
  const asked = useAnswer((engine, options) => treebank(engine, options), ["relations"]);
  return (
    <>
      <Ready asked={asked}>{(found) => <Found found={found} />}</Ready>
      {asked.state === "failed" && <p>{t.value.corpus.noTreebank}</p>}
    </>
  );
}

const percent = (share: number): string => `${fixed(100 * share, 0)} %`;

function Found({ found }: { found: Relations }) {
  const texts = t.value.corpus;
  const named = found.relations.map((relation) => ({ relation, name: texts.relationName(relation.relation, relation.direction) }));
  return (
    <Picture
      caption={texts.relationsCaption(found.sentences, found.treebank)}
      table={() => ({
        columns: [texts.relation, texts.head, texts.accuracy, texts.interval, texts.weight, texts.offset, texts.offsetAccuracy, texts.reads],
        rows: named.flatMap(({ relation, name }) =>
          relation.heads.map((head) => [
            name, `${head.layer}.${head.head}`, percent(head.accuracy), `${percent(head.interval[0])} – ${percent(head.interval[1])}`, fixed(head.mean_weight, 2),
            relation.offset === null ? "–" : `${relation.offset}`, percent(relation.offset_accuracy), head.reads ? texts.yes : texts.no,
          ]),
        ),
      })}
    >
      {named.map(({ relation, name }) => <Bands relation={relation} name={name} />)}
    </Picture>
  );
}

function Bands({ relation, name }: { relation: Relation; name: string }) {
  const texts = t.value.corpus;
  const baseline = `${100 * relation.offset_accuracy}%`;
  const best = relation.heads.some(({ reads }) => reads);
  return (
    <section class="relation" aria-label={name}>
      <h4>{name} <span class="quiet figure">{texts.words(relation.chosen_on + relation.scored_on)}</span></h4>
      <div class="band offset">
        <span class="figure">{relation.offset === null ? "–" : texts.offsetName(relation.offset)}</span>
        <span class="band-room"><i style={{ width: baseline }} /></span>
        <span class="figure">{percent(relation.offset_accuracy)}</span>
      </div>
      {relation.heads.map((head) => (
        <div class="band">
          <button
            type="button"
            class="plain figure"
            onClick={() => {
              chosenHead.value = [head.layer, head.head];
              shown.value = "one";
              view.value = "heads";
            }}
          >
            {head.layer}.{head.head}
          </button>
          <span class="band-room">
            <i style={{ width: `${100 * head.accuracy}%` }} />
            <b style={{ left: `${100 * head.interval[0]}%`, right: `${100 - 100 * head.interval[1]}%` }} />
            <em style={{ left: baseline }} />
          </span>
          <span class="figure">{percent(head.accuracy)} {head.reads && <strong>{texts.readsIt}</strong>}</span>
        </div>
      ))}
      {!best && <p class="quiet small">{texts.noneReads}</p>}
    </section>
  );
}
