import { links, type LinkWeights, type Trace } from "../../engine/questions";
import { opened } from "../../state/session";
import { fixed, t } from "../../texts";
import { inspectable } from "../../ui/inspectable";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import "./story.css";

/** The chapter's links, where the text has their words: modifier and noun, subject and verb, verb and place. */
const wanted = [["black", "cat"], ["cat", "sat"], ["sat", "mat"]] as const;

function pairsOf({ words }: Trace): [number, number][] {
  const at = (text: string) => words.findIndex((word) => word.text.toLowerCase() === text);
  return wanted.map(([query, key]): [number, number] => [at(query), at(key)]).filter(([query, key]) => query >= 0 && key >= 0);
}

interface Best {
  layer: number;
  head: number;
  weight: number;
  offsetMean: number | null;
}

/** The head whose weight most exceeds what it gives at that distance anyway. */
function bestOf({ heads }: LinkWeights): Best {
  const all = heads.flatMap((row, layer) =>
    row.map(({ weight, offset_mean }, head) => ({ layer, head, weight, offsetMean: offset_mean })),
  );
  return all.reduce((best, each) => (each.weight - (each.offsetMean ?? 0) > best.weight - (best.offsetMean ?? 0) ? each : best));
}

export function Story() {
  const now = opened.value;
  const pairs = now ? pairsOf(now) : [];
  const asked = useAnswer(now && ((engine, options) => links(engine, now.id, pairs, options)), [now?.id]);
  const texts = t.value.story;
  if (!now) return <p class="quiet">{t.value.frame.opening}</p>;
  return (
    <>
      <h2>{texts.heading}</h2>
      <Ready asked={asked}>{(answer) => <Arcs words={now.words.map(({ text }) => text)} links={answer.links} />}</Ready>
    </>
  );
}

const letter = 11;
const between = 18;

function Arcs({ words, links }: { words: string[]; links: LinkWeights[] }) {
  const texts = t.value.story;
  const ends: number[] = [];
  let width = 8;
  for (const word of words) {
    ends.push(width + (word.length * letter) / 2);
    width += word.length * letter + between;
  }
  const named = links.map((link) => ({ link, name: texts.link(words[link.query_word]!, words[link.key_word]!), best: bestOf(link) }));
  return (
    <Picture
      caption={named.map(({ name }) => name).join(", ")}
      table={() => ({
        columns: ["", texts.best, texts.weight, texts.offsetMean, texts.mean],
        rows: named.map(({ link, name, best }) => [
          name, `${best.layer}.${best.head}`, fixed(best.weight, 3), best.offsetMean === null ? "–" : fixed(best.offsetMean, 3), fixed(link.mean, 3),
        ]),
      })}
    >
      <div class="scroll">
        <svg class="arcs" viewBox={`0 0 ${width} 130`} width={width * 1.6} role="group" aria-label={texts.heading}>
          {named.map(({ link, name, best }) => {
            const from = ends[link.query_word]!;
            const to = ends[link.key_word]!;
            const high = 92 - Math.min(80, Math.abs(to - from) * 0.45);
            return (
              <g
                class="arc"
                aria-label={`${name}: ${texts.best} ${best.layer}.${best.head}, ${fixed(best.weight, 3)}`}
                {...inspectable(() => ({
                  key: name,
                  title: name,
                  value: fixed(best.weight, 3),
                  rows: [
                    [texts.best, `${best.layer}.${best.head}`],
                    [texts.offsetMean, best.offsetMean === null ? "–" : fixed(best.offsetMean, 3)],
                    [texts.mean, fixed(link.mean, 3)],
                  ],
                  formula: texts.formula,
                  source: texts.source,
                }))}
              >
                <path class="reach" d={`M ${from} 96 Q ${(from + to) / 2} ${2 * high - 96} ${to} 96`} />
                <path d={`M ${from} 96 Q ${(from + to) / 2} ${2 * high - 96} ${to} 96`} />
              </g>
            );
          })}
          {words.map((word, i) => <text x={ends[i]} y={118}>{word}</text>)}
        </svg>
      </div>
    </Picture>
  );
}
