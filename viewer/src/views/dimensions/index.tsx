import { useEffect } from "preact/hooks";
import { dims } from "../../engine/questions";
import { t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import { Code } from "./Code";
import { HeadCount, Sizes } from "./Controls";
import { CutBar, Hatching } from "./CutBar";
import { Shapes } from "./Shapes";
import { mostHeads, numHeads, sizes } from "./state";
import { Times } from "./Times";
import { machine, measureMachine } from "./measure";
import { Work } from "./Work";
import "./dimensions.css";

const every = Array.from({ length: mostHeads }, (_, i) => i + 1);

export function Dimensions() {
  const { kv_heads: kv, ...layer } = sizes.value;
  const h = numHeads.value;
  // Asked again once the machine's limits are there: each step then has the one that binds it.
  const parts = ["dims", JSON.stringify(layer), machine.value !== null] as const;
  // Every count at once: the slider then waits for nobody.
  const all = useAnswer((engine, options) => dims(engine, { ...layer, heads: every }, options), parts);
  const shared = useAnswer(
    kv === undefined ? null : (engine, options) => dims(engine, { ...layer, kv_heads: kv, heads: [h] }, options),
    [...parts, kv, h],
  );
  const ready = all.state === "ready";
  useEffect(() => {
    if (ready) void measureMachine();
  }, [ready]);
  const texts = t.value.dimensions;
  return (
    <>
      <h2>{texts.heading}</h2>
      <p class="lead">{texts.lead}</p>
      <Ready asked={all}>
        {({ heads: cuts }) => {
          const cut = kv !== undefined && shared.state === "ready" ? shared.value.heads[0] : cuts[h - 1];
          if (!cut) return null;
          return (
            <div class="dimensions">
              <Hatching />
              <Sizes />
              <HeadCount divides={cuts.map((each) => each.divides)} />
              <CutBar cut={cut} />
              <Shapes cut={cut} />
              {cut.divides && <Work cut={cut} />}
              <Times cuts={cuts} />
              <section>
                <h3>{texts.limitsCaption}</h3>
                <p>{texts.limitsText}</p>
              </section>
              <Code cut={cut} />
            </div>
          );
        }}
      </Ready>
    </>
  );
}
