// The passages with the largest score, and samples from each tenth; each opens as a text.
import type { ScanExample, ScanScore } from "../../engine/corpus";
import { view } from "../../state/app";
import { canEncode, takeText } from "../../state/session";
import { fixed, t } from "../../texts";
import { shown } from "../heads/state";

function Example({ example: { value, text, file } }: { example: ScanExample }) {
  const texts = t.value.corpus;
  const open = async () => {
    await takeText(text!);
    shown.value = "one";
    view.value = "heads";
  };
  return (
    <li class="example">
      <span class="figure">{fixed(value, 3)}</span>
      <span class="example-text">{text ?? <i class="quiet">{texts.gone(file)}</i>}</span>
      {text !== null && canEncode.value && <button type="button" onClick={() => void open()}>{texts.open}</button>}
    </li>
  );
}

export function Examples({ score }: { score: ScanScore }) {
  const texts = t.value.corpus;
  return (
    <>
      {!canEncode.value && <p class="quiet small">{texts.openNeedsModel}</p>}
      <h3>{texts.largest}</h3>
      <ol class="examples">{score.top?.map((example) => <Example example={example} />)}</ol>
      {score.samples?.map((_, i) => {
        const tenth = score.samples!.length - 1 - i;
        return (
          <section>
            <h3>{texts.tenth(10 * tenth, 10 * (tenth + 1))}</h3>
            <ol class="examples">{score.samples![tenth]!.map((example) => <Example example={example} />)}</ol>
          </section>
        );
      })}
    </>
  );
}
