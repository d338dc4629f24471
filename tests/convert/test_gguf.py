"""A GGUF becomes a folder with its exact values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf_file
import numpy as np
import pytest
from gguf_file import ARRAY, BOOL, F32, I32, I64, STRING, TOKENS, U8, U32, U64, Array, GgufFile

HUB = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.0.attn_norm": "model.layers.0.input_layernorm",
    "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
    "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj",
    "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
    "blk.0.attn_q": "model.layers.0.self_attn.q_proj",
    "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
    "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
    "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
}


def read_safetensors(path):
    data = Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    tensors = {}
    end = 0
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        assert entry["dtype"] == "F32" and begin == end
        end = stop
        part = data[8 + length + begin : 8 + length + stop]
        tensors[name] = np.frombuffer(part, "<f4").reshape(entry["shape"])
    assert 8 + length + end == len(data) and length % 8 == 0
    return tensors


def in_gguf_order(weight, heads):
    """As a GGUF's writer lays the rows of queries and keys: row i of a head's first half, then row i of its second."""
    rows = []
    dim = len(weight) // heads
    for head in range(heads):
        for i in range(dim // 2):
            rows += [weight[head * dim + i], weight[head * dim + dim // 2 + i]]
    return np.array(rows)


def converted(converter, file):
    path = converter.folder / "model.gguf"
    path.write_bytes(file.data())
    assert converter("llama", path) == (0, "")
    return converter.folder / "out"


def compare_values(folder, file):
    tensors = read_safetensors(folder / "model.safetensors")
    assert tensors.keys() == {HUB[name.removesuffix(".weight")] + ".weight" for name in file.values}
    for name, expected in file.values.items():
        got = tensors[HUB[name.removesuffix(".weight")] + ".weight"]
        heads = {"attn_q": gguf_file.HEADS, "attn_k": gguf_file.KV_HEADS}.get(name.split(".")[-2])
        got = in_gguf_order(got, heads) if heads else got
        assert got.shape == expected.shape and got.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64])
def test_values_are_exact(converter, version, alignment):
    file = GgufFile(version=version)
    if alignment:
        file.entries["general.alignment"] = (U32, alignment)
    compare_values(converted(converter, file), file)


def test_an_output_of_its_own_is_written(converter):
    file = GgufFile()
    random = np.random.default_rng(1)
    shape = len(TOKENS), gguf_file.HIDDEN
    file.tensors["output.weight"], file.values["output.weight"] = gguf_file.random_tensor(random, 0, *shape)
    folder = converted(converter, file)
    compare_values(folder, file)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False


def test_config(converter):
    config = json.loads((converted(converter, GgufFile()) / "config.json").read_text())
    expected = dict(
        model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=32, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, intermediate_size=64, num_hidden_layers=1, max_position_embeddings=128,
        rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True, vocab_size=len(TOKENS), bos_token_id=1,
        eos_token_id=0,
    )  # fmt: skip
    assert {name: config[name] for name in expected} == expected
    generation = json.loads((converter.folder / "out/generation_config.json").read_text())
    assert generation["eos_token_id"] == 0


def test_what_a_gguf_may_leave_out(converter):
    file = GgufFile()
    for name in ("llama.rope.freq_base", "tokenizer.chat_template", "tokenizer.ggml.bos_token_id"):
        del file.entries[name]
    file.entries["llama.rope.scaling.type"] = (STRING, "none")
    file.entries["llama.expert_count"] = (U32, 0)
    file.entries["llama.vocab_size"] = (U32, len(TOKENS))
    file.entries["llama.rope.dimension_count"] = (U32, 16)
    file.entries["tokenizer.ggml.add_bos_token"] = (BOOL, 0)
    file.entries["general.languages"] = (ARRAY, Array(STRING, ["en"]))
    file.entries["of.no.use"] = (ARRAY, Array(I64, [-1, 2]))
    folder = converted(converter, file)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == 10000.0 and "bos_token_id" not in config
    assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("kind", [U8, I32, U64])
def test_a_size_may_be_of_any_whole_kind(converter, kind):
    file = GgufFile()
    file.entries["llama.embedding_length"] = (kind, 32)
    compare_values(converted(converter, file), file)


def test_tokenizer(converter):
    folder = converted(converter, GgufFile())
    content = json.loads((folder / "tokenizer.json").read_text())
    assert content["model"]["vocab"] == {token: i for i, token in enumerate(TOKENS)}
    assert content["model"]["merges"] == gguf_file.MERGES
    assert [token["content"] for token in content["added_tokens"]] == TOKENS[:2]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == "{{ messages }}" and config["eos_token"] == TOKENS[0]


def test_a_token_of_the_users_own_is_found_first_and_is_not_special(converter):
    file = GgufFile()
    file.entries["tokenizer.ggml.token_type"][1].values[6] = 4
    content = json.loads((converted(converter, file) / "tokenizer.json").read_text())
    assert content["added_tokens"][2] == {
        "id": 6, "content": "abc", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": False,
    }  # fmt: skip


def test_a_number_is_the_shortest_that_float32_reads_alike(converter):
    file = GgufFile()
    file.entries["llama.attention.layer_norm_rms_epsilon"] = (F32, 1e-6)
    assert '"rms_norm_eps": 1e-06,' in (converted(converter, file) / "config.json").read_text()


def command(*arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "scripts")}
    run = subprocess.run(
        [sys.executable, "-B", "-m", "convert", *map(str, arguments)], env=environment, capture_output=True
    )
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_the_command(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(GgufFile().data())
    assert command("llama", path, tmp_path / "out") == (0, "", "")
    path.write_bytes(b"GGUF")
    status, out, said = command("llama", path, tmp_path / "other")
    assert (status, out) == (1, "") and said.startswith(f"convert: {path}: not GGUF") and said.count("\n") == 1
    assert command()[0] == command("llama", path)[0] == command("onnx", path, tmp_path)[0] == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "unwritable"])
def test_what_is_no_file(converter, tmp_path, kind):
    path = tmp_path / "model.gguf"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
        writer = os.open(path, os.O_RDWR)
    elif kind == "unwritable":
        path.write_bytes(GgufFile().data())
        (tmp_path / "out").write_bytes(b"")
    status, said = converter("llama", path)
    assert status == 1 and said.count("\n") == 1, said
    if kind == "fifo":
        os.close(writer)


def test_a_full_disk(converter, tmp_path):
    """What is full ends the conversion in one line, and leaves no half of a file."""
    path = tmp_path / "model.gguf"
    path.write_bytes(GgufFile().data())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors.tmp").symlink_to("/dev/full")
    status, said = converter("llama", path)
    assert status == 1 and "No space left on device" in said and said.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []
