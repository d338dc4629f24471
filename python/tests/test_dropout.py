"""Dropout through PyTorch's doors: what goes, its gradients, its seeds, compiled and computed again."""

import copy
import itertools

import numpy as np
import pytest

# First: it skips where PyTorch is missing.
from sdpa import fresh, qkv, sdpa  # noqa: F401
import torch  # noqa: E402
import torch.utils.checkpoint  # noqa: E402
from conftest import kept  # noqa: E402
from test_gradients import compare, defined, draw, named  # noqa: E402

import manyheads as mh  # noqa: E402
import manyheads.flash_attn as fa  # noqa: E402
import manyheads.torch as mt  # noqa: E402

attention, attention_weights = torch.ops.manyheads.attention, torch.ops.manyheads.attention_weights
attention_backward = torch.ops.manyheads.attention_backward


def seeded(p, seed):
    return {"dropout_p": p, "dropout_seed": torch.tensor(seed)}


def next_seed():
    """The seed that the next call with dropout takes; the generator stays where it is."""
    state = torch.get_rng_state()
    seed = torch.randint(2**63 - 1, ())
    torch.set_rng_state(state)
    return seed


def factor_of(shape, p, seed):
    """What dropout multiplies weights with, float64."""
    return torch.from_numpy(kept(shape, p, int(seed) % 2**64)) / (1 - p)


