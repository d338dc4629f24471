// A row of tabs; arrow keys walk through it.
import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export interface TabsProps<T extends string> {
  id: string;
  label: string;
  names: readonly T[];
  now: Signal<T>;
  said: Record<T, string>;
  children: ComponentChildren;
}

export function Tabs<T extends string>({ id, label, names, now, said, children }: TabsProps<T>) {
  const onKeyDown = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by === 0) return;
    event.preventDefault();
    const next = names[(names.indexOf(now.value) + by + names.length) % names.length]!;
    now.value = next;
    document.getElementById(`${id}-${next}`)?.focus();
  };
  return (
    <>
      <div class="sub-tabs" role="tablist" aria-label={label} onKeyDown={onKeyDown}>
        {names.map((name) => (
          <button
            type="button"
            id={`${id}-${name}`}
            role="tab"
            aria-selected={now.value === name}
            aria-controls={`${id}-panel`}
            tabIndex={now.value === name ? 0 : -1}
            onClick={() => (now.value = name)}
          >
            {said[name]}
          </button>
        ))}
      </div>
      <div id={`${id}-panel`} class="sub-panel" role="tabpanel" aria-labelledby={`${id}-${now.value}`}>
        {children}
      </div>
    </>
  );
}
