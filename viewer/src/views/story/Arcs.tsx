// The sentence with its links as arcs.
import { useState } from "preact/hooks";
import type { LinkWeights } from "../../engine/questions";
import { opened } from "../../state/session";
import { fixed, t } from "../../texts";
import { finish } from "../../tour/done";
import { linkWeights, nameOf, readersOf } from "../../tour/facts";
import { isChapters, pairName, pairs } from "../../tour/pairs";
import { inspectable } from "../../ui/inspectable";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { LinkChooser } from "./LinkChooser";

const letter = 11;
const between = 18;

export function Arcs() {
  if (pairs.value.length === 0) return <p>{t.value.story.noLinks}</p>;
  return (
    <>
      <Ready asked={linkWeights.value}>{(links) => <Sentence links={links} />}</Ready>
      {!isChapters.value && <LinkChooser />}
    </>
  );
}

function Sentence({ links }: { links: LinkWeights[] }) {
  const texts = t.value.story;
  const words = opened.value!.words.map(({ text }) => text);
  const [pressed, setPressed] = useState<ReadonlySet<string>>(new Set());
  const ends: number[] = [];
  let width = 8;
  for (const word of words) {
    ends.push(width + (word.length * letter) / 2);
    width += word.length * letter + between;
  }
  const named = links.map((link, i) => ({
    link,
    name: pairName([link.query_word, link.key_word]),
    role: isChapters.value ? texts.roles[i] : undefined,
    best: readersOf(link)[0]!,
  }));
  const press = (name: string) => {
    const next = new Set(pressed).add(name);
    setPressed(next);
    if (named.every((each) => next.has(each.name))) finish(0);
  };
  return (
    <Picture
      caption={named.map(({ name }) => name).join(", ")}
      table={() => ({
        columns: ["", texts.best, texts.weight, texts.offsetMean, texts.mean],
        rows: named.map(({ link, name, best }) => [
          name, nameOf(best), fixed(best.weight, 3), best.offsetMean === null ? "–" : fixed(best.offsetMean, 3), fixed(link.mean, 3),
        ]),
      })}
    >
      <div class="scroll target">
        <svg class="arcs" viewBox={`0 0 ${width} 130`} width={width * 1.6} role="group" aria-label={texts.heading}>
          {named.map(({ link, name, role, best }) => {
            const from = ends[link.query_word]!;
            const to = ends[link.key_word]!;
            const high = 92 - Math.min(80, Math.abs(to - from) * 0.45);
            const item = inspectable(() => ({
              key: name,
              title: role ? `${name}: ${role}` : name,
              rows: [
                [texts.best, nameOf(best)],
                [texts.weight, fixed(best.weight, 3)],
                [texts.offsetMean, best.offsetMean === null ? "–" : fixed(best.offsetMean, 3)],
                [texts.mean, fixed(link.mean, 3)],
              ],
              formula: texts.formula,
              source: texts.source,
            }));
            return (
              <g
                class={`arc ${pressed.has(name) ? "pressed" : ""}`}
                aria-label={`${name}${role ? `, ${role}` : ""}: ${texts.best} ${nameOf(best)}, ${fixed(best.weight, 3)}`}
                aria-pressed={pressed.has(name)}
                {...item}
                onClick={() => {
                  press(name);
                  item.onClick();
                }}
                onKeyDown={(event: KeyboardEvent) => {
                  if (event.key === "Enter" || event.key === " ") press(name);
                  item.onKeyDown(event);
                }}
              >
                <path class="reach" d={`M ${from} 96 Q ${(from + to) / 2} ${2 * high - 96} ${to} 96`} />
                <path d={`M ${from} 96 Q ${(from + to) / 2} ${2 * high - 96} ${to} 96`} />
                <path class="tip-of" d={`M ${to - 4} 89 L ${to} 97 L ${to + 4} 89`} />
              </g>
            );
          })}
          {words.map((word, i) => <text x={ends[i]} y={118}>{word}</text>)}
        </svg>
      </div>
      <ul class="links-said" aria-live="polite">
        {named.map(({ name, role }) => pressed.has(name) && <li><b>{name}</b>{role && ` ${role}`}</li>)}
      </ul>
    </Picture>
  );
}
