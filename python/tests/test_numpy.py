"""The NumPy door: the numbers, and what each name of it does."""

import doctest
import json
import pathlib
import threading
import time

import numpy as np
import pytest
from conftest import bound, definition, forbidden

import manyheads as mh

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)


def qkv(random, dtype=np.float32, shape=(2, 4, 9, 16), kv_heads=2, tk=13, dv=24):
    b, _, _, d = shape
    q = random.standard_normal(shape).astype(dtype)
    k = random.standard_normal((b, kv_heads, tk, d)).astype(dtype)
    v = random.standard_normal((b, kv_heads, tk, dv)).astype(dtype)
    return q, k, v


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_is_the_definition(random, dtype):
    q, k, v = qkv(random, dtype)
    out, lse, weights = mh.attention(q, k, v, lse=True, weights=True)
    want, want_lse, want_weights = definition(q, k, v)
    assert out.dtype == dtype and lse.dtype == weights.dtype == np.float32
    # Products of BF16 pairs round weights to BF16 too.
    eps = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, BF16: 2.0**-7}[np.dtype(dtype)]
    assert np.abs(out.astype(np.float64) - want).max() <= bound(q, k, v, eps)
    assert np.abs(lse - want_lse).max() <= 2e-5
    assert np.abs(weights - want_weights).max() <= 2e-5


def test_masks_have_the_meaning_of_their_names(random):
    q, k, v = qkv(random)
    i, j = np.arange(9)[:, None], np.arange(13)
    lengths, starts = np.array([13, 5]), np.array([2, 0], np.int32)
    slopes = np.array([0.5, 0.25, 0.125, 0.0625], np.float32)
    allowed = random.random((4, 9, 13)) > 0.3
    bias = random.standard_normal((9, 13)).astype(np.float32)
    ids_q, ids_k = np.sort(random.integers(0, 3, (2, 9))), np.sort(random.integers(0, 3, (2, 13)))
    cases = [
        (mh.mask.causal("top_left"), forbidden(j <= i)),
        (mh.mask.causal("bottom_right"), forbidden(j <= i + 4)),
        (mh.mask.window(2, 1), forbidden((j >= i - 2) & (j <= i + 1))),
        (mh.mask.window(None, 1), forbidden(j <= i + 1)),
        (mh.mask.causal("bottom_right") | mh.mask.window(2, None), forbidden((j <= i + 4) & (j >= i + 2))),
        (mh.mask.key_lengths(lengths), forbidden((j < lengths[:, None])[:, None, None, :])),
        (mh.mask.key_starts(starts), forbidden((j >= starts[:, None])[:, None, None, :])),
        (mh.mask.offsets(np.array([1, 3])) | mh.mask.window(0, 0), forbidden(j == i + np.array([1, 3]).reshape(2, 1, 1, 1))),
        (mh.mask.allowed(allowed), forbidden(allowed)),
        (mh.mask.ignored(allowed), forbidden(~allowed)),
        (allowed, forbidden(allowed)),
        (mh.mask.bias(bias), bias),
        (bias, bias),
        (mh.mask.alibi(slopes) | mh.mask.align("top_left"), -slopes.reshape(4, 1, 1) * np.abs(j - i)),
        (mh.mask.documents(ids_q, ids_k), forbidden((ids_q[:, :, None] == ids_k[:, None, :])[:, None])),
    ]
    for mask, added in cases:
        out, weights = mh.attention(q, k, v, mask=mask, weights=True)
        want, _, want_weights = definition(q, k, v, added)
        np.testing.assert_allclose(weights, want_weights, atol=2e-6, err_msg=repr(mask))
        np.testing.assert_allclose(out, want, atol=bound(q, k, v), err_msg=repr(mask))


