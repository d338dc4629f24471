// What each token of the input gets of the output, over all layers.
import { rollout } from "../../engine/heads";
import type { Trace } from "../../engine/questions";
import { fixed, t } from "../../texts";
import { NamedBars } from "../../ui/NamedBars";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";

const mostBars = 60;

export function Rollout({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const asked = useAnswer((engine, options) => rollout(engine, trace.id, options), [trace.id]);
  return (
    <Ready asked={asked}>
      {(shares) => {
        const all = [...shares].map((share, place) => ({ name: `${place} ${trace.tokens[place] ?? ""}`, value: share }));
        const most = all.length <= mostBars ? all : [...all].sort((a, b) => b.value - a.value).slice(0, mostBars);
        return (
          <>
            <p>{trace.causal ? texts.rolloutDecoder : texts.rolloutEncoder}</p>
            {most.length < all.length && <p class="quiet">{texts.rolloutMost(mostBars, all.length)}</p>}
            <NamedBars
              caption={texts.rolloutCaption}
              bars={most.map(({ name, value }) => ({ name, value, said: fixed(value, 4) }))}
              nameColumn={texts.token}
              valueColumn={texts.share}
              formula={texts.rolloutFormula}
              source={texts.rolloutSource}
            />
          </>
        );
      }}
    </Ready>
  );
}
