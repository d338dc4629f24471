import { useState } from "preact/hooks";
import { canEncode } from "../../state/session";
import { t } from "../../texts";
import { otherText } from "./state";

/** The text that this one is compared with. */
export function OtherText() {
  const texts = t.value.heads;
  const [draft, setDraft] = useState(otherText.value);
  return (
    <form
      class="map-bar"
      onSubmit={(event) => {
        event.preventDefault();
        otherText.value = draft.trim();
      }}
    >
      <label class="grow">
        {texts.otherText}{" "}
        <input type="text" value={draft} maxLength={20000} readOnly={!canEncode.value} onInput={(event) => setDraft(event.currentTarget.value)} />
      </label>
      <button type="submit" disabled={!canEncode.value}>{texts.compareWith}</button>
    </form>
  );
}
