// How far a head looks: its weight by distance.
import { mapOf } from "../../engine/heads";
import type { Trace } from "../../engine/questions";
import { head } from "../../state/session";
import { fixed, t } from "../../texts";
import { NamedBars } from "../../ui/NamedBars";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import { distanceBins } from "./bins";

export function Distance({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const asked = useAnswer((engine, options) => mapOf(engine, { trace: trace.id, layer, head: index, coarse: false }, options), [trace.id, layer, index]);
  return (
    <Ready asked={asked}>
      {({ tracks }) => {
        if (!tracks) return <p>{texts.noTracks}</p>;
        const sum = tracks.distanceMass.reduce((total, value) => total + value, 0) || 1;
        const bins = distanceBins(tracks.distanceMass, tracks.firstDistance);
        return (
          <>
            <dl class="facts">
              <div><dt>{texts.distanceMean}</dt><dd class="figure">{fixed(tracks.distanceMean, 3)}</dd></div>
              <div><dt>{texts.distanceVariance}</dt><dd class="figure">{fixed(tracks.distanceVariance, 3)}</dd></div>
            </dl>
            <NamedBars
              caption={texts.distanceCaption(`${layer}.${index}`)}
              bars={bins.map(({ begin, end, mass }) => ({ name: texts.distanceName(begin, end), value: mass / sum, said: fixed(mass / sum, 4) }))}
              nameColumn={texts.distanceColumn}
              valueColumn={texts.share}
              formula={texts.distanceFormula}
              source={texts.distanceSource}
            />
            <p class="quiet small">{texts.distanceNote}</p>
          </>
        );
      }}
    </Ready>
  );
}
