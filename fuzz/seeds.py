#!/usr/bin/env python3
"""Writes the first inputs of each harness, from tests/golden and from small files written here: seeds.py FOLDER."""
import json
import pathlib
import random
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def header_and_size(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + size], len(data) - 8 - size


def write(folder, harness, inputs):
    place = folder / harness
    place.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(inputs):
        (place / f"seed{i:03}").write_bytes(content)


def safetensors():
    for path in sorted(GOLDEN.rglob("*.safetensors")):
        header, size = header_and_size(path)
        if size < 65536 and len(header) < 4096:
            yield struct.pack("<H", size) + header
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    for more in ({}, {"__metadata__": None}, {"__metadata__": {"k": "v"}}):
        yield struct.pack("<H", 4) + json.dumps({**more, "a": one}).encode()
    for dtype, bits in (("BOOL", 8), ("F16", 16), ("F8_E4M3", 8), ("F4", 4), ("I64", 64)):
        entry = {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 6 * bits // 8]}
        yield struct.pack("<H", 6 * bits // 8) + json.dumps({"a": entry}).encode()


def json_files():
    for path in sorted(GOLDEN.rglob("*.json")):
        yield b"\0" + path.read_bytes()
        yield b"\1" + path.read_bytes()
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    for mode in ("mean_tokens", "cls_token", "max_tokens"):
        pooling = {"word_embedding_dimension": 384, f"pooling_mode_{mode}": True}
        yield b"\2" + json.dumps(modules).encode() + b"\0" + json.dumps(pooling).encode()


def tokenizers():
    words = ["[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", ".", "a", "##a", "b"]
    vocab = {word: i for i, word in enumerate(words)}
    added = [
        {"id": i, "content": words[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i in range(3)
    ]
    special = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    template = {
        "type": "TemplateProcessing",
        "single": [special("[CLS]"), text("A", 0), special("[SEP]")],
        "pair": [special("[CLS]"), text("A", 0), special("[SEP]"), text("B", 1), special("[SEP]")],
        "special_tokens": {w: {"id": w, "ids": [vocab[w]], "tokens": [w]} for w in ("[CLS]", "[SEP]")},
    }
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True}
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "bb"}
    regex = {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}
    split = {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}"}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    models = {
        "WordPiece": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        "WordLevel": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab},
        "BPE": {"type": "BPE", "dropout": None, "unk_token": "[UNK]", "continuing_subword_prefix": None,
                "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "ab": 5, "aba": 6, "c": 7},
                "merges": [["a", "b"], ["ab", "a"]]},
        "Unigram": {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
                    "vocab": [["[UNK]", 0.0], ["[CLS]", 0.0], ["[SEP]", 0.0], ["\u2581", -2.0], ["a", -1.5], ["ab", -1.0]]},
    }
    sequence = lambda key, parts: {"type": "Sequence", key: parts}
    choices = [
        ("WordPiece", bert, {"type": "BertPreTokenizer"}, template),
        ("WordPiece", sequence("normalizers", [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "StripAccents"}]),
         {"type": "Whitespace"}, {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}),
        ("WordLevel", sequence("normalizers", [replace, regex]), {"type": "WhitespaceSplit"}, template),
        ("BPE", {"type": "NFD"}, sequence("pretokenizers", [split, byte_level]), None),
        ("BPE", None, byte_level, {"type": "RobertaProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1],
                                   "trim_offsets": True, "add_prefix_space": True}),
        ("Unigram", sequence("normalizers", [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Nmt"}]), metaspace,
         sequence("processors", [template])),
        ("Unigram", {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Punctuation",
                                                                               "behavior": "Isolated"}, None),
    ]
    for model, normalizer, pre_tokenizer, post_processor in choices:
        file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
                "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": None,
                "model": models[model]}
        yield json.dumps(file).encode() + b"\0" + "The cats sat. [SEP] \u00e9\u6c34 aba\u0301".encode()


