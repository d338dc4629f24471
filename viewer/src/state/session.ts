// The engine, and the text that is open in it.
import { computed, signal } from "@preact/signals";
import type { AskOptions, Engine } from "../engine/engine";
import { about, encode, trace, type About, type Encoded, type EncodeQuestion, type Trace } from "../engine/questions";
import { ServerEngine } from "../engine/server";
import { openSite, type OpenSite } from "../engine/site";
import { canonical, StoredFirst } from "../engine/stored";
import type { TextTokens } from "../engine/tokens";
import { WasmEngine } from "../engine/wasm";
import { early } from "../early";
import { packedWasm, unpackedTrace, type First, type Start } from "../start";
import { t } from "../texts";
import { chosenHead, chosenKey, chosenQuery, text } from "./app";

export const start = signal<Start | null>(null);
export const engine = signal<Engine | null>(null);
export const who = signal<About | null>(null);
export const opened = signal<Trace | null>(null);
/** One sentence about what went wrong with the text or the engine. */
export const trouble = signal<string | null>(null);
/** Set while a sentence is worked out, or a site's model is fetched before it: the share that is done. */
export const working = signal<{ what: "model" | "text"; share: number } | null>(null);

let wasm: WasmEngine | null = null;
let site: Promise<OpenSite> | null = null;

/** The page's own engine, once the traces are open in it. */
let ready: { is(engine: Engine): void; failed(error: unknown): void } | null = null;

/** Shows the first picture from answers that the page holds; all else waits for the engine, which then is asked for them too. */
export function openFirst(first: First): void {
  const answers = new Map(first.answers.map(({ question, answer }) => [canonical(question), answer]));
  const behind = new Promise<Engine>((is, failed) => (ready = { is, failed }));
  behind.catch(() => {}); // open() says why
  start.value = { ...first, traces: [], answers: [] };
  opened.value = (answers.get(canonical({ ask: "trace", trace: 1 })) as Trace | undefined) ?? null;
  engine.value = {
    async ask(question, options) {
      const value = answers.get(canonical(question));
      return value === undefined ? (await behind).ask(question, options) : { kind: "json", value };
    },
  };
}

export async function open(given: Start): Promise<void> {
  start.value = given;
  try {
    if (given.mode === "server") {
      early.engineWorker?.terminate();
      engine.value = new ServerEngine("./");
    } else {
      const own = (wasm = new WasmEngine(packedWasm()));
      const traces = await Promise.all(given.traces.map(unpackedTrace)); // while the engine starts
      await Promise.all(traces.map((bytes) => own.openTrace(bytes)));
      engine.value = new StoredFirst(own, given.answers);
      ready?.is(engine.value);
    }
    who.value = await about(engine.value);
    const [first] = who.value.traces;
    if (first && opened.value?.id !== first.id) opened.value = await trace(engine.value, first.id);
    if (text.peek() && text.peek() !== opened.peek()?.text) await takeText(text.peek());
  } catch (error) {
    trouble.value = messageOf(error);
    ready?.failed(error);
  }
}

export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The questions of one kind whose answers the page carries. */
export const storedQuestions = (ask: string): Record<string, unknown>[] =>
  (start.value?.answers ?? []).map(({ question }) => question).filter((question) => question["ask"] === ask);

/** Whether a sentence of the reader's own can be worked out here. */
export const canEncode = computed(() => (who.value?.models.length ?? 0) > 0 || start.value?.model != null);

/** The model that encodes; where a site's page cuts texts itself, its tokens. A site's model is fetched the first time. */
async function readyModel(asked: Engine): Promise<{ model: number; tokens: TextTokens | null }> {
  const fetchable = start.peek()?.model;
  if (!wasm || !fetchable) {
    const model = who.peek()?.models[0];
    if (!model) throw new Error(t.peek().frame.noModel);
    return { model: model.id, tokens: null };
  }
  if (!site) {
    site = openSite(wasm, fetchable, (share) => (working.value = { what: "model", share }));
    // After a failure the next edit tries again.
    site.then(async () => (who.value = await about(asked)), () => (site = null)).finally(() => (working.value = null));
  }
  return site;
}

/** Encodes a text with the model that is there or can be fetched. */
export async function encodeText(asked: Engine, given: Omit<EncodeQuestion, "model">, options?: AskOptions): Promise<Encoded> {
  const { model, tokens } = await readyModel(asked);
  return encode(asked, { ...given, model, ...tokens?.of(given.text) }, options);
}

let latest = 0;

/** Works out another sentence; the views follow. */
export async function takeText(sentence: string): Promise<void> {
  const asked = engine.peek();
  if (!asked || !who.peek() || !canEncode.peek()) return;
  const turn = ++latest;
  trouble.value = null;
  try {
    await readyModel(asked);
    if (turn !== latest) return;
    const done = (share: number): void => {
      if (turn === latest) working.value = { what: "text", share };
    };
    done(0);
    const { trace: id } = await encodeText(asked, { text: sentence, values: true }, { progress: done });
    const next = await trace(asked, id);
    if (turn !== latest) return;
    opened.value = next;
    text.value = sentence;
  } catch (error) {
    if (turn === latest) trouble.value = messageOf(error);
  } finally {
    if (turn === latest) working.value = null;
  }
}

const within = (value: number, length: number): boolean => value >= 0 && value < length;

/** The head that is shown: the chosen one, where the model has it. */
export const head = computed<[number, number]>(() => {
  const chosen = chosenHead.value;
  const { layers = 0, heads = 0 } = opened.value ?? {};
  if (chosen && within(chosen[0], layers) && within(chosen[1], heads)) return chosen;
  return within(2, layers) && within(8, heads) ? [2, 8] : [0, 0];
});

/** The token of a word, or 0. */
const tokenOf = (words: Trace["words"], index: number): number => words[Math.min(index, words.length - 1)]?.first_token ?? 0;

export const query = computed<number>(() => {
  const now = opened.value;
  if (!now) return 0;
  return within(chosenQuery.value, now.tokens.length) ? chosenQuery.value : tokenOf(now.words, 1);
});

export const key = computed<number>(() => {
  const now = opened.value;
  if (!now) return 0;
  return within(chosenKey.value, now.tokens.length) ? chosenKey.value : tokenOf(now.words, 2);
});
