// X, W_q, W_k, W_v, scores, concatenation and W_o on one scale.
import type { ComponentChildren } from "preact";
import type { Cut } from "../../engine/questions";
import { grouped, t } from "../../texts";
import type { Item } from "../../state/inspect";
import { inspectable } from "../../ui/inspectable";
import { Picture } from "../../ui/Picture";
import { batch, dModel, kvShown, tokens } from "./state";

const largest = 140; // pixels of the longest side
const least = 1.5;

interface Matrix {
  name: string;
  role: string;
  colour: string;
  rows: number;
  /** Columns of one head, and how many heads stand side by side; 1 for what is not cut. */
  columns: number;
  parts: number;
  leftOver: number;
  layer?: string;
  note?: string;
}

function matrices(cut: Cut): Matrix[] {
  const texts = t.value.dimensions;
  const d = dModel.value;
  const h = cut.heads;
  const dk = cut.divides ? cut.d_k : cut.floor_d_k;
  const leftOver = cut.divides ? 0 : cut.dropped;
  const kv = kvShown.value;
  const linear = `nn.Linear(${d}, ${dk})`;
  return [
    { name: "X", role: texts.x, colour: "ink", rows: tokens.value, columns: d, parts: 1, leftOver: 0 },
    { name: "W_q", role: texts.wq, colour: "q", rows: d, columns: dk, parts: h, leftOver, layer: linear },
    { name: "W_k", role: texts.wk, colour: "k", rows: d, columns: dk, parts: kv, leftOver: kv === h ? leftOver : 0, layer: linear },
    { name: "W_v", role: texts.wv, colour: "v", rows: d, columns: dk, parts: kv, leftOver: kv === h ? leftOver : 0, layer: linear },
    { name: "concat", role: texts.concat, colour: "v", rows: tokens.value, columns: dk, parts: h, leftOver, note: texts.concatNote },
    { name: "W_o", role: texts.wo, colour: "ink", rows: d, columns: d, parts: 1, leftOver: 0, layer: `nn.Linear(${d}, ${d})` },
  ];
}

const size = (numbers: number[]): string => `[${numbers.join(", ")}]`;

function Drawn({ matrix, scale }: { matrix: Matrix; scale: number }) {
  const texts = t.value.dimensions;
  const { name, role, colour, rows, columns, parts, leftOver, layer, note } = matrix;
  const one = Math.max(columns * scale, 0.5);
  const width = Math.max(one * parts + leftOver * scale, least);
  const height = Math.max(rows * scale, least);
  const shape = size([rows, columns * parts + leftOver]);
  const cut = parts > 1 || layer !== undefined;
  return (
    <Tile
      name={name}
      colour={colour}
      lines={[role, parts > 1 ? `${size([rows, columns])} × ${parts}` : shape, layer ?? ""]}
      item={() => ({
        key: `matrix ${name}`,
        title: `${name}: ${role}`,
        shape,
        value: `${grouped(rows * (columns * parts + leftOver))} ${texts.count}`,
        rows: [...(cut ? [[texts.oneHead, size([rows, columns])] as [string, string]] : []), ...(layer ? [[texts.layer, layer] as [string, string]] : [])],
        source: texts.engineFormula,
        ...(note ? { note } : {}),
      })}
    >
      <svg width={Math.ceil(width) + 2} height={Math.ceil(height) + 2} aria-hidden="true">
        <g transform="translate(1 1)">
          <rect class="ground" width={width} height={height} />
          {leftOver > 0 && <rect x={one * parts} width={Math.max(leftOver * scale, 2)} height={height} fill="url(#left-over)" />}
          {parts > 1 && one >= 3 && Array.from({ length: parts - 1 }, (_, i) => <line x1={one * (i + 1)} x2={one * (i + 1)} y1={0} y2={height} />)}
          <rect class="edge" width={width} height={height} />
          {parts > 1 && <rect class="one" width={one} height={height} />}
        </g>
      </svg>
    </Tile>
  );
}

function Scores({ heads, scale }: { heads: number; scale: number }) {
  const texts = t.value.dimensions;
  const side = Math.max(tokens.value * scale, least);
  const across = Math.ceil(Math.sqrt(heads));
  const spread = across * (side + 3) <= 1.6 * largest;
  const shift = spread ? 0 : Math.min(6, 60 / heads);
  const place = (i: number): [number, number] =>
    spread ? [(i % across) * (side + 3), Math.floor(i / across) * (side + 3)] : [i * shift, i * shift];
  const extent = spread ? across * (side + 3) : side + (heads - 1) * shift;
  const down = spread ? Math.ceil(heads / across) * (side + 3) : extent;
  const n = tokens.value;
  return (
    <Tile
      name="scores"
      colour="w"
      lines={[texts.scoresNote, `${size([n, n])} × ${heads}`, ""]}
      item={() => ({
        key: "matrix scores",
        title: texts.scores,
        shape: size([batch.value, heads, n, n]),
        value: `${grouped(batch.value * heads * n * n)} ${texts.count}`,
        formula: "q · k / √d_k",
        source: texts.engineFormula,
        note: texts.scoresNote,
      })}
    >
      <svg width={Math.ceil(extent) + 2} height={Math.ceil(down) + 2} aria-hidden="true">
        <g transform="translate(1 1)">
          {Array.from({ length: heads }, (_, i) => {
            const [x, y] = place(heads - 1 - i);
            return (
              <>
                <rect class="ground solid" x={x} y={y} width={side} height={side} />
                <rect class={i === heads - 1 ? "one" : "edge"} x={x} y={y} width={side} height={side} />
              </>
            );
          })}
        </g>
      </svg>
    </Tile>
  );
}

function Tile({ name, colour, lines, item, children }: {
  name: string;
  colour: string;
  lines: string[];
  item: () => Item;
  children: ComponentChildren;
}) {
  return (
    <div class={`matrix of-${colour}`} data-name={name} {...inspectable(item)}>
      <div class="drawn">{children}</div>
      <p class="name">{name}</p>
      {lines.map((line, i) => line && <p class={i ? "figure" : "quiet"}>{line}</p>)}
    </div>
  );
}

export function Shapes({ cut }: { cut: Cut }) {
  const texts = t.value.dimensions;
  const all = matrices(cut);
  const scale = largest / Math.max(dModel.value, tokens.value);
  const n = tokens.value;
  return (
    <Picture
      caption={texts.shapesCaption}
      table={() => ({
        columns: [texts.name, texts.shape, texts.oneHead, texts.count],
        rows: [
          ...all.map(({ name, rows, columns, parts, leftOver }): (string | number)[] => [
            name,
            size([rows, columns * parts + leftOver]),
            parts > 1 ? size([rows, columns]) : "",
            rows * (columns * parts + leftOver),
          ]),
          [texts.scores, size([cut.heads, n, n]), size([n, n]), cut.heads * n * n],
        ],
      })}
    >
      <p class="quiet note">{texts.shapesLead}</p>
      <div class="matrices">
        {all.slice(0, 4).map((matrix) => <Drawn key={matrix.name} matrix={matrix} scale={scale} />)}
        <Scores heads={cut.heads} scale={scale} />
        {all.slice(4).map((matrix) => <Drawn key={matrix.name} matrix={matrix} scale={scale} />)}
      </div>
    </Picture>
  );
}
