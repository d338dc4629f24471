// What stands where a model is needed and none is open: for which heads the page carries what it would say, and how to get one.
import { chosenHead } from "../state/app";
import { canEncode, opened, start, storedQuestions, takeText, working } from "../state/session";
import { fixed, t } from "../texts";

export function NeedsModel() {
  const texts = t.value.frame;
  const fetchable = start.value?.model;
  const heads = opened.value?.id === 1 ? storedQuestions("pipeline").map(({ layer, head }): [number, number] => [Number(layer), Number(head)]) : [];
  return (
    <>
      {canEncode.value && fetchable ? (
        <button type="button" disabled={working.value !== null} onClick={() => opened.value && void takeText(opened.value.text)}>
          {texts.fetchModel(fetchable.name, fixed(fetchable.bytes / 1e6, 0))}
        </button>
      ) : (
        <p class="quiet">{texts.noModel}</p>
      )}
      {heads.length > 0 && (
        <p class="quiet">
          {texts.storedHeads}{" "}
          {heads.map((head) => (
            <button type="button" class="plain figure" onClick={() => (chosenHead.value = head)}>{head.join(".")}</button>
          ))}
        </p>
      )}
    </>
  );
}
