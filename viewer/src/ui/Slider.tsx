export interface SliderProps {
  label: string;
  value: number;
  least: number;
  most: number;
  onValue: (value: number) => void;
  /** What is read aloud and written beside the label. */
  said?: string;
}

export function Slider({ label, value, least, most, onValue, said }: SliderProps) {
  return (
    <label class="slider">
      <span class="slider-label">
        {label} <output class="figure">{said ?? value}</output>
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
