"""GGUF files of which something is wrong: one line that names the file and the fault, each within little memory."""

import struct

import pytest
from gguf_file import (
    ARRAY, BOOL, F32, F64, I8, I32, I64, STRING, TENSOR_F32, TENSOR_Q4_1, TENSOR_Q8_0, U8, U16, U32, U64, Array,
    GgufFile, Raw, Tensor, number, string,
)  # fmt: skip

HUGE = 2**64 - 1
CASES = {}  # name: (what damages a file, words of the message)


def case(name, damage, *words):
    assert name not in CASES, name
    CASES[name] = damage, words


def header(name, value, *words):
    case(f"header-{name}-{value}", lambda file: file.header.update({name: value}), *words)


def entry(name, kind, value, *words, label=""):
    shown = label or (value if isinstance(value, (int, float, str)) else type(value).__name__)
    case(f"{name}-{kind}-{shown}", lambda file: file.entries.update({name: (kind, value)}), *words)


def tensor(name, what, change, *words):
    case(f"{name}-{what}", lambda file: change(file.tensors[name]), *words)


def recode(file, old, new):
    data = file.data().replace(old, new)
    file.data = lambda: data


for magic in (b"GGML", b"gguf", b"FUGG", b"\0\0\0\0"):
    header("magic", magic, "not GGUF")
for version in (0, 1, 4, 255, 2**32 - 1):
    header("version", version, f"version {version} is not read")
for version in (0x02000000, 0x03000000):
    header("version", version, "big-endian")
for count in (HUGE, 2**63, 2**32, 10**6):
    header("tensors", count, f"says {count} tensors")
    header("entries", count, f"says {count} metadata entries")
for count, word in ((12, "tensor"), (10, "missing"), (0, "block_count")):
    header("tensors", count, word)
for count in (18, 16, 0):
    header("entries", count)

# Metadata: lengths and types.
for length in (HUGE, 2**63, 2**40, 10**6):
    def long_name(file, length=length):
        file.entries["x"] = (U32, Raw(number(U32, 0)))
        data = file.data()
        place = data.index(string("general.architecture"))
        file.data = lambda: data[:place] + number(U64, length) + data[place + 8 :]

    case(f"name-of-{length}-bytes", long_name, "ends early", f"takes {length} bytes")
    entry("general.name", STRING, Raw(number(U64, length)), "ends early", label=f"length-{length}")
for kind in (13, 14, 255, 2**32 - 1):
    entry("general.name", kind, Raw(b"\0" * 8), f"is of type {kind}")
    array = Raw(number(U32, kind) + number(U64, 1) + b"\0" * 8)
    entry("general.name", ARRAY, array, "array of type", label=f"of-{kind}")
entry("general.name", ARRAY, Raw(number(U32, ARRAY) + number(U64, 1) + b"\0" * 8), "array of type 9", label="of-arrays")
for kind in (U8, I8, U16, I32, F32, BOOL, U64, I64, F64):
    for count in (HUGE, 2**61, 10**7):
        array = Raw(number(U32, kind) + number(U64, count))
        entry("general.name", ARRAY, array, "'general.name'", "ends early", label=f"{count}-of-{kind}")
for count in (HUGE, 2**61, 10**7):
    array = Raw(number(U32, STRING) + number(U64, count))
    entry("general.name", ARRAY, array, f"says {count} strings", label=f"{count}-strings")
entry("general.name", STRING, Raw(string(b"\xff\xfe")), "metadata 'general.name' is not UTF-8", label="bytes")
case("name-not-utf8", lambda f: recode(f, b"llama.block_count", b"llama.block_coun\xff"), "not UTF-8")
case("entry-twice", lambda f: f.entries.update({"llama.block_count#": (U32, 1)}), "'llama.block_count' is there twice")
REQUIRED = [
    "general.architecture", "llama.block_count", "llama.context_length", "llama.embedding_length",
    "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
    "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
]  # fmt: skip
for name in REQUIRED:
    case(f"without-{name}", lambda file, name=name: file.entries.pop(name), f"metadata {name} is missing")
    for kind, value in ((F64, 0.5), (ARRAY, Array(F32, [1.0])), (BOOL, 1)):
        if name.endswith("epsilon") and kind == F64 or kind == BOOL and name.endswith(("count", "length")):
            continue
        entry(name, kind, value, name)
