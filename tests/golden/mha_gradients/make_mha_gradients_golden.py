#!/usr/bin/env python3
"""Golden gradients of the multi-head attention layer: torch.autograd in float64 over some of the cases of ../mha.

Inputs, weights and masks are those of mha_<case>.safetensors. The loss is the sum of output times dy. A layer written
out in PyTorch, by its definition, checks nn.MultiheadAttention's gradients, and gives what that cannot: grouped
key/value heads, and rows with every key forbidden (gradients 0 here, NaN there).
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "mha")]
import golden  # noqa: E402
import make_mha_golden as mha  # noqa: E402

CASES = (
    "one_head", "head_size_7", "self_batch3", "large_scores", "cross", "kdim_vdim", "no_bias", "bias_kv",
    "bias_kv_kdim_vdim", "bias_kv_zero_attn", "key_padding_bool", "attn_mask_inf", "masks_heads_added_keys",
    "causal_key_padding", "forbidden_padding", "forbidden_rows_heads", "gqa", "gqa_one_kv_head", "gqa_masks_added_keys",
)  # fmt: skip


def written_out(o, state, query, key, value, masks):
    """The layer by its definition; forbidden rows have weight 0."""
    b, h, t, s = o["batch"], o["num_heads"], o["queries"], o["keys"]
    e, hkv = o["d_model"], o["num_kv_heads"]
    d_k = e // h
    kv = hkv * d_k
    if "in_proj_weight" in state:
        wq, wk, wv = state["in_proj_weight"].split([e, kv, kv])
    else:
        wq, wk, wv = (state[f"{n}_proj_weight"] for n in "qkv")
    bias = state.get("in_proj_bias", torch.zeros(e + 2 * kv, dtype=torch.float64))
    q, k, v = query @ wq.T + bias[:e], key @ wk.T + bias[e : e + kv], value @ wv.T + bias[e + kv :]
    added = torch.zeros(b, h, t, s, dtype=torch.float64)
    if o["causal"]:
        added = added.masked_fill(torch.ones(t, s, dtype=torch.bool).triu(1), -torch.inf)
    for name, mask in masks.items():
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)
        if name == "key_padding_mask":
            mask = mask[:, None, None]
        elif mask.dim() == 3:
            mask = mask.reshape(b, h, t, s)
        added = added + mask
    if o["add_bias_kv"]:
        k, v = (torch.cat([x, state[n].expand(b, 1, kv)], 1) for x, n in ((k, "bias_k"), (v, "bias_v")))
    if o["add_zero_attn"]:
        k, v = (torch.cat([x, torch.zeros(b, 1, kv, dtype=torch.float64)], 1) for x in (k, v))
    added = torch.nn.functional.pad(added, (0, k.shape[1] - s))
    q = q.reshape(b, t, h, d_k).transpose(1, 2)
    k, v = (x.reshape(b, -1, hkv, d_k).transpose(1, 2).repeat_interleave(h // hkv, 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / d_k**0.5 + added
    top = scores.detach().amax(-1, keepdim=True)
    weights = (scores - top.masked_fill(top == -torch.inf, 0)).exp()
    total = weights.sum(-1, keepdim=True)
    weights = weights / total.masked_fill(total == 0, 1)
    y = (weights @ v).transpose(1, 2).reshape(b, t, e) @ state["out_proj.weight"].T
    return y + state["out_proj.bias"] if "out_proj.bias" in state else y


def pytorchs(o, state, query, key, value, masks):
    layer = torch.nn.MultiheadAttention(
        o["d_model"], o["num_heads"], bias=o["bias"], add_bias_kv=o["add_bias_kv"], add_zero_attn=o["add_zero_attn"],
        kdim=o["kdim"], vdim=o["vdim"], batch_first=True, dtype=torch.float64,
    )  # fmt: skip
    masks = {name: mask if mask.dtype == torch.bool else mask.double() for name, mask in masks.items()}
    if o["causal"]:
        masks["attn_mask"] = torch.ones(o["queries"], o["keys"], dtype=torch.bool).triu(1)
    # need_weights keeps to the plain formula, without a fused kernel.
    return torch.func.functional_call(layer, state, (query, key, value), {"need_weights": True, **masks})[0]


def gradients(layer, o, state, inputs, masks, dy):
    """By name: of the state dict's tensors, and of query, key and value. Self-attention's query has all of dx."""
    leaves = {name: torch.from_numpy(a).double().requires_grad_() for name, a in state.items()}
    of = {name: torch.from_numpy(a).double().requires_grad_() for name, a in inputs.items()}
    query = of["query"]
    masks = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    layer(o, leaves, query, of.get("key", query), of.get("value", query), masks).backward(torch.from_numpy(dy).double())
    found = {f"grad.{name}": leaf.grad for name, leaf in leaves.items()}
    return {name: g.numpy() for name, g in (found | {f"d{name}": leaf.grad for name, leaf in of.items()}).items()}


def make_case(name):
    seed = list(mha.CASES).index(name)
    tensors, metadata = mha.make_case(name, seed)
    o = mha.DEFAULTS | mha.CASES[name]
    o["keys"] = o["keys"] or o["queries"]
    o["kdim"], o["vdim"] = o["kdim"] or o["d_model"], o["vdim"] or o["d_model"]
    grouped = o["num_kv_heads"] != 0
    o["num_kv_heads"] = o["num_kv_heads"] or o["num_heads"]
    state = {n.removeprefix("state."): a for n, a in tensors.items() if n.startswith("state.")}
    inputs = {n: tensors[n] for n in ("query", "key", "value") if n in tensors}
    masks = {n: tensors[n] for n in ("key_padding_mask", "attn_mask") if n in tensors}
    dy = np.random.default_rng(1000 + seed).standard_normal(tensors["output"].shape).astype(np.float32)
    found = gradients(written_out, o, state, inputs, masks, dy)
    evaluated_by = "the layer written out in torch"
    if not grouped and metadata["forbidden_rows"] == "0":
        own, found = found, gradients(pytorchs, o, state, inputs, masks, dy)
        evaluated_by = "torch"
        for n, array in found.items():
            assert np.abs(array - own[n]).max() < 1e-12 * max(1, np.abs(array).max()), (name, n)
    assert all(np.isfinite(array).all() for array in found.values()), name
    return {"dy": dy} | found, {"evaluated_by": f"{evaluated_by} {torch.__version__.split('+')[0]}, autograd in float64"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder to write to (default: beside this file)")
    out = parser.parse_args().out
    # The order of sums would depend on the number of threads.
    torch.set_num_threads(1)
    for name in CASES:
        tensors, metadata = make_case(name)
        path = out / f"mha_{name}.safetensors"
        golden.save(path, tensors, metadata)
        print(f"{path.name:45} {path.stat().st_size:7} bytes  {metadata['evaluated_by']}")


if __name__ == "__main__":
    main()
