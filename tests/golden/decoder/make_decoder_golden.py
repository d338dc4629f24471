#!/usr/bin/env python3
"""Golden values of decoders of the Llama family: NumPy in float64, which transformers' LlamaForCausalLM must meet.

transformers' own norm, rotary embedding and softmax are float32 whatever the model's type, so the values are those of
the evaluation below, and the script fails where transformers in float32 is further from them than its rounding.

Writes smollm2_<text>.safetensors and smollm2_greedy.json for the model in --model, and small random models as hub-style
folders tiny_<name>/ with expected.safetensors beside their weights.
"""

import argparse
import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

# heads: stored for the layers in `layers`. states: hidden states stored (0 is the embedding, 30 the last).
SMOLLM2_TEXTS = {
    "capital": dict(text="The capital of Italy is Rome, and the capital of France is", heads=range(9)),
    "unicode": dict(
        text="In 2024 the naïve café sold 1,350 cups — 日本語, Привет 😀; in 2025 the café sold", heads=(0, 4, 8)
    ),
}  # fmt: skip
SMOLLM2_STATES = (0, 1, 2, 10, 20, 29, 30)
SMOLLM2_LAYERS = (0, 14, 29)
GREEDY_PROMPT = "The history of bread begins"
GREEDY_TOKENS = 200

TINY = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, intermediate_size=48, vocab_size=96, max_position_embeddings=64, rms_norm_eps=1e-6,
    rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
)  # fmt: skip

