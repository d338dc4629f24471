// Of one head over a scan: tokens that ask and are asked, components of q and k, distances.
import type { ScanHead, ScanToken } from "../../engine/corpus";
import { fixed, t } from "../../texts";
import { NamedBars } from "../../ui/NamedBars";

const shownTokens = 25;

const bars = (tokens: ScanToken[]) => tokens.slice(0, shownTokens).map(({ token, mass, count }) => ({ name: token, value: mass, said: fixed(mass, 3), detail: `${count} ×` }));

export function Tokens({ head }: { head: ScanHead }) {
  const texts = t.value.corpus;
  const { asking = [], asked = [] } = head;
  if (asking.length + asked.length === 0) return <p>{texts.noTokens}</p>;
  return (
    <div class="side-by-side">
      <NamedBars caption={texts.asking} bars={bars(asking)} nameColumn={texts.token} valueColumn={texts.given} tone="q" formula={texts.askingFormula} />
      <NamedBars caption={texts.asked} bars={bars(asked)} nameColumn={texts.token} valueColumn={texts.received} tone="k" formula={texts.askedFormula} />
    </div>
  );
}

export function Components({ head }: { head: ScanHead }) {
  const texts = t.value.corpus;
  const of = (shares: number[]) => shares.map((share, i) => ({ name: texts.component(i + 1), value: share, said: `${fixed(100 * share, 1)} %` }));
  return (
    <div class="side-by-side">
      <NamedBars caption={texts.queryComponents} bars={of(head.query_components ?? [])} nameColumn={texts.componentColumn} valueColumn={texts.varianceShare} tone="q" formula={texts.componentFormula} />
      <NamedBars caption={texts.keyComponents} bars={of(head.key_components ?? [])} nameColumn={texts.componentColumn} valueColumn={texts.varianceShare} tone="k" formula={texts.componentFormula} />
    </div>
  );
}

export function Distances({ head }: { head: ScanHead }) {
  const texts = t.value.heads;
  const all = (head.distances ?? []).filter(({ share }) => share > 0);
  const most = [...all].sort((a, b) => b.share - a.share).slice(0, 40).sort((a, b) => a.begin - b.begin);
  return (
    <>
      <NamedBars
        caption={texts.distanceCaption(`${head.layer}.${head.head}`)}
        bars={most.map(({ begin, end, share }) => ({ name: texts.distanceName(begin, end), value: share, said: fixed(share, 4) }))}
        nameColumn={texts.distanceColumn}
        valueColumn={texts.share}
        formula={texts.distanceFormula}
      />
      <p class="quiet small">{texts.distanceNote}{most.length < all.length ? ` ${t.value.corpus.mostDistances(most.length, all.length)}` : ""}</p>
    </>
  );
}
