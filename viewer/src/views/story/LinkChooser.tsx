// In a sentence of the reader's own the page cannot know which words belong together.
import { opened } from "../../state/session";
import { t } from "../../texts";
import { chosenPairs, pairs, type Pair } from "../../tour/pairs";

export function LinkChooser() {
  const texts = t.value.story;
  const words = opened.value!.words;
  const set = (at: number, end: 0 | 1, to: number) => {
    const next = pairs.value.map((pair): Pair => [...pair]);
    next[at]![end] = to;
    if (next[at]![0] !== next[at]![1]) chosenPairs.value = next;
  };
  return (
    <fieldset class="link-chooser">
      <legend>{texts.chooseLinks}</legend>
      {pairs.value.map((pair, at) => (
        <div>
          {([0, 1] as const).map((end) => (
            <>
              {end === 1 && <span aria-hidden="true"> → </span>}
              <select aria-label={texts.linkEnd(at + 1, end)} value={pair[end]} onChange={({ currentTarget }) => set(at, end, Number(currentTarget.value))}>
                {words.map(({ text }, i) => <option value={i} disabled={i === pair[1 - end]}>{text}</option>)}
              </select>
            </>
          ))}
        </div>
      ))}
    </fieldset>
  );
}
