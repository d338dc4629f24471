"""nn.MultiheadAttention under use(), and the layer in its place."""

import copy
import pickle

import numpy as np
import pytest

# First: it skips where PyTorch is missing.
from layers import close, fresh, masks_of, same_result, scattered, tolerance, twin, widened  # noqa: F401
import torch  # noqa: E402

import manyheads.torch as mt  # noqa: E402


def configurations(count):
    generator = np.random.default_rng(5)
    for _ in range(count):
        pick = lambda *of: of[generator.integers(len(of))]  # noqa: E731
        heads, d = pick(1, 2, 3, 4), pick(1, 4, 7, 16)
        yield {
            "layer": {
                "embed_dim": heads * d, "num_heads": heads, "bias": pick(True, False), "add_bias_kv": pick(True, False, False),
                "add_zero_attn": pick(True, False, False), "kdim": pick(None, None, 9), "vdim": pick(None, None, 11),
                "batch_first": pick(True, False),
            },
            "sizes": tuple(int(generator.integers(1, n)) for n in (4, 12, 14)),
            "input": pick("self", "self", "cross", "keys as values"),
            "unbatched": pick(True, False, False),
            "masks": (pick(None, None, "2", "3", "2float", "3float"), pick(None, None, "bool", "float")),
            "need_weights": pick(True, True, False), "average": pick(True, False),
            "causal": pick(True, False, False, False), "dtype": pick(*[torch.float32] * 3, torch.bfloat16, torch.float16),
        }  # fmt: skip


def inputs_of(case):
    layer, dtype = case["layer"], case["dtype"]
    b, t, s = case["sizes"]
    if case["unbatched"]:
        b = 1
    e, kdim, vdim = layer["embed_dim"], layer["kdim"] or layer["embed_dim"], layer["vdim"] or layer["embed_dim"]
    kind = case["input"]
    if kind == "self" and (kdim, vdim) != (e, e) or kind == "keys as values" and kdim != vdim:
        kind = "cross"
    s = t if kind == "self" or case["causal"] else s

    def tensor(length, width):
        x = torch.randn(b, length, width).to(dtype)
        return x[0] if case["unbatched"] else x if layer["batch_first"] else x.transpose(0, 1)

    query = tensor(t, e)
    key = query if kind == "self" else tensor(s, kdim)
    value = key if kind != "cross" else tensor(s, vdim)
    extra = masks_of(b, layer["num_heads"], t, s, case["masks"], dtype)
    if case["unbatched"] and "key_padding_mask" in extra:
        extra["key_padding_mask"] = extra["key_padding_mask"][0]
    if case["causal"]:
        extra["attn_mask"], extra["is_causal"] = torch.ones(t, s, dtype=torch.bool).triu(1), True
        padding = extra.get("key_padding_mask")
        if padding is not None and padding.dtype != torch.bool:
            extra.pop("key_padding_mask")
    return (query, key, value), extra | {"need_weights": case["need_weights"], "average_attn_weights": case["average"]}


def wide(inputs):
    made = [inputs[0].double()]
    made.append(made[0] if inputs[1] is inputs[0] else inputs[1].double())
    made.append(made[1] if inputs[2] is inputs[1] else inputs[2].double())
    return made


@pytest.mark.parametrize("mode", ["eval", "train", "eval under use", "train under use"])
def test_random_configurations(mode):
    """The layer, and nn.MultiheadAttention under use(), against nn.MultiheadAttention in float64, gradients too."""
    for case in configurations(250):
        kind = torch.nn.MultiheadAttention if mode.endswith("use") else mt.MultiheadAttention
        dtype = case["dtype"]
        layer = scattered(kind(**case["layer"], dtype=dtype)).train(mode.startswith("train"))
        reference = twin(layer)
        inputs, extra = inputs_of(case)
        mt.report(reset=True)
        with torch.set_grad_enabled(layer.training):
            if mode.endswith("use"):
                with mt.use():
                    found = layer(*inputs, **extra)
            else:
                found = layer(*inputs, **extra)
            theirs = wide(inputs)
            wanted = reference(*theirs, **{k: widened(v) for k, v in extra.items()})
        assert found[0].shape == wanted[0].shape and found[0].dtype == dtype, case
        assert (found[0].double() - wanted[0]).abs().max() <= 2 * tolerance(dtype), case
        assert (found[1] is None) == (wanted[1] is None), case
        if found[1] is not None:
            assert found[1].shape == wanted[1].shape and found[1].dtype == dtype, case
            assert (found[1].double() - wanted[1]).abs().max() <= 2 * tolerance(dtype), case
        report = mt.report()
        assert report and all(text.startswith("taken") for text in report), (report, case)
        if layer.training and dtype == torch.float32:
            # Through the output and through the weights.
            gradients = []
            for module, (out, weights) in ((layer, found), (reference, wanted)):
                loss = (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()
                if weights is not None:
                    loss = loss + (weights * torch.linspace(-1, 2, weights.numel(), dtype=out.dtype).reshape(weights.shape)).sum()
                gradients.append(torch.autograd.grad(loss, list(module.parameters()), allow_unused=True))
            for ours, theirs in zip(*gradients):
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    assert (ours - theirs).abs().max() <= 4e-5 * max(1, theirs.abs().max().item()), case


def test_gradients_of_inputs_and_of_a_learned_mask():
    for average, need in ((True, True), (False, True), (True, False)):
        results = []
        for use in (True, False):
            torch.manual_seed(3)
            layer = torch.nn.MultiheadAttention(16, 4)
            x = [torch.randn(5, 2, 16) for _ in range(3)] + [torch.randn(8, 5, 5)]
            if not use:
                layer, x = layer.double(), [t.double() for t in x]
            x = [t.requires_grad_() for t in x]
            if use:
                with mt.use():
                    out, weights = layer(*x[:3], attn_mask=x[3], need_weights=need, average_attn_weights=average)
            else:
                out, weights = layer(*x[:3], attn_mask=x[3], need_weights=need, average_attn_weights=average)
            loss = out.square().sum() + (0 if weights is None else weights.square().sum())
            results.append(torch.autograd.grad(loss, x))
        for ours, theirs in zip(*results):
            assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max().item())
    assert set(mt.report()) == {"taken: attention", "taken: backward", "taken: weights"}