def near(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() <= tolerance * max(1, wanted.abs().max().item())


def only_taken():
    report = mt.report(reset=True)
    assert report and all(text.startswith("taken") for text in report), report
    return report


def test_the_op_drops_what_the_formula_and_the_numpy_door_drop():
    q, k, v = qkv(2, 4, 9, 16, kv=2)
    for p, seed in ((0.1, 0), (0.5, 2**63 - 1), (0.7, -1), (1.0, 4)):
        out, lse = attention(q, k, v, **seeded(p, seed))
        weights = attention_weights(q, k, lse, **seeded(p, seed))
        if p < 1:
            assert torch.equal(weights != 0, factor_of(weights.shape, p, seed) > 0)
        drop = {"dropout_p": p, "dropout_seed": seed % 2**64}
        found = mh.attention(q.numpy(), k.numpy(), v.numpy(), lse=True, weights=True, **drop)
        for x, y in zip((out, lse, weights), found):
            assert np.array_equal(x.numpy(), y)
        assert torch.equal(attention(q, k, v, dropout_p=p, dropout_seed=torch.tensor([[seed]]))[0], out)
        back = attention_backward(torch.ones_like(out), None, q, k, v, out, lse, **seeded(p, seed))
        want = mh.attention_backward(*(x.numpy() for x in (q, k, v, out, torch.ones_like(out), lse)), **drop)
        assert all(np.array_equal(x.numpy(), y) for x, y in zip(back, want))
        near(out, weights.double() @ v.double().repeat_interleave(2, 1))
    assert torch.equal(attention(q, k, v, dropout_p=0.0, dropout_seed=torch.tensor(4))[0], attention(q, k, v)[0])


def test_random_calls_have_the_gradients_of_float64():
    generator = np.random.default_rng(29)
    for turn in range(150):
        tensors, rest = draw(generator)
        ours = {n: x.clone().requires_grad_() for n, x in tensors.items()}
        theirs = {n: x.double().requires_grad_() for n, x in tensors.items()}
        (inputs, options), (exact, exact_options) = named(ours, rest), named(theirs, rest)
        b, h = inputs[0].shape[:2]
        p, seed = (0.1, 0.5, 0.8)[turn % 3], int(generator.integers(2**62))
        out, lse = attention(*inputs, **options, **seeded(p, seed))
        exact = [exact[0], *(x.expand(b, -1, -1, -1) for x in exact[1:])]
        _, want_lse, plain = defined(*exact, **exact_options)
        # Which ones went, from the weights themselves.
        wide_k = inputs[1].expand(b, -1, -1, -1)
        with torch.no_grad():
            left = attention_weights(inputs[0], wide_k, lse, **options, **seeded(p, seed))
        want_weights = plain * ((left != 0) / (1 - p))
        want = want_weights @ exact[2].repeat_interleave(h // exact[2].shape[1], 1)
        near(out.detach(), want.detach())
        r, r_lse, some = torch.randn_like(out), torch.randn_like(lse), lse.detach() > -torch.inf
        loss, exact_loss = (out * r).sum() + (lse * r_lse)[some].sum(), (want * r.double()).sum() + (want_lse * r_lse)[some].sum()
        if turn % 2:  # by way of the weights too, with an lse that passes a gradient on or none
            average = turn % 4 == 1
            s = lse if turn % 5 else lse.detach()
            weights = attention_weights(inputs[0], wide_k, s, **options, average=average, **seeded(p, seed))
            mean = want_weights.mean(1) if average else want_weights
            near(weights.detach(), mean.detach())
            r = torch.randn_like(weights)
            loss, exact_loss = loss + (weights * r).sum(), exact_loss + (mean * r.double()).sum()
        loss.backward()
        exact_loss.backward()
        for x in (*ours.values(), *theirs.values()):
            x.grad = torch.zeros_like(x) if x.grad is None else x.grad
        compare(ours, theirs, (rest, p))


def test_packed_sequences_drop_as_entries():
    lengths = [5, 0, 33, 1]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    q, k, v = (torch.randn(39, h, d, requires_grad=True) for h, d in ((4, 16), (2, 16), (2, 24)))
    p, seed = 0.3, 77
    out, lse = attention(q, k, v, cu_seqlens_q=starts, cu_seqlens_k=starts, causal=True, alignment=1, **seeded(p, seed))
    dout = torch.randn_like(out)
    found = torch.autograd.grad(out, (q, k, v), dout)
    x = [t.detach().double().requires_grad_() for t in (q, k, v)]
    parts = []
    for b, length in enumerate(lengths):
        own = [t[starts[b] : starts[b + 1]].transpose(0, 1)[None] for t in x]
        if length:
            weights = defined(*own, causal=True)[2]
            factor = torch.from_numpy(kept(weights.shape, p, seed, (b, 0, 0))) / (1 - p)
            parts.append((weights * factor @ own[2].repeat_interleave(2, 1))[0].transpose(0, 1))
    want = torch.cat(parts)
    near(out.detach(), want.detach())
    for ours, theirs in zip(found, torch.autograd.grad(want, x, dout.double())):
        near(ours, theirs)


def test_means_of_the_weights_are_of_those_that_each_head_and_entry_keeps():
    # More weights than are averaged together: the batch is cut.
    q, k, _ = qkv(3, 4, 400, 16, kv=2)
    lse = attention(q, k, k)[1]
    drop = seeded(0.4, 12)
    mean = torch.zeros(3, 400, 400)
    for head in attention_weights(q, k, lse, **drop).unbind(1):
        mean += head * 0.25
    assert torch.equal(attention_weights(q, k, lse, average=True, **drop), mean)


def test_a_seed_is_one_number_of_pytorchs_generator():
    base = qkv(2, 4, 33, 16)
    for extra in ({}, {"is_causal": True}, {"attn_mask": torch.rand(33, 33) > 0.3}, {"attn_mask": torch.randn(2, 1, 33, 33)}):
        causal = {"causal": True, "alignment": 1} if extra.get("is_causal") else {}
        seed = next_seed()
        want = attention(*base, extra.get("attn_mask"), **causal, dropout_p=0.2, dropout_seed=seed)[0]
        state = torch.get_rng_state()
        for grad in (True, False):
            for call in (sdpa, mt.scaled_dot_product_attention):
                torch.set_rng_state(state)
                x = [t.clone().requires_grad_(grad) for t in base]
                with mt.use():
                    y = call(*x, **extra, dropout_p=0.2)
                assert torch.equal(y, want) and y.requires_grad == grad
                assert not torch.equal(torch.get_rng_state(), state)
                with mt.use():
                    assert not torch.equal(call(*x, **extra, dropout_p=0.2), want)
        torch.set_rng_state(state)
        torch.randint(2**63 - 1, ())
    only_taken()
    with mt.use():  # nothing to drop: nothing is drawn
        state = torch.get_rng_state()
        sdpa(*base)
        sdpa(*base, dropout_p=0.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_function_gives_the_weights_that_it_used():
    q, k, v = qkv(2, 4, 9, 16, kv=2, grad=True)
    out, lse, weights = mt.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True, dropout_p=0.5, return_lse=True, return_weights=True
    )
    near(out, weights.double() @ v.double().repeat_interleave(2, 1))
    assert torch.equal(lse, attention(q, k, v, causal=True, alignment=1)[1])
    gone = (weights == 0).tril().sum() / weights.tril().bool().logical_or(weights == 0).tril().sum()
    assert 0 < gone < 1
    with pytest.raises(NotImplementedError, match="PyTorch's own backward knows no dropout"):
        mt.scaled_dot_product_attention(q, k, v, enable_gqa=True, dropout_p=0.5, backward="pytorch")
    with torch.no_grad():
        mt.scaled_dot_product_attention(q, k, v, enable_gqa=True, dropout_p=0.5, backward="pytorch")


def test_shares():
    q, k, v = qkv(2, 4, 300, 16)
    v = torch.eye(300).expand(2, 4, 300, 300)  # out is the weights
    for p, grad in itertools.product((0.05, 0.1, 0.5), (True, False)):
        with mt.use():
            out = sdpa(q.clone().requires_grad_(grad), k, v, dropout_p=p)
        gone = (out == 0).sum().item()
        assert abs(gone - p * out.numel()) <= 5 * (p * (1 - p) * out.numel()) ** 0.5
    only_taken()


def test_compiled_calls_with_a_seed_have_the_bits_of_eager_ones():
    seed = torch.tensor(31)
    cases = (
        ({}, {"causal": True}), ({"sinks": torch.randn(4)}, {"window_left": 7, "alignment": 1, "softcap": 2.0}),
        ({"attn_mask": torch.randn(4, 33, 33)}, {}),
    )  # fmt: skip

    def both(q, k, v, seed, **options):
        out, lse = attention(q, k, v, **options, dropout_p=0.3, dropout_seed=seed)
        weights = attention_weights(q, k, lse, **options, average=True, dropout_p=0.3, dropout_seed=seed)
        return out, weights

    for learned, rest in cases:
        results = []
        for run in (both, torch.compile(both, fullgraph=True)):
            torch._dynamo.reset()
            torch.manual_seed(4)
            x = qkv(2, 4, 33, 16, grad=True)
            extra = {name: t.clone().requires_grad_() for name, t in learned.items()}
            out, weights = run(*x, seed, **extra, **rest)
            (out * torch.randn(out.shape)).sum().backward()
            results.append([out.detach(), weights.detach(), *(t.grad for t in (*x, *extra.values()))])
        assert all(torch.equal(a, b) for a, b in zip(*results)), rest
    only_taken()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_f_sdpa_draws_in_its_graph(dynamic):
    torch._dynamo.reset()
    q, k, _ = qkv(2, 4, 40, 16, grad=True)
    run = torch.compile(lambda *x: sdpa(*x, dropout_p=0.25), fullgraph=True, dynamic=dynamic)
    with mt.use():
        outs = []
        for _ in range(2):
            v = torch.eye(40).repeat(2, 4, 1, 1).requires_grad_()  # out is the weights
            out = run(q, k, v)
            dout = torch.randn_like(out)
            found = torch.autograd.grad(out, (q, k, v), dout)
            x = [t.detach().double().requires_grad_() for t in (q, k, v)]
            want = defined(*x)[2] * ((out != 0) / 0.75) @ x[2]
            near(out.detach(), want.detach())
            for ours, theirs in zip(found, torch.autograd.grad(want, x, dout.double())):
                near(ours, theirs)
            outs.append(out.detach())
            gone = (out == 0).sum().item()
            assert abs(gone - 0.25 * out.numel()) <= 5 * (0.25 * 0.75 * out.numel()) ** 0.5
        assert not torch.equal(*outs)
        with torch.no_grad():
            out = run(q, k, v)
        near(out, defined(q.double(), k.double(), v.double())[2] * ((out != 0) / 0.75))
    only_taken()


def test_checkpoints_compute_the_same_weights_again():
    q, k, v = qkv(2, 4, 50, 16)
    mask = torch.rand(50, 50) > 0.3
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.1)
    y = torch.randn(2, 9, 32)
    cases = [
        ((q, k, v), lambda *t: sdpa(*t, dropout_p=0.2)),
        ((q, k, v), lambda *t: sdpa(*t, attn_mask=mask, dropout_p=0.2)),
        ((q, k, v), lambda *t: mt.scaled_dot_product_attention(*t, dropout_p=0.2)),
        ((y,), lambda t: layer(t)),
        ((y,), lambda t: layer.self_attn(t, t, t)[1]),
    ]
    with mt.use():
        for tensors, call in cases:
            results = []
            for way in (None, False, True):
                torch.manual_seed(11)
                x = [t.clone().requires_grad_() for t in tensors]
                out = call(*x) if way is None else torch.utils.checkpoint.checkpoint(call, *x, use_reentrant=way)
                torch.randn(5)  # others draw meanwhile
                (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
                results.append([out.detach(), *(t.grad for t in x)])
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other))
    only_taken()


