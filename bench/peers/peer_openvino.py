"""OpenVINO: its ScaledDotProductAttention, the layer around it, and BertModel converted by its own converter."""

import warnings

import ml_dtypes
import numpy as np
import openvino
from openvino import opset13 as ops
from rotation import rotated

NAME = "OpenVINO"
VERSION = openvino.__version__.split("-")[0]

KINDS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16, "f16": openvino.Type.f16}

state = {}


def start(threads):
    state["threads"] = threads


def requests(model, inputs, precision):
    """A run for each list of arrays in `inputs`."""
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": state["threads"],
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        },
    )

    def over(arrays):
        made = compiled.create_infer_request()
        for i, array in enumerate(arrays):
            made.set_input_tensor(i, tensor(array))

        def run():
            made.infer()
            return made.get_output_tensor(0)

        return run

    return [over(arrays) for arrays in inputs]


def request(model, arrays, precision="f32"):
    return requests(model, [arrays], precision)[0]


def tensor(array):
    if array.dtype == ml_dtypes.bfloat16:
        return openvino.Tensor(array.view(np.uint16), array.shape, openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)


def result(run):
    made = run()
    # It hands out bfloat16 as bits.
    bits = made.element_type == openvino.Type.bf16
    return (made.data.view(ml_dtypes.bfloat16) if bits else made.data).astype(np.float64)


def attention(case, inputs):
    kind = KINDS[case.dtype]
    q, k, v = (ops.parameter(inputs[n].shape, kind, name=n) for n in ("q", "k", "v"))
    mask = ops.constant(case.allowed()) if case.window else None
    y = ops.scaled_dot_product_attention(q, k, v, mask, causal=case.causal and mask is None)
    run = request(openvino.Model([y], [q, k, v]), [inputs[n] for n in ("q", "k", "v")], case.dtype)
    return run, lambda: result(run)


def decode(case, inputs):
    """Its operator knows no groups: the heads of a group are given as queries of the head that they share."""
    kind = KINDS[case.dtype]
    grouped = inputs["q"].reshape(1, case.kv_heads, -1, case.head_size)
    copies = [[grouped, inputs["k"][i : i + 1], inputs["v"][i : i + 1]] for i in range(case.copies)]
    q, k, v = (ops.parameter(a.shape, kind, name=n) for a, n in zip(copies[0], ("q", "k", "v")))
    y = ops.scaled_dot_product_attention(q, k, v)
    run = rotated(requests(openvino.Model([y], [q, k, v]), copies, case.dtype))
    return run, lambda: result(run).reshape(inputs["q"].shape)


def layer(case, inputs):
    x = ops.parameter(inputs["x"].shape, openvino.Type.f32, name="x")
    b, t, e = inputs["x"].shape

    def dense(y, weight, bias):
        return ops.add(ops.matmul(y, ops.constant(weight), False, True), ops.constant(bias))

    def heads(part):
        weight, bias = (np.split(inputs[f"in_proj_{n}"], 3)[part] for n in ("weight", "bias"))
        split = ops.reshape(dense(x, weight, bias), [b, t, case.heads, e // case.heads], False)
        return ops.transpose(split, [0, 2, 1, 3])

    y = ops.scaled_dot_product_attention(heads(0), heads(1), heads(2))
    y = ops.reshape(ops.transpose(y, [0, 2, 1, 3]), [b, t, e], False)
    y = dense(y, inputs["out_proj.weight"], inputs["out_proj.bias"])
    run = request(openvino.Model([y], [x]), [inputs["x"]])
    return run, lambda: result(run)


def bert(case, inputs):
    import peer_torch  # its converter reads a model of PyTorch's
    import torch

    class LastHidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = peer_torch.load_bert(case.folder, "sdpa", torch.float32)

        def forward(self, ids):
            return self.model(ids).last_hidden_state

    ids = inputs["ids"]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's: the shapes it fixes are those of the case
        model = openvino.convert_model(LastHidden(), example_input=torch.from_numpy(ids), input=list(ids.shape))
    run = request(model, [ids], case.dtype)
    return run, lambda: result(run)
