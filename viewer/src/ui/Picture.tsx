// A picture, and the table behind it: whoever does not see the one reads the other.
import type { ComponentChildren } from "preact";
import { useId, useRef, useState } from "preact/hooks";
import { t } from "../texts";
import { Drawing } from "./drawn";

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

type Format = "SVG" | "PNG";

async function save(figure: HTMLElement, caption: string, format: Format): Promise<void> {
  const drawing = new Drawing(figure);
  const blob = format === "SVG" ? new Blob([drawing.svg(caption)], { type: "image/svg+xml" }) : await drawing.png(caption);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${caption.replace(/[^\p{L}\p{N}.]+/gu, "-").slice(0, 80).replace(/^[-.]+|[-.]+$/g, "") || "figure"}.${format.toLowerCase()}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser has read it by then
}

export function Picture({ caption, table, children }: PictureProps) {
  const texts = t.value.frame;
  const [asTable, setAsTable] = useState(false);
  const [failed, setFailed] = useState<string | null>(null);
  const figure = useRef<HTMLElement>(null);
  const id = useId();
  const saver = (format: Format) => (
    <button
      type="button"
      class="plain"
      aria-label={texts.saveAs(format)}
      onClick={() => {
        setFailed(null);
        save(figure.current!, caption, format).catch((error: unknown) => setFailed(error instanceof Error ? error.message : String(error)));
      }}
    >
      {format}
    </button>
  );
  return (
    <figure class="picture" aria-labelledby={id} ref={figure}>
      <figcaption>
        <span id={id}>{caption}</span>
        <span class="ways">
          <button type="button" class="plain" aria-pressed={asTable} onClick={() => setAsTable(!asTable)}>
            {asTable ? texts.asPicture : texts.asTable}
          </button>
          {saver("SVG")}
          {saver("PNG")}
        </span>
      </figcaption>
      {failed !== null && <p class="trouble" role="alert">{texts.failed(failed)}</p>}
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
