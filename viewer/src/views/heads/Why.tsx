// Why a weight is large: the products of query and key, dimension by dimension, which add up to the score.
import { useState } from "preact/hooks";
import { why, type Trace } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { head, key, query } from "../../state/session";
import { fixed, t } from "../../texts";
import { NamedBars } from "../../ui/NamedBars";
import { figure } from "../../ui/figures";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";
import { TokenPick } from "./TokenPick";

export function Why({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const [layer, index] = head.value;
  const [sorted, setSorted] = useState(false);
  const [row, column] = [query.value, key.value];
  const asked = useAnswer((engine, options) => why(engine, { trace: trace.id, layer, head: index, row, key: column }, options), [trace.id, layer, index, row, column]);
  return (
    <>
      <TokenPick tokens={trace.tokens} queries={trace.queries} />
      <Ready asked={asked}>
        {(answer) => {
          const products = Float64Array.from(numbers(answer, "products"));
          const [q, k] = [numbers(answer, "q"), numbers(answer, "k")];
          const dot = products.reduce((sum, value) => sum + value, 0);
          const scale = Number(answer.metadata["scale"] ?? trace.scale);
          const bars = [...products].map((value, dimension) => ({ dimension, value }));
          if (sorted) bars.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
          return (
            <>
              <dl class="facts">
                <div><dt><span class="q">q</span> · <span class="k">k</span></dt><dd class="figure">{fixed(dot, 4)}</dd></div>
                <div><dt>× {fixed(scale, 4)}</dt><dd class="figure">{fixed(dot * scale, 4)}</dd></div>
                <div><dt>{texts.score}</dt><dd class="figure">{fixed(numbers(answer, "score")[0] ?? NaN, 4)}</dd></div>
                <div><dt>{texts.weight}</dt><dd class="figure">{figure(numbers(answer, "weight")[0] ?? NaN)}</dd></div>
              </dl>
              <label><input type="checkbox" checked={sorted} onChange={(event) => setSorted(event.currentTarget.checked)} /> {texts.sortDimensions}</label>
              <NamedBars
                caption={texts.whyCaption(trace.tokens[row] ?? "", trace.tokens[column] ?? "", `${layer}.${index}`)}
                bars={bars.map(({ dimension, value }) => ({
                  name: texts.dimension(dimension),
                  value,
                  said: fixed(value, 3),
                  detail: `${fixed(q[dimension]!, 3)} × ${fixed(k[dimension]!, 3)}`,
                }))}
                nameColumn={texts.dimensionColumn}
                valueColumn={texts.product}
                formula={texts.whyFormula}
                source={texts.whySource}
              />
            </>
          );
        }}
      </Ready>
    </>
  );
}
