"""Exact multi-head attention near the limit of the machine, and the weights of each head.

    import manyheads as mh
    out = mh.attention(q, k, v, mask=mh.mask.causal())

q, k and v are NumPy arrays, or any array with __dlpack__ on the CPU. manyheads.torch takes PyTorch's own attention,
with gradients; manyheads.flash_attn spells it as flash-attn does.
"""

import sys as _sys

from . import _core
from ._core import (
    Encoder,
    EncoderRun,
    Explanation,
    KVCache,
    LayerActivations,
    Limits,
    Mask,
    MultiHeadAttention,
    __version__,
    active_bits,
    active_isa,
    attention,
    attention_backward,
    attention_weights,
    available_isas,
    default_num_threads,
    explain,
    head_count_problem,
    limits,
    mask,
    merge_attention,
    set_isa,
)

_sys.modules[__name__ + ".mask"] = mask

__all__ = [
    "Encoder",
    "EncoderRun",
    "Explanation",
    "KVCache",
    "LayerActivations",
    "Limits",
    "Mask",
    "MultiHeadAttention",
    "active_bits",
    "active_isa",
    "attention",
    "attention_backward",
    "attention_weights",
    "available_isas",
    "default_num_threads",
    "explain",
    "head_count_problem",
    "limits",
    "mask",
    "merge_attention",
    "set_isa",
]


def __getattr__(name):
    # torch is imported when it is asked for, and never otherwise.
    if name in ("torch", "flash_attn"):
        import importlib

        return importlib.import_module(__name__ + "." + name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