def test_opcheck_of_weights_with_gradients():
    q, k = (torch.randn(2, 4, 5, 8, requires_grad=True) for _ in range(2))
    lse = torch.ops.manyheads.attention(q, k, k)[1].detach()
    for average in (False, True):
        torch.library.opcheck(torch.ops.manyheads.attention_weights.default, (q, k[:, :2], lse), {"average": average})


def test_what_is_left_to_pytorch_is_said():
    x = torch.randn(5, 2, 16)
    cases = {
        "float64": (torch.nn.MultiheadAttention(16, 4).double(), x.double(), {}),
    }
    for reason, (layer, inputs, extra) in cases.items():
        with mt.use():
            layer(inputs, inputs, inputs, **extra)
        assert mt.report(reset=True) == {f"PyTorch's own: {reason}": 1}
        ours = mt.MultiheadAttention(16, 4, dropout=layer.dropout, dtype=inputs.dtype)
        ours(inputs, inputs, inputs, **extra)
        assert mt.report(reset=True) == {f"PyTorch's own: {reason}": 1}
    layer = torch.nn.MultiheadAttention(16, 4)
    with mt.use(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, x, x)
    with mt.use():
        torch.func.vmap(lambda t: layer(t, t, t)[0])(torch.stack([x, x]))
    assert mt.report(reset=True)["PyTorch's own: a function transform, or weights under autocast or tracing"] == 2
    for ours in (mt.MultiheadAttention(16, 4).eval(), mt.MultiheadAttention(16, 4)):
        for bad, extra in (
            ((x, x[:3], x), {}), ((x[..., :8], x, x), {}), ((x, x, x), {"attn_mask": torch.ones(4, 5)}),
            ((x, x, x), {"key_padding_mask": torch.ones(3, 5).bool()}), ((x, x, x), {"is_causal": True}),
            ((x, x, x), {"attn_mask": torch.ones(5, 5, dtype=torch.int64)}), ((x[None], x[None], x[None]), {}),
            ((x, x.double(), x), {}),
        ):  # fmt: skip
            with torch.no_grad(), pytest.raises((AssertionError, RuntimeError, ValueError, TypeError)):
                ours(*bad, **extra)


def test_the_function_is_put_back():
    import torch.nn.functional as F

    before = F.multi_head_attention_forward
    with mt.use(), mt.use():
        assert F.multi_head_attention_forward is not before
    assert F.multi_head_attention_forward is before


def test_state_dicts_go_both_ways():
    for extra in ({}, {"kdim": 5, "vdim": 7}, {"bias": False}, {"add_bias_kv": True, "add_zero_attn": True}):
        theirs, ours = torch.nn.MultiheadAttention(16, 4, **extra), mt.MultiheadAttention(16, 4, **extra)
        assert list(theirs.state_dict()) == list(ours.state_dict())
        ours.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(ours.state_dict())
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()):
            assert torch.equal(a, b)


