// The heads side by side, times W_o, plus x.
import type { Item } from "../../state/inspect";
import { fixed, t } from "../../texts";
import type { Colour } from "../../ui/colours";
import { NeedsModel } from "../../ui/NeedsModel";
import { Picture } from "../../ui/Picture";
import { Strip } from "../../ui/Strip";
import type { Flow } from "./flow";
import { sourceOf } from "./TokenRows";

export function Output({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { around, trace, d, query, head } = flow;
  if (!around) return <NeedsModel />;
  const { dModel, wo } = around;
  const wide = trace.heads * d;
  const token = trace.tokens[query]!;
  const source = sourceOf(flow);
  const concat = around.concat.subarray(query * wide, (query + 1) * wide);
  const y = around.y.subarray(query * dModel, (query + 1) * dModel);
  const x = around.x.subarray(query * dModel, (query + 1) * dModel);
  const sum = x.map((value: number, i: number) => value + y[i]!);
  const line = (name: string, colour: Colour, values: ArrayLike<number>, formula: string) => (
    <Strip
      label={`${name} [${values.length}]`}
      colour={colour}
      rows={1}
      cols={values.length}
      at={(_, col) => values[col]!}
      item={(_, col): Item => ({ key: `${name} ${col}`, title: texts.element(name, token, col), value: fixed(values[col]!, 4), shape: `[${values.length}]`, formula, source })}
      height={30}
    />
  );
  return (
    <>
      <p>{texts.output.text(trace.heads, d, wide)}</p>
      <Picture
        caption={token}
        table={() => ({
          columns: ["", texts.output.concat, texts.output.y, texts.output.x, texts.output.sum],
          rows: Array.from(y, (value, i) => [i, fixed(concat[i] ?? NaN, 4), fixed(value, 4), fixed(x[i]!, 4), fixed(sum[i]!, 4)]),
        })}
      >
        <div class="lines">
          <p class="v">{texts.output.concat} <span class="figure quiet">[{wide}]</span></p>
          <div class="cut-line">
            {line(texts.output.concat, "v", concat, "concat(head_0, head_1, …)")}
            <div class="cuts" aria-hidden="true">
              {Array.from({ length: trace.heads }, (_, i) => <span class={i === head ? "own" : ""}>{i}</span>)}
            </div>
          </div>
          <p>{texts.output.wo} <span class="figure quiet">[{wide}, {dModel}]</span></p>
          <div class="slabs-down of-x">
            {Array.from({ length: trace.heads }, (_, i) =>
              i === head ? (
                <div class="slab own">
                  <Strip
                    label={texts.qkv.slab(head, "W_o")}
                    colour="x"
                    rows={d}
                    cols={dModel}
                    at={(row, col) => wo[row * dModel + col]!}
                    item={(row, col) => ({
                      key: `W_o ${row} ${col}`,
                      title: texts.weightOf("W_o", head * d + row, col),
                      value: fixed(wo[row * dModel + col]!, 4),
                      shape: `${texts.qkv.slab(head, "W_o")} [${d}, ${dModel}]`,
                      source,
                    })}
                    height={2 * d}
                  />
                </div>
              ) : (
                <div class="slab" aria-hidden="true" />
              ),
            )}
          </div>
          <p>= {texts.output.y} <span class="figure quiet">[{dModel}]</span></p>
          {line(texts.output.y, "x", y, texts.output.formulaY)}
          <p>+ {texts.output.x}</p>
          {line(texts.output.x, "x", x, texts.x.formula)}
          <p>= {texts.output.sum}</p>
          {line(texts.output.sum, "x", sum, texts.output.formulaSum)}
        </div>
      </Picture>
    </>
  );
}
