"""What is timed: the cases, their inputs, their floating point operations, and their values in float64."""

import dataclasses
import json
import math

import ml_dtypes
import numpy as np

TYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16), "f16": np.dtype(np.float16)}
# Bytes that no cache holds.
BEYOND_CACHES = 2**30


def of_family(bits):
    return f" {bits}" if bits else ""


@dataclasses.dataclass
class Attention:
    dtype: str
    head_size: int
    tokens: int
    causal: bool
    heads: int
    batch: int = 1
    window: int = 0  # keys that a query sees, itself the last; 0: no window
    bits: str = ""  # the family that ours is asked for

    @property
    def name(self):
        kind = f"window {self.window}" if self.window else "causal" if self.causal else "full"
        return f"attention {self.dtype} D{self.head_size} T{self.tokens} H{self.heads} {kind}{of_family(self.bits)}"

    @property
    def flop(self):
        """A multiplication and an addition in each product, for the pairs that the mask allows."""
        pairs = self.allowed().sum() if self.causal else self.tokens**2
        return 4.0 * self.batch * self.heads * self.head_size * pairs

    def allowed(self):
        """Where a causal mask and a window let a query see a key: [tokens,tokens]."""
        distance = np.subtract.outer(np.arange(self.tokens), np.arange(self.tokens))
        return (distance >= 0) & (distance < (self.window or self.tokens))

    def inputs(self):
        random = np.random.default_rng(1)
        shape = (self.batch, self.heads, self.tokens, self.head_size)
        return {n: random.standard_normal(shape, np.float32).astype(TYPES[self.dtype]) for n in ("q", "k", "v")}

    def head(self, inputs, b, h):
        """q, k, v and the weights of a head in float64."""
        q, k, v = (inputs[n][b, h].astype(np.float64) for n in ("q", "k", "v"))
        scores = q @ k.T / np.sqrt(self.head_size)
        if self.causal:
            scores[~self.allowed()] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        return q, k, v, weights / weights.sum(axis=1, keepdims=True)

    def expected(self, inputs):
        out = np.empty(inputs["q"].shape)
        for b, h in np.ndindex(self.batch, self.heads):
            _, _, v, weights = self.head(inputs, b, h)
            out[b, h] = weights @ v
        return out


@dataclasses.dataclass
class Training(Attention):
    """A step of training: attention, then its gradients from dout. The result is dq, dk and dv."""

    @property
    def name(self):
        return super().name.replace("attention", "forward + backward")

    @property
    def flop(self):
        """The backward has five products where the forward has two."""
        return 3.5 * super().flop

    def inputs(self):
        inputs = super().inputs()
        dout = np.random.default_rng(6).standard_normal(inputs["q"].shape, np.float32)
        return inputs | {"dout": dout.astype(TYPES[self.dtype])}

    def expected(self, inputs):
        gradients = np.empty((3, *inputs["q"].shape))
        scale = 1 / np.sqrt(self.head_size)
        for b, h in np.ndindex(self.batch, self.heads):
            q, k, v, weights = self.head(inputs, b, h)
            dout = inputs["dout"][b, h].astype(np.float64)
            of_weights = dout @ v.T
            of_scores = weights * (of_weights - (weights * of_weights).sum(axis=1, keepdims=True))
            gradients[:, b, h] = scale * of_scores @ k, scale * of_scores.T @ q, weights.T @ dout
        return gradients


@dataclasses.dataclass
class Decode:
    """One token of a sequence: each group of heads reads all keys and values of its own once."""

    dtype: str
    head_size: int
    kv_heads: int
    heads: int = 32
    keys: int = 32768

    @property
    def name(self):
        return f"decode {self.dtype} D{self.head_size}, {self.heads} heads on {self.kv_heads}, {self.keys} keys"

    @property
    def bytes(self):
        return 2.0 * self.kv_heads * self.keys * self.head_size * TYPES[self.dtype].itemsize

    @property
    def copies(self):
        """As many as no cache holds together. Every run takes the next one."""
        return math.ceil(BEYOND_CACHES / self.bytes)

    def inputs(self):
        """k and v: [copies, kv_heads, keys, head_size]."""
        random = np.random.default_rng(4)

        def normal(*shape):
            return random.standard_normal(shape, np.float32).astype(TYPES[self.dtype])

        inputs = {"q": normal(1, self.heads, 1, self.head_size)}
        for name in ("k", "v"):
            inputs[name] = np.repeat(normal(1, self.kv_heads, self.keys, self.head_size), self.copies, axis=0)
        return inputs

    def expected(self, inputs):
        out = np.empty(inputs["q"].shape)
        for h in range(self.heads):
            kv = h // (self.heads // self.kv_heads)
            k, v = (inputs[n][0, kv].astype(np.float64) for n in ("k", "v"))
            scores = k @ inputs["q"][0, h, 0].astype(np.float64) / np.sqrt(self.head_size)
            weights = np.exp(scores - scores.max())
            out[0, h, 0] = weights @ v / weights.sum()
        return out


