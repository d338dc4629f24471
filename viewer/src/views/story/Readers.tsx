// The grid of all heads, lit by the weight that each gives to one link.
import { useState } from "preact/hooks";
import type { LinkWeights } from "../../engine/questions";
import { fixed, t } from "../../texts";
import { finish } from "../../tour/done";
import { heaviestOf, linkWeights, nameOf, readersOf } from "../../tour/facts";
import { pairName } from "../../tour/pairs";
import { useCursor } from "../../ui/cursor";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";

export function Readers() {
  return <Ready asked={linkWeights.value}>{(links) => <Links links={links} />}</Ready>;
}

const outlined = 3;

function Links({ links }: { links: LinkWeights[] }) {
  const texts = t.value.story;
  const [chosen, choose] = useState<number | null>(null);
  const shown = links[chosen ?? 0];
  if (!shown) return <p>{texts.noLinks}</p>;
  const name = pairName([shown.query_word, shown.key_word]);
  return (
    <>
      <div class="beside target" role="group" aria-label={texts.linksLabel}>
        {links.map((link, i) => (
          <button
            type="button"
            aria-pressed={chosen === i}
            onClick={() => {
              choose(i);
              finish(3);
            }}
          >
            {pairName([link.query_word, link.key_word])} <span class="quiet figure">{texts.meanIs(fixed(link.mean, 2))}</span>
          </button>
        ))}
      </div>
      <Grid link={shown} name={name} />
      {chosen !== null && <Said link={shown} name={name} />}
    </>
  );
}

function Said({ link, name }: { link: LinkWeights; name: string }) {
  const texts = t.value.tour.steps.readers;
  const [best] = readersOf(link);
  const heaviest = heaviestOf(link);
  const two = (value: number | null) => (value === null ? null : fixed(value, 2));
  return (
    <div class="said" aria-live="polite">
      <p>{texts.found(name, nameOf(best!), fixed(best!.weight, 2), two(best!.offsetMean), fixed(link.mean, 2))}</p>
      {nameOf(heaviest) !== nameOf(best!) && heaviest.offsetMean !== null && (
        <p>{texts.heaviest(nameOf(heaviest), fixed(heaviest.weight, 2), fixed(heaviest.offsetMean, 2))}</p>
      )}
    </div>
  );
}

function Grid({ link, name }: { link: LinkWeights; name: string }) {
  const texts = t.value.story;
  const layers = link.heads.length;
  const heads = link.heads[0]?.length ?? 0;
  const best = new Set(readersOf(link).slice(0, outlined).map(nameOf));
  const cursor = useCursor({
    rows: layers,
    cols: heads,
    item: (layer, head) => {
      const { weight, offset_mean } = link.heads[layer]![head]!;
      return {
        key: `reader-${layer}.${head}-${name}`,
        title: texts.headOnLink(`${layer}.${head}`, name),
        value: fixed(weight, 3),
        rows: [
          [texts.offsetMean, offset_mean === null ? "–" : fixed(offset_mean, 3)],
          [texts.mean, fixed(link.mean, 3)],
        ],
        formula: texts.formula,
        source: texts.source,
      };
    },
  });
  return (
    <Picture
      caption={texts.gridCaption(name)}
      table={() => ({
        columns: [texts.head, texts.weight, texts.offsetMean],
        rows: readersOf(link).map((each) => [nameOf(each), fixed(each.weight, 3), each.offsetMean === null ? "–" : fixed(each.offsetMean, 3)]),
      })}
    >
      <div class="readers">
        <span />
        <div class="reader-heads" aria-hidden="true">{Array.from({ length: heads }, (_, i) => <span>{i}</span>)}</div>
        <div class="reader-layers" aria-hidden="true">{link.heads.map((_, i) => <span>{i}</span>)}</div>
        <svg
          class="reader-grid"
          viewBox={`0 0 ${heads} ${layers}`}
          role="img"
          aria-label={`${texts.gridCaption(name)}: ${[...best].join(", ")}`}
          {...cursor}
        >
          {link.heads.flatMap((row, layer) => row.map(({ weight }, head) => (
            <g>
              <rect class="ground" x={head + 0.06} y={layer + 0.06} width={0.88} height={0.88} />
              <rect class="lit" x={head + 0.06} y={layer + 0.06} width={0.88} height={0.88} fill-opacity={Math.min(1, weight)} />
              {best.has(`${layer}.${head}`) && <rect class="best" x={head + 0.06} y={layer + 0.06} width={0.88} height={0.88} />}
            </g>
          )))}
        </svg>
      </div>
      <p class="quiet note">{texts.gridNote}</p>
    </Picture>
  );
}
