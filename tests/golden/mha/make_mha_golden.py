#!/usr/bin/env python3
"""Golden cases of the multi-head attention layer: torch.nn.MultiheadAttention evaluated in float64.

Weights and inputs are float32 numbers; they are widened, so the outputs carry no float32 rounding.
A second evaluation in numpy checks PyTorch's, and gives what PyTorch cannot: grouped key/value heads, and rows with
every key forbidden (weights 0 here, NaN there).
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

DEFAULTS = dict(
    d_model=24, num_heads=4, num_kv_heads=0, kdim=0, vdim=0, bias=True, add_bias_kv=False, add_zero_attn=False,
    batch=1, queries=7, keys=0, causal=False, key_padding_mask="", attn_mask="", spread=1.0,
)  # fmt: skip

# key_padding_mask: bool, float, all (one batch entry has no key left).
# attn_mask: bool, float, inf (float with some -inf), each [T,S]; bool3, float3, inf3 [B*H,T,S]; rows3 forbids whole
# rows.
CASES = {
    "one_token": dict(d_model=16, num_heads=1, queries=1),
    "one_head": dict(d_model=16, num_heads=1, queries=7),
    "self": dict(d_model=64, num_heads=8, queries=7),
    "self_batch3": dict(d_model=32, num_heads=2, batch=3, queries=9),
    "head_size_1": dict(d_model=8, num_heads=8, batch=3, queries=5),
    "head_size_7": dict(d_model=21, num_heads=3, batch=3, queries=9),
    "head_size_10": dict(d_model=30, num_heads=3, queries=8),
    "large_scores": dict(batch=3, queries=9, spread=6.0),
    "cross": dict(batch=3, queries=5, keys=9),
    "cross_one_query": dict(batch=3, queries=1, keys=9),
    "cross_one_key": dict(batch=3, queries=6, keys=1),
    "kdim_vdim": dict(kdim=20, vdim=40, batch=3, queries=4, keys=6),
    "kdim_only": dict(kdim=20, queries=5, keys=8),
    "vdim_only": dict(vdim=17, queries=5, keys=8),
    "no_bias": dict(bias=False, batch=3, queries=6),
    "no_bias_kdim_vdim": dict(bias=False, kdim=20, vdim=40, queries=4, keys=6),
    "bias_kv": dict(add_bias_kv=True, batch=3, queries=6),
    "bias_kv_no_bias": dict(add_bias_kv=True, bias=False, queries=6),
    "bias_kv_kdim_vdim": dict(add_bias_kv=True, kdim=20, vdim=40, queries=5, keys=4),
    "zero_attn": dict(add_zero_attn=True, batch=3, queries=6),
    "bias_kv_zero_attn": dict(add_bias_kv=True, add_zero_attn=True, batch=3, queries=5, keys=7),
    "key_padding_bool": dict(batch=3, queries=9, key_padding_mask="bool"),
    "key_padding_float": dict(batch=3, queries=5, keys=9, key_padding_mask="float"),
    "attn_mask_bool": dict(batch=3, queries=9, attn_mask="bool"),
    "attn_mask_float": dict(batch=3, queries=5, keys=9, attn_mask="float"),
    "attn_mask_inf": dict(batch=3, queries=9, attn_mask="inf"),
    "attn_mask_bool_heads": dict(batch=3, queries=5, keys=7, attn_mask="bool3"),
    "attn_mask_float_heads": dict(batch=3, queries=5, keys=7, attn_mask="float3"),
    "masks_bool_bool": dict(batch=3, queries=9, attn_mask="bool", key_padding_mask="bool"),
    "masks_bool_float": dict(batch=3, queries=9, attn_mask="float", key_padding_mask="bool"),
    "masks_heads_added_keys": dict(
        batch=3, queries=5, keys=7, attn_mask="inf3", key_padding_mask="bool", add_bias_kv=True, add_zero_attn=True
    ),
    "causal": dict(batch=3, queries=9, causal=True),
    "causal_cross": dict(queries=5, keys=9, causal=True),
    "causal_key_padding": dict(batch=3, queries=9, causal=True, key_padding_mask="bool"),
    "causal_added_keys": dict(batch=3, queries=6, causal=True, add_bias_kv=True, add_zero_attn=True),
    "forbidden_padding": dict(batch=3, queries=5, keys=6, key_padding_mask="all"),
    "forbidden_rows_heads": dict(batch=3, queries=5, attn_mask="rows3"),
    "gqa": dict(d_model=32, num_heads=8, num_kv_heads=2, batch=3, queries=7),
    "gqa_one_kv_head": dict(num_kv_heads=1, kdim=20, vdim=40, queries=6, keys=9, attn_mask="float3"),
    "gqa_masks_added_keys": dict(
        num_heads=6, d_model=36, num_kv_heads=3, batch=3, queries=6, causal=True, key_padding_mask="bool",
        add_bias_kv=True, add_zero_attn=True,
    ),
}  # fmt: skip


def make_state(o, random):
    e, d_k = o["d_model"], o["d_model"] // o["num_heads"]
    kv = d_k * o["num_kv_heads"]

    def normal(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    spread = o["spread"]
    state = {}
    if o["num_kv_heads"] == o["num_heads"] and o["kdim"] == e and o["vdim"] == e:
        state["in_proj_weight"] = normal(3 * e, e, scale=spread * e**-0.5)
    else:
        state["q_proj_weight"] = normal(e, e, scale=spread * e**-0.5)
        state["k_proj_weight"] = normal(kv, o["kdim"], scale=spread * o["kdim"] ** -0.5)
        state["v_proj_weight"] = normal(kv, o["vdim"], scale=spread * o["vdim"] ** -0.5)
    state["out_proj.weight"] = normal(e, e, scale=e**-0.5)
    if o["bias"]:
        state["in_proj_bias"] = normal(e + 2 * kv, scale=0.3)
        state["out_proj.bias"] = normal(e, scale=0.3)
    if o["add_bias_kv"]:
        state["bias_k"] = normal(1, 1, kv)
        state["bias_v"] = normal(1, 1, kv)
    return state


def make_masks(o, random):
    """The masks as the layer takes them: true = ignore, a float is added."""
    b, h, t, s = o["batch"], o["num_heads"], o["queries"], o["keys"]
    masks = {}
    kind = o["key_padding_mask"]
    if kind:
        padding = np.zeros((b, s), bool)
        for i in range(1, b):
            padding[i, s - 2 * i :] = True
        padding[0, 1] = True  # a hole, not only a tail
        if o["causal"] and not o["add_bias_kv"]:
            padding[:, 0] = False  # each row keeps a key
        if kind == "all":
            padding[1] = True
        if kind == "float":
            padding = np.where(padding, -np.inf, random.standard_normal((b, s))).astype(np.float32)
        masks["key_padding_mask"] = padding
    kind = o["attn_mask"]
    if kind:
        shape = (b * h, t, s) if kind.endswith("3") else (t, s)
        forbidden = random.random(shape) < 0.35
        forbidden[..., 0] = False  # each row keeps a key
        added = random.standard_normal(shape).astype(np.float32)
        kind = kind.removesuffix("3")
        if kind == "rows":
            forbidden[1, 2] = True  # batch 0, head 1
            forbidden[h : 2 * h, 3] = True  # batch 1, every head
            kind = "bool"
        masks["attn_mask"] = {
            "bool": forbidden,
            "float": added,
            "inf": np.where(forbidden, np.float32(-np.inf), added),
        }[kind]
    return masks


def run_numpy(o, state, inputs, masks):
    """The layer from its definition, in float64. Returns output and weights; forbidden rows have weight 0."""
    b, h, t, s = o["batch"], o["num_heads"], o["queries"], o["keys"]
    e, hkv = o["d_model"], o["num_kv_heads"]
    d_k = e // h
    kv = hkv * d_k
    state = {name: array.astype(np.float64) for name, array in state.items()}
    query, key, value = (inputs[name].astype(np.float64) for name in ("query", "key", "value"))
    if "in_proj_weight" in state:
        wq, wk, wv = np.split(state["in_proj_weight"], 3)
    else:
        wq, wk, wv = (state[f"{n}_proj_weight"] for n in "qkv")
    bias = state.get("in_proj_bias", np.zeros(e + 2 * kv))
    q = query @ wq.T + bias[:e]
    k = key @ wk.T + bias[e : e + kv]
    v = value @ wv.T + bias[e + kv :]

    added = np.zeros((b, h, t, s))
    if o["causal"]:
        added = added + np.where(np.arange(s)[None, :] > np.arange(t)[:, None], -np.inf, 0.0)
    for name, mask in masks.items():
        mask = np.where(mask, -np.inf, 0.0) if mask.dtype == bool else mask.astype(np.float64)
        if name == "key_padding_mask":
            mask = mask[:, None, None, :]
        elif mask.ndim == 3:
            mask = mask.reshape(b, h, t, s)
        added = added + mask
    # The extra keys come last and no mask speaks of them.
    if o["add_bias_kv"]:
        k = np.concatenate([k, np.broadcast_to(state["bias_k"], (b, 1, kv))], axis=1)
        v = np.concatenate([v, np.broadcast_to(state["bias_v"], (b, 1, kv))], axis=1)
    if o["add_zero_attn"]:
        k, v = (np.concatenate([x, np.zeros((b, 1, kv))], axis=1) for x in (k, v))
    added = np.pad(added, ((0, 0), (0, 0), (0, 0), (0, k.shape[1] - s)))

    q = q.reshape(b, t, h, d_k).transpose(0, 2, 1, 3)
    k, v = (x.reshape(b, -1, hkv, d_k).transpose(0, 2, 1, 3).repeat(h // hkv, axis=1) for x in (k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(d_k) + added
    top = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(top), 0.0, top))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / np.where(total == 0, 1.0, total)
    y = (weights @ v).transpose(0, 2, 1, 3).reshape(b, t, e)
    return y @ state["out_proj.weight"].T + state.get("out_proj.bias", 0.0), weights


def run_torch(o, state, inputs, masks):
    layer = torch.nn.MultiheadAttention(
        o["d_model"], o["num_heads"], bias=o["bias"], add_bias_kv=o["add_bias_kv"], add_zero_attn=o["add_zero_attn"],
        kdim=o["kdim"], vdim=o["vdim"], batch_first=True, dtype=torch.float64,
    )  # fmt: skip
    layer.load_state_dict({name: torch.from_numpy(array).double() for name, array in state.items()})
    tensors = {}
    for name, mask in masks.items():
        mask = torch.from_numpy(mask)
        tensors[name] = mask if mask.dtype == torch.bool else mask.double()
    if o["causal"]:
        tensors["attn_mask"] = torch.triu(torch.ones(o["queries"], o["keys"], dtype=torch.bool), diagonal=1)
    with torch.no_grad():
        output, weights = layer(
            *(torch.from_numpy(inputs[name]).double() for name in ("query", "key", "value")),
            need_weights=True, average_attn_weights=False, **tensors,
        )  # fmt: skip
    return output.numpy(), weights.numpy()


def make_case(name, seed):
    o = DEFAULTS | CASES[name]
    self_attention = o["keys"] == 0
    o["keys"] = o["keys"] or o["queries"]
    for size in ("kdim", "vdim"):
        o[size] = o[size] or o["d_model"]
    grouped = o["num_kv_heads"] != 0
    o["num_kv_heads"] = o["num_kv_heads"] or o["num_heads"]
    random = np.random.default_rng(seed)
    state = make_state(o, random)
    query = random.standard_normal((o["batch"], o["queries"], o["d_model"])).astype(np.float32)
    if self_attention:
        inputs = {"query": query, "key": query, "value": query}
    else:
        inputs = {
            "query": query,
            "key": random.standard_normal((o["batch"], o["keys"], o["kdim"])).astype(np.float32),
            "value": random.standard_normal((o["batch"], o["keys"], o["vdim"])).astype(np.float32),
        }
    masks = make_masks(o, random)
    output, weights = run_numpy(o, state, inputs, masks)
    evaluated_by = "numpy"
    forbidden = ~weights.any(axis=-1)
    if not grouped:
        torch_output, torch_weights = run_torch(o, state, inputs, masks)
        assert (np.isnan(torch_weights).any(axis=-1) == forbidden).all(), name
        seen = ~np.isnan(torch_output)
        assert (seen == ~forbidden.any(axis=1)[..., None]).all(), name
        assert np.abs(torch_output - output)[seen].max() < 1e-13, name
        assert np.abs(torch_weights - weights)[~forbidden].max() < 1e-13, name
        if not forbidden.any():
            output, weights = torch_output, torch_weights
            evaluated_by = f"torch {torch.__version__.split('+')[0]}"
    options = {k: o[k] for k in ("d_model", "num_heads", "num_kv_heads", "kdim", "vdim", "bias", "add_bias_kv",
                                 "add_zero_attn", "causal")}  # fmt: skip
    options["self_attention"] = self_attention
    tensors = {f"state.{n}": a for n, a in state.items()} | masks | {"output": output, "weights": weights}
    tensors |= {"query": query} if self_attention else inputs
    metadata = {
        "num_heads": str(o["num_heads"]),
        "options": golden.to_json(options),
        "evaluated_by": f"{evaluated_by}, float64",
        "forbidden_rows": str(int(forbidden.sum())),
    }
    return tensors, metadata


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    out = parser.parse_args().out
    for seed, name in enumerate(CASES):
        tensors, metadata = make_case(name, seed)
        path = out / f"mha_{name}.safetensors"
        golden.save(path, tensors, metadata)
        print(f"{path.name:45} {path.stat().st_size:7} bytes  {metadata['evaluated_by']}")


if __name__ == "__main__":
    main()