SIZES = ["llama.block_count", "llama.context_length", "llama.embedding_length", "llama.feed_forward_length"]
SIZES += [f"llama.attention.{name}" for name in ("head_count", "head_count_kv", "key_length")] + ["llama.vocab_size"]
for name in SIZES:
    for kind, value in ((U32, 0), (I32, -1), (U32, 2**31), (U64, HUGE), (I64, -(2**63)), (STRING, "32"), (F32, 32.0)):
        entry(name, kind, value, f"metadata {name} is", "no size")
for name in ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"):
    for value in (0.0, -1.0, float("nan"), float("inf")):
        entry(name, F32, value, name, "no number above 0")
    for kind, value in ((U32, 1), (F64, 1e300), (F64, 1e-300), (F32, 1e-45)):
        entry(name, kind, value, name, "no number above 0")

# What the sizes say against each other and against the tensors.
entry("general.architecture", STRING, "gpt2", "general.architecture is 'gpt2'")
entry("general.architecture", STRING, "x" * 5000, "general.architecture is 'xxx")
entry("general.architecture", STRING, "\n\x1b[31m", "general.architecture is")
entry("llama.attention.head_count", U32, 3, "no multiple")
entry("llama.attention.head_count", U32, 32, "pairs them")
entry("llama.attention.head_count", U32, 4, "attn_k.weight has the shape [16, 32], not [8, 32]")
entry("llama.attention.head_count_kv", U32, 2, "attn_k.weight has the shape")
entry("llama.attention.head_count_kv", U32, 3, "no multiple of head_count_kv")
entry("llama.attention.key_length", U32, 15, "pairs them")
entry("llama.attention.key_length", U32, 8, "has the shape")
entry("llama.attention.value_length", U32, 8, "llama.attention.value_length is 8")
entry("llama.rope.dimension_count", U32, 8, "llama.rope.dimension_count is 8")
entry("llama.embedding_length", U32, 64, "token_embd.weight has the shape [8, 32], not [8, 64]")
entry("llama.embedding_length", U32, 2**31 - 1, "no multiple")
entry("llama.embedding_length", U32, 2**31 - 4, "token_embd.weight has the shape")
entry("llama.feed_forward_length", U32, 32, "ffn_down.weight has the shape [32, 64], not [32, 32]")
entry("llama.block_count", U32, 2, "blk.1.attn_norm.weight is missing")
entry("llama.block_count", U32, 2**31 - 1, "the file has 11 tensors")
entry("llama.vocab_size", U32, 9, "llama.vocab_size is 9 for 8 tokens")
entry("llama.rope.scaling.type", STRING, "linear", "'llama.rope.scaling.type' is 'linear'")
entry("llama.rope.scaling.type", ARRAY, Array(F32, [1.0, 2.0]), "'llama.rope.scaling.type' is")
entry("llama.rope.scaling.factor", F32, 2.0, "'llama.rope.scaling.factor' is 2.0")
entry("llama.expert_count", U32, 8, "'llama.expert_count' is 8")
entry("llama.attention.sliding_window", U32, 16, "'llama.attention.sliding_window' is 16")
for value in (0, 1, 4, 7, 48, 2**31 + 1):
    entry("general.alignment", U32, value, f"general.alignment is {value}")
entry("general.alignment", I32, -32, "general.alignment is -32")
entry("general.alignment", STRING, "32", "general.alignment is '32'")
entry("general.alignment", F32, 32.0, "general.alignment is 32.0")
entry("general.alignment", U64, 2**63, "the file has 0 bytes of data")
entry("general.alignment", BOOL, 1, "general.alignment is 1")

