"""Dropout through the NumPy door, against its formula in plain Python."""

import numpy as np
import pytest
from conftest import bound, definition, forbidden, kept, philox

import manyheads as mh

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)
SEEDS = (0, 1, 2**32 - 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1)


def drawn(random, b=2, h=4, kv=2, tq=9, tk=13, d=16, dv=24, dtype=np.float32):
    shapes = ((b, h, tq, d), (b, kv, tk, d), (b, kv, tk, dv))
    return [random.standard_normal(shape).astype(dtype) for shape in shapes]


def test_the_generator_gives_its_published_answers():
    # The known answers of Random123, by the authors of the paper.
    for counter, seed, words in (
        ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ):  # fmt: skip
        assert " ".join(f"{word:08x}" for word in philox(counter, seed).ravel()) == words


def test_the_weights_that_are_left_are_those_of_the_formula(random):
    for turn, seed in enumerate(SEEDS):
        for p in (2.0**-24, 0.1, 0.5, 0.9, 1 - 2.0**-24):
            b, kv, group, tq, tk = (int(random.integers(1, n)) for n in (4, 3, 4, 40, 150))
            q, k, v = drawn(random, b, kv * group, kv, tq, tk)
            origin = (0, 0, 0) if turn % 2 else tuple(int(n) for n in random.integers(0, 2**20, 3))
            drop = {"dropout_p": p, "dropout_seed": seed, "dropout_origin": origin}
            _, lse, weights = mh.attention(q, k, v, lse=True, weights=True, **drop)
            _, plain_lse, plain = mh.attention(q, k, v, lse=True, weights=True)
            mask = kept(weights.shape, p, seed, origin)
            assert np.array_equal(weights != 0, mask) and np.array_equal(lse, plain_lse)
            # The factor and the product are rounded once each.
            want = np.where(mask, plain.astype(np.float64) / (1 - p), 0)
            assert (np.abs(weights - want) <= 2.0**-23 * want).all()
            assert np.array_equal(mh.attention_weights(q, k, lse, **drop), weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_out_and_gradients_are_those_of_the_weights_left(random, dtype):
    for p, tq, tk in ((0.1, 9, 13), (0.5, 70, 300), (0.3, 1, 129)):
        q, k, v = drawn(random, tq=tq, tk=tk, dtype=dtype)
        dout = random.standard_normal((2, 4, tq, 24)).astype(dtype)
        dlse = random.standard_normal((2, 4, tq)).astype(np.float32)
        options = {"mask": mh.mask.causal("bottom_right"), "scale": 0.3, "dropout_p": p, "dropout_seed": 7 + tq}
        out, lse = mh.attention(q, k, v, lse=True, out=np.empty(dout.shape, np.float32), **options)
        added = forbidden(np.arange(tk) <= np.arange(tq)[:, None] + tk - tq)
        _, _, weights = definition(q, k, v, added, 0.3)
        factor = kept(weights.shape, p, 7 + tq) / (1 - p)
        wide_q, wide_k, wide_v, wide_dout = (np.asarray(x, np.float64) for x in (q, k, v, dout))
        wide_k, wide_v = (np.repeat(x, 2, 1) for x in (wide_k, wide_v))
        # BF16 rounds weights to BF16.
        eps = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, BF16: 2.0**-8}[np.dtype(dtype)]
        assert np.abs(out - weights * factor @ wide_v).max() <= bound(q, k, v, eps, 0.3) / (1 - p)
        # delta of the out that the backward is given.
        delta = (wide_dout * out).sum(-1, keepdims=True) - dlse[..., None]
        ds = weights * (wide_dout @ wide_v.swapaxes(-1, -2) * factor - delta)
        narrow = lambda x: x.reshape(2, 2, 2, *x.shape[2:]).sum(2)  # noqa: E731
        gradients = lambda s, w, q, k, g: (  # noqa: E731
            0.3 * s @ k, narrow(0.3 * s.swapaxes(-1, -2) @ q), narrow(w.swapaxes(-1, -2) @ g),
        )  # fmt: skip
        want = gradients(ds, weights * factor, wide_q, wide_k, wide_dout)
        terms = gradients(*(np.abs(x) for x in (ds, weights * factor, wide_q, wide_k, wide_dout)))
        # BF16 rounds the weights and ds to BF16 once more.
        inner = 2.0**-8 if dtype is BF16 else 0
        found = mh.attention_backward(q, k, v, out, dout, lse, dlse=dlse, **options)
        for x, y, a in zip(found, want, terms):
            # F32 sums of a few hundred products of a few units, and one rounding to the result's type.
            error = np.abs(x.astype(np.float64) - y)
            assert (error <= 512 * 2.0**-24 * max(1, np.abs(y).max()) + eps * np.abs(y) + inner * a).all()


def test_the_share_that_goes_is_p(random):
    q, k, v = drawn(random, 2, 4, 4, 200, 500)
    for p in (0.01, 0.1, 0.5, 0.9):
        for seed in SEEDS[:3]:
            weights = mh.attention(q, k, v, weights=True, dropout_p=p, dropout_seed=seed)[1]
            gone = weights.size - np.count_nonzero(weights)
            assert abs(gone - p * weights.size) <= 5 * (p * (1 - p) * weights.size) ** 0.5


