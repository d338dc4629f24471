// The whole way in one line, each part a small picture of its own numbers; a press opens it.
import type { ComponentChildren } from "preact";
import { fixed, t } from "../../texts";
import type { Flow } from "./flow";
import { part, parts, type Part } from "./state";

const width = 76;
const height = 44;

/** A few bars of a row of numbers, each the mean of its neighbours where they are many. */
function Small({ values, colour, signed = true }: { values: ArrayLike<number>; colour: string; signed?: boolean }) {
  const count = Math.min(values.length, 38);
  const bars = Array.from({ length: count }, (_, i) => values[Math.floor((i * values.length) / count)]!);
  const most = Math.max(1e-12, ...bars.map((value) => (Number.isFinite(value) ? Math.abs(value) : 0)));
  const zero = signed ? height / 2 : height;
  const unit = (signed ? height / 2 : height) / most;
  return (
    <g class={`of-${colour}`}>
      {bars.map((value, i) => Number.isFinite(value) && (
        <rect
          class={value < 0 ? "below" : "above"}
          x={(i * width) / count}
          width={Math.max(1, width / count - 0.6)}
          y={value < 0 ? zero : zero - value * unit}
          height={Math.max(0.6, Math.abs(value) * unit)}
        />
      ))}
    </g>
  );
}

function three(flow: Flow) {
  const { d, query, key } = flow;
  const rows: [string, ArrayLike<number> | null][] = [
    ["q", flow.q.subarray(query * d, (query + 1) * d)],
    ["k", flow.k.subarray(key * d, (key + 1) * d)],
    ["v", flow.v && flow.v.subarray(key * d, (key + 1) * d)],
  ];
  return rows.map(([name, values], i) => values && (
    <g transform={`translate(0 ${i * 15}) scale(1 0.32)`}>
      <Small values={values} colour={name} />
    </g>
  ));
}

export function FlowLine({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { around, query, key, trace } = flow;
  const word = (token: number) => trace.tokens[token]!;
  const row = (values: Flow["q"], cols: number) => values.subarray(query * cols, (query + 1) * cols);
  const seen: Record<Part, [picture: ComponentChildren, figure: string]> = {
    x: [around && <Small values={row(around.x, around.dModel)} colour="x" />, around ? `[${trace.queries}, ${around.dModel}]` : "–"],
    qkv: [three(flow), `[${trace.keys}, ${flow.d}]`],
    product: [<Small values={flow.products} colour="x" />, fixed(flow.scores[key]!, 3)],
    softmax: [<Small values={flow.weights} colour="w" signed={false} />, fixed(flow.weights[key]!, 4)],
    mix: [flow.output && <Small values={flow.output} colour="v" />, `[${flow.d}]`],
    output: [around && <Small values={row(around.y, around.dModel)} colour="x" />, around ? `[${around.dModel}]` : "–"],
  };
  return (
    <div class="flow" role="group" aria-label={texts.flow}>
      {parts.map((name, i) => (
        <>
          {i > 0 && <span class="arrow" aria-hidden="true">→</span>}
          <button type="button" class="flow-part" aria-pressed={part.value === name} onClick={() => (part.value = name)}>
            <svg viewBox={`0 0 ${width} ${height}`} width={width} height={height} aria-hidden="true">{seen[name][0]}</svg>
            <b>{texts.parts[name].name}</b>
            <span class="figure quiet">{seen[name][1]}</span>
          </button>
        </>
      ))}
      <p class="hidden" role="status">{`${word(query)} → ${word(key)}: ${fixed(flow.weights[key]!, 4)}`}</p>
    </div>
  );
}
