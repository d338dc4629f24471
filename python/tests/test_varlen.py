"""torch.nn.attention.varlen under use(), against the definition in float64."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no varlen_attn")
if not {"window_size", "enable_gqa"} <= set(inspect.signature(varlen.varlen_attn).parameters):
    pytest.skip("this PyTorch's varlen_attn has no window_size or no enable_gqa", allow_module_level=True)

from test_flash_attn import TYPES, close, close_lse, one, paged, starts_of  # noqa: E402

import manyheads.torch as mt  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(6)
    mt.report(reset=True)


def packed_case(dtype=torch.float32):
    lengths_q, lengths_k = [4, 0, 5, 7], [5, 3, 7, 33]
    q, k, v = (torch.randn(sum(t), n, 16).to(dtype) for t, n in ((lengths_q, 4), (lengths_k, 2), (lengths_k, 2)))
    return q, k, v, lengths_q, lengths_k


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (3, 0), (2, 4)])
def test_varlen_attn_is_taken(dtype, window):
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    q, k, v, lengths_q, lengths_k = packed_case(dtype)
    cu_q, cu_k = starts_of(lengths_q), starts_of(lengths_k)
    with mt.use():
        out, lse = varlen_attn(
            q, k, v, cu_q, cu_k, 7, 33, return_aux=AuxRequest(lse=True), window_size=window, enable_gqa=True, scale=0.3
        )
        assert mt.report(reset=True) == {"taken: varlen_attn": 1}
    parts = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k))
    wants = [one(*x, scale=0.3, window=window) for x in parts]
    close(out, torch.cat([w[0] for w in wants]), dtype, v)
    close_lse(lse, torch.cat([w[1] for w in wants], 1))
    with pytest.raises(NotImplementedError):
        varlen_attn(q, k, v, cu_q, cu_k, 7, 33, enable_gqa=True)


def keyword(name):
    from torch.nn.attention.varlen import varlen_attn

    if name not in inspect.signature(varlen_attn).parameters:
        pytest.skip(f"this PyTorch's varlen_attn has no {name}")
    return varlen_attn


def test_varlen_attn_with_used_keys_and_pages():
    varlen_attn = keyword("seqused_k")
    q, k, v, lengths_q, lengths_k = packed_case()
    cu_q, cu_k = starts_of(lengths_q), starts_of(lengths_k)
    used = [5, 1, 0, 20]
    parts = [x.split(lengths_k) for x in (k, v)]
    rest = {"window_size": (-1, 0), "enable_gqa": True, "seqused_k": torch.tensor(used, dtype=torch.int32)}
    cut = [[x[:n] for x, n in zip(whole, used)] for whole in parts]
    want = torch.cat([one(*x, causal=True)[0] for x in zip(q.split(lengths_q), *cut)])
    with mt.use():
        close(varlen_attn(q, k, v, cu_q, cu_k, 7, 33, **rest), want, torch.float32, v)
        keyword("block_table")
        k_pages, v_pages, table = paged(np.random.default_rng(5), *cut, 16)
        out = varlen_attn(q, k_pages, v_pages, cu_q, None, 7, 33, block_table=table, num_splits=1, **rest)
        close(out, want, torch.float32, v)
        assert mt.report(reset=True) == {"taken: varlen_attn": 2}
        with pytest.raises(RuntimeError, match="sequence 3 .* seqused_k 34"):
            bad = rest | {"seqused_k": torch.tensor([0, 0, 0, 34])}
            varlen_attn(q, k, v, cu_q, cu_k, 7, 33, **bad)
        with pytest.raises(RuntimeError, match="block_table needs seqused_k"):
            varlen_attn(q, k_pages, v_pages, cu_q, None, 7, 33, block_table=table, enable_gqa=True)


@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (3, 0), (2, 4)])
def test_varlen_attn_has_gradients(window):
    q, k, v, lengths_q, lengths_k = packed_case()
    cu_q, cu_k = starts_of(lengths_q), starts_of(lengths_k)
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    theirs = [x.double().requires_grad_() for x in (q, k, v)]
    with mt.use():
        out = varlen.varlen_attn(*ours, cu_q, cu_k, 7, 33, window_size=window, enable_gqa=True, scale=0.3)
        weight = torch.randn_like(out)
        (out * weight).sum().backward()
        assert mt.report() == {"taken: varlen_attn": 1, "taken: backward": 1}
    parts = zip(theirs[0].split(lengths_q), theirs[1].split(lengths_k), theirs[2].split(lengths_k))
    want = torch.cat([one(*x, scale=0.3, window=window)[0] for x in parts])
    (want * weight).sum().backward()
    for x, y in zip(ours, theirs):
        assert (x.grad - y.grad).abs().max() <= 1e-5 * max(1, y.grad.abs().max().item())


def test_varlen_attn_into_a_tensor_and_compiled():
    q, k, v, lengths_q, lengths_k = packed_case()
    arguments = (q, k, v, starts_of(lengths_q), starts_of(lengths_k), 7, 33)
    with mt.use():
        want = varlen.varlen_attn(*arguments, enable_gqa=True)
        compiled = torch.compile(lambda *x: varlen.varlen_attn(*x, enable_gqa=True) * 1)(*arguments)
        assert torch.equal(compiled, want)
        if hasattr(varlen, "varlen_attn_out"):
            out = torch.empty(16, 8, 16)[:, ::2]
            varlen.varlen_attn_out(out, *arguments, enable_gqa=True)
            assert torch.equal(out, want)
        wide = torch.randn(sum(lengths_k), 2, 24)
        out = varlen.varlen_attn(q, k, wide, *arguments[3:], enable_gqa=True)
        parts = zip(q.split(lengths_q), k.split(lengths_k), wide.split(lengths_k))
        close(out, torch.cat([one(*x)[0] for x in parts]), torch.float32, wide)