@dataclasses.dataclass
class Layer:
    batch: int
    tokens: int
    d_model: int = 512
    heads: int = 8
    dtype: str = "f32"
    bits: str = ""

    @property
    def name(self):
        sizes = f"d_model{self.d_model} h{self.heads} B{self.batch} T{self.tokens}"
        return f"layer {self.dtype} {sizes}{of_family(self.bits)}"

    @property
    def flop(self):
        rows = self.batch * self.tokens
        return 8.0 * rows * self.d_model**2 + 4.0 * rows * self.tokens * self.d_model

    def inputs(self):
        random = np.random.default_rng(2)
        e = self.d_model

        def normal(*shape, scale=1.0):
            return random.standard_normal(shape, np.float32) * np.float32(scale)

        return {
            "x": normal(self.batch, self.tokens, e),
            "in_proj_weight": normal(3 * e, e, scale=e**-0.5),
            "in_proj_bias": normal(3 * e, scale=0.1),
            "out_proj.weight": normal(e, e, scale=e**-0.5),
            "out_proj.bias": normal(e, scale=0.1),
        }

    def expected(self, inputs):
        w = {n: a.astype(np.float64) for n, a in inputs.items()}
        b, t, e = w["x"].shape
        qkv = w["x"] @ w["in_proj_weight"].T + w["in_proj_bias"]
        q, k, v = (part.reshape(b, t, self.heads, -1).transpose(0, 2, 1, 3) for part in np.split(qkv, 3, axis=2))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(e // self.heads)
        weights = np.exp(scores - scores.max(axis=3, keepdims=True))
        heads = (weights @ v) / weights.sum(axis=3, keepdims=True)
        return heads.transpose(0, 2, 1, 3).reshape(b, t, e) @ w["out_proj.weight"].T + w["out_proj.bias"]


@dataclasses.dataclass
class LayerTraining(Layer):
    """A step of training: the layer, then its gradients from dy. The result is those of x and of the weights, flat."""

    @property
    def name(self):
        return super().name.replace("layer", "layer, forward + backward")

    @property
    def flop(self):
        """Two products of each projection, and attention's backward has five where its forward has two."""
        rows = self.batch * self.tokens
        return 3 * 8.0 * rows * self.d_model**2 + 3.5 * 4.0 * rows * self.tokens * self.d_model

    def inputs(self):
        inputs = super().inputs()
        return inputs | {"dy": np.random.default_rng(7).standard_normal(inputs["x"].shape, np.float32)}

    def expected(self, inputs):
        w = {n: a.astype(np.float64) for n, a in inputs.items()}
        x, dy = w["x"], w["dy"]
        b, t, e = x.shape
        h, scale = self.heads, 1 / np.sqrt(e // self.heads)

        def apart(rows):
            return rows.reshape(b, t, h, -1).transpose(0, 2, 1, 3)

        def together(heads):
            return heads.transpose(0, 2, 1, 3).reshape(b, t, e)

        q, k, v = (apart(part) for part in np.split(x @ w["in_proj_weight"].T + w["in_proj_bias"], 3, axis=2))
        weights = np.exp(scale * q @ k.transpose(0, 1, 3, 2))
        weights /= weights.sum(axis=3, keepdims=True)
        out, dout = weights @ v, apart(dy @ w["out_proj.weight"])
        of_weights = dout @ v.transpose(0, 1, 3, 2)
        of_scores = weights * (of_weights - (dout * out).sum(axis=3, keepdims=True))
        dq, dk = scale * of_scores @ k, scale * of_scores.transpose(0, 1, 3, 2) @ q
        dqkv = np.concatenate([together(g) for g in (dq, dk, weights.transpose(0, 1, 3, 2) @ dout)], axis=2)
        flat = (dqkv.reshape(b * t, -1), dy.reshape(b * t, -1))
        gradients = (
            dqkv @ w["in_proj_weight"],
            flat[0].T @ x.reshape(b * t, -1),
            flat[0].sum(axis=0),
            flat[1].T @ together(out).reshape(b * t, -1),
            flat[1].sum(axis=0),
        )
        return np.concatenate([g.ravel() for g in gradients])


@dataclasses.dataclass
class Multihead(Layer):
    """nn.MultiheadAttention in eval, with the mean of the heads' weights or without."""

    need_weights: bool = True

    @property
    def name(self):
        weights = "as by default" if self.need_weights else "False"
        return f"MultiheadAttention d_model{self.d_model} h{self.heads} B{self.batch} T{self.tokens}, need_weights {weights}"


@dataclasses.dataclass
class MultiheadTraining(LayerTraining):
    """nn.MultiheadAttention in training, without weights."""

    @property
    def name(self):
        size = f"d_model{self.d_model} h{self.heads} B{self.batch} T{self.tokens}"
        return f"MultiheadAttention {size}, need_weights False, forward + backward"


@dataclasses.dataclass
class Bert:
    folder: str
    batch: int
    tokens: int
    dtype: str = "f32"

    def __post_init__(self):
        with open(f"{self.folder}/config.json") as file:
            self.config = json.load(file)

    @property
    def name(self):
        return f"MiniLM {self.dtype} B{self.batch} T{self.tokens}"

    @property
    def flop(self):
        c = self.config
        e, rows = c["hidden_size"], self.batch * self.tokens
        one = rows * (8.0 * e * e + 4.0 * e * c["intermediate_size"]) + 4.0 * rows * self.tokens * e
        return c["num_hidden_layers"] * one

    def inputs(self):
        # Token ids decide nothing about the time. [CLS] and [SEP] stand where they would.
        ids = np.random.default_rng(3).integers(1000, 20000, (self.batch, self.tokens))
        ids[:, 0], ids[:, -1] = 101, 102
        return {"ids": ids}

    def expected(self, inputs):
        import peer_torch  # no other peer's process shall load it
        import torch

        model = peer_torch.load_bert(self.folder, "eager", torch.float64)
        with torch.inference_mode():
            return model(torch.from_numpy(inputs["ids"])).last_hidden_state.numpy()


@dataclasses.dataclass
class Linear:
    """A projection: rows of float32 times weights that are kept as `dtype`."""

    dtype: str
    inputs_size: int
    outputs_size: int
    rows: int
    bits: str = ""

    @property
    def name(self):
        return f"linear {self.dtype} {self.inputs_size}x{self.outputs_size} {self.rows} rows{of_family(self.bits)}"

    @property
    def flop(self):
        return 2.0 * self.rows * self.inputs_size * self.outputs_size

    def inputs(self):
        random = np.random.default_rng(5)

        def normal(*shape, scale=1.0):
            return random.standard_normal(shape, np.float32) * np.float32(scale)

        weight = normal(self.outputs_size, self.inputs_size, scale=self.inputs_size**-0.5)
        return {
            "x": normal(self.rows, self.inputs_size),
            "weight": weight.astype(TYPES[self.dtype]),
            "bias": normal(self.outputs_size, scale=0.1),
        }

    def expected(self, inputs):
        w = {n: a.astype(np.float64) for n, a in inputs.items()}
        return w["x"] @ w["weight"].T + w["bias"]


def amx_cases(model):
    """What bench/amx measures."""
    cases = []
    for d in (64, 128):
        for heads, tokens in ((8, 1024), (2, 4096)):
            cases += [Attention("bf16", d, tokens, causal, heads) for causal in (False, True)]
    cases += [Attention("f32", 64, 1024, False, 8), Attention("f32", 64, 4096, False, 2)]
    cases += [Attention("f32", 64, 4096, True, 2), Attention("f32", 128, 4096, False, 2)]
    cases += [Linear("bf16", 512, 512, 4096), Linear("bf16", 768, 3072, 4096), Linear("f32", 768, 3072, 4096)]
    cases += [Layer(1, 7), Layer(1, 128), Layer(8, 512)]
    by_tiles = {"bits": "f32-tiles-1"}
    cases += [Attention("f32", d, 4096, causal, 2, **by_tiles) for d in (64, 128) for causal in (False, True)]
    cases += [Linear("f32", 768, 3072, 4096, **by_tiles), Layer(8, 512, **by_tiles)]
    cases += [Decode(dtype, 64, kv_heads) for dtype in ("f32", "bf16") for kv_heads in (4, 32)]
    cases += [Bert(model, b, t, "bf16") for b, t in ((1, 10), (1, 128), (32, 128))] + [Bert(model, 32, 128)]
    return cases


def all_cases(model):
    cases = []
    for dtype in ("f32", "bf16"):
        for causal in (False, True):
            cases += [Attention(dtype, d, 1024, causal, heads=8) for d in (32, 64, 128)]
            cases.append(Attention(dtype, 64, 4096, causal, heads=2))
        cases.append(Attention(dtype, 64, 4096, True, heads=2, window=256))
    for dtype in ("f32", "bf16"):
        for causal in (False, True):
            cases += [Training(dtype, d, t, causal, heads) for d in (64, 128) for t, heads in ((1024, 8), (4096, 2))]
    for kv_heads, dtypes in ((4, ("f32", "bf16", "f16")), (32, ("f32", "bf16"))):
        cases += [Decode(dtype, d, kv_heads) for dtype in dtypes for d in (64, 128)]
    cases += [Layer(1, 7), Layer(1, 128), Layer(8, 512), LayerTraining(8, 512)]
    for dtype in ("f32", "bf16"):
        cases += [Bert(model, b, t, dtype) for b, t in ((1, 10), (1, 128), (32, 128), (4, 512))]
    return cases


def door_cases():
    """What doors.py measures."""
    small = [Attention("f32", 16, 1, False, heads=4), Attention("f32", 64, 7, False, heads=8)]
    large = [Attention(dtype, 64, 1024, causal, heads=8) for dtype in ("f32", "bf16") for causal in (False, True)]
    large += [Decode(dtype, 128, 4, keys=8192) for dtype in ("f32", "bf16")]
    layers = [Multihead(8, 512), Multihead(8, 512, need_weights=False), MultiheadTraining(8, 512)]
    return [*small, *large, *layers]
