import { view, views, type View } from "../state/app";
import { t } from "../texts";

const step: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1 };

function onKey(event: KeyboardEvent): void {
  const by = step[event.key];
  if (by === undefined) return;
  event.preventDefault();
  const next: View = views[(views.indexOf(view.value) + by + views.length) % views.length]!;
  view.value = next;
  document.getElementById(`tab-${next}`)?.focus();
}

export function ViewTabs() {
  return (
    <div class="views" role="tablist" aria-label={t.value.frame.viewsLabel} onKeyDown={onKey}>
      {views.map((name, i) => (
        <button
          type="button"
          id={`tab-${name}`}
          role="tab"
          aria-selected={view.value === name}
          aria-controls="stage"
          tabIndex={view.value === name ? 0 : -1}
          onClick={() => (view.value = name)}
        >
          <kbd aria-hidden="true">{i + 1}</kbd> {t.value.frame.views[name]}
        </button>
      ))}
    </div>
  );
}
