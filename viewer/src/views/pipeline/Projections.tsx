// x, and x · W_q, W_k, W_v.
import { fixed, t } from "../../texts";
import { NeedsModel } from "../../ui/NeedsModel";
import { Picture } from "../../ui/Picture";
import { Strip } from "../../ui/Strip";
import type { Around, Flow } from "./flow";
import { sourceOf, TokenRows } from "./TokenRows";

export function Tokens({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { around, trace, layer } = flow;
  if (!around) return <NeedsModel />;
  const { x, dModel } = around;
  return (
    <>
      <p>
        {texts.x.text(dModel)} {layer === 0 ? texts.x.first : texts.x.mixed(layer)} {around.norm === "rms" && texts.x.rms}
      </p>
      <Picture
        caption={`x [${trace.queries}, ${dModel}]`}
        table={() => ({
          columns: ["", ...Array.from({ length: dModel }, (_, i) => String(i))],
          rows: trace.tokens.map((token, i) => [token, ...Array.from(x.subarray(i * dModel, (i + 1) * dModel), (value) => fixed(value, 3))]),
        })}
      >
        <TokenRows flow={flow} name="x" colour="x" values={x} cols={dModel} formula={texts.x.formula} chooses="query" />
      </Picture>
    </>
  );
}

const square = 132;

/** W as a square of slabs, one a head; the chosen one holds its weights. */
function Slabs({ flow, around, name }: { flow: Flow; around: Around; name: "q" | "k" | "v" }) {
  const texts = t.value.pipeline;
  const { trace, d, head } = flow;
  const heads = name === "q" ? trace.heads : trace.kv_heads;
  const own = name === "q" ? head : Math.floor((head * trace.kv_heads) / trace.heads);
  const values = around.slabs[name];
  const matrix = `W_${name}`;
  return (
    <div class={`slabs of-${name}`}>
      {Array.from({ length: heads }, (_, i) =>
        i === own ? (
          <div class="slab own">
            <Strip
              label={texts.qkv.slab(own, matrix)}
              colour={name}
              rows={around.dModel}
              cols={d}
              at={(row, col) => values[row * d + col]!}
              item={(row, col) => ({
                key: `${matrix} ${row} ${col}`,
                title: texts.weightOf(matrix, row, own * d + col),
                value: fixed(values[row * d + col]!, 4),
                shape: `${texts.qkv.slab(own, matrix)} [${around.dModel}, ${d}]`,
                source: sourceOf(flow),
              })}
              height={square}
            />
          </div>
        ) : (
          <div class="slab" aria-hidden="true" />
        ),
      )}
    </div>
  );
}

export function Projections({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { around, d, trace } = flow;
  const shown = (["q", "k", "v"] as const).filter((name) => flow[name] !== null);
  return (
    <>
      {around ? <p>{texts.qkv.text(around.dModel, d)} {around.rope && texts.qkv.rope}</p> : <NeedsModel />}
      <div class="three">
        {shown.map((name) => (
          <Picture
            key={name}
            caption={texts.qkv.names[name]}
            table={() => ({
              columns: ["", ...Array.from({ length: d }, (_, i) => String(i))],
              rows: trace.tokens.map((token, i) => [token, ...Array.from(flow[name]!.subarray(i * d, (i + 1) * d), (value) => fixed(value, 3))]),
            })}
          >
            {around && (
              <>
                <p class={`matrix-name ${name}`}>
                  x · W_{name} <span class="figure quiet">[{around.dModel}, {d}]</span>
                </p>
                <Slabs flow={flow} around={around} name={name} />
              </>
            )}
            <p class={`matrix-name ${name}`}>
              {around ? "= " : ""}{name} <span class="figure quiet">[{trace.keys}, {d}]</span>
            </p>
            <TokenRows flow={flow} name={name} colour={name} values={flow[name]!} cols={d} formula={texts.qkv.formula(name)} chooses={name === "q" ? "query" : "key"} />
          </Picture>
        ))}
      </div>
    </>
  );
}
