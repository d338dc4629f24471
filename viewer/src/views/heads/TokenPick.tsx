// Query and key by name; arrow keys walk through the text.
import { chosenKey, chosenQuery } from "../../state/app";
import { key, query } from "../../state/session";
import { t } from "../../texts";
import { NumberField } from "../../ui/NumberField";

/** A longer text is picked by place: a list of so many names helps nobody. */
const mostListed = 600;

function Pick({ letter, label, tokens, value, onValue }: { letter: "q" | "k"; label: string; tokens: string[]; value: number; onValue: (value: number) => void }) {
  return (
    <label class="place">
      <span class={letter}><b>{letter}</b> {label}</span>{" "}
      {tokens.length <= mostListed ? (
        <select value={value} onChange={(event) => onValue(Number(event.currentTarget.value))}>
          {tokens.map((token, place) => <option value={place}>{place} {token}</option>)}
        </select>
      ) : (
        <NumberField value={value} least={0} most={tokens.length - 1} onValue={onValue} />
      )}
    </label>
  );
}

export function TokenPick({ tokens, queries }: { tokens: string[]; queries: number }) {
  const texts = t.value.heads;
  return (
    <div class="map-bar">
      <Pick letter="q" label={texts.query} tokens={tokens.slice(0, queries)} value={query.value} onValue={(value) => (chosenQuery.value = value)} />
      <Pick letter="k" label={texts.key} tokens={tokens} value={key.value} onValue={(value) => (chosenKey.value = value)} />
    </div>
  );
}
