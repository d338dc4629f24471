import { useState } from "preact/hooks";

export interface NumberFieldProps {
  value: number;
  least: number;
  most: number;
  onValue: (value: number) => void;
  /** Takes each number while it is typed, not only once it is entered. */
  live?: boolean;
  id?: string;
}

/** A whole number. What is being typed stays, whatever is drawn again meanwhile; a number beyond the ends becomes the end. */
export function NumberField({ value, least, most, onValue, live, id }: NumberFieldProps) {
  const [draft, setDraft] = useState<string | null>(null);
  return (
    <input
      {...(id ? { id } : {})}
      type="number"
      class="figure"
      min={least}
      max={most}
      value={draft ?? value}
      onInput={({ currentTarget }) => {
        setDraft(currentTarget.value);
        const typed = currentTarget.valueAsNumber;
        if (live && Number.isInteger(typed) && typed >= least && typed <= most) onValue(typed);
      }}
      onChange={({ currentTarget: { valueAsNumber: typed } }) => {
        setDraft(null);
        if (Number.isFinite(typed)) onValue(Math.min(most, Math.max(least, Math.round(typed))));
      }}
    />
  );
}
