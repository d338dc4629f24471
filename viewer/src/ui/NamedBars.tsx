// Numbers as bars under each other, each with its name and its figure; negative ones reach to the left.
import { point, select, type Item } from "../state/inspect";
import { Picture } from "./Picture";

export interface Bar {
  name: string;
  value: number;
  /** The figure as it is written. */
  said: string;
  chosen?: boolean;
  /** What the figure is made of. */
  detail?: string;
}

export interface NamedBarsProps {
  caption: string;
  bars: Bar[];
  nameColumn: string;
  valueColumn: string;
  /** A class that names the colour: q, k, v; weights without. */
  tone?: string;
  formula?: string;
  source?: string;
}

export function NamedBars({ caption, bars, nameColumn, valueColumn, tone = "w", formula, source }: NamedBarsProps) {
  const largest = bars.reduce((most, { value }) => Math.max(most, Math.abs(value)), 0) || 1;
  const signed = bars.some(({ value }) => value < 0);
  return (
    <Picture caption={caption} table={() => ({ columns: [nameColumn, valueColumn], rows: bars.map(({ name, said, detail }) => [name, said, ...(detail === undefined ? [] : [detail])]) })}>
      <div class={`named-bars of-${tone} ${signed ? "signed" : ""}`}>
        {bars.map(({ name, value, said, chosen, detail }) => {
          const share = (Math.abs(value) / largest) * (signed ? 50 : 100);
          const item = (): Item => ({
            key: `${caption} ${name}`,
            title: name,
            value: said,
            ...(detail === undefined ? {} : { rows: [["=", detail]] as [string, string][] }),
            ...(formula ? { formula } : {}),
            ...(source ? { source } : {}),
          });
          // Name and figure are text that anyone reads, so a bar needs no focus of its own.
          return (
            <div class={chosen ? "bar chosen" : "bar"} onPointerEnter={() => point(item())} onPointerLeave={() => point(null)} onClick={() => select(item())}>
              <span class="bar-name">{name}</span>
              <span class="bar-room">
                <i style={{ width: `${share}%`, marginLeft: signed ? `${value < 0 ? 50 - share : 50}%` : "0" }} />
              </span>
              <span class="figure bar-said">{said}</span>
            </div>
          );
        })}
      </div>
    </Picture>
  );
}
