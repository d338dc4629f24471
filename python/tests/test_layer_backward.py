"""The layer's backward through the NumPy door, against autograd of its definition in float64."""

# First: it skips where PyTorch is missing.
from layers import fresh  # noqa: F401
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from conftest import kept  # noqa: E402

import manyheads as mh  # noqa: E402

BATCH, QUERIES, KEYS = 3, 7, 9
SIZES = {"d_model": 24, "num_heads": 4}
CASES = {
    "self": ({}, {}),
    "self without biases": ({"bias": False}, {"causal": True}),
    "self of grouped heads": ({"num_kv_heads": 2}, {"attn_mask": "float"}),
    "self with a learned key and a zero one": ({"add_bias_kv": True, "add_zero_attn": True}, {"attn_mask": "bool"}),
    "self with head_scale": ({}, {"head_scale": True, "key_padding_mask": True}),
    "self with dropout": ({}, {"dropout_p": 0.3, "dropout_seed": 11, "dropout_origin": (1, 2, 5)}),
    "cross": ({}, {"inputs": 3}),
    "cross of other widths": ({"kdim": 10, "vdim": 14}, {"inputs": 3, "attn_mask": "heads", "head_scale": True}),
    "cross of grouped heads": ({"num_kv_heads": 1, "add_bias_kv": True}, {"inputs": 3, "key_padding_mask": True}),
    "cross with dropout": ({"add_zero_attn": True}, {"inputs": 3, "dropout_p": 0.5, "dropout_seed": 3}),
    "keys as values": ({"add_bias_kv": True}, {"inputs": 2, "attn_mask": "bool"}),
}


def drawn(random, config, options):
    """The layer, its inputs and options, and dy."""
    count = options.get("inputs", 1)
    widths = [SIZES["d_model"], config.get("kdim", SIZES["d_model"]), config.get("vdim", SIZES["d_model"])]
    lengths = [QUERIES, KEYS, KEYS]
    inputs = [random.standard_normal((BATCH, t, w), dtype=np.float32) for t, w in zip(lengths[:count], widths)]
    keys = KEYS if count > 1 else QUERIES
    made = mh.MultiHeadAttention(**SIZES, **config)
    state = {n: random.standard_normal(a.shape, dtype=np.float32) * (a.shape[-1] ** -0.5) for n, a in made.state_dict().items()}
    made.load_state_dict(state)
    extra = {name: x for name, x in options.items() if name.startswith("dropout")}
    if "attn_mask" in options:
        shape = (BATCH * SIZES["num_heads"], QUERIES, keys) if options["attn_mask"] == "heads" else (QUERIES, keys)
        mask = random.random(shape) > 0.6
        mask[..., 0] = False
        extra["attn_mask"] = random.standard_normal(shape, dtype=np.float32) if options["attn_mask"] == "float" else mask
    if "key_padding_mask" in options:
        extra["key_padding_mask"] = np.arange(keys) >= np.array([[keys], [3], [5]])
    if "causal" in options:
        extra["mask"] = mh.mask.causal()
    if "head_scale" in options:
        extra["head_scale"] = random.standard_normal(SIZES["num_heads"]).astype(np.float32)
    return made, inputs, extra, random.standard_normal((BATCH, QUERIES, SIZES["d_model"]), dtype=np.float32)


