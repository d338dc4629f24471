"""vmap, torch.func and forward-mode derivatives: of the ops and of what is taken."""

import itertools
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402
from test_gradients import defined  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

import manyheads.torch as mt  # noqa: E402

attention, attention_weights = torch.ops.manyheads.attention, torch.ops.manyheads.attention_weights
sdpa = F.scaled_dot_product_attention
lost_text = "forward AD|PyTorch failed; before 2.13"  # PyTorch's text reaches us from 2.13 on


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(3)
    mt.report(reset=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*batching rule.*manyheads.*")
        yield
    assert not mt._core._torch_active()


def one_by_one(call, in_dims, tensors, copies):
    """What vmap should give."""
    results = [
        call(*(x if at is None else x.select(at, i) for x, at in zip(tensors, in_dims))) for i in range(copies)
    ]
    return [torch.stack(parts) for parts in zip(*results)]


def cases(generator):
    """(call, tensors of one call, which of them may be mapped)"""
    b, h, kv, tq, tk, d = 2, 4, 2, 5, 7, 8
    for batch in (1, b):
        q, k, v = torch.randn(batch, h, tq, d), torch.randn(batch, kv, tk, d), torch.randn(batch, kv, tk, d)
        yield lambda q, k, v: attention(q, k, v, causal=True, alignment=2), (q, k, v)
        yield (lambda q, k, v, m: attention(q, k, v, m), (q, k, v, torch.rand(tq, tk) > 0.3))
        yield (lambda q, k, v, m: attention(q, k, v, m), (q, k, v, torch.randn(batch, 1, tq, tk)))
        yield (lambda q, k, v, m: attention(q, k, v, attn_mask=m), (q, k, v, torch.rand(1, h, 1, tk) > 0.3))
        yield (lambda q, k, v, s: attention(q, k, v, sinks=s), (q, k, v, torch.randn(h)))
        yield (
            lambda q, k, v, n: attention(q, k, v, key_lengths=n, window_left=3, alignment=2),
            (q, k, v, torch.tensor([7, 4][:batch])),
        )
        lse = attention(q, k, v)[1]
        for average in (False, True):
            yield (lambda q, k, s: (attention_weights(q, k, s, average=average),), (q, k, lse))
    cu_q, cu_k = torch.tensor([0, 2, 5]), torch.tensor([0, 3, 7])
    yield (
        lambda q, k, v: attention(q, k, v, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k),
        (torch.randn(tq, h, d), torch.randn(tk, kv, d), torch.randn(tk, kv, d)),
    )


def mapped_axes(tensors, generator):
    """Ways to map: all at 0; all at the end; every single one; axes at random."""
    n = len(tensors)
    yield (0,) * n
    yield tuple(x.dim() for x in tensors)
    for i in range(n):
        yield tuple(0 if at == i else None for at in range(n))
    for _ in range(3):
        at = tuple(None if generator.integers(3) == 0 else int(generator.integers(x.dim() + 1)) for x in tensors)
        if any(a is not None for a in at):
            yield at


def spread(x, copies, at):
    """`copies` different tensors like x, along axis `at`."""
    if x.dtype == torch.bool:
        many = torch.rand(copies, *x.shape) > 0.3
    elif x.dtype == torch.int64:
        many = torch.stack([(x - i).clamp(min=1) for i in range(copies)])
    else:
        many = torch.randn(copies, *x.shape)
    return many.movedim(0, at) if at else many


def test_vmap_has_the_bits_of_the_loop():
    generator = np.random.default_rng(1)
    seen = 0
    for call, tensors in cases(generator):
        for in_dims in mapped_axes(tensors, generator):
            given = [x if at is None else spread(x, 3, at) for x, at in zip(tensors, in_dims)]
            found = torch.vmap(call, in_dims)(*given)
            for x, y in zip(found, one_by_one(call, in_dims, given, 3)):
                assert torch.equal(x, y), (in_dims, [t.shape for t in given])
            seen += 1
    assert seen > 100


def test_vmap_is_one_call_where_nothing_is_copied():
    q = torch.randn(3, 2, 4, 5, 8)
    mt.report(reset=True)
    torch.vmap(lambda x: attention(x, x, x))(q)
    torch.vmap(lambda x, y: attention(x, y, y), (0, None))(q[:, :1], q[0, :1])
    torch.vmap(torch.vmap(lambda x: attention(x, x, x)))(q[:, :, None])
    assert mt.report(reset=True) == {"taken: attention": 3}
    torch.vmap(lambda x, s: attention(x, x, x, sinks=s))(q, torch.randn(3, 4))
    assert mt.report(reset=True) == {"taken: attention": 3}


def test_nested_vmap_and_gradients_through_vmap():
    x = torch.randn(2, 3, 1, 2, 5, 8)
    mask = torch.rand(3, 5, 5) > 0.3
    call = torch.vmap(torch.vmap(lambda q, m: attention(q, q, q, m)), in_dims=(0, None))
    for inner, outer in itertools.product((0, 1), (0, 1)):
        found = torch.vmap(torch.vmap(lambda q: attention(q, q, q)[0], inner, outer))(x)
        want = torch.stack([torch.stack([attention(q, q, q)[0] for q in row.unbind(inner)], outer) for row in x])
        assert torch.equal(found, want)
    found, lse = call(x, mask)
    for i, j in itertools.product(range(2), range(3)):
        want, want_lse = attention(x[i, j], x[i, j], x[i, j], mask[j])
        assert torch.equal(found[i, j], want) and torch.equal(lse[i, j], want_lse)
    gradients = []
    for loop in (False, True):
        y = x.clone().requires_grad_()
        if loop:
            out = torch.stack([torch.stack([attention(q, q, q, m)[0] for q, m in zip(row, mask)]) for row in y])
        else:
            out = call(y, mask)[0]
        (out**2).sum().backward()
        gradients.append(y.grad)
    assert torch.allclose(*gradients, atol=1e-5)  # a sum of three, in another order


def test_a_bad_call_under_vmap_is_the_error_of_the_call():
    q, k = torch.randn(3, 2, 4, 5, 8), torch.randn(3, 1, 4, 7, 6)
    with pytest.raises(RuntimeError, match="attention: "):
        torch.vmap(lambda x, y: attention(x, y, y))(q, k)
    with pytest.raises(RuntimeError, match="attention: "):
        torch.vmap(lambda x: attention(x, x, x))(q[0])


@pytest.mark.parametrize("masked", [False, True])
def test_transforms_of_what_is_taken_are_those_of_pytorch(masked):
    q, k, v = (torch.randn(3, 2, 2, 5, 8) for _ in range(3))
    extra = {"attn_mask": torch.rand(5, 5) > 0.3} if masked else {}
    if masked:
        extra["attn_mask"][:, 0] = True

    def loss(q, k, v):
        return sdpa(q, k, v, **extra).square().sum()

    func = torch.func
    for call in (
        lambda: func.grad(loss, (0, 1, 2))(q[0], k[0], v[0]),
        lambda: func.vmap(loss)(q, k, v),
        lambda: func.vmap(func.grad(loss))(q, k, v),
        lambda: func.vmap(func.grad(loss), (0, None, 0))(q, k[0], v),
        lambda: func.vjp(lambda x: sdpa(x, k[0], v[0], **extra), q[0])[1](q[1])[0],
        lambda: func.jacrev(lambda x: sdpa(x, k[0], v[0], **extra).sum((0, 1, 2)))(q[0]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's flash attention has no batching rule
            want = call()
            assert mt.report() == {}
            with mt.use():
                found = call()
        assert set(mt.report(reset=True)) - {"taken: backward"} == {"taken: attention"}
        for x, y in zip(*(t if isinstance(t, tuple) else (t,) for t in (found, want))):
            assert (x - y).abs().max() <= 1e-5 * max(1, y.abs().max().item())


def test_derivatives_forward_are_never_lost():
    q, k, v, t = (torch.randn(1, 2, 5, 8) for _ in range(4))
    mask = torch.rand(5, 5) > 0.3
    mask[:, 0] = True

    def forward(call):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(call(forward_ad.make_dual(q, t))).tangent

    for extra in ({}, {"attn_mask": mask}):
        call = lambda x: sdpa(x, k, v, **extra)  # noqa: E731
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            want = forward(call)
        for grad in (torch.enable_grad, torch.no_grad):
            with mt.use(), grad():
                # PyTorch's flash attention has none, and says so.
                for lost in (
                    lambda: forward(call), lambda: torch.func.jacfwd(call)(q), lambda: torch.func.jvp(call, (q,), (t,)),
                ):  # fmt: skip
                    with pytest.raises((RuntimeError, NotImplementedError), match=lost_text):
                        lost()
                with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                    assert torch.allclose(forward(call), want, atol=1e-6)
                    assert torch.allclose(torch.func.jvp(call, (q,), (t,))[1], want, atol=1e-6)
        mt.report(reset=True)
        for own in (
            lambda x: attention(x, k, v, extra.get("attn_mask"))[0],
            lambda x: mt.scaled_dot_product_attention(x, k, v, **extra),
        ):
            assert torch.allclose(forward(own), want, atol=1e-6)
            assert torch.allclose(torch.func.jvp(own, (q,), (t,))[1], want, atol=1e-6)
        assert set(mt.report(reset=True)) == {"PyTorch's own: a function transform, or weights under autocast or tracing"}
    with forward_ad.dual_level():  # begun before use()
        dual = forward_ad.make_dual(q, t)
        with mt.use(), torch.no_grad(), pytest.raises((RuntimeError, NotImplementedError), match=lost_text):
            sdpa(dual, k, v)
    with mt.use(), torch.no_grad():
        sdpa(q, k, v)
    assert mt.report() == {"taken: attention": 1}


def test_transforms_of_the_ops_are_those_of_float64():
    q, k, v, sinks = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 3), torch.randn(4)
    options = {
        "causal": True, "alignment": 2, "window_left": 3, "softcap": 2.0, "key_lengths": torch.tensor([7, 6]),
        "alibi_slopes": torch.rand(4), "q_documents": torch.tensor([[0, 0, 1, 1, 1]] * 2),
        "k_documents": torch.tensor([[0, 0, 0, 1, 1, 1, 0]] * 2),
    }  # fmt: skip

    def total(call, *x):
        out, lse = call(*x[:3], sinks=x[3], **options)[:2]
        return out.square().sum() + lse.sin().sum()

    x = (q, k, v, sinks)
    double = [t.double() for t in x]
    want = torch.func.grad(lambda *t: total(defined, *t), (0, 1, 2, 3))(*double)
    found = torch.func.grad(lambda *t: total(attention, *t), (0, 1, 2, 3))(*x)
    for ours, theirs in zip(found, want):
        assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max().item())
    hessian = torch.func.hessian(lambda s: total(attention, q, k, v, s))(sinks)
    exact = torch.func.hessian(lambda s: total(defined, *double[:3], s))(double[3])
    assert (hessian - exact).abs().max() <= 1e-5 * max(1, exact.abs().max().item())
    lse = attention(q, k, v)[1]
    weights = torch.func.grad(lambda a, b: attention_weights(a, b, lse, average=True).square().sum())(q, k)
    a = q.double().requires_grad_()
    scores = a @ k.double().repeat_interleave(2, 1).mT * 8**-0.5
    (exact,) = torch.autograd.grad(torch.exp(scores - lse.double().unsqueeze(-1)).mean(1).square().sum(), a)
    assert (weights - exact).abs().max() < 1e-5
    pages = torch.randn(4, 2, 16, 8)
    with pytest.raises(NotImplementedError, match="no gradient with page_table"):
        torch.func.grad(lambda x: attention(x, pages, pages, page_table=torch.tensor([[1]]))[0].sum())(q[:1])
    packed = torch.randn(9, 2, 8)
    cu = torch.tensor([0, 4, 9])
    found = torch.func.grad(lambda x: attention(x, x, x, cu_seqlens_q=cu, cu_seqlens_k=cu)[0].square().sum())(packed)
    y = packed.clone().requires_grad_()
    attention(y, y, y, cu_seqlens_q=cu, cu_seqlens_k=cu)[0].square().sum().backward()
    assert torch.allclose(found, y.grad, atol=1e-5)


def shapes():
    """Calls whose tensors differ in rank, batch or heads, or are empty."""
    q, k1, b1, wide = (torch.randn(*s) for s in ((2, 4, 5, 8), (2, 1, 5, 8), (1, 4, 5, 8), (2, 4, 5, 3)))
    mask = torch.rand(5, 5) > 0.3
    mask[:, 0] = True
    yield from ((q, k1, k1), (q, k1, q), (k1, q, q), (q, b1, b1), (b1, q, q), (k1, b1, q), (q, q, wide), (k1, q, wide))
    yield from ((q[0], q[0], q[0]), (q[0, 0], q[0, 0], q[0, 0]), (q, q[0], q[0]), (q[0, 0], q, q[0]), (q[0], k1[0], q[0]))
    yield from ((q, b1, b1, mask), (k1, q, q, mask), (q[0], q[0], q[0], mask), (q, q, q, torch.randn(2, 1, 5, 5)))
    yield from ((q[:0], q[:0], q[:0]), (q, q[:, :, :0], q[:, :, :0]), (q[:, :, :0], q, q), (q[:0], q[:0], wide[:0]))


def test_shapes_have_the_results_and_gradients_of_pytorch_and_the_same_bits_compiled():
    for number, call in enumerate(shapes()):
        learned = [x.is_floating_point() for x in call]
        exact = [x.double().requires_grad_() if f else x for x, f in zip(call, learned)]
        want = sdpa(*exact)
        weight = torch.randn(want.shape)
        (want * weight).sum().backward()
        what = [list(x.shape) for x in call]
        with mt.use():
            torch._dynamo.reset()
            compiled = torch.compile(lambda *x: sdpa(*x), dynamic=number % 2 == 1, backend="aot_eager")
            found = {}
            for grad, run in itertools.product((False, True), (sdpa, compiled)):
                inputs = [x.clone().requires_grad_() if f and grad else x for x, f in zip(call, learned)]
                with torch.set_grad_enabled(grad):
                    y = found[grad, run] = run(*inputs)
                assert y.shape == want.shape and torch.allclose(y.double(), want, atol=2e-6), what
                if grad:
                    (y * weight).sum().backward()
                    for x, z in zip(inputs, exact):
                        if z.requires_grad:
                            assert torch.allclose(x.grad.double(), z.grad, atol=1e-5), what
            assert set(mt.report(reset=True)) <= {"taken: attention", "taken: backward", "taken: weights"}, what
            assert all(torch.equal(y, found[False, sdpa]) for y in found.values()), what
            assert len({y.stride() for y in found.values()}) == 1 or not want.numel(), what
