// Many sentences: how often a head finds the partner, beside the best fixed distance.
import { signal } from "@preact/signals";
import type { Relations } from "../../engine/questions";
import { head } from "../../state/session";
import { t } from "../../texts";
import { finish } from "../../tour/done";
import { heaviestOf, linkWeights, nameOf, onSentences, ready } from "../../tour/facts";
import { distanceOf, enough, linkRelations, nextWordVerdict, percent, shareOf, signed, verdictOf, type Verdict } from "../../tour/say";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { OwnSentence } from "./OwnSentence";

/** Of the first sentence: what the three links are called, whatever text is open. */
const linkName = ({ causal, texts }: Relations, link: number): string => {
  const { word, head: of } = texts[0]!.links[link]!;
  return (link === 2) !== causal ? `${of} → ${word}` : `${word} → ${of}`;
};

const shown = signal(0);
const asked = signal<string | null>(null);
const dozen = 12;

export function Grammar() {
  return <Ready asked={onSentences.value}>{(found) => <Sentences found={found} />}</Ready>;
}

/** One sentence about a link, chosen by the intervals. */
export function sayVerdict(link: string, verdict: Verdict): string {
  const texts = t.value.tour.steps.grammar;
  switch (verdict.kind) {
    case "reads":
      return texts.reads(link, verdict.heads, verdict.offset, verdict.percent);
    case "none":
      return texts.none(link, verdict.best, verdict.offset, verdict.percent);
    case "few":
      return texts.few(link);
  }
}

function Sentences({ found }: { found: Relations }) {
  const texts = t.value.story;
  const link = shown.value;
  const of = linkRelations(found);
  const which = of[link]!;
  const relation = found.relations[which]!;
  const heaviest = ready(linkWeights.value)?.[0];
  const offered = [...new Set([
    ...relation.heads.filter(({ reads }) => reads).slice(0, 3).map(nameOf),
    ...relation.heads.slice(0, 1).map(nameOf),
    `${head.value[0]}.${head.value[1]}`,
    ...(heaviest ? [nameOf(heaviestOf(heaviest))] : []),
  ])];
  const name = asked.value !== null && relation.heads.some((each) => nameOf(each) === asked.value) ? asked.value : offered[0]!;
  const chosen = relation.heads.find((each) => nameOf(each) === name);
  const share = chosen && shareOf(chosen, relation);
  const right = (text: Relations["texts"][number]) => text.hits[which]!.some(([layer, index]) => `${layer}.${index}` === name);
  const byDistance = (text: Relations["texts"][number]) => distanceOf(found, text, link) === relation.offset;
  const mark = (yes: boolean) => <span class={yes ? "right" : "quiet"}>{yes ? texts.right : texts.wrong}</span>;
  const next = nextWordVerdict.value;
  return (
    <>
      <div class="beside" role="group" aria-label={texts.linksLabel}>
        {of.map((_, i) => (
          <button type="button" aria-pressed={link === i} onClick={() => (shown.value = i)}>{linkName(found, i)}</button>
        ))}
      </div>
      <label class="beside target">
        <span>{texts.head}</span>
        <select
          value={name}
          onChange={({ currentTarget }) => {
            asked.value = currentTarget.value;
            finish(4);
          }}
        >
          <optgroup label={texts.telling}>{offered.map((each) => <option>{each}</option>)}</optgroup>
          <optgroup label={texts.allHeads}>
            {relation.heads.map(nameOf).filter((each) => !offered.includes(each)).map((each) => <option>{each}</option>)}
          </optgroup>
        </select>
      </label>
      {share && enough(relation) && (
        <Picture
          caption={texts.sharesCaption(linkName(found, link))}
          table={() => ({
            columns: ["", texts.found, "%", texts.interval],
            rows: [
              [texts.headNamed(name), texts.of(share.right, share.of), String(share.percent), texts.range(share.low, share.high)],
              [texts.always(signed(relation.offset)), "", String(percent(relation.offset_accuracy)), ""],
            ],
          })}
        >
          <Bar name={texts.headNamed(name)} said={`${texts.of(share.right, share.of)}, ${share.percent} %`} share={share.percent} low={share.low} high={share.high} />
          <Bar
            name={texts.always(signed(relation.offset))}
            said={`${texts.of(Math.round(relation.offset_accuracy * relation.scored_on), relation.scored_on)}, ${percent(relation.offset_accuracy)} %`}
            share={percent(relation.offset_accuracy)}
          />
        </Picture>
      )}
      <div class="verdicts" aria-live="polite">
        {of.map((at, i) => <p>{sayVerdict(linkName(found, i), verdictOf(found.relations[at]!))}</p>)}
        {next && <p>{t.value.tour.steps.grammar[next.kind](next.found, next.percent)}</p>}
      </div>
      <OwnSentence head={name} />
      <div class="scroll" tabIndex={0} role="region" aria-label={texts.dozen}>
        <table class="dozen">
          <caption class="hidden">{texts.dozen}</caption>
          <thead>
            <tr>
              <th scope="col">{texts.sentence}</th>
              <th scope="col">{texts.headNamed(name)}</th>
              <th scope="col">{texts.always(signed(relation.offset))}</th>
            </tr>
          </thead>
          <tbody>
            {found.texts.slice(0, dozen).map((text) => (
              <tr>
                <th scope="row"><Marked text={text.text} words={[text.links[link]!.word, text.links[link]!.head]} /></th>
                <td class="mark">{mark(right(text))}</td>
                <td class="mark">{mark(byDistance(text))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Bar({ name, said, share, low, high }: { name: string; said: string; share: number; low?: number; high?: number }) {
  return (
    <div class="share">
      <span>{name}</span>
      <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        <rect class="ground" width={100} height={10} />
        <rect class="lit" width={share} height={10} />
        {low !== undefined && high !== undefined && <><line class="halo" x1={low} x2={high} y1={5} y2={5} /><line x1={low} x2={high} y1={5} y2={5} /></>}
      </svg>
      <b class="figure">{said}</b>
    </div>
  );
}

/** A sentence with two of its words in bold. */
function Marked({ text, words }: { text: string; words: string[] }) {
  const parts = text.split(/(\p{L}+)/u);
  return <>{parts.map((part) => (words.includes(part) ? <b>{part}</b> : part))}</>;
}
