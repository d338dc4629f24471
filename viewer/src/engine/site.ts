// The model of a static site: fetched at the first edit, opened in WebAssembly, texts cut into tokens by the page.
import type { SiteModel } from "../start";
import { TextTokens } from "./tokens";
import type { WasmEngine } from "./wasm";

export interface OpenSite {
  model: number;
  tokens: TextTokens;
}

async function fetched(model: SiteModel, name: string, heard: (bytes: number) => void): Promise<ArrayBuffer> {
  const response = await fetch(`${model.folder}${name}`);
  if (!response.ok || !response.body) throw new Error(`${model.folder}${name}: ${response.status} ${response.statusText}`);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Blob(parts).arrayBuffer();
    parts.push(value);
    heard(value.length);
  }
}

const json = (bytes: ArrayBuffer): object => JSON.parse(new TextDecoder().decode(bytes)) as object;

/** `progress` hears the share of the bytes that have come. */
export async function openSite(engine: WasmEngine, model: SiteModel, progress: (share: number) => void): Promise<OpenSite> {
  let come = 0;
  const heard = (bytes: number): void => progress(Math.min(1, (come += bytes) / model.bytes));
  const [config, tokenizer, tokenizerConfig, weights] = await Promise.all([
    fetched(model, "config.json", heard),
    fetched(model, "tokenizer.json", heard),
    model.files.includes("tokenizer_config.json") ? fetched(model, "tokenizer_config.json", heard) : null,
    fetched(model, "model.safetensors", heard),
  ]);
  const tokens = new TextTokens(json(tokenizer), tokenizerConfig ? json(tokenizerConfig) : {});
  return { model: await engine.openModel(model.name, config, weights), tokens };
}
