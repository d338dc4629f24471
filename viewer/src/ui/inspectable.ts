// What makes an element tell of itself: under the pointer or in focus the tip shows it, pressed the inspector keeps it.
import { point, select, type Item } from "../state/inspect";

export function inspectable(item: () => Item) {
  return {
    tabIndex: 0,
    role: "button",
    "data-item": "",
    onPointerEnter: () => point(item()),
    onPointerLeave: () => point(null),
    onFocus: () => point(item()),
    onBlur: () => point(null),
    onClick: () => select(item()),
    onKeyDown: (event: KeyboardEvent) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      select(item());
    },
  } as const;
}
