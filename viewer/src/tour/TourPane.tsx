import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { tourOpen, tourStep, view } from "../state/app";
import { head, opened, start } from "../state/session";
import { fixed, t } from "../texts";
import { dModel } from "../views/dimensions/state";
import { measured } from "../views/story/Work";
import { done, partsLeft, watchOtherViews } from "./done";
import { linkWeights, nameOf, onSentences, readersOf, ready, rowHead } from "./facts";
import { isChapters, pairName, pairs, wordOf } from "./pairs";
import { questionsLeft } from "./quiz";
import { middle } from "./say";
import { steps } from "./steps";
import terms from "./terms.json";
import "./tour.css";

function go(to: number): void {
  tourStep.value = to;
  view.value = steps[to]!.view;
  steps[to]!.begin?.();
}

interface Said {
  text: string[];
  act: string;
  keep: string;
}

/** The step's sentences for what is open now, with the figures that were computed. */
function said(name: (typeof steps)[number]["name"]): Said {
  const texts = t.value.tour.steps;
  const shown = `${head.value[0]}.${head.value[1]}`;
  const at = middle.value;
  const [a, b, c] = at ? [wordOf(at.a), wordOf(at.b), wordOf(at.c)] : ["…", "…", "…"];
  switch (name) {
    case "three":
      return { ...texts.three, text: texts.three.text(pairs.value.map(pairName), isChapters.value) };
    case "row":
      return { ...texts.row, text: texts.row.text(b, nameOf(rowHead.value)), act: texts.row.act(a, c) };
    case "sum":
      return { ...texts.sum, text: texts.sum.text(a, b, c), act: texts.sum.act(a, c) };
    case "readers": {
      const [link] = ready(linkWeights.value) ?? [];
      const keep = link ? texts.readers.keep(pairName(pairs.value[0]!), readersOf(link).slice(0, 2).map(nameOf)) : "…";
      return { ...texts.readers, keep };
    }
    case "grammar":
      return { ...texts.grammar, text: texts.grammar.text(ready(onSentences.value)?.sentences ?? 60) };
    case "inside": {
      const d = opened.value?.d ?? 0;
      const left = partsLeft.value.map((part) => t.value.pipeline.parts[part].name);
      return { text: texts.inside.text(pairs.value[0] ? pairName(pairs.value[0]) : "…", shown, d), act: texts.inside.act(left), keep: texts.inside.keep(d) };
    }
    case "cut":
      return { ...texts.cut, keep: texts.cut.keep(dModel.value, Math.floor(dModel.value / 7), dModel.value % 7) };
    case "work": {
      const [one, sixteen] = [measured.value.get(1), measured.value.get(16)];
      return { ...texts.work, keep: texts.work.keep(one && sixteen ? fixed(sixteen.seconds / one.seconds, 2) : null) };
    }
    case "quiz":
      return { ...texts.quiz, act: texts.quiz.act(questionsLeft.value) };
  }
}

/** The terms that first stand in this step. */
function Terms({ step }: { step: number }) {
  const here = terms.filter((term) => term.step === step);
  if (here.length === 0) return null;
  return (
    <details class="terms" open>
      <summary>{t.value.tour.words}</summary>
      <dl>
        {here.map(({ id }) => {
          const { name, means } = t.value.tour.terms[id as keyof typeof t.value.tour.terms];
          return (
            <div>
              <dt>{name}</dt>
              <dd>{means}</dd>
            </div>
          );
        })}
      </dl>
    </details>
  );
}

/** The stage outlines what the step speaks of (tour.css). */
const pointing = (): void => {
  effect(() => {
    const root = document.documentElement;
    const step = steps[tourStep.value]!;
    if (tourOpen.value && view.value === step.view) root.dataset["step"] = step.name;
    else delete root.dataset["step"];
  });
};

let watched = false;

export function TourPane() {
  useEffect(() => {
    if (watched) return;
    watched = true;
    watchOtherViews();
    pointing();
  }, []);
  const texts = t.value.tour;
  const at = tourStep.value;
  const { name, view: itsView } = steps[at]!;
  const { text, act, keep } = said(name);
  const open = tourOpen.value;
  const isDone = done.value.has(at);
  return (
    <aside class="tour" aria-label={t.value.frame.tour}>
      <button
        type="button"
        class="fold"
        aria-expanded={open}
        aria-controls="tour-step"
        onClick={() => (tourOpen.value = !open)}
      >
        <span class="hidden">{open ? t.value.frame.foldTour : t.value.frame.unfoldTour}: </span>
        <span class="tour-name">{t.value.frame.tour}</span> <span class="figure quiet">{texts.step(at + 1, steps.length)}</span>
      </button>
      <div id="tour-step" hidden={!open}>
        <h2>{texts.steps[name].title}</h2>
        {text.map((paragraph) => <p>{paragraph}</p>)}
        {name === "work" && start.value?.study != null && (
          <p>
            {texts.study.says} <a href={`./${encodeURIComponent(start.value.study)}`}>{texts.study.link}</a>
          </p>
        )}
        <Terms step={at} />
        <p class={`act ${isDone ? "is-done" : ""}`} aria-live="polite">
          {act} {isDone && <b class="done">{texts.done}</b>}
        </p>
        {view.value !== itsView && (
          <button type="button" onClick={() => go(at)}>{texts.show(t.value.frame.views[itsView])}</button>
        )}
        <p class="keep"><b>{texts.keep}:</b> {keep}</p>
        <div class="tour-buttons">
          <button type="button" disabled={at === 0} onClick={() => go(at - 1)}>{texts.back}</button>
          <button type="button" class={isDone ? "ready" : ""} disabled={at === steps.length - 1} onClick={() => go(at + 1)}>{texts.next}</button>
        </div>
        <nav class="tour-steps" aria-label={texts.list}>
          {steps.map((step, i) => (
            <button
              type="button"
              class={done.value.has(i) ? "was-done" : ""}
              aria-current={i === at ? "step" : undefined}
              aria-label={`${texts.step(i + 1, steps.length)}: ${texts.steps[step.name].title}`}
              onClick={() => go(i)}
            >
              {i + 1}
            </button>
          ))}
        </nav>
      </div>
    </aside>
  );
}
