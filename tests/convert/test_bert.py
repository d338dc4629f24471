"""A TensorFlow checkpoint of BERT becomes a folder with its exact values; a malformed one gives one line."""

import json
import struct

import numpy as np
import pytest
from bert_checkpoint import HIDDEN, TOKENS, Checkpoint, block, entry_data, field, graph, handle, shapes, table, varint
from test_gguf import read_safetensors


def hub_name(name):
    """The hub's name of a tensor, by the parts of TensorFlow's."""
    parts = name.split("/")[1:]
    last = {"kernel": "weight", "gamma": "weight", "beta": "bias", "output_bias": "bias"}.get(parts[-1], parts[-1])
    parts = [part.replace("layer_", "layer.") for part in parts[:-1]] + [last]
    return ".".join(parts) + (".weight" if last.endswith("_embeddings") else "")


def convert(converter, checkpoint):
    checkpoint.write(converter.folder / "model")
    assert converter("bert", converter.folder / "model") == (0, "")
    return converter.folder / "out"


@pytest.mark.parametrize("blocks", [1, 2, 50])
def test_values_are_exact_and_each_is_used_once(converter, blocks):
    checkpoint = Checkpoint()
    entries = [(name.encode(), entry) for name, entry in sorted(checkpoint.entries.items())]
    checkpoint.index = table([(b"", checkpoint.header), *entries], blocks)
    tensors = read_safetensors(convert(converter, checkpoint) / "model.safetensors")
    assert len(tensors) == len(checkpoint.values) == len({hub_name(name) for name in checkpoint.values})
    for name, value in checkpoint.values.items():
        expected = value.T if name.endswith("/kernel") else value
        assert np.array_equal(tensors[hub_name(name)], expected), name
    assert "cls.predictions.bias" in tensors and "bert.encoder.layer.1.attention.self.query.weight" in tensors


def test_config_and_tokenizer(converter):
    folder = convert(converter, Checkpoint())
    config = json.loads((folder / "config.json").read_text())
    expected = dict(
        model_type="bert", architectures=["BertForMaskedLM"], hidden_size=HIDDEN, num_attention_heads=1,
        num_hidden_layers=2, intermediate_size=32, max_position_embeddings=8, type_vocab_size=2, layer_norm_eps=1e-12,
        hidden_act="gelu_new", vocab_size=len(TOKENS),
    )  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    content = json.loads((folder / "tokenizer.json").read_text())
    assert content["model"]["vocab"] == {token: i for i, token in enumerate(TOKENS)}
    assert content["post_processor"]["special_tokens"]["[SEP]"]["ids"] == [3]
    assert (folder / "vocab.txt").read_bytes() == Checkpoint().vocabulary


def test_the_graph_says_which_gelu(converter):
    checkpoint = Checkpoint()
    checkpoint.graph = graph("a/layer_0/intermediate/dense/Erf", "b/layer_0/intermediate/dense/Erf_1")
    assert json.loads((convert(converter, checkpoint) / "config.json").read_text())["hidden_act"] == "gelu"


CASES = {}
QUERY = "bert/encoder/layer_0/attention/self/query/kernel"
HUGE = 2**64 - 1


def case(name, damage, *words):
    assert name not in CASES, name
    CASES[name] = damage, words


def member(name, value, *words, label=""):
    case(f"{name}-{label or value!r}", lambda c: setattr(c, name, value), *words)


def entry(label, data, *words, name=QUERY):
    case(f"entry-{label}", lambda c: c.entries.update({f"module/{name}": data}), *words)


def changed(label, words, name=QUERY, **change):
    case(f"changed-{label}", lambda c: c.change(name, **change), *words)


def whole_table():
    return Checkpoint().table()


def with_footer(handles):
    return whole_table()[:-48] + handles.ljust(40, b"\0") + whole_table()[-8:]


def one_block(data, kind=b"\0"):
    """A table whose only block of entries is this."""
    index = block([(b"z", handle(0, len(data)))])
    start = len(data) + 5
    front = data + kind + b"\1\2\3\4" + index + b"\0\1\2\3\4"
    return front + (handle(0, 0) + handle(start, len(index))).ljust(40, b"\0") + whole_table()[-8:]


