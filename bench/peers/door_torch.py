"""PyTorch's own attention and layer, and the same calls for door_taken.py."""

from functools import partial

import torch
from rotation import rotated
from tensors import to_torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "PyTorch"
VERSION = torch.__version__.split("+")[0]
inference = torch.inference_mode()


def start(threads):
    torch.set_num_threads(threads)
    inference.__enter__()  # for good: entering it is no part of a call


def attention(case, inputs):
    q, k, v = (to_torch(inputs[n]) for n in ("q", "k", "v"))
    run = partial(scaled_dot_product_attention, q, k, v, **({"is_causal": True} if case.causal else {}))
    return run, lambda: run().double().numpy()


def decode(case, inputs):
    q, k, v = (to_torch(inputs[n]) for n in ("q", "k", "v"))

    def over(i):
        one_k, one_v = k[i : i + 1], v[i : i + 1]
        return partial(scaled_dot_product_attention, q, one_k, one_v, enable_gqa=True)

    run = rotated([over(i) for i in range(case.copies)])
    return run, lambda: run().double().numpy()


def multiheadtraining(case, inputs, kind=torch.nn.MultiheadAttention):
    with torch.inference_mode(False):
        module = kind(case.d_model, case.heads, batch_first=True)
        module.load_state_dict({n: torch.from_numpy(inputs[n]) for n in module.state_dict()})
        x, dy = torch.from_numpy(inputs["x"]).requires_grad_(), torch.from_numpy(inputs["dy"])
    of = [x, *(module.get_parameter(n) for n in inputs if n not in ("x", "dy"))]

    def run():
        with torch.inference_mode(False):
            with torch.no_grad():
                module.out_proj.bias.add_(0)  # as after a step
            return torch.autograd.grad(module(x, x, x, need_weights=False)[0], of, dy)

    return run, lambda: torch.cat([g.flatten() for g in run()]).double().numpy()


def multihead(case, inputs):
    module = torch.nn.MultiheadAttention(case.d_model, case.heads, batch_first=True).eval()
    module.load_state_dict({n: torch.from_numpy(a) for n, a in inputs.items() if n != "x"})
    x = torch.from_numpy(inputs["x"])
    run = partial(module, x, x, x, **({} if case.need_weights else {"need_weights": False}))
    return run, lambda: run()[0].double().numpy()
