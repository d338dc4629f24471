// Query word, key word, head and layer.
import { chosenHead, chosenKey, chosenQuery } from "../../state/app";
import { head, key, opened, query } from "../../state/session";
import { t } from "../../texts";
import { Stepper } from "../../ui/Stepper";

export function Chooser() {
  const now = opened.value;
  const texts = t.value.pipeline;
  if (!now) return null;
  const [layer, index] = head.value;
  const word = (token: number) => now.tokens[token] ?? "";
  return (
    <div class="chooser" role="group" aria-label={texts.choose}>
      <Stepper label={texts.query} value={query.value} count={now.queries} said={word(query.value)} colour="q" onValue={(value) => (chosenQuery.value = value)} />
      <Stepper label={texts.key} value={key.value} count={now.keys} said={word(key.value)} colour="k" onValue={(value) => (chosenKey.value = value)} />
      <Stepper label={texts.head} value={index} count={now.heads} said={String(index)} onValue={(value) => (chosenHead.value = [layer, value])} />
      <Stepper label={texts.layer} value={layer} count={now.layers} said={String(layer)} onValue={(value) => (chosenHead.value = [value, index])} />
      <p class="quiet note keys-hint">{texts.keysHint}</p>
    </div>
  );
}

/** Arrow keys where nothing else takes them: the query word, with Shift the key word. */
export function onArrow(event: KeyboardEvent): void {
  const now = opened.peek();
  const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
  const target = event.target instanceof Element ? event.target : null;
  if (!now || by === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target?.closest("input, select, textarea, [role=tab], [role=spinbutton], [data-cursor]")) return;
  const [signal, at, count] = event.shiftKey ? [chosenKey, key, now.keys] : [chosenQuery, query, now.queries];
  signal.value = Math.min(count - 1, Math.max(0, at.peek() + by));
  event.preventDefault();
}
