"""The calls of door_torch.py while mh.torch takes them; training by mt.MultiheadAttention."""

from functools import partial

import door_torch
import manyheads.torch as mt

NAME = "PyTorch, taken"
VERSION = door_torch.VERSION
use = mt.use()


def start(threads):
    door_torch.start(threads)
    use.__enter__()


def taken(prepare):
    def prepared(case, inputs):
        run, result = prepare(case, inputs)
        mt.report(reset=True)
        run()
        passed_over = [text for text in mt.report(reset=True) if not text.startswith("taken")]
        if passed_over:
            raise RuntimeError(f"{case.name}: {passed_over}")
        return run, result

    return prepared


attention = taken(door_torch.attention)
decode = taken(door_torch.decode)
multihead = taken(door_torch.multihead)
multiheadtraining = taken(partial(door_torch.multiheadtraining, kind=mt.MultiheadAttention))