# without: of the configuration. dtype: of the stored weights. shards: files, with an index.
TINY_MODELS = {
    "grouped": dict(config=dict(num_key_value_heads=2)),
    "untied": dict(
        config=dict(
            tie_word_embeddings=False, rms_norm_eps=1e-5,
            rope_parameters=dict(rope_theta=500.0, rope_type="default"),
        ),
        without=("rope_theta", "num_key_value_heads"),
    ),
    "shards": dict(config=dict(num_key_value_heads=1, rope_theta=100000.0), shards=2),
    "head_dim": dict(config=dict(hidden_size=48, head_dim=20, num_key_value_heads=2, num_hidden_layers=1)),
    "f16": dict(config=dict(num_key_value_heads=2), dtype=np.float16),
    "bf16": dict(config=dict(num_key_value_heads=2), dtype=ml_dtypes.bfloat16),
    "biases": dict(config=dict(num_key_value_heads=2, num_hidden_layers=1, attention_bias=True, mlp_bias=True)),
    "linear": dict(config=dict(num_hidden_layers=1, rope_scaling=dict(type="linear", factor=4.0))),
    # Of a head's four wavelengths, the first is kept, the second blended, the others stretched.
    "llama3": dict(
        config=dict(
            num_hidden_layers=1,
            rope_parameters=dict(
                rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=0.25, high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
        without=("rope_theta",),
    ),
}  # fmt: skip


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def frequencies(config, dim):
    """The angle that each pair of a head turns by from one place to the next, [dim/2]."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    plain = rope.get("rope_theta", config.get("rope_theta")) ** (-np.arange(0, dim, 2) / dim)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return plain
    stretched = plain / rope["factor"]
    if kind == "linear":
        return stretched
    # llama3: by how often a pair turns round within the length that the model was first trained on.
    turns = rope["original_max_position_embeddings"] * plain / (2 * np.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    return stretched + np.clip((turns - low) / (high - low), 0, 1) * (plain - stretched)


def rotate(x, frequency):
    """x [heads, T, dim]: value i and value i + dim/2 are one pair, turned by place · frequency."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * frequency
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def evaluate(config, state, ids):
    """Hidden states [layer][T,hidden], weights [layer][H,T,T] and logits [T,vocabulary] of one text, in float64."""
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    dim = config.get("head_dim", config["hidden_size"] // heads)
    frequency = frequencies(config, dim)
    eps, tokens = config["rms_norm_eps"], len(ids)
    later = np.triu(np.ones((tokens, tokens), bool), 1)

    def weight(name):
        return np.asarray(state[name], np.float64)

    def linear(x, name):
        y = x @ weight(name + ".weight").T
        return y + weight(name + ".bias") if name + ".bias" in state else y

    x = np.asarray(state["model.embed_tokens.weight"][ids], np.float64)
    hidden, weights = [x], []
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        h = rms_norm(x, weight(name + "input_layernorm.weight"), eps)
        q, k, v = (
            linear(h, f"{name}self_attn.{p}_proj").reshape(tokens, n, dim).swapaxes(0, 1)
            for p, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = rotate(q, frequency), rotate(k, frequency)
        k, v = (np.repeat(a, heads // kv_heads, 0) for a in (k, v))
        weights.append(softmax(np.where(later, -np.inf, q @ k.swapaxes(1, 2) / np.sqrt(dim))))
        attended = (weights[-1] @ v).swapaxes(0, 1).reshape(tokens, heads * dim)
        x = x + linear(attended, name + "self_attn.o_proj")
        h = rms_norm(x, weight(name + "post_attention_layernorm.weight"), eps)
        gate = linear(h, name + "mlp.gate_proj")
        inner = gate / (1 + np.exp(-gate)) * linear(h, name + "mlp.up_proj")
        x = x + linear(inner, name + "mlp.down_proj")
        hidden.append(x)
    hidden[-1] = rms_norm(x, weight("model.norm.weight"), eps)
    output = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    return hidden, weights, hidden[-1] @ weight(output).T


def load(folder):
    """transformers' own reading of the folder, in float32; the configuration; the tensors as they are stored."""
    model, said = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    state = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            state |= {name: file.get_tensor(name).float().numpy() for name in file.keys()}
    return model.eval(), json.loads((folder / "config.json").read_text()), state


def checked(model, config, state, ids, what):
    """evaluate(), after a comparison with transformers."""
    hidden, weights, logits = evaluate(config, state, ids)
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
    theirs = [*out.hidden_states, out.logits, *out.attentions]
    far = 0
    for mine, other in zip([*hidden, logits, *weights], theirs, strict=True):
        far = max(far, np.abs(mine - other[0].numpy()).max() / np.abs(mine).max())
    print(f"{what}: transformers in float32 is within {far:.1e} of each tensor's largest value")
    assert far < 1e-5
    return hidden, weights, logits


def metadata(**more):
    return more | {"evaluated_by": f"NumPy, float64; transformers {transformers.__version__} in float32 agrees"}


def save_and_say(path, tensors, metadata):
    golden.save(path, tensors, metadata)
    print(f"{path.parent.name}/{path.name:32} {path.stat().st_size:8} bytes")


def make_smollm2(folder, out):
    model, config, state = load(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name, o in SMOLLM2_TEXTS.items():
        encoding = tokenizer.encode(o["text"])
        hidden, weights, logits = checked(model, config, state, encoding.ids, name)
        places = [0, len(encoding.ids) // 2, len(encoding.ids) - 1]
        best = np.argsort(-logits[places], kind="stable")[:, :20]
        tensors = {
            "input_ids": np.asarray(encoding.ids, np.int64),
            "places": np.asarray(places, np.int64),
            "logits.ids": best.astype(np.int64),
            "logits.values": np.take_along_axis(logits[places], best, 1).astype(np.float32),
        }
        tensors |= {f"hidden_states.{i}": hidden[i][places].astype(np.float32) for i in SMOLLM2_STATES}
        tensors |= {f"weights.{i}": weights[i][list(o["heads"])].astype(np.float32) for i in SMOLLM2_LAYERS}
        facts = metadata(
            text=o["text"], tokens=golden.to_json(encoding.tokens), heads=golden.to_json(list(o["heads"]))
        )  # fmt: skip
        save_and_say(out / f"smollm2_{name}.safetensors", tensors, facts)

    prompt = tokenizer.encode(GREEDY_PROMPT).ids
    written = model.generate(
        torch.tensor([prompt]), max_new_tokens=GREEDY_TOKENS, min_new_tokens=GREEDY_TOKENS, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )[0].tolist()  # fmt: skip
    logits = evaluate(config, state, written)[2][len(prompt) - 1 : -1]
    ids = written[len(prompt) :]
    best = np.argsort(-logits, kind="stable")[:, :2]
    gaps = logits[np.arange(len(ids)), best[:, 0]] - logits[np.arange(len(ids)), best[:, 1]]
    for i, gap, (first, second) in zip(ids, gaps, best):
        assert i == first or (i == second and gap < 1e-3), (i, first, second, gap)
    print(f"greedy: smallest gap {gaps.min():.1e}; {tokenizer.decode(ids)!r}")
    content = {
        "prompt": GREEDY_PROMPT,
        "prompt_ids": prompt,
        "ids": ids,
        "second_ids": [int(b) if a == i else int(a) for i, (a, b) in zip(ids, best)],
        "gaps": [round(float(gap), 4) for gap in gaps],
        "text": tokenizer.decode(ids),
        "written_by": f"transformers {transformers.__version__}, float32; gaps by NumPy in float64",
    }
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in content.items())
    (out / "smollm2_greedy.json").write_text("{\n" + lines + "\n}\n")


def random_state(config, random, dtype):
    state = {}
    for tensor, value in sorted(transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).state_dict().items()):
        if tensor == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        # Large enough that no head is near uniform and every term shows.
        array = random.standard_normal(tuple(value.shape)) * 0.35 + (1.0 if "norm" in tensor else 0.0)
        state[tensor] = array.astype(dtype)
    return state


def make_tiny(name, seed, out):
    o = TINY_MODELS[name]
    config = {key: value for key, value in (TINY | o["config"]).items() if key not in o.get("without", ())}
    random = np.random.default_rng(seed)
    state = random_state(config, random, o.get("dtype", np.float32))
    folder = out / f"tiny_{name}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    golden.save_weights(folder, state, o.get("shards", 1))

    model, config, state = load(folder)
    lengths = [9, 1, 6]
    ids = random.integers(3, config["vocab_size"], (3, 9))
    tensors = {"lengths": np.asarray(lengths, np.int64), "input_ids": ids}
    for i, length in enumerate(lengths):
        ids[i, length:] = 0
        hidden, weights, logits = checked(model, config, state, ids[i, :length].tolist(), f"{name}, text {i}")
        for what, value in [("logits", logits)] + [(f"hidden_states.{j}", h) for j, h in enumerate(hidden)]:
            tensors.setdefault(what, np.zeros((3, 9, value.shape[1])))[i, :length] = value
        for j, value in enumerate(weights):
            tensors.setdefault(f"weights.{j}", np.zeros((3, len(value), 9, 9)))[i, :, :length, :length] = value
    tensors = {what: value if value.dtype == np.int64 else value.astype(np.float32) for what, value in tensors.items()}
    save_and_say(folder / "expected.safetensors", tensors, metadata())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = HERE.parents[2] / "models"
    parser.add_argument("--model", type=pathlib.Path, default=models / "SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    for seed, name in enumerate(TINY_MODELS):
        make_tiny(name, seed, args.out)
    make_smollm2(args.model, args.out)


if __name__ == "__main__":
    main()