def test_sinks_softcap_and_scale(random):
    q, k, v = qkv(random)
    sinks = np.array([0.5, -1, 2, 0], np.float32)
    out, lse = mh.attention(q, k, v, sinks=sinks, scale=0.3, lse=True)
    want, want_lse, _ = definition(q, k, v, scale=0.3, sinks=sinks)
    np.testing.assert_allclose(out, want, atol=bound(q, k, v, scale=0.3))
    np.testing.assert_allclose(lse, want_lse, atol=2e-5)
    capped = mh.attention(q, k, v, softcap=1.5, weights=True)[1]
    scores = np.repeat(k, 2, 1).astype(np.float64) @ q.astype(np.float64).swapaxes(-1, -2) / 4
    want = np.exp(1.5 * np.tanh(scores.swapaxes(-1, -2) / 1.5))
    np.testing.assert_allclose(capped, want / want.sum(-1, keepdims=True), atol=2e-6)


def test_packed_and_paged_calls_have_the_bits_of_each_entry(random):
    q, k, v = qkv(random, shape=(1, 4, 20, 16), tk=33, dv=16)
    cu_q, cu_k = np.array([0, 7, 20]), np.array([0, 21, 33])
    packed = [np.ascontiguousarray(x[0].swapaxes(0, 1)) for x in (q, k, v)]
    out, lse = mh.attention(*packed, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k, lse=True)
    for e in range(2):
        rows, keys = slice(cu_q[e], cu_q[e + 1]), slice(cu_k[e], cu_k[e + 1])
        alone, alone_lse = mh.attention(q[:, :, rows], k[:, :, keys], v[:, :, keys], lse=True)
        assert np.array_equal(out[rows].swapaxes(0, 1), alone[0]) and np.array_equal(lse[:, rows], alone_lse[0])
    pages = [np.zeros((5, 2, 16, 16), np.float32) for _ in range(2)]
    for page, at in ((3, 0), (0, 16), (4, 32)):
        for to, of in zip(pages, (k, v)):
            n = min(16, 33 - at)
            to[page, :, :n] = of[0, :, at : at + n]
    paged = mh.attention(q, *pages, page_table=np.array([[3, 0, 4]]), mask=mh.mask.key_lengths(np.array([33])))
    assert np.array_equal(paged, mh.attention(q, k, v))


def test_the_same_bits_alone_and_in_a_batch_and_for_any_threads(random):
    q, k, v = qkv(random, shape=(3, 4, 70, 64), tk=600, dv=64)
    whole = mh.attention(q, k, v)
    for n in (1, 2, 3, 8):
        assert np.array_equal(whole, mh.attention(q, k, v, num_threads=n))
    for b in range(3):
        assert np.array_equal(whole[b : b + 1], mh.attention(q[b : b + 1], k[b : b + 1], v[b : b + 1]))
    for i in (0, 33, 69):
        assert np.array_equal(whole[:, :, i : i + 1], mh.attention(q[:, :, i : i + 1], k, v))
    results = [None] * 8

    def run(at):
        results[at] = mh.attention(q, k, v)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(whole, r) for r in results)


def test_strides_are_read_where_they_lie_and_out_is_written_where_it_lies(random):
    q, k, v = qkv(random, shape=(2, 4, 9, 16), dv=16)
    want = mh.attention(q, k, v)
    apart = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v)]
    assert np.array_equal(mh.attention(*apart), want)
    assert np.array_equal(mh.attention(q[:, :, ::-1], k, v), want[:, :, ::-1])
    out = np.full((2, 9, 4, 16), 7, np.float32)
    assert mh.attention(q, k, v, out=out.swapaxes(1, 2)) is not None
    assert np.array_equal(out.swapaxes(1, 2), want)


def test_merge_and_explain(random):
    q, k, v = qkv(random, tk=1024, dv=16)
    parts = [mh.attention(q, k[:, :, s], v[:, :, s], lse=True) for s in (slice(0, 500), slice(500, 1024))]
    out, lse = mh.merge_attention(*parts[0], *parts[1])
    want, want_lse = mh.attention(q, k, v, lse=True)
    np.testing.assert_allclose(out, want, atol=1e-6)
    np.testing.assert_allclose(lse, want_lse, atol=1e-5)
    told = mh.explain(q, k, v, mask=mh.mask.causal("bottom_right"))
    assert told.isa == mh.active_isa() and told.bits == mh.active_bits() and "runs" in str(told)


