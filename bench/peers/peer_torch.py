"""PyTorch: scaled_dot_product_attention, nn.MultiheadAttention, transformers' BertModel."""

import torch
import transformers
from rotation import rotated
from tensors import to_torch

NAME = "PyTorch"
VERSION = f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


def start(threads):
    torch.set_num_threads(threads)


def load_bert(folder, attention, dtype):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.BertModel.from_pretrained(
        folder, attn_implementation=attention, dtype=dtype, add_pooling_layer=False
    ).eval()


def attention(case, inputs):
    q, k, v = (to_torch(inputs[n]) for n in ("q", "k", "v"))
    mask = torch.from_numpy(case.allowed()) if case.window else None
    causal = case.causal and mask is None

    def run():
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    return run, lambda: run().double().numpy()


def training(case, inputs):
    q, k, v, dout = (to_torch(inputs[n]) for n in ("q", "k", "v", "dout"))
    of = [tensor.requires_grad_() for tensor in (q, k, v)]

    def run():
        out = torch.nn.functional.scaled_dot_product_attention(*of, is_causal=case.causal)
        return torch.autograd.grad(out, of, dout)

    return run, lambda: torch.stack(run()).double().numpy()


def decode(case, inputs):
    q = to_torch(inputs["q"])

    def over(k, v):
        def run():
            with torch.inference_mode():
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

        return run

    k, v = (to_torch(inputs[n]) for n in ("k", "v"))
    run = rotated([over(k[i : i + 1], v[i : i + 1]) for i in range(case.copies)])
    return run, lambda: run().double().numpy()


def layer(case, inputs):
    module = torch.nn.MultiheadAttention(case.d_model, case.heads, batch_first=True).eval()
    module.load_state_dict({n: torch.from_numpy(a) for n, a in inputs.items() if n != "x"})
    x = torch.from_numpy(inputs["x"])

    def run():
        with torch.inference_mode():
            return module(x, x, x, need_weights=False)[0]

    return run, lambda: run().double().numpy()


def layertraining(case, inputs):
    module = torch.nn.MultiheadAttention(case.d_model, case.heads, batch_first=True)
    module.load_state_dict({n: torch.from_numpy(inputs[n]) for n in module.state_dict()})
    x, dy = torch.from_numpy(inputs["x"]).requires_grad_(), torch.from_numpy(inputs["dy"])
    of = [x, *(module.get_parameter(n) for n in inputs if n not in ("x", "dy"))]

    def run():
        return torch.autograd.grad(module(x, x, x, need_weights=False)[0], of, dy)

    return run, lambda: torch.cat([g.flatten() for g in run()]).double().numpy()


def linear(case, inputs):
    weight = to_torch(inputs["weight"])
    x, bias = (torch.from_numpy(inputs[n]).to(weight.dtype) for n in ("x", "bias"))

    def run():
        with torch.inference_mode():
            return torch.nn.functional.linear(x, weight, bias)

    return run, lambda: run().double().numpy()


def bert(case, inputs):
    model = load_bert(case.folder, "sdpa", {"f32": torch.float32, "bf16": torch.bfloat16}[case.dtype])
    ids = torch.from_numpy(inputs["ids"])

    def run():
        with torch.inference_mode():
            return model(ids).last_hidden_state

    return run, lambda: run().double().numpy()
