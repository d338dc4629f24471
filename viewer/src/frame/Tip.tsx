// The value under the pointer, beside it.
import { useEffect, useRef } from "preact/hooks";
import { pointed } from "../state/inspect";

const gap = 14;

export function Tip() {
  const box = useRef<HTMLDivElement>(null);
  const at = useRef({ x: 0, y: 0 });
  const place = () => {
    const tip = box.current;
    if (!tip) return;
    const { width, height } = tip.getBoundingClientRect();
    const left = at.current.x + gap + width > innerWidth ? at.current.x - gap - width : at.current.x + gap;
    const top = at.current.y + gap + height > innerHeight ? at.current.y - gap - height : at.current.y + gap;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  };
  useEffect(() => {
    const move = (event: PointerEvent) => {
      at.current = { x: event.clientX, y: event.clientY };
      place();
    };
    const focus = (event: FocusEvent) => {
      if (!(event.target instanceof Element)) return;
      const { left, bottom } = event.target.getBoundingClientRect();
      at.current = { x: left, y: bottom };
      place();
    };
    addEventListener("pointermove", move);
    addEventListener("focusin", focus);
    return () => {
      removeEventListener("pointermove", move);
      removeEventListener("focusin", focus);
    };
  }, []);
  useEffect(place, [pointed.value]);
  const item = pointed.value;
  return (
    <div class="tip" ref={box} aria-hidden="true" hidden={!item}>
      {item && (
        <>
          <span>{item.title}</span>
          {item.value !== undefined && <b class="figure">{item.value}</b>}
          {item.shape && <span class="figure quiet">{item.shape}</span>}
        </>
      )}
    </div>
  );
}
