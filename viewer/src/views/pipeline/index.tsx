import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { head, key, opened, query, who } from "../../state/session";
import { t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import { Chooser, onArrow } from "./Chooser";
import { askFlow, type Flow } from "./flow";
import { FlowLine } from "./FlowLine";
import { Mix } from "./Mix";
import { Output } from "./Output";
import { Product } from "./Product";
import { Projections, Tokens } from "./Projections";
import { Softmax } from "./Softmax";
import { part, type Part } from "./state";
import "./pipeline.css";

const shown: Record<Part, ComponentType<{ flow: Flow }>> = {
  x: Tokens,
  qkv: Projections,
  product: Product,
  softmax: Softmax,
  mix: Mix,
  output: Output,
};

export function Pipeline() {
  const now = opened.value;
  const model = who.value?.models[0]?.id;
  const [layer, index] = head.value;
  const asked = useAnswer(
    now && ((engine, options) => askFlow(engine, { trace: now, model, layer, head: index, query: query.value, key: key.value }, options)),
    [now?.id, model, layer, index, query.value, key.value],
  );
  useEffect(() => {
    addEventListener("keydown", onArrow);
    return () => removeEventListener("keydown", onArrow);
  }, []);
  const texts = t.value.pipeline;
  if (!now) return <p class="quiet">{t.value.frame.opening}</p>;
  const Part = shown[part.value];
  return (
    <>
      <h2>{texts.heading(`${layer}.${index}`)}</h2>
      <p class="lead">{texts.lead(now.tokens[query.value] ?? "", now.tokens[key.value] ?? "")}</p>
      <Chooser />
      <Ready asked={asked}>
        {(flow) => (
          <>
            <FlowLine flow={flow} />
            <section class="part" aria-labelledby="part">
              <h3 id="part">{texts.parts[part.value].title}</h3>
              <Part flow={flow} />
            </section>
          </>
        )}
      </Ready>
    </>
  );
}
