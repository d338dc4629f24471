"""torch.ops.manyheads.attention, without what PyTorch's function does around it."""

from functools import partial

import door_torch
import manyheads.torch  # noqa: F401  registers the op
import torch
from tensors import to_torch

NAME = "torch op"
VERSION = door_torch.VERSION
start = door_torch.start


def attention(case, inputs):
    q, k, v = (to_torch(inputs[n]) for n in ("q", "k", "v"))
    op = torch.ops.manyheads.attention.default
    run = partial(op, q, k, v, **({"causal": True, "alignment": 1} if case.causal else {}))
    return run, lambda: run()[0].double().numpy()