for length in (0, 7, 47, 48, 500, len(whole_table()) - 1):
    member("index", whole_table()[:length], "not a table", label=f"of-{length}-bytes")
member("index", b"\0" * 100, "not a table", label="zeros")
member("index", with_footer(b"\xff" * 40), "number of more than ten bytes", label="endless-number")
member("index", with_footer(handle(0, 0) + handle(HUGE, 4)), "past the end of the table", label="index-far-away")
member("index", with_footer(handle(0, 0) + handle(0, HUGE)), "past the end of the table", label="index-huge")
member("index", with_footer(handle(0, 0) + handle(0, 0)), "the index block has 0 bytes", label="index-empty")
for kind in (1, 2, 255):
    member("index", one_block(block([]), bytes([kind])), f"compressed (type {kind})", label=f"compressed-{kind}")
for what, data, word in (
    ("restarts", b"\0" * 8 + b"\xff\xff\xff\xff", "says 4294967295 restarts"),
    ("shared", varint(5) + varint(0) + varint(0) + b"\0" * 8, "has an entry past its end"),
    ("key", varint(0) + varint(HUGE) + varint(0) + b"\0" * 8, "has an entry past its end"),
    ("value", varint(0) + varint(1) + varint(2**40) + b"k" + b"\0" * 8, "has an entry past its end"),
    ("number", b"\xff" * 12 + struct.pack("<I", 0), "number of more than ten bytes"),
    ("twice", block([(b"a", b""), (b"a", b"")]), "is there twice"),
):
    member("index", one_block(data), word, label=f"block-{what}")
member("header", b"", "the header")
member("header", field(1, 2), "the header says another form", label="two-shards")
member("header", field(1, 1) + field(2, 1), "the header says another form", label="big-endian")
member("header", field(1, b"1"), "the header has another kind of field 1", label="bytes")
member("header", varint(1 << 3 | 3), "wire type 3", label="group")
case("no-entries", lambda c: c.entries.clear(), "is missing")

entry("empty", b"", "is of type 0")
entry("field-past-the-end", varint(2 << 3 | 2) + varint(100) + b"x", "ends inside field 2")
entry("fixed-past-the-end", varint(6 << 3 | 5) + b"x", "ends inside field 6")
entry("number-past-the-end", b"\x08\xff", "ends inside a number")
entry("shape-of-bytes", field(1, 1) + field(2, b"\xff\xff"), "ends inside")
entry("shape-unknown", field(1, 1) + field(2, field(3, 1)), "has no known shape")
entry("cut-in-slices", entry_data((64, 64), 0, 16384, more=field(7, b"x")), "cut into parts")
entry("in-another-shard", entry_data((64, 64), 0, 16384, more=field(3, 1)), "cut into parts")
for dtype in (2, 3, 14, 19, 2**31):
    changed(f"dtype-{dtype}", [f"is of type {dtype}"], dtype=dtype)
for size in (0, 16380, 16385, HUGE):
    changed(f"size-{size}", [f"has {size} bytes, not 16384"], size=size)
for shape in ((0, 64), (64, HUGE), (2**31, 1)):
    changed(f"shape-{shape}", ["has an axis of size"], shape=shape)
changed("shape-huge", ["ends at byte"], shape=(2**30, 2**30), size=2**62)
INNER = "bert/encoder/layer_1/intermediate/dense/kernel"
changed("shape-turned", ["has the shape [64, 32], not [32, 64]"], name=INNER, shape=(32, 64))
changed("shape-flat", ["has 1 axes, not 2"], shape=(4096,))
changed("shape-of-three", ["has 3 axes, not 2"], shape=(8, 8, 64))
WORDS = "bert/embeddings/word_embeddings"
changed("words-flat", ["word_embeddings.weight is missing, or has not 2 axes"], name=WORDS, shape=(512,))
changed("bias-of-two", ["has the shape"], name="bert/pooler/dense/bias", shape=(1, 64))
changed("bias-scalar", ["bytes, not 4"], name="bert/pooler/dense/bias", shape=())
for offset in (HUGE, 2**40):
    changed(f"offset-{offset}", ["ends at byte"], offset=offset)
