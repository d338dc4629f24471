// A head switched off or scaled, and what changes: the text's vector, its likeness to another text, the next words.
import { useEffect, useState } from "preact/hooks";
import type { AskOptions, Engine } from "../../engine/engine";
import { closeTrace, type HeadName } from "../../engine/heads";
import { ablations, type Encoded, type Trace } from "../../engine/questions";
import { canEncode, encodeText, head, storedQuestions } from "../../state/session";
import { fixed, t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";
import { OtherText } from "./OtherText";
import { chosenHeads, otherText, scaleOff } from "./state";

/** The value once it has rested: a slider moves faster than a model runs. */
function useRested<T>(value: T, key: string): T {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), 120);
    return () => clearTimeout(timer);
  }, [key]);
  return rested;
}

const name = ([layer, index]: HeadName): string => `${layer}.${index}`;

type Scaled = [layer: number, head: number, scale: number];
type NextTokens = NonNullable<Encoded["next"]>;

interface Change {
  /** Of an encoder: cosine of the text's vector to itself with all heads. */
  toItself: number | null;
  /** Cosine of the two texts' vectors with all heads, and with these scaled. */
  toOther: { before: number; after: number; text: string } | null;
  /** Of a decoder: the most probable next tokens. */
  next: { before: NextTokens; after: NextTokens } | null;
}

export function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (x: readonly number[], y: readonly number[]): number => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

async function change(engine: Engine, text: string, other: string, off: Scaled[], options: AskOptions): Promise<Change> {
  const run = async (of: string, heads_off: Scaled[]): Promise<Encoded> => {
    const found = await encodeText(engine, { text: of, values: false, heads_off }, options);
    await closeTrace(engine, found.trace);
    return found;
  };
  const [before, after] = [await run(text, []), await run(text, off)];
  const both = other ? [await run(other, []), await run(other, off)] : [];
  const like = (a: Encoded | undefined, b: Encoded | undefined): number | null => (a?.embedding && b?.embedding ? cosine(a.embedding, b.embedding) : null);
  const [otherBefore, otherAfter] = [like(before, both[0]), like(after, both[1])];
  return {
    toItself: like(before, after),
    toOther: otherBefore !== null && otherAfter !== null ? { before: otherBefore, after: otherAfter, text: other } : null,
    next: before.next && after.next ? { before: before.next, after: after.next } : null,
  };
}

/** The same of one head switched off, from the answer that the page carries. */
async function storedChange(engine: Engine, text: string, [layer, index]: Scaled, options: AskOptions): Promise<Change> {
  const { alone, other, similarity } = await ablations(engine, text, options);
  const left = alone[layer]![index]!;
  return { toItself: left.self, toOther: { before: similarity, after: left.other, text: other }, next: null };
}

export function Off({ trace }: { trace: Trace }) {
  const texts = t.value.heads;
  const isStored = storedQuestions("ablations").some(({ text }) => text === trace.text);
  const fixedHere = isStored && !canEncode.value;
  const chosen = fixedHere ? [] : chosenHeads.value.filter(([l, h]) => l < trace.layers && h < trace.heads);
  const off: HeadName[] = chosen.some((each) => name(each) === name(head.value)) ? chosen : [head.value, ...chosen];
  const scale = fixedHere ? 0 : scaleOff.value / 10;
  const wanted = { off: off.map(([l, h]): Scaled => [l, h, scale]), other: otherText.value };
  const rested = useRested(wanted, JSON.stringify(wanted));
  const fromStore = isStored && (fixedHere || (rested.off.length === 1 && rested.off[0]![2] === 0 && !rested.other));
  const asked = useAnswer(
    fromStore
      ? (engine, options) => storedChange(engine, trace.text, rested.off[0]!, options)
      : canEncode.value
        ? (engine, options) => change(engine, trace.text, rested.other, rested.off, options)
        : null,
    [trace.id, JSON.stringify(rested), fromStore],
  );
  if (!canEncode.value && !isStored) return <p>{t.value.frame.noModel}</p>;
  return (
    <>
      {fixedHere ? (
        <p>{texts.offStored(name(head.value))}</p>
      ) : (
        <>
          <p>{texts.offLead(off.map(name).join(", "))}</p>
          <Slider label={texts.scale} value={scaleOff.value} least={0} most={20} said={scale === 0 ? texts.isOff : `× ${fixed(scale, 1)}`} onValue={(value) => (scaleOff.value = value)} />
          {!trace.causal && <OtherText />}
        </>
      )}
      <Ready asked={asked}>
        {({ toItself, toOther, next }) => (
          <>
            <dl class="facts" aria-live="polite">
              {toItself !== null && <div><dt>{texts.toItself}</dt><dd class="figure">{fixed(toItself, 4)}</dd></div>}
              {toOther && (
                <div>
                  <dt>{texts.toOther(toOther.text)}</dt>
                  <dd class="figure">{fixed(toOther.before, 4)} → {fixed(toOther.after, 4)}</dd>
                </div>
              )}
            </dl>
            {next && <Next before={next.before} after={next.after} />}
            {next && <p class="quiet small">{texts.nextNote}</p>}
          </>
        )}
      </Ready>
      {!fixedHere && <p class="quiet small">{texts.offNote}</p>}
    </>
  );
}

// A token with what it begins with: most do with a blank.
function Word({ token, probability }: NextTokens[number]) {
  return (
    <td>
      <code>{token.replaceAll(" ", "␣").replaceAll("\n", "↵")}</code> <span class="figure">{fixed(probability, 3)}</span>
    </td>
  );
}

function Next({ before, after }: { before: NextTokens; after: NextTokens }) {
  const texts = t.value.heads;
  return (
    <table class="next">
      <thead>
        <tr>
          <th scope="col">{texts.rank}</th>
          <th scope="col">{texts.nextBefore}</th>
          <th scope="col">{texts.nextAfter}</th>
        </tr>
      </thead>
      <tbody>
        {before.map((each, i) => (
          <tr>
            <th scope="row">{i + 1}</th>
            <Word {...each} />
            {after[i] && <Word {...after[i]} />}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