def test_weights_that_change_are_seen():
    layer = mt.MultiheadAttention(16, 4, batch_first=True).eval()
    x = torch.randn(2, 5, 16)

    def right():
        with torch.no_grad():
            close(layer(x, x, x)[0], twin(layer)(*[x.double()] * 3)[0], torch.float32)

    right()
    packed = layer._packed[1]
    right()
    assert layer._packed[1] is packed  # packed once
    with torch.no_grad():
        layer.out_proj.weight.mul_(2)
    right()
    layer.in_proj_weight = torch.nn.Parameter(torch.randn(48, 16))
    right()
    layer.load_state_dict(torch.nn.MultiheadAttention(16, 4).state_dict())
    right()
    layer.train()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    layer(x, x, x)[0].square().sum().backward()
    optimizer.step()
    layer.eval()
    right()
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied._packed is None
        with torch.no_grad():
            assert torch.equal(copied(x, x, x)[0], layer(x, x, x)[0])
    layer.to(torch.bfloat16)
    with torch.no_grad():
        y = x.bfloat16()
        close(layer(y, y, y)[0], twin(layer)(*[y.double()] * 3)[0], torch.bfloat16)
    with torch.inference_mode():
        made = mt.MultiheadAttention(16, 4, batch_first=True).eval()
        close(made(x, x, x)[0], twin(made)(*[x.double()] * 3)[0], torch.float32)
        made.out_proj.weight.mul_(2)
        close(made(x, x, x)[0], twin(made)(*[x.double()] * 3)[0], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_alone_and_in_a_batch(dtype, monkeypatch):
    layer = mt.MultiheadAttention(64, 4, batch_first=True, dtype=dtype).eval()
    x = torch.randn(5, 33, 64).to(dtype)
    padding = torch.zeros(5, 33, dtype=torch.bool)
    padding[2, 20:] = True
    full = torch.rand(20, 33, 33) > 0.7
    with torch.no_grad():
        for extra in ({}, {"key_padding_mask": padding}, {"attn_mask": full}):
            y, weights = layer(x, x, x, **extra)
            one_by_one = []
            for b in range(5):
                part = {k: v[4 * b : 4 * b + 4] if k == "attn_mask" else v[b : b + 1] for k, v in extra.items()}
                alone = layer(x[b : b + 1], x[b : b + 1], x[b : b + 1], **part)
                one_by_one.append(alone)
            assert torch.equal(y, torch.cat([o[0] for o in one_by_one]))
            assert torch.equal(weights, torch.cat([o[1] for o in one_by_one]))
            monkeypatch.setattr("manyheads.torch._layer._WEIGHTS_AT_ONCE", 0)
            again = layer(x, x, x, **extra)
            monkeypatch.undo()
            assert torch.equal(again[0], y) and torch.equal(again[1], weights)
            for n in (1, 2, 3, 8):
                before = torch.get_num_threads()
                torch.set_num_threads(n)
                assert torch.equal(layer(x, x, x, **extra)[0], y)
                torch.set_num_threads(before)


def test_attention_under_use_has_the_same_bits_alone_and_in_a_batch():
    layer = torch.nn.MultiheadAttention(64, 4, batch_first=True).eval()
    with torch.no_grad():  # projections of whole numbers are exact
        for p in layer.parameters():
            p.copy_(torch.randint(-2, 3, p.shape) / 8)
        x = torch.randint(-3, 4, (4, 33, 64)).float() / 4
        with mt.use():
            weights = layer(x, x, x, average_attn_weights=False)[1]
            for b in range(4):
                assert torch.equal(layer(*[x[b : b + 1]] * 3, average_attn_weights=False)[1], weights[b : b + 1])


def test_rows_without_keys_are_zero():
    x = torch.randn(2, 5, 16)
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[3] = True
    for layer in (torch.nn.MultiheadAttention(16, 4, batch_first=True), mt.MultiheadAttention(16, 4, batch_first=True)):
        for training in (True, False):
            scattered(layer).train(training)
            with mt.use(), torch.set_grad_enabled(training):
                y, weights = layer(x, x, x, attn_mask=mask)
            assert torch.equal(weights[:, 3], torch.zeros(2, 5))
            assert (y[:, 3] - layer.out_proj.bias).abs().max() < 1e-6


def test_compiled():
    x = torch.randn(2, 5, 16)
    for kind in (torch.nn.MultiheadAttention, mt.MultiheadAttention):
        for training in (True, False):
            torch._dynamo.reset()
            layer = kind(16, 4, batch_first=True).train(training)
            with mt.use(), torch.set_grad_enabled(training):
                want = layer(x, x, x)
                found = torch.compile(layer)(x, x, x)
            same_result([t.detach() for t in found], [t.detach().double() for t in want], torch.float32)
            if training:
                found[1].square().sum().backward()
    report = mt.report()
    assert all(text.startswith("taken") for text in report), report


def test_layouts_are_those_of_the_fake_kernels():
    from torch._subclasses.fake_tensor import FakeTensorMode

    generator = np.random.default_rng(3)
    for _ in range(200):
        shape = [int(n) for n in generator.integers(1, 4, 4)]
        order = [int(n) for n in generator.permutation(4)]
        base = torch.randn([shape[i] + int(generator.integers(2)) for i in order])
        x = base.permute([order.index(i) for i in range(4)])[tuple(slice(0, n) for n in shape)]
        if generator.integers(3) == 0:
            x = x[:1].expand(2, -1, -1, -1)
        with FakeTensorMode() as mode:
            fake = mode.from_tensor(x)
            wanted = torch.ops.manyheads.attention(fake, fake, fake)
        found = torch.ops.manyheads.attention(x, x, x)
        for ours, theirs in zip(found, wanted):
            assert [(n, s) for n, s in zip(ours.shape, ours.stride()) if n > 1] == [
                (n, s) for n, s in zip(theirs.shape, theirs.stride()) if n > 1
            ], (x.shape, x.stride())
