import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { embed, tourOpen, view, views, type View } from "../state/app";
import { start, trouble } from "../state/session";
import { t } from "../texts";
import { Corpus } from "../views/corpus";
import { Dimensions } from "../views/dimensions";
import { Heads } from "../views/heads";
import { Pipeline } from "../views/pipeline";
import { Story } from "../views/story";
import { TourPane } from "../tour/TourPane";
import { Footer } from "./Footer";
import { Header } from "./Header";
import { Inspector } from "./Inspector";
import { Tip } from "./Tip";
import { ViewTabs } from "./ViewTabs";

const stage: Record<View, ComponentType> = { story: Story, pipeline: Pipeline, dimensions: Dimensions, heads: Heads, corpus: Corpus };

const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.matches("input:not([type=range]), textarea, select") || target.isContentEditable);

function onKey(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const chosen = views[Number(event.key) - 1];
  if (chosen) view.value = chosen;
}

export function App() {
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  useEffect(() => {
    document.title = t.value.frame.title;
  }, [t.value]);
  const Shown = stage[view.value];
  const main = (
    <main>
      <div id="stage" class="stage" tabIndex={-1} {...(embed.value ? {} : { role: "tabpanel", "aria-labelledby": `tab-${view.value}` })}>
        {trouble.value && <p class="trouble" role="alert">{t.value.frame.failed(trouble.value)}</p>}
        {start.value ? <Shown /> : <p class="quiet">{t.value.frame.noData}</p>}
      </div>
    </main>
  );
  if (embed.value) {
    return (
      <div class="page embedded">
        {main}
        <Footer />
        <Tip />
      </div>
    );
  }
  return (
    <div class={`page ${tourOpen.value ? "" : "tour-folded"}`}>
      <a class="skip" href="#stage" onClick={(event) => { event.preventDefault(); document.getElementById("stage")?.focus(); }}>
        {t.value.frame.skip}
      </a>
      <Header />
      <ViewTabs />
      <TourPane />
      {main}
      <Inspector />
      <Footer />
      <Tip />
    </div>
  );
}
