"""The operators of PyTorch's door: their options, compiled and exported, their layouts, their memory and their errors."""

import os

import numpy as np
import pytest

# First: it skips where PyTorch is missing.
from sdpa import definition, fresh, qkv, sdpa, taken  # noqa: F401
import torch  # noqa: E402

import manyheads as mh  # noqa: E402
import manyheads.torch as mt  # noqa: E402


def test_gradients_of_sinks_and_windows():
    q, k, v = (t.requires_grad_() for t in qkv(1, 2, 11, 8))
    sinks = torch.tensor([0.5, -1.0], requires_grad=True)
    out, lse = torch.ops.manyheads.attention(q, k, v, sinks=sinks, causal=True, alignment=1, window_left=4)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    i, j = torch.arange(11)[:, None], torch.arange(11)
    x = [t.detach().double().requires_grad_() for t in (q, k, v, sinks)]
    scores = (x[0] @ x[1].mT * 8**-0.5).masked_fill((j > i) | (j < i - 4), -torch.inf)
    wide = torch.cat([scores, x[3].reshape(1, 2, 1, 1).expand(1, 2, 11, 1)], -1)
    (torch.softmax(wide, -1)[..., :-1] @ x[2] * weight.double()).sum().backward()
    for ours, theirs in zip((q, k, v, sinks), x):
        assert (ours.grad - theirs.grad).abs().max() < 2e-6


def test_lse_and_weights():
    q, k, v = qkv(2, 6, 9, 16, kv=2)
    out, lse, weights = mt.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True, return_lse=True, return_weights=True
    )
    scores = (q.double() @ k.repeat_interleave(3, 1).double().mT / 4).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf)
    assert (weights - torch.softmax(scores, -1)).abs().max() < 2e-6
    assert (lse - torch.logsumexp(scores, -1)).abs().max() < 1e-5
    mean = torch.ops.manyheads.attention_weights(q, k, lse, causal=True, alignment=1, average=True)
    assert (mean - weights.mean(1)).abs().max() < 1e-6
    for bad in ({"dropout_p": 1.1}, {"attn_mask": torch.ones(9, 9), "is_causal": True}, {}):
        with pytest.raises((NotImplementedError, ValueError), match="manyheads.torch.scaled_dot_product_attention"):
            mt.scaled_dot_product_attention(q, k, v, **bad)


def test_means_of_a_batch_are_those_of_each_entry():
    # More weights than are averaged together: the batch is cut.
    q, k, _ = qkv(3, 4, 400, 16, kv=2)
    lengths, starts = torch.tensor([400, 250, 33]), torch.tensor([0, 7, 2])
    bias = torch.randn(3, 4, 400, 400)
    lse = torch.ops.manyheads.attention(q, k, k, bias, key_lengths=lengths, key_starts=starts)[1]

    def weights(average, rows=slice(None)):
        return torch.ops.manyheads.attention_weights(
            q[rows], k[rows], lse[rows], bias[rows], key_lengths=lengths[rows], key_starts=starts[rows], average=average
        )

    mean = torch.zeros(3, 400, 400)
    for head in weights(False).unbind(1):
        mean += head * 0.25
    assert torch.equal(weights(True), mean)
    for b in range(3):
        assert torch.equal(weights(True, slice(b, b + 1))[0], mean[b])
    for bad in ({"key_lengths": lengths[:1]}, {"key_starts": starts[:2]}, {"attn_mask": bias[:2]}):
        with pytest.raises(RuntimeError):
            torch.ops.manyheads.attention_weights(q, k, lse, **bad, average=True)
    with pytest.raises(RuntimeError):
        torch.ops.manyheads.attention_weights(q, k[:1], lse, average=True)


