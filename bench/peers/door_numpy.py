"""manyheads on NumPy's arrays."""

from functools import partial

import manyheads as mh
import numpy as np
from rotation import rotated

NAME = "NumPy"
VERSION = np.__version__
num_threads = 1


def start(threads):
    global num_threads
    num_threads = threads


def attention(case, inputs):
    q, k, v = (inputs[n] for n in ("q", "k", "v"))
    run = partial(mh.attention, q, k, v, num_threads=num_threads, **({"mask": mh.mask.causal()} if case.causal else {}))
    return run, lambda: run().astype(np.float64)


def decode(case, inputs):
    q = inputs["q"]

    def over(i):
        k, v = (inputs[n][i : i + 1] for n in ("k", "v"))
        return partial(mh.attention, q, k, v, num_threads=num_threads)

    run = rotated([over(i) for i in range(case.copies)])
    return run, lambda: run().astype(np.float64)