def test_none_and_all(random):
    q, k, v = drawn(random)
    out, lse, weights = mh.attention(q, k, v, lse=True, weights=True)
    for x, y in zip(mh.attention(q, k, v, lse=True, weights=True, dropout_p=0, dropout_seed=5), (out, lse, weights)):
        assert np.array_equal(x, y)
    drop = {"dropout_p": 1, "dropout_seed": 3}
    none, same, no_weights = mh.attention(q, k, v, lse=True, weights=True, **drop)
    assert not none.any() and not no_weights.any() and np.array_equal(same, lse)
    assert not any(x.any() for x in mh.attention_backward(q, k, v, none, np.ones_like(out), lse, **drop))


def test_parts_of_a_call_drop_as_the_whole(random):
    q, k, v = drawn(random, 3, 4, 2, 40, 70)
    dout = np.ones((3, 4, 40, 24), np.float32)
    drop = {"dropout_p": 0.4, "dropout_seed": 99}
    out, lse, weights = mh.attention(q, k, v, lse=True, weights=True, **drop)
    dq = mh.attention_backward(q, k, v, out, dout, lse, dk=False, dv=False, **drop)[0]
    for entry, head, query in ((0, 0, 7), (1, 2, 0), (2, 2, 33), (0, 2, 39)):
        at = (slice(entry, None), slice(head, None), slice(query, None))
        own = (slice(entry, None), slice(head // 2, None))
        part = (q[at], k[own], v[own])
        origin = {"dropout_origin": (entry, head, query), **drop}
        found = mh.attention(*part, lse=True, weights=True, **origin)
        for x, y in zip(found, (out, lse, weights)):
            assert np.array_equal(x, y[at])
        (own_dq,) = mh.attention_backward(*part, out[at], dout[at], lse[at], dk=False, dv=False, **origin)
        assert np.array_equal(own_dq, dq[at])
    # Packed: a sequence is an entry. Keys count from the first that key_starts leaves.
    starts = np.array([0, 40, 80, 120])
    keys = np.array([0, 70, 140, 210])
    packed = [x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3]) for x in (q, k, v)]
    found = mh.attention(*packed, cu_seqlens_q=starts, cu_seqlens_k=keys, **drop)
    assert np.array_equal(found.reshape(3, 40, 4, 24).swapaxes(1, 2), out)
    begin = np.array([0, 3, 50])
    weights = mh.attention(q, k, v, mask=mh.mask.key_starts(begin), weights=True, **drop)[1]
    mask = kept((3, 4, 40, 70), 0.4, 99)
    for b, first in enumerate(begin):
        assert np.array_equal(weights[b, :, :, first:] != 0, mask[b, :, :, : 70 - first]) and not weights[b, :, :, :first].any()


def test_the_layer_drops_its_weights(random):
    layer = mh.MultiHeadAttention(32, 4)
    x = random.standard_normal((2, 7, 32), dtype=np.float32)
    drop = {"dropout_p": 0.3, "dropout_seed": 2**40 + 1}
    y, weights = layer(x, weights=True, **drop)
    plain = layer(x, weights=True)[1]
    mask = kept(plain.shape, 0.3, 2**40 + 1)
    assert np.array_equal(weights != 0, mask) and np.allclose(weights, np.where(mask, plain / np.float32(0.7), 0), atol=1e-6)
    state = {name: np.asarray(a, np.float64) for name, a in layer.state_dict().items()}
    v = (x @ state["in_proj_weight"][64:].T + state["in_proj_bias"][64:]).reshape(2, 7, 4, 8).swapaxes(1, 2)
    heads = (weights @ v).swapaxes(1, 2).reshape(2, 7, 32)
    assert np.abs(y - (heads @ state["out_proj.weight"].T + state["out_proj.bias"])).max() < 1e-5
    second = layer(x[1:], weights=True, dropout_origin=(1, 0, 0), **drop)
    assert np.array_equal(second[0], y[1:]) and np.array_equal(second[1], weights[1:])
    assert np.array_equal(layer(x, dropout_p=0.0, dropout_seed=4), layer(x))


def test_what_is_wrong_is_an_error(random):
    q, k, v = drawn(random)
    out, lse = mh.attention(q, k, v, lse=True)
    layer = mh.MultiHeadAttention(16, 2)
    for call in (
        lambda **drop: mh.attention(q, k, v, **drop),
        lambda **drop: mh.attention_weights(q, k, lse, **drop),
        lambda **drop: mh.attention_backward(q, k, v, out, out, lse, **drop),
        lambda **drop: layer(np.ones((1, 3, 16), np.float32), **drop),
    ):
        for p in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match="dropout.p is .*, expected 0 to 1"):
                call(dropout_p=p)
        for origin, name in (((-1, 0, 0), "entry"), ((0, -1, 0), "head"), ((0, 0, -1), "query")):
            with pytest.raises(ValueError, match=f"dropout.first_{name} is -1"):
                call(dropout_p=0.5, dropout_origin=origin)
        for wrong in ({"dropout_seed": -1}, {"dropout_seed": 2**64}, {"dropout_origin": 3}, {"dropout_p": "half"}):
            with pytest.raises(TypeError):
                call(**wrong)
    pages = random.standard_normal((2, 2, 16, 16)).astype(np.float32)
    paged = {"page_table": np.array([[0], [1]]), "mask": mh.mask.key_lengths(np.array([13, 16]))}
    with pytest.raises(ValueError, match="dropout with page_table"):
        mh.attention(q, pages, pages, dropout_p=0.5, **paged)
    cache = mh.KVCache(num_kv_heads=2, head_dim=16)
    with pytest.raises(TypeError):
        cache.attention(q[:1, :, :1], [cache.add()], dropout_p=0.5)
