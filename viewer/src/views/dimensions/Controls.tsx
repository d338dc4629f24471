import { grouped, t } from "../../texts";
import { NumberField } from "../../ui/NumberField";
import { Slider } from "../../ui/Slider";
import { batch, dModel, dtype, dtypes, kvChoices, kvHeads, kvShown, mostHeads, mostModel, numHeads, tokens, tokenSteps } from "./state";

const presets = [["chapter", 512], ["miniLM", 384], ["bert", 768], ["smol", 576]] as const;

function ModelSize() {
  const texts = t.value.dimensions;
  return (
    <div class="control">
      <label for="d-model">
        <span class="name">{texts.dModel}</span> <span class="quiet">{texts.dModelHint}</span>
      </label>
      <div class="beside">
        <NumberField id="d-model" value={dModel.value} least={1} most={mostModel} onValue={(value) => (dModel.value = value)} live />
        {presets.map(([name, size]) => (
          <button type="button" class="chip" aria-pressed={dModel.value === size} onClick={() => (dModel.value = size)}>
            <span class="figure">{size}</span> <span class="quiet">{texts.presets[name]}</span>
          </button>
        ))}
      </div>
    </div>
  );
}

/** Every whole number can be reached; those that divide are filled. */
export function HeadCount({ divides }: { divides: boolean[] }) {
  const texts = t.value.dimensions;
  const h = numHeads.value;
  const to = (count: number) => (numHeads.value = Math.min(mostHeads, Math.max(1, count)));
  return (
    <div class="heads-control">
      <div class="beside">
        <span class="grow">
          <Slider
            label={texts.heads}
            value={h}
            least={1}
            most={mostHeads}
            said={texts.headsSaid(h, divides[h - 1] ?? true)}
            shown={String(h)}
            onValue={to}
          />
          <svg class="dots" aria-hidden="true">
            {divides.map((filled, i) => (
              <circle
                class={`${filled ? "filled" : ""} ${i + 1 === h ? "now" : ""}`}
                cx={`${(100 * i) / (mostHeads - 1)}%`}
                cy={7}
                r={filled ? 3 : 2}
                onClick={() => to(i + 1)}
              />
            ))}
          </svg>
        </span>
        <button type="button" class="step" aria-label={texts.fewer} disabled={h === 1} onClick={() => to(h - 1)}>−</button>
        <button type="button" class="step" aria-label={texts.more} disabled={h === mostHeads} onClick={() => to(h + 1)}>+</button>
      </div>
      <p class="quiet note">{texts.divisors}</p>
    </div>
  );
}

function Others() {
  const texts = t.value.dimensions;
  const step = tokenSteps.reduce((best, each, i) => (Math.abs(each - tokens.value) < Math.abs(tokenSteps[best]! - tokens.value) ? i : best), 0);
  return (
    <div class="others">
      <Slider
        label={texts.tokens}
        value={step}
        least={0}
        most={tokenSteps.length - 1}
        said={grouped(tokens.value)}
        onValue={(i) => (tokens.value = tokenSteps[i]!)}
      />
      <label>
        <span>{texts.kvHeads}</span>
        <select class="figure" value={kvShown.value} onChange={({ currentTarget }) => (kvHeads.value = Number(currentTarget.value))}>
          {kvChoices.value.map((count) => <option value={count}>{count}</option>)}
        </select>
      </label>
      <label>
        <span>{texts.batch}</span>
        <NumberField value={batch.value} least={1} most={4096} onValue={(value) => (batch.value = value)} live />
      </label>
      <label>
        <span>{texts.dtype}</span>
        <select value={dtype.value} onChange={({ currentTarget }) => (dtype.value = dtypes.find((each) => each === currentTarget.value) ?? "f32")}>
          {dtypes.map((each) => <option>{each}</option>)}
        </select>
      </label>
    </div>
  );
}

export function Sizes() {
  return (
    <div class="controls">
      <ModelSize />
      <Others />
    </div>
  );
}
