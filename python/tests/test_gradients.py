"""Gradients of the ops and of what is taken, against autograd in float64 and against differences in float32."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402
from torch.autograd.gradcheck import GradcheckError  # noqa: E402

import manyheads.torch as mt  # noqa: E402

attention, attention_weights = torch.ops.manyheads.attention, torch.ops.manyheads.attention_weights
sdpa = F.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(5)
    mt.report(reset=True)
    yield
    assert not mt._core._torch_active()


def defined(
    q, k, v, attn_mask=None, sinks=None, key_lengths=None, key_starts=None, alibi_slopes=None, causal=False, alignment=0,
    window_left=-1, window_right=-1, scale=None, softcap=0.0, q_documents=None, k_documents=None,
):  # fmt: skip
    """out, lse and weights in float64."""
    b, h, tq, d = q.shape
    tk = k.shape[2]
    k, v = (x.repeat_interleave(h // x.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (d**-0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    i, j = torch.arange(tq).reshape(1, 1, tq, 1), torch.arange(tk).reshape(1, 1, 1, tk)
    ends = torch.full((b,), tk) if key_lengths is None else key_lengths
    if alignment == 2:
        i = i + (ends - tq).reshape(-1, 1, 1, 1)
    seen = (j < ends.reshape(-1, 1, 1, 1)) & (j > i - window_left - 1 if window_left >= 0 else j >= 0)
    if window_right >= 0:
        seen = seen & (j <= i + window_right)
    if causal:
        seen = seen & (j <= i)
    if key_starts is not None:
        seen = seen & (j >= key_starts.reshape(-1, 1, 1, 1))
    if q_documents is not None:
        seen = seen & (q_documents[:, None, :, None] == k_documents[:, None, None, :])
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            seen = seen & attn_mask
        else:
            scores = scores + attn_mask
    if alibi_slopes is not None:
        scores = scores - alibi_slopes.reshape(1, -1, 1, 1) * (j - i).abs()
    seen = seen.expand(scores.shape)
    exponentials = torch.where(seen, torch.exp(scores), 0.0)
    total = exponentials.sum(-1)
    if sinks is not None:
        total = total + torch.exp(sinks).reshape(1, -1, 1)
    some = total > 0
    weights = exponentials / torch.where(some, total, 1.0).unsqueeze(-1)
    lse = torch.where(some, torch.log(torch.where(some, total, 1.0)), -torch.inf)
    return weights @ v, lse, weights


def draw(generator):
    """A call: shapes, tensors that want gradients, and the rest."""
    b, kv, groups, d, dv = (int(generator.integers(1, n)) for n in (4, 3, 4, 9, 9))
    tq, tk = (int(n) for n in generator.integers(1, 12, 2))
    dv = d if generator.integers(2) else dv
    h = kv * groups
    keys = 1 if generator.integers(5) == 0 else b
    learned = {"q": torch.randn(b, h, tq, d), "k": torch.randn(keys, kv, tk, d), "v": torch.randn(keys, kv, tk, dv)}
    rest = {"alignment": int(generator.integers(1, 3)), "causal": bool(generator.integers(2))}

    def maybe():
        return generator.integers(3) == 0

    if maybe():
        rest["softcap"] = 1.5
    if maybe():
        rest["scale"] = 0.4
    if maybe():
        learned["sinks"] = torch.randn(h)
    if maybe():
        learned["alibi_slopes"] = torch.rand(h) * 0.3
    if maybe():
        rest["window_left"] = int(generator.integers(0, 5))
    if maybe() and not rest["causal"]:
        rest["window_right"] = int(generator.integers(0, 5))
    if keys == b and maybe():
        rest["key_lengths"] = torch.tensor(generator.integers(1, tk + 1, b))
    if keys == b and maybe():
        rest["key_starts"] = torch.tensor([int(generator.integers(0, n + 1)) for n in rest.get("key_lengths", [tk] * b)])
    if keys == b and maybe():
        for name, n in (("q_documents", tq), ("k_documents", tk)):
            rest[name] = torch.tensor(generator.integers(0, 3, (b, n)))
    shape = [n if generator.integers(2) else 1 for n in (b, h, tq)] + [tk]
    kind = generator.integers(3)
    if kind == 1:
        learned["attn_mask"] = torch.randn(shape[int(generator.integers(3)) :])
    if kind == 2:
        rest["attn_mask"] = torch.rand(shape) > 0.3
    return learned, rest


def named(tensors, rest):
    own = {n: x for n, x in tensors.items() if n not in ("q", "k", "v")}
    return (tensors["q"], tensors["k"], tensors["v"]), {**own, **rest}


def compare(found, wanted, what):
    for name, x in found.items():
        y = wanted[name].grad
        # F32 sums against F64.
        assert (x.grad - y).abs().max() <= 3e-5 * max(1, y.abs().max().item()), (name, what)


def test_random_calls_have_the_gradients_of_float64():
    generator = np.random.default_rng(17)
    dense = 0
    for turn in range(300):
        tensors, rest = draw(generator)
        ours = {n: x.clone().requires_grad_() for n, x in tensors.items()}
        theirs = {n: x.double().requires_grad_() for n, x in tensors.items()}
        inputs, options = named(ours, rest)
        exact, exact_options = named(theirs, rest)
        b = inputs[0].shape[0]
        out, lse = attention(*inputs, **options)
        want, want_lse, want_weights = defined(exact[0], *(x.expand(b, -1, -1, -1) for x in exact[1:]), **exact_options)
        assert (out - want).abs().max() < 1e-5
        r = torch.randn_like(out)
        loss, exact_loss = (out * r).sum(), (want * r.double()).sum()
        if turn % 3 == 1:  # lse alone, with out, and by way of weights
            some = lse.detach() > -torch.inf
            r = torch.randn_like(lse)
            loss, exact_loss = loss * (turn % 2) + (lse * r)[some].sum(), exact_loss * (turn % 2) + (want_lse * r)[some].sum()
        if turn % 3 == 2 and inputs[1].shape[0] == b:
            average = turn % 2 == 0
            lse = lse if turn % 4 < 2 else lse.detach()
            weights = attention_weights(inputs[0], inputs[1], lse, **options, average=average)
            r = torch.randn_like(weights)
            want_weights = want_weights.mean(1) if average else want_weights
            loss, exact_loss = loss + (weights * r).sum(), exact_loss + (want_weights * r).sum()
            dense += 1
        loss.backward()
        exact_loss.backward()
        for x in (*ours.values(), *theirs.values()):
            x.grad = torch.zeros_like(x) if x.grad is None else x.grad
        compare(ours, theirs, (rest, turn))
    assert dense > 60 and set(mt.report()) == {"taken: attention", "taken: weights", "taken: backward"}


PADDED = ("key_lengths", "key_starts", "q_documents", "k_documents", "attn_mask")


def test_packed_calls_have_the_gradients_of_each_sequence():
    generator = np.random.default_rng(19)
    for _ in range(60):
        tensors, rest = draw(generator)
        rest = {n: x for n, x in rest.items() if n not in PADDED}
        tensors.pop("attn_mask", None)
        h, kv = tensors["q"].shape[1], tensors["k"].shape[1]
        lengths = [[int(n) for n in generator.integers(low, 8, 3)] for low in (0, 0)]
        for name, heads, size in (("q", h, lengths[0]), ("k", kv, lengths[1]), ("v", kv, lengths[1])):
            tensors[name] = torch.randn(sum(size), heads, tensors[name].shape[3])
        ours = {n: x.clone().requires_grad_() for n, x in tensors.items()}
        theirs = {n: x.double().requires_grad_() for n, x in tensors.items()}
        inputs, options = named(ours, rest)
        exact, exact_options = named(theirs, rest)
        starts = [torch.tensor([0, *np.cumsum(size)]) for size in lengths]
        out, lse = attention(*inputs, cu_seqlens_q=starts[0], cu_seqlens_k=starts[1], **options)
        parts = zip(exact[0].split(lengths[0]), exact[1].split(lengths[1]), exact[2].split(lengths[1]))
        wants = [defined(*(x.transpose(0, 1)[None] for x in part), **exact_options) for part in parts]
        want = torch.cat([w[0][0].transpose(0, 1) for w in wants])
        want_lse = torch.cat([w[1][0] for w in wants], 1)
        r, s = torch.randn_like(out), torch.randn_like(lse)
        some = lse.detach() > -torch.inf
        ((out * r).sum() + (lse * s)[some].sum()).backward()
        ((want * r).sum() + (want_lse * s)[some].sum()).backward()
        for x in (*ours.values(), *theirs.values()):
            x.grad = torch.zeros_like(x) if x.grad is None else x.grad
        if out.numel():
            compare(ours, theirs, (rest, lengths))


def test_gradcheck_in_float32_of_what_is_taken():
    # Entries are at most 1, D is 4: scores are at most 2, and move by a = scale eps at most. Of the central difference
    # - one value of F32 is off by (2 (D + 2) 2 + 17) 2^-24 (conftest.bound);
    # - the third derivative of a mean under weights is a joint cumulant of a value and three scores:
    #   |v'| |a'|^3 + 3 |v'| |a'|^3 with |v'| <= 2 and |a'| <= 2 scale = 1, so at most 8.
    # The gradient itself has F32 sums of less than 16 products of at most 2.
    eps = 2.0**-6
    tolerance = 41 * 2.0**-24 / eps + 8 / 6 * eps**2 + 16 * 2 * 2.0**-24
    bool_mask = torch.tensor([[True, False, True], [True, True, False]]).repeat(1, 1, 1, 1)
    float_mask = torch.tensor([[0.5, -1.0, 0.0], [-0.25, 0.0, 1.0]])
    cases = [
        ({}, 2), ({"is_causal": True}, 2), ({"enable_gqa": True}, 1), ({"attn_mask": bool_mask}, 2),
        ({"attn_mask": float_mask}, 2), ({"attn_mask": bool_mask, "enable_gqa": True}, 1),
    ]  # fmt: skip
    with mt.use(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that inputs are not float64
        for extra, kv in cases:
            inputs = [torch.rand(1, h, t, 4).mul(2).sub(1).requires_grad_() for h, t in ((2, 2), (kv, 3), (kv, 3))]
            mt.report(reset=True)
            assert torch.autograd.gradcheck(lambda *x: sdpa(*x, **extra), inputs, eps=eps, atol=tolerance, rtol=0)
            report = mt.report(reset=True)
            assert set(report) == {"taken: attention", "taken: backward"}
            assert report["taken: attention"] >= 2 * sum(x.numel() for x in inputs)
            with pytest.raises(GradcheckError):  # a gradient off by a hundredth is seen
                torch.autograd.gradcheck(
                    lambda q, k, v: sdpa(q, k, v, **extra) + 0.01 * (v - v.detach()).sum(), inputs, eps=eps, atol=1e-5, rtol=0
                )


def test_what_has_no_gradient_is_refused_by_name_and_counted():
    q, pages = torch.randn(1, 2, 3, 8, requires_grad=True), torch.randn(4, 2, 16, 8)
    table, lengths = torch.tensor([[2, 0]]), torch.tensor([20])
    paged = {"page_table": table, "key_lengths": lengths}
    with pytest.raises(NotImplementedError, match="no gradient with page_table"):
        attention(q, pages, pages, **paged)
    assert mt.report(reset=True)["refused: a gradient of pages"] == 1
    with torch.no_grad():
        attention(q, pages, pages, **paged)
    attention(q.detach(), pages, pages, **paged)
    assert mt.report(reset=True) == {"taken: attention": 2}
    # Second derivatives: PyTorch's flash attention has none either.
    x = [torch.randn(1, 2, 3, 8, requires_grad=True) for _ in range(3)]
    lse = attention(*x)[1].detach()
    for call, text in (
        (lambda q, k, v: sdpa(q, k, v), "derivative for .*backward is not implemented"),
        (lambda q, k, v: sdpa(q, k, v, attn_mask=torch.ones(3, 3, dtype=torch.bool).tril()), "no second derivatives"),
        (lambda q, k, v: attention(q, k, v, sinks=torch.zeros(2))[0], "no second derivatives"),
        (lambda q, k, v: attention_weights(q, k, lse), "no second derivatives"),
    ):
        for power in (1, 2):
            with mt.use():
                loss = (call(*x) ** power * torch.arange(3.0).reshape(3, 1)[:, -1:]).sum()
                (grad,) = torch.autograd.grad(loss, x[0], create_graph=True)
                with pytest.raises((RuntimeError, NotImplementedError), match=text):
                    torch.autograd.grad(grad.square().sum(), x[:2])
    assert mt.report(reset=True)["refused: a second derivative"] == 6
