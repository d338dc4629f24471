export interface SliderProps {
  label: string;
  value: number;
  least: number;
  most: number;
  onValue: (value: number) => void;
  /** What is read aloud, and written beside the label unless `shown` is. */
  said?: string;
  shown?: string;
}

export function Slider({ label, value, least, most, onValue, said, shown }: SliderProps) {
  return (
    <label class="slider">
      <span class="slider-label">
        {label} <b class="figure" aria-hidden="true">{shown ?? said ?? value}</b>
      </span>
      <input
        type="range"
        min={least}
        max={most}
        step={1}
        value={value}
        aria-valuetext={said ?? String(value)}
        onInput={(event) => onValue(Number(event.currentTarget.value))}
      />
    </label>
  );
}