# The tokenizer.
entry("tokenizer.ggml.model", STRING, "llama", "tokenizer.ggml.model is 'llama'")
entry("tokenizer.ggml.model", STRING, "", "tokenizer.ggml.model is ''")
entry("tokenizer.ggml.pre", STRING, "gpt-2", "tokenizer.ggml.pre is 'gpt-2'")
for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
    entry(f"tokenizer.ggml.{name}", BOOL, 1, f"tokenizer.ggml.{name} is true")
    entry(f"tokenizer.ggml.{name}", BOOL, 2, f"tokenizer.ggml.{name} is 2")
    entry(f"tokenizer.ggml.{name}", STRING, "no", f"tokenizer.ggml.{name} is 'no'")
    entry(f"tokenizer.ggml.{name}", ARRAY, Array(BOOL, [0, 0]), f"tokenizer.ggml.{name} is")
for name in ("bos", "eos", "unknown", "padding"):
    entry(f"tokenizer.ggml.{name}_token_id", U32, 8, f"{name}_token_id is 8; there are 8 tokens")
    entry(f"tokenizer.ggml.{name}_token_id", U32, 2**32 - 1, "there are 8 tokens")
    entry(f"tokenizer.ggml.{name}_token_id", I32, -1, f"{name}_token_id is -1")
    entry(f"tokenizer.ggml.{name}_token_id", STRING, "1", f"{name}_token_id is '1'")
entry("tokenizer.chat_template", U32, 1, "tokenizer.chat_template is 1 and no string")


def tokens(what, change, *words):
    def damage(file):
        change(file.entries["tokenizer.ggml.tokens"][1].values)

    case(f"tokens-{what}", damage, *words)


tokens("twice", lambda t: t.__setitem__(7, "a"), "tokenizer.ggml.tokens has 'a' twice")
tokens("one-more", lambda t: t.append("d"), "token_type has 8 entries for 9 tokens")
tokens("one-less", lambda t: t.pop(), "token_type has 8 entries for 7 tokens")
tokens("none", lambda t: t.clear(), "no array of strings")
tokens("not-utf8", lambda t: t.__setitem__(2, b"\xff"), "not UTF-8")
for value in (0, 2, 5, 6, 7, -1, 2**31 - 1):
    types = Array(I32, [3, 3, 1, 1, 1, 1, 1, value])
    entry("tokenizer.ggml.token_type", ARRAY, types, f"token_type of '1' is {value}", label=f"type-{value}")
entry("tokenizer.ggml.token_type", ARRAY, Array(F32, [1.0] * 8), "no array of whole numbers", label="floats")
entry("tokenizer.ggml.token_type", ARRAY, Array(I32, []), "0 entries for 8 tokens", label="empty")
for merge in ("ab", "a  b", "a b c", "", " ", "a x", "x b", "b a", "abc 1"):
    entry("tokenizer.ggml.merges", ARRAY, Array(STRING, ["a b", merge]), f"merges has {merge!r}", label=f"'{merge}'")
entry("tokenizer.ggml.merges", ARRAY, Array(STRING, []), "no array of strings", label="empty")
entry("tokenizer.ggml.merges", ARRAY, Array(I32, [1]), "no array of strings", label="numbers")

# Tensors.
NAMES = list(GgufFile().tensors)
for name in NAMES:
    case(f"without-{name}", lambda file, name=name: file.tensors.pop(name), f"tensor {name} is missing")
    tensor(name, "double", lambda t: vars(t).update(axes=[*t.axes[:-1], t.axes[-1] * 2], data=t.data * 2), "the shape")
    tensor(name, "one-axis-more", lambda t: t.axes.append(1), "has the shape")
    tensor(name, "offset-past-the-end", lambda t: setattr(t, "offset", 2**40), "bytes of data")
Q = "blk.0.attn_q.weight"
for axes in ([], [32, 32, 1, 1, 1], [32] * 100):
    tensor(Q, f"{len(axes)}-axes", lambda t, axes=axes: setattr(t, "axes", axes), f"has {len(axes)} axes")
for axes in ([0, 32], [32, 0], [0]):
    tensor(Q, f"axes-{axes}", lambda t, axes=axes: setattr(t, "axes", axes), "without values")