def test_a_cache_has_the_bits_of_one_call(random):
    q, k, v = qkv(random, shape=(1, 4, 40, 32), tk=40, dv=32)
    whole = mh.attention(q, k, v, mask=mh.mask.causal())
    for options in ({}, {"page_size": 0}, {"page_size": 16}):
        cache = mh.KVCache(num_kv_heads=2, head_dim=32, **options)
        s = cache.add()
        for i in range(0, 30, 10):
            cache.append(s, k[0, :, i : i + 10], v[0, :, i : i + 10])
            part = cache.attention(q[:, :, i : i + 10], [s], mask=mh.mask.causal("bottom_right"))
            assert np.array_equal(part, whole[:, :, i : i + 10])
        t = cache.fork(s)
        cache.append(t, k[0, :, 30:], v[0, :, 30:])
        assert (cache.length(s), cache.length(t)) == (30, 40)
        assert np.array_equal(cache.attention(q[:, :, 39:], [t]), whole[:, :, 39:])
        cache.truncate(t, 12)
        cache.remove(s)
        assert cache.length(t) == 12 and cache.bytes > 0
        with pytest.raises(ValueError, match="sequence"):
            cache.length(s)
    cache = mh.KVCache(num_kv_heads=2, head_dim=32, dtype="int8")
    s = cache.add()
    cache.append(s, k[0], v[0])
    assert np.abs(cache.attention(q[:, :, 39:], [s]) - whole[:, :, 39:]).max() < 0.05
    with pytest.raises(MemoryError, match="max_tokens"):
        small = mh.KVCache(num_kv_heads=2, head_dim=32, max_tokens=16)
        small.append(small.add(), k[0], v[0])


def test_the_layer_and_its_weights_go_both_ways(random):
    layer = mh.MultiHeadAttention(64, 4)
    x = random.standard_normal((2, 5, 64)).astype(np.float32)
    state = {name: random.standard_normal(a.shape).astype(np.float32) * 0.1 for name, a in layer.state_dict().items()}
    layer.load_state_dict(state)
    back = layer.state_dict()
    assert all(np.array_equal(back[n], state[n]) and not back[n].flags.writeable for n in state)
    y, weights = layer(x, weights=True)
    q, k, v = (
        (x @ w.T + b).reshape(2, 5, 4, 16).swapaxes(1, 2)
        for w, b in zip(np.split(state["in_proj_weight"], 3), np.split(state["in_proj_bias"], 3))
    )
    heads, _, want_weights = definition(q, k, v)
    want = heads.swapaxes(1, 2).reshape(2, 5, 64) @ state["out_proj.weight"].T + state["out_proj.bias"]
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_allclose(weights, want_weights, atol=1e-5)
    again = mh.MultiHeadAttention(64, 4, state_dict=state)
    assert np.array_equal(again(x), y) and np.array_equal(again(x, x, x), y)
    padding = np.zeros((2, 5), bool)
    padding[1, 3:] = True
    assert not again(x, key_padding_mask=padding, weights=True)[1][1, :, :, 3:].any()
    off = again(x, head_scale=np.array([1, 1, 1, 0], np.float32))
    assert not np.array_equal(off, y)
    with pytest.raises(ValueError, match="7 heads.*would divide"):
        mh.MultiHeadAttention(512, 7)
    with pytest.raises(ValueError, match="in_proj_weight"):
        again.load_state_dict({})


