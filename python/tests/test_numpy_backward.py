"""Gradients through the NumPy door, against the chain rule in float64."""

import numpy as np
import pytest
from conftest import definition, forbidden

import manyheads as mh

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)


def drawn(random, dtype=np.float32):
    q = random.standard_normal((2, 4, 9, 16)).astype(dtype)
    k = random.standard_normal((2, 2, 13, 16)).astype(dtype)
    v = random.standard_normal((2, 2, 13, 24)).astype(dtype)
    return q, k, v, random.standard_normal((2, 4, 9, 24)).astype(dtype)


def gradients(q, k, v, dout, bias=None, sinks=None, dlse=None, scale=None):
    """dq, dk, dv, those of the scores [B,Hq,Tq,Tk] and those of the sinks, in float64."""
    out, lse, p = definition(q, k, v, bias, scale, sinks)
    q, k, v, dout = (np.asarray(x, np.float64) for x in (q, k, v, dout))
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, 1), np.repeat(v, groups, 1)
    delta = (dout * out).sum(-1)
    if dlse is not None:
        delta = delta - dlse
    ds = p * (dout @ v.swapaxes(-1, -2) - delta[..., None])
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    narrow = lambda x: x.reshape(x.shape[0], -1, groups, *x.shape[2:]).sum(2)  # noqa: E731
    dsinks = None
    if sinks is not None:
        dsinks = -(np.exp(np.asarray(sinks, np.float64)[:, None] - lse) * delta).sum((0, 2))
    dk, dv = ds.swapaxes(-1, -2) @ q * scale, p.swapaxes(-1, -2) @ dout
    return ds @ k * scale, narrow(dk), narrow(dv), ds, dsinks


def close(found, want, eps=2.0**-24):
    """F32 sums of a few dozen products of a few units, and one rounding to the result's type."""
    assert found.shape == want.shape
    assert np.abs(found.astype(np.float64) - want).max() <= (64 * 2.0**-24 + eps) * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_is_the_chain_rule(random, dtype):
    q, k, v, dout = drawn(random, dtype)
    mask, added = mh.mask.causal("bottom_right"), forbidden(np.arange(13) <= np.arange(9)[:, None] + 4)
    # The forward's out in F32: its rounding is not the backward's.
    out, lse = mh.attention(q, k, v, mask=mask, lse=True, out=np.empty(dout.shape, np.float32))
    want = gradients(q, k, v, dout, added)
    eps = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, BF16: 2.0**-8}[np.dtype(dtype)]
    # BF16's forward rounds its weights to BF16 too: out, and with it delta, is off by as much.
    slack = 2.0**-7 if dtype == BF16 else eps
    found = mh.attention_backward(q, k, v, out, dout, lse, mask=mask)
    for x, y in zip(found, want):
        assert x.dtype == dtype
        close(x, y, slack)
    wide = [np.full(y.shape, np.nan, np.float32) for y in want[:3]]
    again = mh.attention_backward(q, k, v, out, dout, lse, mask=mask, dq=wide[0], dk=wide[1], dv=wide[2])
    assert all(x is y for x, y in zip(again, wide))
    for x, y in zip(wide, found):
        assert np.array_equal(x.astype(dtype), y)


def test_of_what_is_added_to_the_scores_of_sinks_and_by_lse(random):
    q, k, v, dout = drawn(random)
    sinks = random.standard_normal(4).astype(np.float32)
    slopes = np.array([0.5, 0.25, 0.125, 0.0625], np.float32)
    dlse = random.standard_normal((2, 4, 9)).astype(np.float32)
    distance = np.abs(np.arange(13) - np.arange(9)[:, None])
    for shape, axes in (((9, 13), (0, 1)), ((2, 1, 1, 13), (1, 2)), ((4, 9, 1), (0, 3)), ((2, 4, 9, 13), ())):
        bias = random.standard_normal(shape).astype(np.float32)
        mask = mh.mask.bias(bias) | mh.mask.alibi(slopes) | mh.mask.align("top_left")
        options = {"mask": mask, "scale": 0.3, "sinks": sinks}
        out, lse = mh.attention(q, k, v, lse=True, **options)
        found = mh.attention_backward(
            q, k, v, out, dout, lse, dlse=dlse, dbias=True, dsinks=True, dalibi_slopes=True, **options
        )
        want = gradients(q, k, v, dout, bias - slopes[:, None, None] * distance, sinks, dlse, 0.3)
        for x, y in zip(found[:3], want):
            close(x, y)
        close(found[3], want[3].sum(axes, keepdims=True).reshape(shape))
        close(found[4], want[4])
        close(found[5], -(want[3] * distance).sum((0, 2, 3)))
        (alone,) = mh.attention_backward(
            q, k, v, out, dout, lse, dlse=dlse, dq=False, dk=False, dv=False, dbias=True, **options
        )
        assert np.array_equal(alone, found[3])


