// One of many, by arrow keys or by its two buttons.

export interface StepperProps {
  label: string;
  value: number;
  count: number;
  /** What is read aloud and seen. */
  said: string;
  onValue: (value: number) => void;
  colour?: "q" | "k";
}

const moves: Record<string, number> = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };

export function Stepper({ label, value, count, said, onValue, colour }: StepperProps) {
  const to = (next: number) => onValue(Math.min(count - 1, Math.max(0, next)));
  const onKeyDown = (event: KeyboardEvent) => {
    const next =
      event.key in moves ? value + moves[event.key]! : event.key === "Home" ? 0 : event.key === "End" ? count - 1 : undefined;
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    to(next);
  };
  return (
    <div class="stepper">
      <span class="quiet" aria-hidden="true">{label}</span>
      <div class="stepper-row">
        <button type="button" tabIndex={-1} aria-hidden="true" disabled={value === 0} onClick={() => to(value - 1)}>‹</button>
        <span
          class={`stepper-value ${colour ?? ""}`}
          role="spinbutton"
          tabIndex={0}
          aria-label={label}
          aria-valuenow={value}
          aria-valuemin={0}
          aria-valuemax={count - 1}
          aria-valuetext={said}
          onKeyDown={onKeyDown}
        >
          {said}
        </span>
        <button type="button" tabIndex={-1} aria-hidden="true" disabled={value === count - 1} onClick={() => to(value + 1)}>›</button>
      </div>
    </div>
  );
}