def test_f32_goes_through_tiles_where_that_is_asked_for(random):
    isas = [isa for isa in mh.available_isas() if isa.startswith("amx")]
    if not isas:
        pytest.skip("no tiles here, nor their emulation")
    q, k, v = (random.standard_normal((1, 2, 70, 48), dtype=np.float32) for _ in range(3))
    x = random.standard_normal((2, 9, 64), dtype=np.float32)
    plain = mh.attention(q, k, v), mh.MultiHeadAttention(64, 4)(x)
    found = []
    for isa in isas:
        mh.set_isa(isa)
        try:
            assert mh.explain(q, k, v, bits="f32-tiles-1").bits == "f32-tiles-1"
            layer = mh.MultiHeadAttention(64, 4)  # packed for the instruction set in use
            found.append((mh.attention(q, k, v, bits="f32-tiles-1"), layer(x, bits="f32-tiles-1")))
            with pytest.raises(ValueError, match='attention: bits "f32-tiles-1" cannot be had of BF16 tensors'):
                wide = np.zeros((1, 1, 2, 8), ml_dtypes.bfloat16)
                mh.attention(wide, wide, wide, bits="f32-tiles-1")
        finally:
            mh.set_isa("")
    for of_attention, of_layer in found:
        assert np.array_equal(of_attention, found[0][0]) and np.array_equal(of_layer, found[0][1])
        assert not np.array_equal(of_attention, plain[0]) and not np.array_equal(of_layer, plain[1])
        assert np.abs(of_attention - plain[0]).max() < 1e-5 and np.abs(of_layer - plain[1]).max() < 1e-5


def test_every_public_name_has_a_doctest_that_runs():
    from manyheads import _core

    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    names = {"np": np, **{name: getattr(mh, name) for name in mh.__all__}}
    without = []
    for name in mh.__all__:
        value = getattr(mh, name)
        members = (
            [(f"mask.{m}", getattr(value, m)) for m in dir(value) if not m.startswith("_")] if name == "mask" else [(name, value)]
        )
        for label, member in members:
            text = member.__doc__ or ""
            test = doctest.DocTestParser().get_doctest(text, dict(names), label, None, 0)
            if not test.examples and label not in ("Encoder", "EncoderRun", "Explanation"):  # these need a model, or a call
                without.append(label)
            runner.run(test)
    assert finder and _core
    assert without == [] and runner.failures == 0


def tensors_of(file):
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    types = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
    tensors = {}
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in tensor["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], types[tensor["dtype"]]).reshape(tensor["shape"])
    return tensors


def test_a_decoder_is_read_as_an_encoder():
    folder = pathlib.Path(__file__).parents[2] / "tests/golden/decoder/tiny_grouped"
    expected = tensors_of(folder / "expected.safetensors")
    decoder = mh.Encoder(folder)
    rows = [row[:length].tolist() for row, length in zip(expected["input_ids"], expected["lengths"])]
    run = decoder(rows, heads=True)
    assert np.abs(run.hidden - expected["hidden_states.2"]).max() < 1e-4
    for entry, row in enumerate(rows):
        for head in range(4):
            weights = run.weights(layer=1, head=head, entry=entry)
            want = expected["weights.1"][entry, head, : len(row), : len(row)]
            assert np.abs(weights - want).max() < 1e-5 and not np.triu(weights, 1).any()


def test_limits_are_of_this_machine_and_leave_other_threads_running():
    seen, done = [], threading.Event()

    def count():
        while not done.is_set():
            seen.append(None)
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    before = len(seen)
    found = mh.limits(num_threads=1)
    during = len(seen) - before
    done.set()
    other.join()
    assert during > 10
    assert found.isa == mh.active_isa() and found.threads == 1
    assert found.fma_gflops > 0 and found.memory_gbs == found.memory_gbs_one_thread > 0
    assert min(found.bf16_dot_gflops, found.bf16_tile_gflops, found.int8_dot_gflops) >= 0
    assert found.l1_bytes <= found.l2_bytes <= found.l3_bytes
    assert repr(found) == f"Limits({found})" and f"{found.memory_gbs:.1f} GB/s" in str(found)
    with pytest.raises(ValueError, match="^limits: num_threads is -1, expected 0 or more$"):
        mh.limits(num_threads=-1)
    with pytest.raises(AttributeError):
        found.fma_gflops = 1
