// A text cut into tokens as a model wants them, in the page: ids from the tokenizer's own files, and from the text where each
// token stands and which word it belongs to.
import { Tokenizer } from "@huggingface/tokenizers";

export interface Tokens {
  ids: number[];
  tokens: string[];
  /** The token's word; -1 for a special token. */
  words: number[];
  /** First and past-the-last byte in UTF-8; [0, 0] for a special token. */
  offsets: [number, number][];
  /** 0, or -1 for a special token. */
  sequences: number[];
}

/** As BERT's normalizer leaves a character: in small letters, without accents; nothing of control characters. */
const plain = (character: string): string => character.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase().replace(/[\p{Cc}\p{Cf}]/gu, "");

const isSpace = (character: string): boolean => /[\s\p{Zs}]/u.test(character);

export class TextTokens {
  private readonly tokenizer: Tokenizer;
  private readonly special: Set<string>;
  private readonly unknown: string;

  constructor(tokenizer: object, config: object) {
    this.tokenizer = new Tokenizer(tokenizer, config);
    const { added_tokens = [], model } = tokenizer as {
      added_tokens?: { content: string; special: boolean }[];
      model?: { type?: string; unk_token?: string; continuing_subword_prefix?: string };
    };
    if (model?.type !== "WordPiece" || model.continuing_subword_prefix !== "##") {
      throw new Error("the page cuts texts for WordPiece vocabularies alone; this model's is another");
    }
    this.unknown = model.unk_token ?? "[UNK]";
    this.special = new Set(added_tokens.filter(({ special }) => special).map(({ content }) => content));
    this.special.delete(this.unknown);
  }

  of(text: string): Tokens {
    const { ids, tokens } = this.tokenizer.encode(text);
    const characters = [...text];
    const bytes = new TextEncoder();
    const words: number[] = [];
    const offsets: [number, number][] = [];
    let at = 0; // in characters
    let byte = 0;
    let word = -1;
    const step = (): void => {
      byte += bytes.encode(characters[at]!).length;
      ++at;
    };
    for (const [i, token] of tokens.entries()) {
      const template = i === 0 || i === tokens.length - 1;
      if (this.special.has(token)) {
        while (!template && at < characters.length && isSpace(characters[at]!)) step();
        if (template || !text.startsWith(token, characters.slice(0, at).join("").length)) {
          words.push(-1);
          offsets.push([0, 0]);
          continue;
        }
        // Written in the text itself.
        const from = byte;
        for (const _ of token) step();
        words.push(++word);
        offsets.push([from, byte]);
        continue;
      }
      const goesOn = token.startsWith("##") && token.length > 2;
      const wanted = goesOn ? token.slice(2) : token;
      while (at < characters.length && (isSpace(characters[at]!) || (plain(characters[at]!) === "" && !goesOn))) step();
      const from = byte;
      if (token === this.unknown) {
        // An unknown word ends where the next one begins: at white space or punctuation.
        const mark = /[\p{P}\p{S}]/u;
        const alone = at < characters.length && mark.test(characters[at]!);
        do step();
        while (!alone && at < characters.length && !isSpace(characters[at]!) && !mark.test(characters[at]!));
      } else {
        let seen = "";
        while (at < characters.length && seen.length < wanted.length) {
          seen += plain(characters[at]!);
          step();
        }
        // Accents that stand as characters of their own belong to the letter before them.
        while (at < characters.length && /\p{Mn}/u.test(characters[at]!)) step();
      }
      if (!goesOn) ++word;
      words.push(word);
      offsets.push([from, byte]);
    }
    return { ids, tokens, words, offsets, sequences: words.map((index) => (index < 0 ? -1 : 0)) };
  }
}