def model_folders():
    files = [file for kind in ("model", "decoder") for file in sorted((GOLDEN / kind).glob("tiny_*/model.safetensors"))]
    for file in files:
        header, _ = header_and_size(file)
        yield (file.parent / "config.json").read_bytes() + b"\0" + header


def traces():
    plain = ["manyheads_trace=1", 'tokens=["[CLS]","the","cat","##s","[SEP]"]', "scale=0.5"]
    text = ["model=m", "text=the cats", "token_ids=[1,2,3,4,5]", "offsets=[[0,0],[0,3],[4,7],[7,8],[0,0]]",
            "words=[-1,0,1,1,-1]", "sequences=[-1,0,0,0,-1]"]
    layers = ["@layers.0.q F32 2,5,4", "@layers.0.k F32 2,5,4", "@layers.0.lse F32 2,5"]
    second = [line.replace("layers.0", "layers.1") for line in layers]
    more = ["@layers.0.v F32 2,5,3", "@layers.0.bias F32 5,5", "@layers.0.sinks F32 2"]
    wide = ["@layers.0.q F32 1,70,3", "@layers.0.k F32 1,5,3", "@layers.0.lse F32 1,70", "@layers.0.row_sum F32 1,70"]
    masks = ["causal=true", "window=[2,-1]", "softcap=3", "key_length=4", "alignment=top_left"]
    short = ["@layers.0.q F32 4,3,2", "@layers.0.k F32 2,5,2", "@layers.0.lse F32 4,3", "alignment=bottom_right",
             "causal=true"]
    find = ["!cats", "!the#1", "!The"]
    for lines in (plain + layers, plain + text + layers + second + find, plain + text + layers + more + find,
                  plain + layers + masks, plain + short, plain + wide, plain + ["text2=a cat", "sequences=[-1,0,1,1,-1]"] + layers):
        for first in (0, 1, 3, 5, 15):
            yield bytes([first]) + "\n".join(lines).encode()


def treebanks():
    example = (ROOT / "examples" / "relations.conllu").read_text(encoding="utf-8").split("\n\n")
    for sentence in example[:8]:
        yield (sentence + "\n\n").encode()
    row = lambda *cells: "\t".join([*cells, *"_" * (10 - len(cells))]) + "\n"
    token = row("1-2", "del", "_", "_", "_", "_", "_", "_", "_", "SpaceAfter=No")
    words = row("1", "de", "_", "_", "_", "_", "3", "case") + row("2", "el", "_", "_", "_", "_", "3", "det")
    last = row("2.1", "x") + row("3", "mar", "_", "_", "_", "_", "0", "root")
    yield (token + words + last + "\n").encode()
    yield ("\ufeff# text = delmar\r\n" + (token + words + last).replace("\n", "\r\n") + "\r\n").encode()


def texts():
    for line in ("The black cat sat on the mat.", "caf\u00e9 \u00c9\u0301 \u00df \u0130stanbul", "\u732b\u304c\u5ea7\u308b \ud55c\uad6d\uc5b4",
                 "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u0391\u03a3", "a\u200bb\u00ad \U0001f600\u200d\U0001f525 [SEP] [MASK]", "", "   \t\r\n",
                 "unaffable" * 20):
        yield b"\x20" + line.encode()
        yield b"\x05" + line.encode() + b"\0" + b"the second text"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    numbers = random.Random(1)
    write(folder, "safetensors", safetensors())
    write(folder, "json", json_files())
    write(folder, "tokenizer", tokenizers())
    write(folder, "model", model_folders())
    write(folder, "trace", traces())
    write(folder, "treebank", treebanks())
    write(folder, "text", texts())
    write(folder, "attention", (numbers.randbytes(9) for _ in range(64)))
    write(folder, "kv_cache", (numbers.randbytes(numbers.randrange(40, 300)) for _ in range(32)))
    write(folder, "backward", (numbers.randbytes(9 + 2 * (i % 5)) for i in range(80)))


main()