def wanted(layer, config, inputs, options, dy):
    """Gradients by name in float64, by autograd of the definition."""

    def leaf(array):
        return torch.tensor(np.asarray(array, np.float64), requires_grad=True)

    x = [leaf(array) for array in inputs]
    w = {name: leaf(array) for name, array in layer.state_dict().items()}
    heads, kv_heads = layer.num_heads, config.get("num_kv_heads", layer.num_heads)
    e, kv = layer.d_model, kv_heads * layer.d_k
    parts = w["in_proj_weight"].split([e, kv, kv]) if "in_proj_weight" in w else [w[f"{n}_proj_weight"] for n in "qkv"]
    biases = w["in_proj_bias"].split([e, kv, kv]) if "in_proj_bias" in w else (None,) * 3
    given = x + [x[-1]] * (3 - len(x))
    q, k, v = (torch.nn.functional.linear(a, p, b) for a, p, b in zip(given, parts, biases))
    added = 0
    if "bias_k" in w:
        k, v = (torch.cat([a, w[n].expand(BATCH, 1, kv)], 1) for a, n in ((k, "bias_k"), (v, "bias_v")))
        added += 1
    if config.get("add_zero_attn"):
        k, v = (torch.cat([a, torch.zeros(BATCH, 1, kv, dtype=torch.float64)], 1) for a in (k, v))
        added += 1
    q, k, v = (a.unflatten(-1, (-1, layer.d_k)).transpose(1, 2) for a in (q, k, v))
    k, v = (a.repeat_interleave(heads // kv_heads, 1) for a in (k, v))
    scores = q @ k.mT * layer.d_k**-0.5

    def bias(mask):
        mask = torch.from_numpy(mask)
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
        return torch.nn.functional.pad(mask.double(), (0, added))

    if "attn_mask" in options:
        mask = bias(options["attn_mask"])
        scores = scores + (mask.unflatten(0, (BATCH, heads)) if mask.dim() == 3 else mask)
    if "key_padding_mask" in options:
        scores = scores + bias(options["key_padding_mask"])[:, None, None]
    if "mask" in options:
        scores = scores + bias(np.triu(np.ones((QUERIES, QUERIES), bool), 1))
    weights = scores.softmax(-1)
    if "dropout_p" in options:
        p = options["dropout_p"]
        left = kept(tuple(weights.shape), p, options["dropout_seed"], options.get("dropout_origin", (0, 0, 0)))
        weights = weights * torch.from_numpy(left) / (1 - p)
    out = weights @ v
    of = {name: a for name, a in zip(("query", "key", "value"), x)} | w
    if "head_scale" in options:
        of["head_scale"] = leaf(options["head_scale"])
        out = out * of["head_scale"].reshape(1, -1, 1, 1)
    out = torch.nn.functional.linear(out.transpose(1, 2).flatten(2), w["out_proj.weight"], w.get("out_proj.bias"))
    return dict(zip(of, torch.autograd.grad(out, of.values(), torch.from_numpy(dy).double()))), out


def same(found, want):
    """As the gradients of nn.MultiheadAttention in test_multihead.py."""
    assert found.keys() == want.keys()
    for name, gradient in want.items():
        gradient = gradient.detach().numpy()
        assert found[name].dtype == np.float32 and found[name].shape == gradient.shape, name
        assert np.abs(found[name] - gradient).max() <= 4e-5 * max(1, np.abs(gradient).max()), name


@pytest.mark.parametrize("case", CASES)
def test_is_autograd_of_the_definition(random, case):
    config, kinds = CASES[case]
    layer, inputs, options, dy = drawn(random, config, kinds)
    y, activations = layer(*inputs, **options, keep=True)
    assert np.array_equal(layer(*inputs, **options), y)
    want, out = wanted(layer, config, inputs, options, dy)
    assert np.abs(y - out.detach().numpy()).max() <= 4e-5
    found = layer.backward(dy, activations, *inputs, **options)
    same(found, want)
    for threads in (1, 2, 3):
        again = layer.backward(dy, activations, *inputs, **options, num_threads=threads)
        assert all(np.array_equal(found[name], gradient) for name, gradient in again.items())
    for name in found:  # each for itself
        (alone,) = layer.backward(dy, activations, *inputs, **options, gradients=[name]).items()
        assert alone[0] == name and np.array_equal(alone[1], found[name])
    for name in options.keys() & {"dropout_seed", "attn_mask", "key_padding_mask", "mask", "head_scale"}:
        other = {**options, name: options[name] + 1} if name == "dropout_seed" else {n: x for n, x in options.items() if n != name}
        moved = layer.backward(dy, activations, *inputs, **other)
        assert not np.array_equal(moved["query"], found["query"]), name


def test_the_definition_is_that_of_pytorch(random):
    for config, kinds in ({}, {}), ({"kdim": 10, "vdim": 14, "add_bias_kv": True, "add_zero_attn": True}, {"inputs": 3}):
        layer, inputs, options, dy = drawn(random, config, kinds | {"attn_mask": "heads", "key_padding_mask": True})
        theirs = torch.nn.MultiheadAttention(24, 4, batch_first=True, dtype=torch.float64, **config)
        theirs.load_state_dict({name: torch.tensor(a).double() for name, a in layer.state_dict().items()})
        x = [torch.from_numpy(a).double().requires_grad_() for a in inputs]
        out = theirs(*x, *x[-1:] * (3 - len(x)), **{name: torch.from_numpy(a) for name, a in options.items()})[0]
        names = dict(theirs.named_parameters())
        gradients = torch.autograd.grad(out, [*x, *names.values()], torch.from_numpy(dy).double())
        want = wanted(layer, config, inputs, options, dy)[0]
        for name, gradient in zip((*("query", "key", "value")[: len(x)], *names), gradients):
            assert (want[name] - gradient).abs().max() <= 1e-12 * max(1, gradient.abs().max()), name


def test_arrays_are_written_and_added_to(random):
    layer, inputs, options, dy = drawn(random, {}, {"inputs": 3, "head_scale": True})
    activations = layer(*inputs, **options, keep=True)[-1]
    found = layer.backward(dy, activations, *inputs, **options)
    for accumulate in (False, True):
        into = {n: np.ones((*a.shape[:-1], 2 * a.shape[-1]), np.float32)[..., ::2] for n, a in found.items()}
        given = layer.backward(dy, activations, *inputs, **options, gradients=into, accumulate=accumulate)
        assert given.keys() == into.keys() and all(given[name] is array for name, array in into.items())
        for name, array in into.items():
            assert np.abs(array - (found[name] + accumulate)).max() <= 2.0**-20 * max(1, np.abs(found[name]).max()), name
            assert (array.base[..., 1::2] == 1).all()
    asked = {"query": True, "key": False, "in_proj_bias": np.empty(72, np.float32)}
    some = layer.backward(dy, activations, *inputs, **options, gradients=asked)
    assert list(some) == ["query", "in_proj_bias"] and all(np.array_equal(some[name], found[name]) for name in some)
    assert layer.backward(dy, activations, *inputs, **options, gradients=[]) == {}


def test_an_input_that_stands_for_another_has_the_gradients_of_both(random):
    layer, (query, key, value), _, dy = drawn(random, {}, {"inputs": 3})
    activations = layer(query, key, keep=True)[1]
    apart = layer.backward(dy, activations, query, key, key)
    both = layer.backward(dy, activations, query, key)
    assert "value" not in both and np.array_equal(both["key"], apart["key"] + apart["value"])
    total = np.ones_like(key)
    layer.backward(dy, activations, query, key, gradients={"key": total}, accumulate=True)
    assert np.abs(total - 1 - both["key"]).max() <= 2.0**-20 * np.abs(both["key"]).max()
    value = value[:, :QUERIES]
    activations = layer(query, None, value, keep=True)[1]
    apart = layer.backward(dy, activations, query, query, value)
    both = layer.backward(dy, activations, query, None, value)
    assert "key" not in both and np.array_equal(both["query"], apart["query"] + apart["key"])
    # All three alike are self-attention.
    activations = layer(query, query, query, keep=True)[1]
    same = layer.backward(dy, activations, query, query, query)
    assert "key" not in same and np.array_equal(same["query"], layer.backward(dy, activations, query)["query"])


def test_other_types_and_arrays_of_pytorch(random):
    layer, (query,), _, dy = drawn(random, {}, {})
    y, activations = layer(query, keep=True)
    found = layer.backward(dy, activations, query)
    tensors = layer.backward(torch.from_numpy(dy), activations, torch.from_numpy(query))
    assert all(isinstance(x, torch.Tensor) and np.array_equal(x.numpy(), found[name]) for name, x in tensors.items())
    for dtype in (np.float16, np.float32):  # dy and inputs are read as they are
        x, g = query.astype(dtype), dy.astype(np.float16)
        activations = layer(x, keep=True)[1]
        want = wanted(layer, {}, [x], {}, g)[0]
        same(layer.backward(g, activations, x), want)
    for dtype in ("bfloat16", "float16"):  # so are the weights
        narrow = mh.MultiHeadAttention(**SIZES, dtype=dtype, state_dict=layer.state_dict())
        widened = mh.MultiHeadAttention(**SIZES, state_dict=narrow.state_dict())
        activations = widened(query, keep=True)[1]
        want = wanted(widened, {}, [query], {}, dy)[0]
        same(narrow.backward(dy, activations, query), want)


def test_bytes_of_the_activations(random):
    layer = mh.MultiHeadAttention(512, 8)
    x = np.ones((2, 3, 512), np.float32)
    activations = layer(x, keep=True)[1]
    assert activations.nbytes == 6 * 8224
    assert repr(activations) == "LayerActivations(2 x 3 tokens, 49344 bytes)"
    y, weights, activations = layer(x, weights=True, keep=True)
    assert weights.shape == (2, 8, 3, 3) and activations.nbytes == 6 * 8224


def test_what_is_wrong_is_an_error_that_names_it(random):
    layer, (query, key, value), _, dy = drawn(random, {}, {"inputs": 3})
    activations = layer(query, key, value, keep=True)[1]
    alone = layer(query, keep=True)[1]
    whole = {"dy": dy, "activations": activations, "query": query, "key": key, "value": value}
    read_only = np.zeros_like(query)
    read_only.setflags(write=False)
    marked = np.full_like(query, 7)
    for changed, text in (
        ({"dy": dy[:1]}, "dy is F32 .1,7,24., expected .* .3,7,24. as query"),
        ({"dy": 3}, "dy is a int, expected an array"),
        ({"query": query[:, :3]}, "dy is"),
        ({"key": key[:, :3]}, "query, key and value do not fit together"),
        ({"activations": alone}, "activations.q is F32 .3,7,72., expected F32 .3,7,24.: they are those of a forward"),
        ({"key": None, "value": None}, "activations.q is"),
        ({"gradients": ["query", "weights", "nothing"]}, "gradients names 'weights', 'nothing', this call has 'query', 'key', 'val"),
        ({"gradients": ["head_scale"]}, "gradients names 'head_scale'"),
        ({"gradients": {"bias_k": True}}, "gradients names 'bias_k'"),
        ({"gradients": "query"}, "gradients is 'query', expected None, a list of names, or a dict"),
        ({"gradients": 3}, "gradients is 3, expected"),
        ({"gradients": {"query": None}}, "query is a NoneType, expected an array"),
        ({"gradients": {"query": read_only}}, "query cannot be taken|query is read-only"),
        ({"gradients": {"query": np.zeros((3, 7, 8), np.float32)}}, "dquery is F32 .3,7,8., expected F32 .3,7,24."),
        ({"gradients": {"query": np.zeros(query.shape)}}, "dquery is F64"),
        ({"gradients": {"query": query}}, "dquery .* overlaps query"),
        ({"gradients": {"in_proj_bias": np.zeros(71, np.float32)}}, "in_proj_bias is F32 .71., expected F32 .72."),
        ({"accumulate": True}, "accumulate adds to arrays, gradients has none for 'query'"),
        ({"accumulate": True, "gradients": ["key"]}, "accumulate adds to arrays, gradients has none for 'key'"),
        ({"head_scale": np.ones(3, np.float32)}, "head_scale is F32 .3., expected F32 .4."),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"bits": "f32-tiles-1"}, "f32-tiles-1"),
        ({"dropout_p": 1.5}, "dropout"),
    ):
        asked = changed.get("gradients", {"query": marked} if "accumulate" not in changed else None)
        with pytest.raises((ValueError, TypeError), match="MultiHeadAttention(.|::)backward: .*" + text):
            layer.backward(**{**whole, **changed, "gradients": asked})
    assert (marked == 7).all()
    with pytest.raises(ValueError, match="gradients names 'key', .*'query' holds all of self-attention's"):
        layer.backward(dy, alone, query, query, query, gradients=["key"])
    with pytest.raises(TypeError, match="LayerActivations"):
        layer.backward(dy, dy, query, key, value)
    with pytest.raises(ValueError, match="num_threads is -1"):
        layer(query, num_threads=-1)