def test_adds_to_what_is_there_and_writes_any_strides(random):
    q, k, v, dout = drawn(random)
    out, lse = mh.attention(q, k, v, lse=True)
    dq, dk, dv = mh.attention_backward(q, k, v, out, dout, lse)
    into = [np.ones(x.shape[:-1] + (2 * x.shape[-1],), np.float32)[..., ::2] for x in (dq, dk, dv)]
    mh.attention_backward(q, k, v, out, dout, lse, dq=into[0], dk=into[1], dv=into[2], accumulate=True)
    for x, y in zip(into, (dq, dk, dv)):
        assert np.abs(x - (1 + y)).max() <= 2.0**-20 and (x.base[..., 1::2] == 1).all()
    uniform = np.broadcast_to(np.float32(1), dout.shape)
    a = mh.attention_backward(q, k, v, out, uniform, lse)
    b = mh.attention_backward(q, k, v, out, np.ones_like(dout), lse)
    assert all(np.array_equal(x, y) for x, y in zip(a, b))


def test_bits_are_those_of_any_threads_of_each_entry_and_of_packed_sequences(random):
    lengths = np.array([300, 0, 70, 700])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = int(starts[-1])
    q, k = (random.standard_normal((rows, h, 16)).astype(np.float32) for h in (4, 2))
    v, dout = (random.standard_normal((rows, h, 24)).astype(np.float32) for h in (2, 4))
    mask = mh.mask.causal() | mh.mask.window(200, 0)
    packed = {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "mask": mask}
    out, lse = mh.attention(q, k, v, lse=True, **packed)
    want = mh.attention_backward(q, k, v, out, dout, lse, num_threads=1, **packed)
    for threads in (2, 3, 8):
        found = mh.attention_backward(q, k, v, out, dout, lse, num_threads=threads, **packed)
        assert all(np.array_equal(x, y) for x, y in zip(found, want))
    for begin, end in zip(starts, starts[1:]):
        if begin == end:
            continue
        one = [x[begin:end].swapaxes(0, 1)[None] for x in (q, k, v, out, dout)]
        found = mh.attention_backward(*one, lse[None, :, begin:end], mask=mask)
        for x, y in zip(found, want):
            assert np.array_equal(x[0].swapaxes(0, 1), y[begin:end])


def test_what_is_wrong_is_an_error_that_names_it(random):
    q, k, v, dout = drawn(random)
    out, lse = mh.attention(q, k, v, lse=True)
    whole = {"q": q, "k": k, "v": v, "out": out, "dout": dout, "lse": lse}
    read_only = np.zeros_like(q)
    read_only.setflags(write=False)
    for changed, text in (
        ({"dout": dout[:1]}, "dout"),
        ({"out": out[..., :8]}, "out"),
        ({"lse": lse[:, :1]}, "lse is .* expected F32"),
        ({"dlse": lse.astype(np.float64)}, "dlse is .* expected F32"),
        ({"q": q.astype(np.float64)}, "q is"),
        ({"dbias": True}, "dbias is True and mask has no float mask"),
        ({"dsinks": True}, "dsinks is True and there are no sinks"),
        ({"dalibi_slopes": True}, "dalibi_slopes is True and mask has no ALiBi"),
        ({"accumulate": True}, "accumulate adds to an array, dq is True"),
        ({"dq": np.zeros((2, 4, 9, 8), np.float32)}, "dq is"),
        ({"dq": np.zeros(q.shape)}, "dq is"),
        ({"dq": read_only}, "dq"),
        ({"dq": q}, "dq .* overlaps q"),
        ({"num_threads": -1}, "num_threads is -1"),
    ):
        with pytest.raises((ValueError, TypeError), match="attention_backward: .*" + text):
            mh.attention_backward(**{**whole, **changed})
