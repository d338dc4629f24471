import { pointed, select, selected, type Item } from "../state/inspect";
import { t } from "../texts";

function Facts({ item }: { item: Item }) {
  const texts = t.value.frame;
  const rows: [string, string | undefined][] = [
    [texts.value, item.value],
    [texts.shapeName, item.shape],
    ...(item.rows ?? []),
    [texts.formula, item.formula],
    [texts.source, item.source],
  ];
  return (
    <>
      <h3>{item.title}</h3>
      <dl>
        {rows.map(([name, value]) => value !== undefined && (
          <div>
            <dt>{name}</dt>
            <dd class="figure">{value}</dd>
          </div>
        ))}
      </dl>
      {item.note && <p>{item.note}</p>}
    </>
  );
}

export function Inspector() {
  const texts = t.value.frame;
  const item = selected.value ?? pointed.value;
  return (
    <aside class={`inspector ${selected.value ? "" : "unselected"}`} aria-label={texts.inspector}>
      <h2>{texts.inspector}</h2>
      {item ? <Facts item={item} /> : <p class="quiet">{texts.inspectorEmpty}</p>}
      {selected.value && (
        <button type="button" onClick={() => select(null)}>
          {texts.release}
        </button>
      )}
    </aside>
  );
}