def test_opcheck():
    q, k, v = qkv(2, 4, 9, 16, grad=True)
    mask = torch.rand(9, 9) > 0.3
    for arguments in ((q, k, v), (q, k, v, mask), (q, k[:, :2].detach(), v[:, :2].detach()), (q, k, v.detach()[..., :8])):
        torch.library.opcheck(torch.ops.manyheads.attention.default, arguments)
    lse = torch.ops.manyheads.attention(q, k, v)[1].detach()
    for average in (False, True):
        torch.library.opcheck(
            torch.ops.manyheads.attention_weights.default, (q.detach(), k.detach(), lse), {"average": average}
        )


def test_opcheck_with_every_option():
    q, k, v = (torch.randn(2, n, 7, 8, requires_grad=True) for n in (4, 2, 2))
    heads = {"sinks": torch.randn(4, requires_grad=True), "alibi_slopes": torch.rand(4)}
    rest = {"causal": True, "alignment": 2, "window_left": 3, "scale": 0.4, "softcap": 2.0}
    entries = {"key_lengths": torch.tensor([7, 5]), "key_starts": torch.tensor([0, 2])}
    attention, weights = torch.ops.manyheads.attention.default, torch.ops.manyheads.attention_weights.default
    torch.library.opcheck(attention, (q, k, v), {**heads, **entries, **rest})
    lse = attention(q, k, v, **heads, **entries, **rest)[1].detach()
    torch.library.opcheck(weights, (q, k, lse), {**heads, **entries, **rest, "average": True})
    starts = torch.tensor([0, 3, 7])
    packed = [x.detach()[0].transpose(0, 1) for x in (q, k, v)]
    torch.library.opcheck(attention, packed, {**heads, **rest, "cu_seqlens_q": starts, "cu_seqlens_k": starts})
    pages = torch.randn(4, 2, 16, 8)
    paged = {"page_table": torch.tensor([[3, 0], [2, 1]]), "key_lengths": torch.tensor([20, 32])}
    torch.library.opcheck(attention, (q.detach(), pages, pages), {**paged, **rest})


def test_compiled_and_exported():
    q, k, v = qkv(2, 4, 33, 16)
    layouts = [(q, k, v), [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]]
    with mt.use(), torch.no_grad():
        for inputs in layouts:
            for extra in ({}, {"is_causal": True}, {"attn_mask": torch.rand(2, 1, 33, 33) > 0.3}):
                torch._dynamo.reset()
                eager = sdpa(*inputs, **extra)
                compiled = torch.compile(lambda a, b, c: sdpa(a, b, c, **extra), dynamic=True)(*inputs)
                assert torch.equal(compiled, eager) and compiled.stride() == eager.stride()
                taken(2)

        class Module(torch.nn.Module):
            def forward(self, a, b, c):
                return sdpa(a, b, c)

        exported = torch.export.export(Module(), (q, k, v)).module()
        assert torch.equal(exported(q, k, v), sdpa(q, k, v))
        taken()


def test_compiled_gradients():
    gradients = []
    for run in (sdpa, torch.compile(sdpa)):
        torch.manual_seed(3)
        x = qkv(2, 4, 17, 16, grad=True)
        with mt.use():
            run(*x, attn_mask=torch.ones(17, 17).tril().bool()).square().sum().backward()
        gradients.append([t.grad for t in x])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients))
    taken()


