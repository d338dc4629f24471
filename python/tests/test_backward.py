"""Our backward behind PyTorch's autograd: its bits, its memory, its layouts, compiled; and PyTorch's own beside it."""

import itertools
import threading
import warnings

import pytest

# First: it skips where PyTorch is missing.
from sdpa import fresh, qkv, sdpa  # noqa: F401
import torch  # noqa: E402
import torch.utils.checkpoint  # noqa: E402
from test_gradients import defined  # noqa: E402
from torch.autograd.gradcheck import GradcheckError  # noqa: E402

import manyheads.torch as mt  # noqa: E402

attention, attention_backward = torch.ops.manyheads.attention, torch.ops.manyheads.attention_backward
aten_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def options_of(b, h, t):
    """Calls of t queries and keys: their tensors that learn, and the rest."""
    ids = torch.arange(t).mul(3).div(t, rounding_mode="floor").expand(b, t)
    yield {}, {"causal": True}
    yield {}, {"window_left": 5, "window_right": 3, "alignment": 1}
    yield {"sinks": torch.randn(h)}, {"causal": True, "window_left": 7, "softcap": 2.0}
    yield {"alibi_slopes": torch.rand(h)}, {"q_documents": ids, "k_documents": ids}
    yield {"attn_mask": torch.randn(h, t, t)}, {"key_lengths": torch.full((b,), t - 1), "key_starts": torch.ones(b).long()}
    yield {"attn_mask": torch.randn(b, 1, 1, t)}, {"scale": 0.3}
    yield {}, {"attn_mask": torch.rand(t, t) > 0.3}


def gradients(call, tensors, learned, rest, seed=3):
    """out, lse and the gradients of all by a random function of both."""
    x = [t.detach().clone().requires_grad_() for t in tensors]
    extra = {name: t.clone().requires_grad_() for name, t in learned.items()}
    out, lse = call(*x, **extra, **rest)
    generator = torch.Generator().manual_seed(seed)
    weight, weight_lse = (torch.randn(y.shape, generator=generator) for y in (out, lse))
    some = lse.detach() > -torch.inf
    ((out.float() * weight).sum() + (lse * weight_lse)[some].sum()).backward()
    return [out.detach(), *(t.grad for t in (*x, *extra.values()))]


def test_bits_are_those_of_any_threads_and_of_each_entry_alone():
    b, t = 3, 150
    tensors = qkv(b, 4, t, 16, kv=2, dv=24)
    before = torch.get_num_threads()
    try:
        for learned, rest in options_of(b, 4, t):
            want = gradients(attention, tensors, learned, rest)
            for threads in (1, 2, 3, 8):
                torch.set_num_threads(threads)
                found = gradients(attention, tensors, learned, rest)
                assert all(torch.equal(x, y) for x, y in zip(found, want)), (rest, threads)
    finally:
        torch.set_num_threads(before)
    q, k, v = tensors
    out, lse = attention(q, k, v, causal=True)
    dout = torch.randn_like(out)
    whole = attention_backward(dout, None, q, k, v, out, lse, causal=True)
    for i in range(b):
        one = [x[i : i + 1] for x in (q, k, v, out, lse)]
        alone = attention_backward(dout[i : i + 1], None, *one, causal=True)
        assert all(torch.equal(x[0], y[i]) for x, y in zip(alone[:3], whole))


def test_packed_sequences_have_the_bits_of_each():
    lengths = [70, 0, 300, 1]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    rows = int(starts[-1])
    tensors = torch.randn(rows, 4, 16), torch.randn(rows, 2, 16), torch.randn(rows, 2, 24)
    learned, rest = {"sinks": torch.randn(4)}, {"causal": True, "window_left": 40, "softcap": 3.0, "alignment": 2}
    packed = gradients(attention, tensors, learned, {**rest, "cu_seqlens_q": starts, "cu_seqlens_k": starts})
    out, lse = attention(*tensors, **learned, **rest, cu_seqlens_q=starts, cu_seqlens_k=starts)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(y.shape, generator=generator) for y in (out, lse)]
    for i, length in enumerate(lengths):
        part = slice(int(starts[i]), int(starts[i + 1]))
        if not length:
            continue
        one = [x[part].transpose(0, 1)[None] for x in tensors]
        own, own_lse = (y[part].transpose(0, 1)[None] if y.dim() == 3 else y[None, :, part] for y in (out, lse))
        found = attention_backward(
            weights[0][part].transpose(0, 1)[None], weights[1][None, :, part], *one, own, own_lse, **learned, **rest
        )
        for x, y in zip(found, packed[1:4]):
            assert torch.equal(x[0].transpose(0, 1), y[part])


