// Parameters; FLOP, bytes and intensity of each step, and which limit binds it.
import type { Cut, Limits, Step } from "../../engine/questions";
import { fixed, grouped, t } from "../../texts";
import { machine, machineFailed } from "./measure";
import { kvShown } from "./state";
import { counted } from "./units";

type Whole = Extract<Cut, { divides: true }>;

const nameOf = ({ step }: Step): string => {
  const names = t.value.dimensions.steps;
  return step in names ? names[step as keyof typeof names] : names.fused;
};

function Bar({ share, text, colour }: { share: number; text: string; colour: string }) {
  return (
    <td class="bar">
      <span class={`fill of-${colour}`} style={{ width: `${100 * share}%` }} />
      <span class="figure">{text}</span>
    </td>
  );
}

function Machine() {
  const texts = t.value.dimensions;
  if (machineFailed.value !== null) return <p class="trouble" role="alert">{texts.machineFailed(machineFailed.value)}</p>;
  return <p class="note" role="status">{machine.value ? said(machine.value) : texts.machineMeasuring}</p>;
}

function said({ where, threads, isa, fma_gflops: fma, memory_gbs: memory, memory_bytes: bytes }: Limits): string {
  const texts = t.value.dimensions;
  const rate = (value: number): string => fixed(value, value < 100 ? 1 : 0);
  return texts.machine(texts.now[where], `${isa}, ${texts.threads(threads)}`, rate(fma), rate(memory), fixed(bytes / 1e6, 0), fixed(fma / memory, 1));
}

export function Work({ cut }: { cut: Whole }) {
  const texts = t.value.dimensions;
  const rows = [...cut.steps, cut.fused];
  const most = (of: (step: Step) => number) => Math.max(...rows.map(of));
  const mostFlop = most((step) => step.flop);
  const mostBytes = most((step) => step.bytes);
  const bound = (step: Step) => (step.limit === null ? texts.unmeasured : step.limit === "fma" ? texts.fma : texts.memory);
  return (
    <div class="parts">
      <section>
        <h3>{texts.parameters}</h3>
        <p class="large figure">{grouped(cut.parameters)}</p>
        <p>
          <code>{kvShown.value === cut.heads ? texts.parametersFormula : texts.parametersFormulaKv}</code>
        </p>
        {kvShown.value === cut.heads && <p class="quiet">{texts.parametersNote(cut.heads)}</p>}
      </section>
      <section>
        <h3 id="work">{texts.workCaption}</h3>
        <div class="scroll" tabIndex={0} role="region" aria-labelledby="work">
          <table class="work">
            <thead>
              <tr>
                <th scope="col">{texts.step}</th>
                <th scope="col">{texts.flop}</th>
                <th scope="col">{texts.bytes}</th>
                <th scope="col">{texts.intensity}</th>
                <th scope="col">{texts.limit}</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((step) => (
                <tr class={step === cut.fused ? "fused" : ""}>
                  <th scope="row">{nameOf(step)}</th>
                  <Bar share={step.flop / mostFlop} text={counted(step.flop)} colour="ink" />
                  <Bar share={step.bytes / mostBytes} text={counted(step.bytes)} colour="ink" />
                  <td class="figure">{fixed(step.intensity, 1)}</td>
                  <td class={step.limit ? "" : "quiet"}>{bound(step)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        <p class="quiet note">{texts.eachStep}</p>
        <Machine />
      </section>
    </div>
  );
}