def test_vmap_and_autocast():
    q, k, v = (x[None].repeat(3, 1, 1, 1, 1) for x in qkv(2, 4, 9, 16))
    with mt.use(), torch.no_grad():
        mapped = torch.vmap(sdpa)(q, k, v)
        assert torch.allclose(mapped[1], sdpa(q[1], k[1], v[1]), atol=1e-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert sdpa(q[0], k[0], v[0]).dtype == torch.bfloat16


def test_results_lie_as_empty_like_has_them():
    generator = np.random.default_rng(23)
    with mt.use(), torch.no_grad():
        for _ in range(300):
            shape = [int(n) for n in generator.integers(1, 4, 4)]
            order = [int(n) for n in generator.permutation(4)]
            base = torch.randn([shape[i] + int(generator.integers(2)) for i in order])
            q = base.permute([order.index(i) for i in range(4)])[tuple(slice(0, n) for n in shape)]
            if generator.integers(3) == 0:
                axis = int(generator.integers(2))
                q = q.narrow(axis, 0, 1).expand(*[n + 1 if i == axis else -1 for i, n in enumerate(q.shape)])
            assert sdpa(q, q, q).stride() == torch.empty_like(q).stride(), (q.shape, q.stride())
            v = torch.randn(*q.shape[:3], 5)
            like = torch.empty_like(q.new_empty_strided(v.shape, q.stride()))
            for y in (sdpa(q, q, v), torch.ops.manyheads.attention(q, q, v)[0]):
                assert y.stride() == like.stride(), (q.shape, q.stride())
    taken(900)


def test_calls_keep_no_memory():
    x = torch.randn(1, 2, 4, 8)
    y = x.clone().requires_grad_()
    mask = torch.rand(4, 4) > 0.3
    mask[:, 0] = True

    def calls(n):
        with mt.use(), torch.no_grad():
            for _ in range(n):
                sdpa(x, x, x, attn_mask=mask)
                torch.ops.manyheads.attention(x, x, x)
                try:
                    torch.ops.manyheads.attention(x, x, x[:, :, :3])
                except RuntimeError:
                    pass
        with mt.use():
            for _ in range(n // 20):
                sdpa(y, y, y, attn_mask=mask).sum().backward()
                y.grad = None

    def pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    calls(3000)
    before = pages()
    calls(int(os.environ.get("MANYHEADS_PYTHON_CALLS", "20000")) // 3)
    assert pages() - before < 512  # 2 MiB


def test_float64_is_right_through_the_flash_op_and_what_does_not_fit_is_refused():
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = (x.double() for x in qkv(2, 4, 9, 16))
    masks = (None, torch.randn(9, 9).double(), torch.rand(2, 1, 9, 9) > 0.3)
    with mt.use():
        for mask in masks:
            out, lse = flash(q, k, v, attn_mask=mask)
            assert (out - definition(q, k, v, mask)).abs().max() < 1e-12
        for bad in (
            lambda: flash(q, k.float(), v),
            lambda: flash(q, k[:, :, :, :8], v),
            lambda: flash(q, k[:1], v),
            lambda: flash(q, k[:, :3], v[:, :3]),
            lambda: flash(q, k, v, attn_mask=torch.ones(9, 9)),
            lambda: flash(q, k, v, attn_mask=torch.ones(9, 8).double()),
        ):
            with pytest.raises(RuntimeError, match="float64 tensors that do not fit"):
                bad()


def test_bad_tensors_are_errors():
    x = torch.randn(1, 2, 4, 8)
    lse = torch.zeros(1, 2, 4)
    for call in (
        lambda: mh.attention(x.requires_grad_(), x.detach(), x.detach()),
        lambda: mh.attention(x.to("meta"), x, x),
        lambda: mh.attention(x.detach().to(torch.complex64), x.detach(), x.detach()),
        lambda: mh.attention(x.detach().to_sparse(), x.detach(), x.detach()),
        lambda: torch.ops.manyheads.attention(x[0], x[0], x[0]),
        lambda: torch.ops.manyheads.attention(x, x, x, sinks=torch.ones(3)),
        lambda: torch.ops.manyheads.attention(x, x, x, key_lengths=torch.tensor([9])),
        lambda: torch.ops.manyheads.attention(x, x, x, page_table=torch.tensor([[0]])),
        lambda: torch.ops.manyheads.attention(x, x.double(), x),
        lambda: torch.ops.manyheads.attention(x, x, x, scale=float("nan")),
        lambda: torch.ops.manyheads.attention_weights(x[0], x[0], x),
        lambda: torch.ops.manyheads.attention_weights(x, x, torch.ones(1, 2, 3), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, torch.ones(1, 1, 4), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, sinks=torch.ones(1), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, alibi_slopes=torch.ones(3), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, torch.ones(1, 3, 4, 4), average=True),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError, BufferError, NotImplementedError)):
            call()