def resident(what):
    """VmRSS or VmHWM of this process, in kB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what))


def test_takes_no_matrix_of_all_scores():
    t = 20000  # one such matrix of floats is 1.6 GB
    q, k, v = qkv(1, 1, t, 16, grad=True)
    sinks = torch.zeros(1, requires_grad=True)
    ids = torch.arange(t)[None] // 300
    calls = [
        lambda: attention(q, k, v, sinks=sinks, causal=True, window_left=100, softcap=5.0),
        lambda: attention(q, k, v, q_documents=ids, k_documents=ids),
        lambda: attention(q, k, v, causal=True, window_left=100, dropout_p=0.1, dropout_seed=torch.tensor(1)),
        lambda: attention(
            *(x[0].transpose(0, 1) for x in (q, k, v)), cu_seqlens_q=torch.arange(0, t + 1, 400),
            cu_seqlens_k=torch.arange(0, t + 1, 400),
        ),
    ]  # fmt: skip
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins here
    before = resident("VmRSS")
    for call in calls:
        out, lse = call()
        (out.sum() + lse.sum()).backward()
    assert resident("VmHWM") - before < 200 * 1024
    assert mt.report() == {"taken: attention": 4, "taken: backward": 4}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_once(dtype):
    tensors = qkv(2, 4, 33, 16, kv=2, dtype=dtype)
    for learned, rest in itertools.islice(options_of(2, 4, 33), 4):
        found = gradients(attention, tensors, learned, rest)
        exact = gradients(defined_call, [x.double() for x in tensors], {n: x.double() for n, x in learned.items()}, rest)
        for x, y in zip(found[1:], exact[1:]):
            # The forward's out is rounded to the type, and BF16's weights are too; then one rounding of the result.
            eps = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}[dtype]
            assert (x.double() - y).abs().max() <= 4 * eps * max(1, y.abs().max().item())
        assert all(x.dtype == dtype for x in found[1:4])


def defined_call(*tensors, **options):
    return defined(*tensors, **options)[:2]


def test_gradients_add_to_what_is_there_and_lie_as_their_inputs():
    learned, rest = {"attn_mask": torch.randn(4, 9, 9)}, {"window_left": 3, "window_right": 2, "alignment": 1}
    base = [torch.randn(2, 9, 4, 16) for _ in range(3)]
    leaves = [x.clone().requires_grad_() for x in base]
    for turn in (1, 2):
        attention(*(x.transpose(1, 2) for x in leaves), **learned, **rest)[0].sum().backward()
        if turn == 1:
            first = [x.grad.clone() for x in leaves]
    assert all(torch.equal(x.grad, 2 * y) for x, y in zip(leaves, first))
    assert all(x.grad.is_contiguous() for x in leaves)
    q, k, v = (x.transpose(1, 2) for x in base)
    out, lse = attention(q, k, v, **learned, **rest)
    found = attention_backward(torch.ones(()).expand(out.shape), None, q, k, v, out, lse, **learned, **rest, needs=13)
    assert found[0].stride() == q.stride() and found[2].stride() == v.stride()
    assert [x.numel() for x in found] == [q.numel(), 0, v.numel(), 4 * 81, 0, 0]
    assert torch.equal(found[0].transpose(1, 2), first[0])


def test_what_the_call_broadcasts_is_summed():
    q, k, v = torch.randn(1, 4, 9, 16), torch.randn(3, 1, 11, 16), torch.randn(3, 4, 11, 8)
    wide = [x.expand(3, 4, -1, -1) for x in (q, k, v)]
    found = gradients(attention, (q, k, v), {}, {})
    want = gradients(attention, [x.double().float() for x in wide], {}, {})
    sums = (want[1].sum(0, keepdim=True), want[2].sum(1, keepdim=True), want[3])
    for x, y in zip(found[1:], sums):
        assert x.shape == y.shape and torch.allclose(x, y, atol=1e-6)
    half = [x.bfloat16() for x in (q, k, v)]
    out, lse = attention(*half)
    dk = attention_backward(torch.ones_like(out), None, *half, out, lse)[1]
    wide = [x.expand(3, 4, -1, -1).contiguous() for x in half]
    each = attention_backward(torch.ones_like(out), None, wide[0], wide[1].float().bfloat16(), wide[2], out, lse)[1]
    assert dk.dtype == torch.bfloat16 and (dk.float() - each.float().sum(1, keepdim=True)).abs().max() < 0.05


def test_compiled_gradients_have_the_bits_of_eager_ones():
    cases = [(sdpa, learned, rest) for learned, rest in (({}, {}), ({}, {"is_causal": True}))]
    cases += [(sdpa, {}, {"attn_mask": torch.ones(33, 33, dtype=torch.bool).tril()})]
    cases += [(attention, learned, rest) for learned, rest in options_of(2, 4, 33)]
    for call, learned, rest in cases:
        results = []
        for run in (call, torch.compile(lambda *x, **y: call(*x, **y), fullgraph=True)):  # noqa: B023
            torch._dynamo.reset()
            torch.manual_seed(4)
            x = qkv(2, 4, 33, 16, grad=True)
            extra = {name: t.clone().requires_grad_() for name, t in learned.items()}
            with mt.use():
                y = run(*x, **extra, **rest)
                out = y if isinstance(y, torch.Tensor) else y[0]
                (out * torch.randn(out.shape)).sum().backward()
            results.append([out.detach(), *(t.grad for t in (*x, *extra.values()))])
        assert all(torch.equal(a, b) for a, b in zip(*results)), (call, rest)
    assert set(mt.report()) == {"taken: attention", "taken: backward"}


def test_opcheck_of_the_backward():
    for learned, rest in options_of(2, 4, 9):
        q, k, v = qkv(2, 4, 9, 16, kv=2)
        out, lse = attention(q, k, v, **learned, **rest)
        needs = 7 | 8 * ("attn_mask" in learned) | 16 * ("sinks" in learned) | 32 * ("alibi_slopes" in learned)
        arguments = (torch.randn_like(out), torch.randn(lse.shape), q, k, v, out, lse)
        torch.library.opcheck(attention_backward.default, arguments, {**learned, **rest, "needs": needs})
    wide = torch.randn(1, 4, 9, 16), torch.randn(2, 1, 9, 16), torch.randn(2, 4, 9, 16)
    out, lse = attention(*wide)
    torch.library.opcheck(attention_backward.default, (torch.randn_like(out), None, *wide, out, lse))
    mask = torch.rand(9, 9) > 0.3
    for call in ((q, k, v, out, lse, None, True, None), (q, k, v, out, lse, mask, False, 0.3)):
        torch.library.opcheck(torch.ops.manyheads.pytorch_backward.default, (torch.randn_like(out), *call))


def test_gradcheck_in_float32_and_refusals_of_float64_and_of_a_second_derivative():
    # As test_gradients bounds it: entries of 1 at most, D 4, distances of 1 at most.
    eps = 2.0**-6
    tolerance = 41 * 2.0**-24 / eps + 8 / 6 * eps**2 + 16 * 2 * 2.0**-24
    ids = torch.tensor([[0, 1]])
    starts = torch.tensor([0, 2])
    cases = [
        ({}, {"causal": True, "window_left": 0}), ({"sinks": torch.rand(2)}, {"softcap": 2.0, "causal": True}),
        ({"alibi_slopes": torch.rand(2)}, {}), ({"attn_mask": torch.rand(2, 2)}, {}),
        ({"attn_mask": torch.rand(1, 2, 1, 2)}, {}), ({}, {"q_documents": ids, "k_documents": ids}),
        ({}, {"key_lengths": torch.tensor([1])}), ({}, {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "causal": True}),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that inputs are not float64
        for learned, rest in cases:
            shape = (2, 2, 4) if "cu_seqlens_q" in rest else (1, 2, 2, 4)
            x = [torch.rand(*shape).mul(2).sub(1).requires_grad_() for _ in range(3)]
            x += [t.clone().requires_grad_() for t in learned.values()]

            def call(q, k, v, *extra):
                return attention(q, k, v, **dict(zip(learned, extra)), **rest)  # noqa: B023

            assert torch.autograd.gradcheck(call, x, eps=eps, atol=tolerance, rtol=0), rest
            with pytest.raises(NotImplementedError, match="no second derivatives"):
                torch.autograd.gradgradcheck(call, x, eps=eps, atol=tolerance, rtol=0)
        with pytest.raises(GradcheckError):
            wrong = lambda q: attention(q, q, q, causal=True)[0] + 0.01 * (q - q.detach())  # noqa: E731
            torch.autograd.gradcheck(wrong, x[:1] if x[0].dim() == 4 else [x[0][None].detach().requires_grad_()], eps=eps, atol=1e-4, rtol=0)
    double = [torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    with pytest.raises(RuntimeError, match="attention: q is F64"):
        torch.autograd.gradcheck(lambda *t: attention(*t), double)
    x = qkv(1, 2, 3, 8, grad=True)
    out, lse = attention(*x)
    loss = attention_backward(torch.ones_like(out), None, *x, out.detach(), lse.detach())[0].sum()
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        loss.backward()


def test_scores_beyond_float32_give_nan_and_leave_other_rows_alone():
    q, k, v = qkv(1, 2, 70, 8)
    q[:, :, 0], k[:, :, 0] = 1e37, 1e3
    found = gradients(attention, (q, k, v), {}, {"causal": True})
    assert torch.equal(found[0][:, :, 0], v[:, :, 0])  # the forward has it from float64
    q[:, :, 0] = 1e30
    within = gradients(attention, (q, k, v), {}, {"causal": True})
    for x, y in zip(found[1:], within[1:]):
        assert x[:, :, 0].isnan().all() and torch.equal(x[:, :, 1:], y[:, :, 1:])


def test_many_gradients_at_once():
    q, k, v = qkv(2, 4, 9, 16, grad=True)
    out, lse = attention(q, k, v, causal=True, window_left=3)
    weights, weights_lse = torch.randn(3, *out.shape), torch.randn(3, *lse.shape)
    found = torch.autograd.grad((out, lse), (q, k, v), (weights, weights_lse), retain_graph=True, is_grads_batched=True)
    for i in range(3):
        one = torch.autograd.grad((out, lse), (q, k, v), (weights[i], weights_lse[i]), retain_graph=True)
        assert all(torch.equal(x[i], y) for x, y in zip(found, one))


def test_the_op_that_pytorch_calls_is_ours_under_use():
    for dtype, gqa in ((torch.float32, False), (torch.bfloat16, False), (torch.float32, True)):
        q, k, v = qkv(2, 4, 33, 16, kv=2 if gqa else 4, dtype=dtype)
        for extra in ({}, {"is_causal": True}):
            results = []
            for backward in (None, "pytorch", "manyheads"):
                x = [t.clone().requires_grad_() for t in (q, k, v)]
                if backward is None:
                    sdpa(*x, enable_gqa=gqa, **extra).square().sum().backward()
                else:
                    with mt.use(backward=backward):
                        sdpa(*x, enable_gqa=gqa, **extra).square().sum().backward()
                results.append([t.grad for t in x])
                counts = mt.report(reset=True)
                assert counts.get("taken: backward", 0) == (backward == "manyheads"), (backward, counts)
            theirs, beside, ours = results
            eps = 1e-5 if dtype == torch.float32 else 0.05
            for x, y, z in zip(theirs, beside, ours):
                assert (x - y).abs().max() <= eps * x.abs().max() and (x - z).abs().max() <= eps * x.abs().max()
    # Float64 stays PyTorch's.
    x = [t.double().requires_grad_() for t in (q, k, v)]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    k, v = (t.detach().repeat_interleave(2, 1).double().requires_grad_() for t in (k, v))
    with mt.use():
        flash(x[0], k, v, is_causal=True)[0].square().sum().backward()
    assert set(mt.report(reset=True)) == {"PyTorch's own: float64"}
    want = [t.detach().clone().requires_grad_() for t in (x[0], k, v)]
    flash(*want, is_causal=True)[0].square().sum().backward()
    assert all(torch.allclose(t.grad, y.grad, atol=1e-10) for t, y in zip((x[0], k, v), want))
    with mt.use(), pytest.raises(RuntimeError, match="expected 4 axes"):
        aten_backward(q[0], q[0], q[0], q[0], q[0], q[0, ..., 0], 0.0, False)
    with mt.use(), pytest.raises(RuntimeError, match="dropout"):
        aten_backward(q, q, q, q, q, q[..., 0], 0.5, False)


def test_pytorchs_own_backward_where_it_applies():
    b, h, t = 2, 4, 11
    own = {"pytorch_backward": True}
    for kv, rest in itertools.product((4, 2), (
        {}, {"causal": True}, {"scale": 0.2}, {"attn_mask": torch.rand(t, t) > 0.3}, {"attn_mask": torch.randn(b, 1, t, t)},
    )):  # fmt: skip
        x = [s.requires_grad_() for s in qkv(b, h, t, 16, kv=kv)]
        weight = torch.randn(b, h, t, 16)
        found = torch.autograd.grad((attention(*x, **rest, **own)[0] * weight).sum(), x)
        assert mt.report() == {"taken: attention": 1}
        ours = torch.autograd.grad((attention(*x, **rest)[0] * weight).sum(), x)
        assert all((a - c).abs().max() <= 1e-5 * max(1, c.abs().max()) for a, c in zip(found, ours)), rest
        mt.report(reset=True)
    mask = torch.rand(t, t) > 0.3
    by_function = mt.scaled_dot_product_attention(*x, attn_mask=mask, enable_gqa=True, backward="pytorch")
    compiled = torch.compile(lambda *y: attention(*y, mask, **own)[0])(*x)
    a, c = (torch.autograd.grad((y * weight).sum(), x) for y in (by_function, compiled))
    assert all(torch.equal(y, z) for y, z in zip(a, c))
    with mt.use(backward="pytorch"):
        layer = torch.nn.MultiheadAttention(16, 4)
        y = torch.randn(5, 2, 16, requires_grad=True)
        out, weights = layer(y, y, y)
        (out.sum() + weights.square().sum()).backward()
    assert "taken: backward" not in mt.report(reset=True)


def test_pytorchs_own_backward_refuses_what_it_does_not_know():
    b, h, t = 2, 4, 6
    starts = torch.tensor([0, 2, 6])
    ids = torch.zeros(b, t, dtype=torch.int64)
    for rest, text in (
        ({"window_left": 2}, "window"), ({"softcap": 1.0}, "softcap"), ({"sinks": torch.zeros(h)}, "sinks"),
        ({"alibi_slopes": torch.zeros(h)}, "alibi_slopes"), ({"key_lengths": torch.tensor([6, 3])}, "key_lengths"),
        ({"key_starts": torch.tensor([0, 3])}, "key_starts"), ({"q_documents": ids, "k_documents": ids}, "documents"),
        ({"attn_mask": torch.zeros(t, t, requires_grad=True)}, "gradient of attn_mask"),
        ({"attn_mask": torch.zeros(t, t), "causal": True}, "attn_mask beside causal"),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match="PyTorch's own backward knows no .*" + text):
            attention(*qkv(b, h, t, 8, grad=True), **rest, pytorch_backward=True)
        with torch.no_grad():
            attention(*qkv(b, h, t, 8), **rest, pytorch_backward=True)
    packed = [x[0].transpose(0, 1) for x in qkv(1, h, t, 8, grad=True)]
    with pytest.raises(NotImplementedError, match="packed sequences"):
        attention(*packed, cu_seqlens_q=starts, cu_seqlens_k=starts, pytorch_backward=True)
    with pytest.raises(NotImplementedError, match="another width"):
        attention(*qkv(b, h, t, 8, dv=4, grad=True), pytorch_backward=True)
    q, k, v = qkv(b, h, t, 8, grad=True)
    with pytest.raises(NotImplementedError, match="bottom right"):
        attention(q[:, :, :3], k, v, causal=True, alignment=2, pytorch_backward=True)
    with pytest.raises(NotImplementedError, match="gradient of lse"):
        attention(q, k, v, pytorch_backward=True)[1].sum().backward()
    with mt.use(), pytest.raises(ValueError, match="backward='manyheads' is in use"), mt.use(backward="pytorch"):
        pass
    for call in (lambda: mt.start("jax"), lambda: mt.scaled_dot_product_attention(q, k, v, backward="jax")):
        with pytest.raises(ValueError, match="backward is 'jax'"):
            call()


def test_bad_calls_of_the_backward_are_errors():
    q, k, v = qkv(1, 2, 4, 8)
    out, lse = attention(q, k, v)
    for arguments, rest, text in (
        ((out[..., :4], None, q, k, v, out, lse), {}, "dout"),
        ((out, lse[:, :1], q, k, v, out, lse), {}, "dlse"),
        ((out, None, q, k, v, out, lse.double()), {}, "lse"),
        ((out, None, q.double(), k, v, out, lse), {}, "q is F64"),
        ((out, None, q[0], k, v, out, lse), {}, "q"),
        ((out, None, q, k, v, out, lse), {"needs": 8}, "bit 3 wants the gradient"),
        ((out, None, q, k, v, out, lse), {"needs": 8, "attn_mask": torch.ones(4, 4, dtype=torch.bool)}, "bit 3"),
        ((out, None, q, k, v, out, lse), {"needs": 16}, "bit 4 wants the gradient"),
        ((out, None, q, k, v, out, lse), {"sinks": torch.zeros(3)}, "sinks"),
    ):
        with pytest.raises(RuntimeError, match=r"attention_backward: .*" + text):
            attention_backward(*arguments, **rest)


def test_calls_that_meet_use_halfway_have_their_gradients():
    x = qkv(2, 4, 33, 16, grad=True)
    dout = torch.randn(2, 4, 33, 16)
    want = torch.autograd.grad(sdpa(*x, is_causal=True), x, dout)
    with mt.use():
        begun = sdpa(*x, is_causal=True)
    found = torch.autograd.grad(begun, x, dout)  # our forward, PyTorch's backward
    assert "taken: backward" not in mt.report(reset=True)
    begun = sdpa(*x, is_causal=True)
    with mt.use():
        other = torch.autograd.grad(begun, x, dout)  # the other way round
    assert mt.report() == {"taken: backward": 1}
    for a, b, c in zip(want, found, other):
        assert (a - b).abs().max() < 1e-5 and (a - c).abs().max() < 1e-5
    # A row that its mask leaves without keys: PyTorch's lse of it is 0, ours -inf.
    mask = torch.zeros(33, 33)
    mask[5] = -torch.inf
    out = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*x, attn_mask=mask)[0]
    with mt.use():
        grads = torch.autograd.grad(out, x, dout)
    assert (grads[0][:, :, 5] == 0).all() and all(g.isfinite().all() for g in grads)


def test_gradients_of_many_threads_at_once_and_of_what_is_computed_again():
    x = qkv(1, 4, 200, 16)
    weight = torch.randn(1, 4, 200, 16)

    def run(attend):
        own = [t.clone().requires_grad_() for t in x]
        (attend(*own) * weight).sum().backward()
        return [t.grad for t in own]

    found = [None] * 6
    with mt.use():
        want = run(sdpa)
        mask = torch.rand(200, 200) > 0.3
        for call in (sdpa, lambda *t: sdpa(*t, attn_mask=mask), lambda *t: attention(*t, window_left=9)[0]):
            again = run(lambda *t: torch.utils.checkpoint.checkpoint(call, *t, use_reentrant=False))  # noqa: B023
            assert all(torch.equal(a, b) for a, b in zip(again, run(call)))

        def work(at):
            found[at] = run(sdpa)

        threads = [threading.Thread(target=work, args=(at,)) for at in range(6)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert all(torch.equal(a, b) for one in found for a, b in zip(one, want))
    assert torch.utils.checkpoint._enable_checkpoint_early_stop is None
    run(lambda *t: torch.utils.checkpoint.checkpoint(lambda *s: attention(*s)[0], *t, use_reentrant=False))
