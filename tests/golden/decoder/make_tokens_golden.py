#!/usr/bin/env python3
"""Token ids of 1,000 texts in SmolLM2's vocabulary, by byte-level BPE as its definition says it, told again here.

Writes smollm2_tokens.json. The tokenizer that transformers builds from the model's folder must agree.
"""

import argparse
import json
import pathlib
import random

import regex
import transformers

HERE = pathlib.Path(__file__).resolve().parent

# A digit stands alone; the rest is cut as GPT-2 cuts it.
DIGIT = regex.compile(r"\p{N}")
PIECE = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def byte_letters():
    """A printable letter for each byte: itself, or from U+0100 on for what does not show."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


class Bpe:
    def __init__(self, folder):
        content = json.loads((folder / "tokenizer.json").read_text())
        self.ids = content["model"]["vocab"]
        self.rank = {tuple(merge.split(" ")): i for i, merge in enumerate(content["model"]["merges"])}
        self.letters = byte_letters()
        added = sorted((token["content"] for token in content["added_tokens"]), key=len, reverse=True)
        self.added = regex.compile("(" + "|".join(map(regex.escape, added)) + ")")

    def encode(self, text):
        ids = []
        for i, part in enumerate(self.added.split(text)):
            if i % 2:
                ids.append(self.ids[part])
                continue
            for piece in self.pieces(part):
                ids += [self.ids[token] for token in self.merged(piece)]
        return ids

    def pieces(self, text):
        end = 0
        for digit in DIGIT.finditer(text):
            yield from PIECE.findall(text[end : digit.start()])
            yield digit.group()
            end = digit.end()
        yield from PIECE.findall(text[end:])

    def merged(self, piece):
        """The pair that was learnt first becomes one, the leftmost of its kind first, until no pair is known."""
        letters = [self.letters[byte] for byte in piece.encode()]
        tokens = [letter for letter in letters if letter in self.ids]  # a byte without a token gives none
        while True:
            ranks = [(self.rank[pair], i) for i, pair in enumerate(zip(tokens, tokens[1:])) if pair in self.rank]
            if not ranks:
                return tokens
            _, i = min(ranks)
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


WORDS = """the a of France capital is Attention head looks token unbelievable internationalization don't we're I'll can't
    Straße naïve café Ünïcode Привет мир Ελληνικά שלום مرحبا नमस्ते 日本語 中文 한국어 ไทย ğüşiöç ßẞ ﬁ x² ½ ٣ Ⅷ 😀 👩‍👩‍👧 🇫🇷 é ё
    def return None == != -> :: {} [] () <div> </div> http://example.org/a?b=c&d=%20 user@example.org C:\\dir O(n²) 3.14 1,000
    2024-11-28 0x1F 1e-5 v2.0 HTTPServer camelCase snake_case SHOUTING mIxEd 's 't 're 've 'm 'll 'd ' '' " … — – ‘quoted’ “x”
    <|im_start|> <|im_end|> <|endoftext|> <|im_start <repo_name> <file_sep> <|IM_END|>""".split()
GAPS = [" "] * 12 + ["", "", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\u00a0", "\u3000", "\u200b"]
GAPS += [", ", ". ", "! ", "; "]
ODD = ["", " ", "  ", "\n", "\n\n\n", "\t\t", "\x00", "a\x01b", "\x7f", "\u0085", "\ufeff", "\ufffd", "\U0010ffff", "e\u0301"]


def texts():
    source = random.Random(27)
    made = list(ODD)
    while len(made) < 1000:
        text = "".join(source.choice(WORDS) + source.choice(GAPS) for _ in range(source.randint(1, 14)))
        kind = source.random()
        if kind < 0.1:
            codes = [source.choice((source.randint(0, 0x24F), source.randint(0x370, 0xD7FF))) for _ in range(12)]
            text = "".join(map(chr, codes))
        elif kind < 0.2:
            text = str(source.randint(0, 10**12)) + text
        elif kind < 0.3:
            text = source.choice("  \n\t") * source.randint(1, 20) + text
        made.append(text)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = HERE.parents[2] / "models"
    parser.add_argument("--model", type=pathlib.Path, default=models / "SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    args = parser.parse_args()
    bpe, theirs = Bpe(args.model), transformers.AutoTokenizer.from_pretrained(args.model)
    lines = []
    for text in texts():
        ids = bpe.encode(text)
        assert ids == theirs.encode(text), (text, ids, theirs.encode(text))
        lines.append(json.dumps({"text": text, "ids": ids}, separators=(",", ":"), ensure_ascii=False))
    path = args.out / "smollm2_tokens.json"
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{path.name}: {len(lines)} texts, {path.stat().st_size} bytes; transformers {transformers.__version__} agrees")


if __name__ == "__main__":
    main()
