import { tourOpen, tourStep, view } from "../state/app";
import { t } from "../texts";
import { steps } from "./steps";

function go(to: number): void {
  tourStep.value = to;
  view.value = steps[to]!.view;
}

export function TourPane() {
  const texts = t.value.tour;
  const at = Math.min(tourStep.value, steps.length - 1);
  const { title, text, act, keep } = steps[at]!.texts(texts);
  const open = tourOpen.value;
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
        <h2>{title}</h2>
        <p>{text}</p>
        <p class="act">{act}</p>
        <p class="keep"><b>{texts.keep}:</b> {keep}</p>
        {steps.length > 1 && (
          <div class="tour-buttons">
            <button type="button" disabled={at === 0} onClick={() => go(at - 1)}>{texts.back}</button>
            <button type="button" disabled={at === steps.length - 1} onClick={() => go(at + 1)}>{texts.next}</button>
          </div>
        )}
      </div>
    </aside>
  );
}
