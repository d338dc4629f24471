"""ONNX Runtime: its fused operators for transformers. It has none in bfloat16 for this processor."""

import time

import numpy as np
import onnxruntime
from onnx import helper, numpy_helper
from rotation import rotated
from safetensors import safe_open

NAME = "ONNX Runtime"
VERSION = onnxruntime.__version__
FUSED = "com.microsoft"

state = {}


def start(threads):
    state["threads"] = threads


def described(arrays):
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]


def session(nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "graph",
        described(inputs),
        described(outputs),
        [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(FUSED, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = state["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bound(made, inputs, outputs):
    """A run on memory that is bound once; gives the first output."""
    binding = made.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in outputs.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(held=inputs):  # the binding holds bare addresses
        made.run_with_iobinding(binding)
        return next(iter(outputs.values()))

    return run


def compiled(nodes, inputs, output_shape, weights):
    outputs = {"y": np.empty(output_shape, np.float32)}
    inputs = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    return bound(session(nodes, inputs, outputs, weights), inputs, outputs)


def attention(case, inputs):
    """Its own MultiHeadAttention and the standard Attention, whichever is the faster one here."""
    if case.dtype != "f32":
        return None
    b, h, t, d = inputs["q"].shape
    flat = {n: np.ascontiguousarray(a.transpose(0, 2, 1, 3)).reshape(b, t, h * d) for n, a in inputs.items()}
    causal = int(case.causal and not case.window)
    mask = {"mask": case.allowed()} if case.window else {}
    added = {"mask": np.where(case.allowed(), 0, -np.inf).astype(np.float32)[None, None]} if case.window else {}
    own = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v", *(["", "", "mask"] if mask else [])], ["y"],
        domain=FUSED, num_heads=h, unidirectional=causal,
    )  # fmt: skip
    standard = helper.make_node("Attention", ["q", "k", "v", *mask], ["y"], is_causal=causal)
    runs = [
        (lambda y: y.reshape(b, t, h, d).transpose(0, 2, 1, 3), compiled([own], flat | added, (b, t, h * d), {})),
        (lambda y: y, compiled([standard], inputs | mask, (b, h, t, d), {})),
    ]

    def seconds(run):
        run()
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    unfold, run = min(runs, key=lambda item: seconds(item[1]))
    return run, lambda: unfold(run()).astype(np.float64)


def decode(case, inputs):
    """GroupQueryAttention on a cache that it keeps in place: the last key and value are the new token's."""
    if case.dtype == "bf16":
        return None
    width = case.kv_heads * case.head_size
    tokens = {"query": inputs["q"].reshape(1, 1, -1)}
    for name, cache in (("key", inputs["k"]), ("value", inputs["v"])):
        tokens[name] = np.ascontiguousarray(cache[0, :, -1]).reshape(1, 1, width)
    lengths = {"seqlens_k": np.array([case.keys - 1], np.int32), "total": np.array(case.keys, np.int32)}
    y = np.empty_like(tokens["query"])
    node = helper.make_node(
        "GroupQueryAttention",
        ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total"],
        ["y", "present_key", "present_value"],
        domain=FUSED, num_heads=case.heads, kv_num_heads=case.kv_heads,
    )  # fmt: skip
    copies = []
    for i in range(case.copies):
        k, v = inputs["k"][i : i + 1], inputs["v"][i : i + 1]
        copies.append(
            (tokens | {"past_key": k, "past_value": v} | lengths, {"y": y, "present_key": k, "present_value": v})
        )
    made = session([node], *copies[0], {})
    run = rotated([bound(made, *copy) for copy in copies])
    return run, lambda: run().reshape(inputs["q"].shape).astype(np.float64)


def layer(case, inputs):
    weights = {
        "w_in": inputs["in_proj_weight"].T,
        "b_in": inputs["in_proj_bias"],
        "w_out": inputs["out_proj.weight"].T,
        "b_out": inputs["out_proj.bias"],
    }
    nodes = [
        helper.make_node("Attention", ["x", "w_in", "b_in"], ["heads"], domain=FUSED, num_heads=case.heads),
        helper.make_node("MatMul", ["heads", "w_out"], ["projected"]),
        helper.make_node("Add", ["projected", "b_out"], ["y"]),
    ]
    run = compiled(nodes, {"x": inputs["x"]}, inputs["x"].shape, weights)
    return run, lambda: run().astype(np.float64)


def bert(case, inputs):
    """The graph that its own optimizer for transformers makes of BERT, written down."""
    if case.dtype != "f32":
        return None
    config = case.config
    eps = config["layer_norm_eps"]
    weights = {}
    nodes = []

    with safe_open(f"{case.folder}/model.safetensors", "np") as file:

        def take(name, transpose=False):
            array = file.get_tensor(name)
            weights[name] = array.T if transpose else array
            return name

        def dense(x, name, y):
            nodes.append(helper.make_node("MatMul", [x, take(f"{name}.weight", transpose=True)], [y]))
            return take(f"{name}.bias")

        def norm(x, skip, name, bias, y):
            gamma, beta = take(f"{name}.LayerNorm.weight"), take(f"{name}.LayerNorm.bias")
            nodes.append(
                helper.make_node(
                    "SkipLayerNormalization", [x, skip, gamma, beta, bias], [y], domain=FUSED, epsilon=eps
                )
            )
            return y

        embeddings = [take(f"embeddings.{n}_embeddings.weight") for n in ("word", "position", "token_type")]
        gamma, beta = take("embeddings.LayerNorm.weight"), take("embeddings.LayerNorm.bias")
        nodes.append(
            helper.make_node(
                "EmbedLayerNormalization", ["ids", "types", *embeddings, gamma, beta], ["x0", "lengths"],
                domain=FUSED, epsilon=eps,
            )  # fmt: skip
        )
        x = "x0"
        for i in range(config["num_hidden_layers"]):
            at = f"encoder.layer.{i}"
            own = f"{at}.attention.self"
            parts = ("query", "key", "value")
            weights[f"w{i}"] = np.concatenate([file.get_tensor(f"{own}.{p}.weight").T for p in parts], axis=1)
            weights[f"b{i}"] = np.concatenate([file.get_tensor(f"{own}.{p}.bias") for p in parts])
            nodes.append(
                helper.make_node(
                    "Attention", [x, f"w{i}", f"b{i}"], [f"heads{i}"],
                    domain=FUSED, num_heads=config["num_attention_heads"],
                )  # fmt: skip
            )
            bias = dense(f"heads{i}", f"{at}.attention.output.dense", f"projected{i}")
            x = norm(f"projected{i}", x, f"{at}.attention.output", bias, f"attended{i}")
            bias = dense(x, f"{at}.intermediate.dense", f"wide{i}")
            nodes.append(helper.make_node("BiasGelu", [f"wide{i}", bias], [f"gelu{i}"], domain=FUSED))
            bias = dense(f"gelu{i}", f"{at}.output.dense", f"narrow{i}")
            last = i + 1 == config["num_hidden_layers"]
            x = norm(f"narrow{i}", x, f"{at}.output", bias, "y" if last else f"x{i + 1}")
    ids = inputs["ids"].astype(np.int32)
    run = compiled(nodes, {"ids": ids, "types": np.zeros_like(ids)}, (*ids.shape, config["hidden_size"]), weights)
    return run, lambda: run().astype(np.float64)
