"""Writes the heads of a PyTorch layer as a trace, which `manyheads map` and `manyheads look --trace` read.

python examples/trace_from_pytorch.py heads.safetensors    (needs torch and safetensors)
"""
import json
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
words = "the black cat sat on the mat".split()
layer = torch.nn.MultiheadAttention(32, 4)
x = torch.randn(len(words), 32)
qkv = torch.nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias)
q, k, v = (t.view(-1, 4, 8).transpose(0, 1).detach().contiguous() for t in qkv.chunk(3, -1))  # [heads,tokens,head size]
scale = 8**-0.5
lse = torch.logsumexp(scale * (q @ k.mT).double(), -1).float()
weights = layer(x, x, x, average_attn_weights=False)[1].detach()  # not needed: what PyTorch itself gives, to compare
save_file({"layers.0.q": q, "layers.0.k": k, "layers.0.v": v, "layers.0.lse": lse, "weights": weights}, sys.argv[1],
          {"manyheads_trace": "1", "model": "torch", "tokens": json.dumps(words), "scale": json.dumps(scale)})
