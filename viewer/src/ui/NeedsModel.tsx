// What stands where a model is needed and none is open: how to get one.
import { canEncode, opened, start, takeText, working } from "../state/session";
import { fixed, t } from "../texts";

export function NeedsModel() {
  const texts = t.value.frame;
  const fetchable = start.value?.model;
  if (!canEncode.value || !fetchable) return <p class="quiet">{texts.noModel}</p>;
  return (
    <button type="button" disabled={working.value !== null} onClick={() => opened.value && void takeText(opened.value.text)}>
      {texts.fetchModel(fetchable.name, fixed(fetchable.bytes / 1e6, 0))}
    </button>
  );
}
