"""What the tests of PyTorch's door share: calls of scaled_dot_product_attention and their definition."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    pytest.skip("PyTorch is older than 2.10", allow_module_level=True)

import torch.nn.functional as F  # noqa: E402

import manyheads.torch as mt  # noqa: E402

sdpa = F.scaled_dot_product_attention  # bound before use()
own = {"taken: attention", "taken: backward", "taken: weights"}


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(7)
    mt.report(reset=True)
    yield
    assert not mt._core._torch_active()


def qkv(*shape, dtype=torch.float32, kv=None, dv=None, grad=False):
    b, h, t, d = shape
    tensors = (
        torch.randn(b, h, t, d), torch.randn(b, kv or h, t, d), torch.randn(b, kv or h, t, dv or d)
    )  # fmt: skip
    return [x.to(dtype).requires_grad_(grad) for x in tensors]


def taken(count=None):
    report = mt.report(reset=True)
    assert set(report) <= own, report
    if count is not None:
        assert report.get("taken: attention", 0) == count
    return report


def definition(q, k, v, mask=None, causal=False, scale=None):
    q, k, v = (x.detach().double() for x in (q, k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    return torch.softmax(scores, -1).nan_to_num(0) @ v


def tolerance(dtype):
    # Values of a few units: one rounding to the type, and F32 sums; products of BF16 pairs round weights to BF16.
    return {torch.float32: 4e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]


def variants(q, k):
    tq, tk = q.shape[2], k.shape[2]
    full = torch.rand(q.shape[0], q.shape[1], tq, tk) > 0.3
    yield {}
    yield {"is_causal": True}
    yield {"scale": 0.2}
    yield {"attn_mask": full}
    yield {"attn_mask": full[:1, :1]}
    yield {"attn_mask": full[0, 0]}
    yield {"attn_mask": torch.randn(tq, tk).to(q.dtype)}
    yield {"attn_mask": torch.randn(q.shape[0], 1, 1, tk)}
