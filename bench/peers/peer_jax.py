"""JAX: jax.nn.dot_product_attention, compiled. It has no layer and no encoder of its own."""

import functools

import jax
import numpy as np
from rotation import rotated

NAME = "JAX"
VERSION = jax.__version__


def start(threads):
    """Its threads are as many as the processors that this process is pinned to."""


def tokens_first(array):
    """[B,H,T,D] in its own layout, [B,T,H,D]."""
    return jax.numpy.asarray(np.ascontiguousarray(array.transpose(0, 2, 1, 3)))


def result(run):
    return np.asarray(run()).transpose(0, 2, 1, 3).astype(np.float64)


def attention(case, inputs):
    q, k, v = (tokens_first(inputs[n]) for n in ("q", "k", "v"))
    window = (case.window - 1, 0) if case.window else None
    attend = jax.jit(
        functools.partial(jax.nn.dot_product_attention, is_causal=case.causal, local_window_size=window)
    )

    def run():
        return attend(q, k, v).block_until_ready()

    return run, lambda: result(run)


def decode(case, inputs):
    if case.dtype == "f16":  # its float16 product, which sums in float32, is for other devices alone
        return None
    attend = jax.jit(jax.nn.dot_product_attention)
    q = tokens_first(inputs["q"])

    def over(k, v):
        return lambda: attend(q, k, v).block_until_ready()

    copies = [[tokens_first(inputs[n][i : i + 1]) for n in ("k", "v")] for i in range(case.copies)]
    run = rotated([over(*copy) for copy in copies])
    return run, lambda: result(run)