for axes in ([2**63, 32], [32, 2**63], [2**32, 2**32], [2**63 + 32] * 4, [2**40] * 3, [32, 10**6]):
    tensor(Q, f"axes-{axes}", lambda t, axes=axes: setattr(t, "axes", axes), "bytes of data")
for axes in ([16, 64], [1, 1024], [33, 32], [31], [HUGE]):
    tensor(Q, f"axes-{axes}", lambda t, axes=axes: setattr(t, "axes", axes), "no whole number of blocks of 32")
for kind in (1, 2, 4, 6, 7, 12, 30, 255, 2**32 - 1):
    tensor(Q, f"type-{kind}", lambda t, kind=kind: setattr(t, "kind", kind), f"is of type {kind}, which is not read")
tensor("token_embd.weight", "type-f32", lambda t: setattr(t, "kind", TENSOR_F32), "lies on")
for offset, word in ((1, "no multiple"), (16, "no multiple"), (HUGE, "no multiple"), (HUGE - 31, "bytes of data")):
    tensor(Q, f"offset-{offset}", lambda t, offset=offset: setattr(t, "offset", offset), word)
tensor(Q, "offset-0", lambda t: setattr(t, "offset", 0), "lies on tensor")
tensor(Q, "offset-32", lambda t: setattr(t, "offset", 32), "lies on tensor")
case("tensor-twice", lambda f: f.tensors.update({Q + "#": f.tensors[Q]}), f"tensor '{Q}' is there twice")
case("tensor-name-not-utf8", lambda f: recode(f, b"blk.0.attn_q.weight", b"blk.0.attn_q.weigh\xff"), "not UTF-8")
ZEROS = Tensor([32], TENSOR_F32, b"\0" * 128)
for name in ("blk.0.attn_q.bias", "rope_freqs.weight", "blk.1.attn_q.weight", "output.bias", "x" * 3000, "\n", ""):
    case(f"more-{name[:20]!r}", lambda f, name=name: f.tensors.update({name: ZEROS}), "is not read")
case("output-of-another-shape", lambda f: f.tensors.update({"output.weight": ZEROS}), "output.weight has the shape")
NAN, INF = struct.pack("<e", float("nan")), struct.pack("<e", float("-inf"))
for name in NAMES:
    for what, scale in (("nan", NAN), ("inf", INF)):

        def poison(t, scale=scale):
            size = {TENSOR_F32: 4, TENSOR_Q4_1: 20, TENSOR_Q8_0: 34}[t.kind]
            wide = struct.pack("<f", struct.unpack("<e", scale)[0])
            t.data = t.data[:-size] + (wide if t.kind == TENSOR_F32 else scale.ljust(size, b"\1"))

        tensor(name, what, poison, f"tensor '{name}' holds a value that is not finite")


@pytest.mark.parametrize("name", CASES)
def test_malformed(converter, name):
    damage, words = CASES[name]
    file = GgufFile()
    damage(file)
    path = converter.folder / "model.gguf"
    path.write_bytes(file.data())
    converter.refuses("llama", path, *words)


WHOLE = GgufFile().data()


@pytest.mark.parametrize("length", [*range(0, 64, 3), *range(64, len(WHOLE) - 128, 97), len(WHOLE) - 128])
def test_cut_short(converter, length):
    path = converter.folder / "model.gguf"
    path.write_bytes(WHOLE[:length])
    converter.refuses("llama", path)


def test_any_byte_of_the_front_may_be_wrong(converter):
    """Whatever the byte becomes, there is a model or one line."""
    path = converter.folder / "model.gguf"
    refused = 0
    front = len(WHOLE) - sum(len(tensor.data) + -len(tensor.data) % 32 for tensor in GgufFile().tensors.values())
    for place in range(0, front):
        damaged = bytearray(WHOLE)
        damaged[place] ^= (255, 1, 128)[place % 3]
        path.write_bytes(damaged)
        status, said = converter("llama", path)
        assert status in (0, 1) and said.count("\n") == status, (place, said)
        refused += status
    assert refused > front // 2
