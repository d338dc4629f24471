// A picture, and the table behind it: whoever does not see the one reads the other.
import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import { t } from "../texts";

export interface TableData {
  columns: string[];
  rows: (string | number)[][];
}

export interface PictureProps {
  caption: string;
  /** Built only while it is looked at. */
  table: () => TableData;
  children: ComponentChildren;
}

export function Picture({ caption, table, children }: PictureProps) {
  const [asTable, setAsTable] = useState(false);
  const id = useId();
  return (
    <figure class="picture" aria-labelledby={id}>
      <figcaption>
        <span id={id}>{caption}</span>
        <button type="button" class="plain" aria-pressed={asTable} onClick={() => setAsTable(!asTable)}>
          {asTable ? t.value.frame.asPicture : t.value.frame.asTable}
        </button>
      </figcaption>
      {asTable ? <Table caption={caption} {...table()} /> : children}
    </figure>
  );
}

function Table({ caption, columns, rows }: TableData & { caption: string }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <thead>
          <tr>{columns.map((name) => <th scope="col">{name}</th>)}</tr>
        </thead>
        <tbody>
          {rows.map(([first, ...others]) => (
            <tr>
              <th scope="row">{first}</th>
              {others.map((cell) => <td class={typeof cell === "number" ? "figure" : ""}>{cell}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