def test_encoder_layers_train():
    torch.manual_seed(2)
    layer = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)  # dropout=0.1
    optimizer = torch.optim.Adam(layer.parameters(), 3e-3)
    x, target = torch.randn(8, 12, 32), torch.randn(8, 12, 32)
    losses = []
    for run in (layer, torch.compile(layer)):
        with mt.use():
            for _ in range(30):
                loss = (run(x) - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert only_taken() == {"taken: attention": 60, "taken: backward": 60}
    assert losses[-1] < losses[30] < 0.9 * losses[0]
    layer.eval()
    with mt.use(), torch.no_grad():
        state = torch.get_rng_state()
        assert torch.equal(layer(x), layer(x)) and torch.equal(torch.get_rng_state(), state)


def multihead(layer, x, p, seed, average):
    """nn.MultiheadAttention [B,T,E] in float64, with dropout of a seed: output and weights."""
    b, t, e = x.shape
    h = layer.num_heads
    weight, bias = layer.in_proj_weight, layer.in_proj_bias
    q, k, v = ((x @ w.T + c).unflatten(-1, (h, -1)).transpose(1, 2) for w, c in zip(weight.chunk(3), bias.chunk(3)))
    weights = torch.softmax(q @ k.mT * (e // h) ** -0.5, -1) * factor_of((b, h, t, t), p, seed)
    out = (weights @ v).transpose(1, 2).flatten(2) @ layer.out_proj.weight.T + layer.out_proj.bias
    return out, weights.mean(1) if average else weights


@pytest.mark.parametrize("kind", [torch.nn.MultiheadAttention, mt.MultiheadAttention])
def test_layers_in_training(kind):
    layer = kind(32, 4, dropout=0.3, batch_first=True)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(3, 7, 32)
    for need, average, grad in itertools.product((True, False), (True, False), (True, False)):
        seed = next_seed()
        with mt.use(), torch.set_grad_enabled(grad):
            out, weights = layer(x, x, x, need_weights=need, average_attn_weights=average)
        want, want_weights = multihead(exact, x.double(), 0.3, seed, average)
        near(out.detach(), want.detach())
        assert (weights is None) == (not need)
        loss, exact_loss = out.square().sum(), want.square().sum()
        if need:
            near(weights.detach(), want_weights.detach())
            loss, exact_loss = loss + weights.square().sum(), exact_loss + want_weights.square().sum()
        if grad:
            found = torch.autograd.grad(loss, list(layer.parameters()))
            for ours, theirs in zip(found, torch.autograd.grad(exact_loss, list(exact.parameters()))):
                near(ours, theirs, 4e-5)
    only_taken()
    layer.eval()
    with mt.use():
        state = torch.get_rng_state()
        out, weights = layer(x, x, x)
        want, want_weights = multihead(exact, x.double(), 0.0, 0, True)
        near(out.detach(), want.detach())
        near(weights.detach(), want_weights.detach())
        assert torch.equal(torch.get_rng_state(), state)
    only_taken()


def test_the_layer_averages_a_large_batch_entry_by_entry(monkeypatch):
    layer = mt.MultiheadAttention(32, 4, dropout=0.3, batch_first=True)
    x = torch.randn(3, 7, 32)
    with torch.no_grad():
        torch.manual_seed(1)
        want = layer(x, x, x)
        monkeypatch.setattr("manyheads.torch._layer._WEIGHTS_AT_ONCE", 0)
        torch.manual_seed(1)
        found = layer(x, x, x)
    assert all(torch.equal(a, b) for a, b in zip(found, want))


def test_flash_attn_functions():
    b, t, h = 2, 30, 4
    q, k = torch.randn(b, t, h, 16), torch.randn(b, t, h, 16)
    v = torch.eye(t)[None, :, None].repeat(b, 1, h, 1)  # out is the weights
    starts = torch.tensor([0, t, 2 * t])
    rows = [x.flatten(0, 1) for x in (q, k, v)]
    slopes = torch.rand(b, h) * 0.1
    dense = lambda *x, **o: fa.flash_attn_func(*x, **o)  # noqa: E731
    packed = lambda *x, **o: fa.flash_attn_varlen_func(*x, starts, starts, t, t, **o).unflatten(0, (b, t))  # noqa: E731
    for call, tensors in ((dense, (q, k, v)), (packed, rows)):
        for extra in ({}, {"alibi_slopes": slopes[0]}, {"alibi_slopes": slopes}):
            x = [y.clone().requires_grad_() for y in tensors]
            torch.manual_seed(5)
            out = call(*x, dropout_p=0.2, **extra)
            torch.manual_seed(5)
            assert torch.equal(call(*x, dropout_p=0.2, **extra), out)
            assert not torch.equal(call(*x, dropout_p=0.2, **extra), out)
            left = out.detach().transpose(1, 2) != 0
            gone = left.numel() - left.sum().item()
            assert abs(gone - 0.2 * left.numel()) <= 5 * (0.16 * left.numel()) ** 0.5
            assert not torch.equal(left[0], left[1]) and not torch.equal(left[:, 0], left[:, 1])
            wide = [y.double().requires_grad_() for y in (q, k, v)]
            each = [
                defined(*(y[i : i + 1].transpose(1, 2) for y in wide), alignment=2, alibi_slopes=s)[2]
                for i, s in enumerate(slopes if extra and extra["alibi_slopes"].dim() == 2 else [extra.get("alibi_slopes")] * b)
            ]
            want = (torch.cat(each) * (left / 0.8) @ wide[2].transpose(1, 2)).transpose(1, 2)
            near(out.detach(), want.detach())
            dout = torch.randn_like(out)
            for ours, theirs in zip(torch.autograd.grad(out, x, dout), torch.autograd.grad(want, wide, dout.double())):
                near(ours.reshape(theirs.shape), theirs)
    qkv_ = torch.stack([q, k, q], 2)
    torch.manual_seed(5)
    out, lse, third = fa.flash_attn_qkvpacked_func(qkv_, dropout_p=0.2, causal=True, return_attn_probs=True)
    assert third is None and torch.equal(lse, fa.flash_attn_func(q, k, q, causal=True, return_attn_probs=True)[1])
    torch.manual_seed(5)
    assert torch.equal(fa.flash_attn_kvpacked_func(q, qkv_[:, :, 1:], 0.2, causal=True), out)
    torch.manual_seed(5)
    assert torch.equal(fa.flash_attn_varlen_qkvpacked_func(qkv_.flatten(0, 1), starts, t, 0.2, causal=True), out.flatten(0, 1))
    torch.manual_seed(5)
    kv = qkv_.flatten(0, 1)[:, 1:]
    assert torch.equal(fa.flash_attn_varlen_kvpacked_func(rows[0], kv, starts, starts, t, t, 0.2, causal=True), out.flatten(0, 1))
    run = torch.compile(lambda *x: fa.flash_attn_func(*x, dropout_p=0.2), fullgraph=True)
    out = run(q, k, v)
    near(out.transpose(1, 2), defined(*(y.double().transpose(1, 2) for y in (q, k, v)))[2] * (out.transpose(1, 2) != 0) / 0.8)
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"flash_attn_func: dropout_p is {p}, expected 0 to 1"):
            fa.flash_attn_func(q, k, v, dropout_p=p)


def test_opcheck():
    q, k, v = qkv(2, 4, 9, 16, kv=2, grad=True)
    drop = seeded(0.4, 3)
    sinks = torch.randn(4, requires_grad=True)
    torch.library.opcheck(attention.default, (q, k, v), drop)
    torch.library.opcheck(attention.default, (q, k, v), {"sinks": sinks, "causal": True, "window_left": 3, **drop})
    starts = torch.tensor([0, 3, 9])
    packed = [x.detach()[0].transpose(0, 1) for x in (q, k, v)]
    torch.library.opcheck(attention.default, packed, {"cu_seqlens_q": starts, "cu_seqlens_k": starts, **drop})
    out, lse = (x.detach() for x in attention(q, k, v, **drop))
    for average in (False, True):
        torch.library.opcheck(attention_weights.default, (q, k, lse), {"average": average, **drop})
    arguments = (torch.randn_like(out), None, q.detach(), k.detach(), v.detach(), out, lse)
    torch.library.opcheck(attention_backward.default, arguments, drop)


def test_many_gradients_at_once():
    q, k, v = qkv(2, 4, 9, 16, grad=True)
    out = attention(q, k, v, causal=True, **seeded(0.4, 3))[0]
    weights = torch.randn(3, *out.shape)
    found = torch.autograd.grad(out, (q, k, v), weights, retain_graph=True, is_grads_batched=True)
    for i in range(3):
        one = torch.autograd.grad(out, (q, k, v), weights[i], retain_graph=True)
        assert all(torch.equal(x[i], y) for x, y in zip(found, one))


def test_transforms_refuse_it_and_f_sdpa_goes_pytorchs_way():
    q, k, v = qkv(2, 4, 9, 16)
    lse = attention(q, k, v)[1]
    drop = seeded(0.5, 3)
    many = torch.stack([q, q])
    for call in (
        lambda: torch.vmap(lambda x: attention(x, k, v, **drop))(many),
        lambda: torch.vmap(lambda x: attention_weights(x, k, lse, **drop))(many),
        lambda: torch.func.grad(lambda x: attention(x, k, v, **drop)[0].sum())(q),
        lambda: torch.func.grad(lambda x: attention_weights(x, k, lse, **drop).square().sum())(q),
        lambda: torch.func.jvp(lambda x: attention(x, k, v, **drop)[0], (q,), (q,)),
    ):
        with pytest.raises(NotImplementedError, match="no dropout under a function transform"):
            call()
    assert mt.report(reset=True) == {"taken: attention": 1, "refused: dropout under a function transform": 5}
    with mt.use():
        found = torch.vmap(lambda x: sdpa(x, k, v, dropout_p=0.5), randomness="different")(many)
        assert found.shape == many.shape and not torch.equal(found[0], found[1])
        torch.func.grad(lambda x: sdpa(x, k, v, dropout_p=0.5).sum())(q)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            torch.manual_seed(3)
            found = sdpa(q, k, v, dropout_p=0.5)
    assert all(text.startswith("PyTorch's own") for text in mt.report(reset=True))
    torch.manual_seed(3)
    assert torch.allclose(sdpa(q, k, v, dropout_p=0.5), found, atol=1e-6)


def test_bad_calls_are_errors():
    q, k, v = qkv(1, 2, 5, 8)
    lse = torch.zeros(1, 2, 5)
    for name, call in (
        ("attention", lambda **drop: attention(q, k, v, **drop)),
        ("attention_weights", lambda **drop: attention_weights(q, k, lse, **drop)),
        ("attention_backward", lambda **drop: attention_backward(q, None, q, k, v, q, lse, **drop)),
    ):
        for drop, text in (
            ({"dropout_p": 0.5}, "dropout_p is 0.5.* and there is no dropout_seed, an int64 tensor of one element"),
            ({"dropout_p": 0.5, "dropout_seed": torch.tensor([1, 2])}, r"dropout_seed is I64 \[2\], expected int64 and one element"),
            ({"dropout_p": 0.5, "dropout_seed": torch.tensor(1.0)}, "dropout_seed is F32 .*expected int64 and one element"),
            (seeded(1.5, 3), "dropout.p is 1.5, expected 0 to 1"),
            (seeded(-0.5, 3), "dropout.p is -0.5, expected 0 to 1"),
        ):
            with pytest.raises(RuntimeError, match=f"{name}: {text}"):
                call(**drop)
    pages = torch.randn(2, 2, 16, 8)
    with pytest.raises(RuntimeError, match="dropout with page_table"):
        attention(q, pages, pages, page_table=torch.tensor([[0]]), key_lengths=torch.tensor([5]), **seeded(0.5, 3))
    with pytest.raises(ValueError, match="dropout_p is 1.5, expected 0 to 1"):
        mt.scaled_dot_product_attention(q, k, v, dropout_p=1.5)
    x = [t.requires_grad_() for t in (q, k, v)]
    with pytest.raises(NotImplementedError, match="PyTorch's own backward knows no dropout"):
        attention(*x, pytorch_backward=True, **seeded(0.5, 3))
    flash = torch.ops.aten._flash_attention_forward
    rows = torch.randn(5, 2, 8)
    starts = torch.tensor([0, 5], dtype=torch.int32)
    with mt.use(), pytest.raises(RuntimeError, match="_flash_attention_forward: takes no dropout"):
        flash(rows, rows, rows, starts, starts, 5, 5, 0.5, False, False)