changed("offset-0", ["lies on another"], offset=0)
for name in sorted(shapes()):
    case(f"without-{name}", lambda c, name=name: c.entries.pop(f"module/{name}"), hub_name(f"module/{name}"))
case("name-not-utf8", lambda c: c.entries.update({b"module/\xff": entry_data((1,), 0, 4)}), "not UTF-8")
case("on-another", lambda c: c.entries.update({"step": entry_data((1,), len(c.data) - 4, 4)}), "lies on another")
for name, word in (
    ("global_step", "'global_step' is not read"),
    ("module/bert/encoder/layer_0/x", "is not read"),
    ("module/bert/encoder/layer_7/output/dense/bias", "bert.encoder.layer.2.attention.self.query.weight is missing"),
    ("module/bert/encoder/layer_0", "is not read"),
    ("x" * 9999, "is not read"),
    ("\n", "'\\n' is not read"),
    (QUERY, "is there twice"),
):

    def another(c, name=name):
        c.entries[name] = entry_data((1, 1), len(c.data), 4)
        c.data += b"\0" * 4

    case(f"more-{name[:50]!r}", another, word)
case("data-short", lambda c: setattr(c, "data", c.data[:-1]), "ends at byte")
case("data-empty", lambda c: setattr(c, "data", b""), "ends at byte")
case("data-nan", lambda c: setattr(c, "data", c.data[:-4] + struct.pack("<f", float("nan"))), "not finite")

# The other files.
for content in (b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 100000, b'{"doLowerCase": false}', b'{"doLowerCase": 1}'):
    member("facts", content, "model.json", label=str(content[:30]))
for content, what in ((b"", "empty"), (graph("a/intermediate/dense/BiasAdd"), "none")):
    member("graph", content, "0 kinds of GELU", label=what)
member("graph", graph("0/intermediate/dense/Tanh", "1/intermediate/dense/Erf"), "2 kinds of GELU", label="two")
member("graph", b"\x12\xff\xff\x03", "saved_model.pb ends inside field 2", label="short")
member("graph", b"\x12\x01\xff", "saved_model.pb ends inside a number", label="inner-short")
LINES = Checkpoint().vocabulary
for what, content, word in (
    ("empty", b"", "0 lines"),
    ("one-less", LINES.replace(b"##s\n", b""), "7 lines"),
    ("one-more", LINES + b"dog\n", "9 lines"),
    ("empty-line", LINES + b"\n", "9 lines"),
    ("twice", LINES.replace(b"##s", b"cat"), "7 of them different"),
    ("without-cls", LINES.replace(b"[CLS]", b"[cls]"), "vocab.txt lacks [CLS]"),
    ("not-utf8", LINES.replace(b"##s", b"\xff\xff"), "vocab.txt is not UTF-8"),
):
    member("vocabulary", content, word, label=what)


@pytest.mark.parametrize("name", CASES)
def test_malformed(converter, name):
    damage, words = CASES[name]
    checkpoint = Checkpoint()
    damage(checkpoint)
    checkpoint.write(converter.folder / "model")
    converter.refuses("bert", converter.folder / "model", *words)


@pytest.mark.parametrize("name", ["facts", "vocabulary", "graph", "index", "data"])
def test_a_file_that_is_not_there(converter, name):
    checkpoint = Checkpoint()
    checkpoint.write(converter.folder / "model")
    path = {
        "facts": "assets/model.json", "vocabulary": "assets/vocab.txt", "graph": "saved_model.pb",
        "index": "variables/variables.index", "data": "variables/variables.data-00000-of-00001",
    }[name]  # fmt: skip
    (converter.folder / "model" / path).unlink()
    status, said = converter("bert", converter.folder / "model")
    assert status == 1 and said == f"convert: {converter.folder}/model/{path}: No such file or directory\n"


def test_any_byte_of_the_index_may_be_wrong(converter):
    """Whatever the byte becomes, there is a model or one line."""
    Checkpoint().write(converter.folder / "model")
    whole = whole_table()
    refused = 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= (255, 1, 128)[place % 3]
        (converter.folder / "model/variables/variables.index").write_bytes(damaged)
        status, said = converter("bert", converter.folder / "model")
        assert status in (0, 1) and said.count("\n") == status, (place, said)
        refused += status
    assert refused > len(whole) // 7 // 2
