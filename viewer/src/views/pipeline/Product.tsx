// The products of one query and one key as signed bars that add up to the score.
import type { Item } from "../../state/inspect";
import { fixed, t } from "../../texts";
import { Bars } from "../../ui/Bars";
import { Picture } from "../../ui/Picture";
import type { Flow } from "./flow";
import { sourceOf } from "./TokenRows";

export function Product({ flow }: { flow: Flow }) {
  const texts = t.value.pipeline;
  const { d, products, trace, query, key, dot, scores } = flow;
  const word = (token: number) => trace.tokens[token]!;
  const q = flow.q.subarray(query * d, (query + 1) * d);
  const k = flow.k.subarray(key * d, (key + 1) * d);
  const source = sourceOf(flow);
  const element = (name: string, token: number, values: ArrayLike<number>) => (i: number): Item => ({
    key: `${name} ${token} ${i}`,
    title: texts.element(name, word(token), i),
    value: fixed(values[i]!, 4),
    shape: `${name} [${d}]`,
    formula: texts.qkv.formula(name),
    source,
  });
  const factors = (i: number): [string, string][] => [["q", fixed(q[i]!, 4)], ["k", fixed(k[i]!, 4)]];
  const product = (i: number): Item => ({
    key: `product ${i}`,
    title: `q_${i} · k_${i}`,
    value: fixed(products[i]!, 4),
    shape: `[${d}]`,
    rows: factors(i),
    formula: texts.product.formulaProduct,
    source,
  });
  const sums: number[] = [];
  for (const value of products) sums.push((sums[sums.length - 1] ?? 0) + value);
  const running = (i: number): Item => ({
    key: `running ${i}`,
    title: texts.product.running_i(i + 1),
    value: fixed(sums[i]!, 4),
    rows: [[`q_${i} · k_${i}`, fixed(products[i]!, 4)]],
    formula: texts.product.formulaScore,
    source,
  });
  return (
    <>
      <p>{texts.product.text(d, word(query), word(key))}</p>
      <Picture
        caption={`${word(query)} · ${word(key)}`}
        table={() => ({
          columns: ["", "q", "k", "q · k"],
          rows: Array.from(products, (value, i) => [i, fixed(q[i]!, 4), fixed(k[i]!, 4), fixed(value, 4)]),
        })}
      >
        <div class="bar-rows">
          <p><b class="q">q</b> {word(query)}</p>
          <Bars label={`q: ${word(query)}`} colour="q" values={q} item={element("q", query, q)} height={56} />
          <p><b class="k">k</b> {word(key)}</p>
          <Bars label={`k: ${word(key)}`} colour="k" values={k} item={element("k", key, k)} height={56} />
          <p>{texts.product.products}</p>
          <Bars label={texts.product.products} colour="x" values={products} item={product} height={84} />
          <p>{texts.product.running}</p>
          <Bars label={texts.product.running} colour="x" values={products} item={running} height={84} running />
        </div>
        <p class="figure sum">{texts.product.sum(fixed(dot, 3), fixed(trace.scale, 4), fixed(scores[key]!, 3))}</p>
      </Picture>
    </>
  );
}
