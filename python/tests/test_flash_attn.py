"""flash-attn's functions against their definition in float64."""

import doctest
import inspect
import pathlib
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    pytest.skip("PyTorch is older than 2.10", allow_module_level=True)

import manyheads.flash_attn as fa  # noqa: E402
import manyheads.torch as mt  # noqa: E402

TYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(5)
    mt.report(reset=True)


def one(q, k, v, scale=None, causal=False, window=(-1, -1), softcap=0.0, slopes=None, start=0):
    """out [T,H,D] and lse [H,T] of one sequence; keys before `start` do not exist."""
    groups = q.shape[1] // k.shape[1]
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))
    k, v = (x.repeat_interleave(groups, 0) for x in (k, v))
    tq, tk = q.shape[1], k.shape[1]
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(tk) - torch.arange(tq)[:, None] - (tk - tq)
    if slopes is not None:
        scores = scores - slopes.double().reshape(-1, 1, 1) * distance.abs()
    forbidden = (torch.arange(tk) < start).expand(tq, tk).clone()
    if causal:
        forbidden |= distance > 0
    if window[0] >= 0:
        forbidden |= distance < -window[0]
    if window[1] >= 0:
        forbidden |= distance > window[1]
    scores = scores.masked_fill(forbidden, -torch.inf)
    lse = torch.logsumexp(scores, -1) if tk else torch.full((q.shape[0], tq), -torch.inf, dtype=torch.float64)
    empty = forbidden.all(-1)[:, None]
    weights = torch.softmax(scores.masked_fill(empty, 0), -1).masked_fill(empty, 0)
    return (weights @ v).transpose(0, 1), lse


def close(found, want, dtype, values):
    """Values of a few units: F32 sums, one rounding to the type; BF16 weights beside BF16 values."""
    relative = {torch.float32: 2.0**-19, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}[dtype]
    assert found.dtype == dtype and found.is_contiguous() and found.shape == want.shape
    if found.numel():
        size = values.double().abs().max().item() if values.numel() else 1
        assert (found.double() - want).abs().max().item() <= relative * max(1.0, size)


def close_lse(found, want):
    assert found.dtype == torch.float32 and found.shape == want.shape
    assert torch.equal(found == -torch.inf, want == -torch.inf)
    both = want > -torch.inf
    # A score is a sum of D products: (D + 2) 2^-24 of its size, some tens at most.
    assert torch.allclose(found[both].double(), want[both], rtol=1e-5, atol=1e-4)


def draw(generator, high, low=0):
    return int(generator.integers(low, high))


def options(generator, heads, batch=None):
    """Random arguments of flash-attn, and the same for the definition."""
    asked, defined = {}, {}
    if draw(generator, 2):
        asked["causal"] = defined["causal"] = True
    if draw(generator, 3) == 0:
        asked["window_size"] = defined["window"] = (draw(generator, 20, -1), draw(generator, 20, -1))
    if draw(generator, 4) == 0:
        asked["softcap"] = defined["softcap"] = 1.5
    if draw(generator, 4) == 0:
        asked["softmax_scale"] = defined["scale"] = 0.3
    if draw(generator, 3) == 0:
        asked["alibi_slopes"] = torch.rand(*([batch] if batch is not None and draw(generator, 2) else []), heads)
    return asked, defined


def slopes_of(asked, b):
    slopes = asked.get("alibi_slopes")
    return slopes[b] if slopes is not None and slopes.dim() == 2 else slopes


def heads_of(generator):
    kv = draw(generator, 4, 1)
    return kv * draw(generator, 4, 1), kv


def packed_lengths(generator, batch, high):
    return [draw(generator, high) for _ in range(batch)]


def starts_of(lengths, dtype=torch.int32):
    return torch.tensor([0, *np.cumsum(lengths)], dtype=dtype)


def test_signatures_are_those_of_flash_attn():
    rest = (
        "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, "
        "deterministic=False, return_attn_probs=False"
    )
    lengths = "cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
    for name, signature in {
        "flash_attn_func": f"(q, k, v, {rest})",
        "flash_attn_kvpacked_func": f"(q, kv, {rest})",
        "flash_attn_qkvpacked_func": f"(qkv, {rest})",
        "flash_attn_varlen_func": f"(q, k, v, {lengths}, {rest}, block_table=None)",
        "flash_attn_varlen_kvpacked_func": f"(q, kv, {lengths}, {rest})",
        "flash_attn_varlen_qkvpacked_func": f"(qkv, cu_seqlens, max_seqlen, {rest})",
        "flash_attn_with_kvcache": "(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, "
        "cache_seqlens=None, cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, "
        "causal=False, window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0, "
        "return_softmax_lse=False)",
    }.items():
        assert str(inspect.signature(getattr(fa, name))) == signature
        assert name in fa.__all__


def test_random_calls():
    generator = np.random.default_rng(1)
    for _ in range(300):
        dtype = TYPES[draw(generator, 3)]
        b, tq, tk, d = draw(generator, 4, 1), draw(generator, 40, 1), draw(generator, 60, 1), draw(generator, 70, 1)
        h, kv = heads_of(generator)
        asked, defined = options(generator, h, b)
        q, k, v = (torch.randn(b, t, n, d).to(dtype) for t, n in ((tq, h), (tk, kv), (tk, kv)))
        if draw(generator, 2):
            wide = torch.randn(b, tk, 2, kv, d).to(dtype)
            k, v = wide.unbind(2)
            out, lse, probs = fa.flash_attn_kvpacked_func(q, wide, return_attn_probs=True, **asked)
        else:
            out, lse, probs = fa.flash_attn_func(q, k, v, return_attn_probs=True, deterministic=True, **asked)
        assert probs is None
        wants = [one(q[i], k[i], v[i], slopes=slopes_of(asked, i), **defined) for i in range(b)]
        close(out, torch.stack([w[0] for w in wants]), dtype, v)
        close_lse(lse, torch.stack([w[1] for w in wants]))
        assert torch.equal(out, fa.flash_attn_func(q, k, v, **asked))


def test_random_packed_calls():
    generator = np.random.default_rng(2)
    for _ in range(300):
        dtype = TYPES[draw(generator, 3)]
        index = [torch.int32, torch.int64][draw(generator, 2)]
        b, d = draw(generator, 5, 1), draw(generator, 70, 1)
        h, kv = heads_of(generator)
        lengths_q, lengths_k = packed_lengths(generator, b, 25), packed_lengths(generator, b, 50)
        kind = draw(generator, 4)
        if kind == 0:
            lengths_k, kv = lengths_q, h
        cu_q, cu_k = starts_of(lengths_q, index), starts_of(lengths_k, index)
        asked, defined = options(generator, h, b if kind != 3 else None)
        q, k, v = (torch.randn(sum(t), n, d).to(dtype) for t, n in ((lengths_q, h), (lengths_k, kv), (lengths_k, kv)))
        longest = max(lengths_q), max(lengths_k)
        if kind == 0:
            out, lse, _ = fa.flash_attn_varlen_qkvpacked_func(
                torch.stack([q, k, v], 1), cu_q, longest[0], return_attn_probs=True, **asked
            )
        elif kind == 1:
            out, lse, _ = fa.flash_attn_varlen_kvpacked_func(
                q, torch.stack([k, v], 1), cu_q, cu_k, *longest, return_attn_probs=True, **asked
            )
        elif kind == 2:
            out, lse, _ = fa.flash_attn_varlen_func(q, k, v, cu_q, cu_k, *longest, return_attn_probs=True, **asked)
        else:
            size = 16 * draw(generator, 3, 1)
            k_pages, v_pages, table = paged(generator, k.split(lengths_k), v.split(lengths_k), size)
            out, lse, _ = fa.flash_attn_varlen_func(
                q, k_pages, v_pages, cu_q, cu_k, *longest, return_attn_probs=True, block_table=table, **asked
            )
        wants = [
            one(*x, slopes=slopes_of(asked, i), **defined)
            for i, x in enumerate(zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k)))
        ]
        close(out, torch.cat([w[0] for w in wants]), dtype, v)
        close_lse(lse, torch.cat([w[1] for w in wants], 1))


def paged(generator, keys, values, size, spare=0):
    """Keys and values of each sequence in pages of a random order; all else is NaN."""
    need = [-(-(len(x) + spare) // size) for x in keys]
    table = torch.zeros(len(keys), max(1, *need), dtype=torch.int32)
    order = generator.permutation(sum(need) + 2)
    k_pages = torch.full((sum(need) + 2, size, *keys[0].shape[1:]), torch.nan, dtype=keys[0].dtype)
    v_pages = k_pages.clone()
    for b, count in enumerate(need):
        for page in range(count):
            at, order = int(order[0]), order[1:]
            table[b, page] = at
            part = slice(page * size, (page + 1) * size)
            k_pages[at, : len(keys[b][part])] = keys[b][part]
            v_pages[at, : len(keys[b][part])] = values[b][part]
    return k_pages, v_pages, table


def test_random_calls_with_a_cache():
    generator = np.random.default_rng(3)
    for _ in range(400):
        dtype = TYPES[draw(generator, 3)]
        b, tq, size, d = draw(generator, 4, 1), draw(generator, 6, 1), draw(generator, 90, 8), draw(generator, 70, 1)
        h, kv = heads_of(generator)
        asked, defined = options(generator, h, b)
        new = draw(generator, 5)
        lengths = [draw(generator, size - new + 1) for _ in range(b)]
        if draw(generator, 3) == 0:
            lengths = [lengths[0]] * b
        q, k_new, v_new = (torch.randn(b, t, n, d).to(dtype) for t, n in ((tq, h), (new, kv), (new, kv)))
        keys, values = ([torch.randn(n, kv, d).to(dtype) for n in lengths] for _ in range(2))
        starts = [0] * b
        given = {"cache_seqlens": torch.tensor(lengths, dtype=torch.int32)}
        if len(set(lengths)) == 1 and draw(generator, 2):
            given["cache_seqlens"] = lengths[0]
        if draw(generator, 3) == 0:
            k_cache, v_cache, given["block_table"] = paged(generator, keys, values, 16 * draw(generator, 3, 1), new)
            at = [given["block_table"]]

            def read(cache, i, n):
                return cache[at[0][i].long()].flatten(0, 1)[:n]

        else:
            entries = list(range(b))
            count = b + draw(generator, 3)
            if draw(generator, 2):
                entries = [int(e) for e in generator.permutation(count)[:b]]
                given["cache_batch_idx"] = torch.tensor(entries, dtype=torch.int32)
            if draw(generator, 2):
                starts = [draw(generator, n + 1) for n in lengths]
                given["cache_leftpad"] = torch.tensor(starts, dtype=torch.int32)
            k_cache, v_cache = (torch.full((count, size, kv, d), torch.nan, dtype=dtype) for _ in range(2))
            for e, x, y in zip(entries, keys, values):
                k_cache[e, : len(x)], v_cache[e, : len(y)] = x, y

            def read(cache, i, n):
                return cache[entries[i], :n]

        before = k_cache.clone(), v_cache.clone()
        where = k_cache.data_ptr()
        if new:
            given |= {"k": k_new, "v": v_new}
            keys, values = ([torch.cat([x, y]) for x, y in zip(*pair)] for pair in ((keys, k_new), (values, v_new)))
        out, lse = fa.flash_attn_with_kvcache(
            q, k_cache, v_cache, return_softmax_lse=True, num_splits=draw(generator, 3), **given, **asked
        )
        wants = [
            one(q[i], keys[i], values[i], slopes=slopes_of(asked, i), start=starts[i], **defined) for i in range(b)
        ]
        close(out, torch.stack([w[0] for w in wants]), dtype, torch.cat(values))
        close_lse(lse, torch.stack([w[1] for w in wants]))
        assert k_cache.data_ptr() == where
        for cache, parts, old in ((k_cache, keys, before[0]), (v_cache, values, before[1])):
            for i, x in enumerate(parts):
                assert torch.equal(read(cache, i, len(x)), x)
            assert (torch.isnan(old) & ~torch.isnan(cache)).sum().item() == new * b * kv * d


def test_a_whole_cache_is_read_without_lengths():
    q, k, v = torch.randn(2, 3, 4, 16), torch.randn(3, 40, 2, 16), torch.randn(3, 40, 2, 16)
    want = fa.flash_attn_func(q, k[:2], v[:2], causal=True)
    assert torch.equal(fa.flash_attn_with_kvcache(q, k, v, causal=True), want)
    index = torch.tensor([2, 0])
    want = fa.flash_attn_func(q, k[index], v[index], causal=True)
    assert torch.equal(fa.flash_attn_with_kvcache(q, k, v, causal=True, cache_batch_idx=index), want)


def test_nothing_is_copied():
    """Calls see tensors of the caller's memory alone."""
    seen = []

    class Log(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append((function.name(), args, kwargs or {}))
            return function(*args, **(kwargs or {}))

    def ran(call, *memory):
        seen.clear()
        with Log():
            result = call()
        assert {name for name, _, _ in seen} <= {
            "manyheads::attention", "aten::transpose.int", "aten::unbind.int", "aten::slice.Tensor",
            "aten::select.int", "aten::alias",
            "aten::index_put_", "aten::arange", "aten::full", "aten::add.Tensor", "aten::unsqueeze", "aten::_to_copy",
            "aten::min", "aten::max", "aten::_local_scalar_dense", "aten::detach",
        }  # fmt: skip
        (args,) = [args for name, args, _ in seen if name == "manyheads::attention"]
        assert [x.untyped_storage().data_ptr() for x in args[:3]] == [x.untyped_storage().data_ptr() for x in memory]
        return result

    for dtype in TYPES:
        q, k, v = (torch.randn(2, 32, n, 16).to(dtype) for n in (4, 2, 2))
        assert ran(lambda: fa.flash_attn_func(q, k, v), q, k, v).is_contiguous()
        qkv, kv = torch.randn(2, 32, 3, 4, 16).to(dtype), torch.randn(2, 32, 2, 2, 16).to(dtype)
        assert ran(lambda: fa.flash_attn_qkvpacked_func(qkv), qkv, qkv, qkv).is_contiguous()
        assert ran(lambda: fa.flash_attn_kvpacked_func(q, kv), q, kv, kv).is_contiguous()
        cu = torch.tensor([0, 5, 32])
        assert ran(
            lambda: fa.flash_attn_varlen_qkvpacked_func(qkv[0], cu, 27), qkv, qkv, qkv
        ).is_contiguous()
        new = q[:, :1, :2]
        index = torch.tensor([1, 0])
        for extra in ({}, {"cache_batch_idx": index}, {"cache_leftpad": index}):
            ran(lambda: fa.flash_attn_with_kvcache(q[:, :1], k, v, new, new, cache_seqlens=7, **extra), q, k, v)


def test_gradients():
    generator = np.random.default_rng(4)
    for turn in range(60):
        b, tq, tk, d = draw(generator, 3, 1), draw(generator, 12, 1), draw(generator, 12, 1), 8
        h, kv = heads_of(generator)
        asked, defined = options(generator, h, b)
        lengths_q, lengths_k = packed_lengths(generator, b, 9), packed_lengths(generator, b, 9)
        packed = turn % 2 == 1
        if packed:
            inputs = [torch.randn(sum(t), n, d) for t, n in ((lengths_q, h), (lengths_k, kv), (lengths_k, kv))]
        else:
            inputs = [torch.randn(b, t, n, d) for t, n in ((tq, h), (tk, kv), (tk, kv))]
        ours = [x.clone().requires_grad_() for x in inputs]
        theirs = [x.double().requires_grad_() for x in inputs]
        if packed:
            cu = starts_of(lengths_q), starts_of(lengths_k)
            out = fa.flash_attn_varlen_func(*ours, *cu, 9, 9, **asked)
            parts = zip(theirs[0].split(lengths_q), theirs[1].split(lengths_k), theirs[2].split(lengths_k))
            want = torch.cat([one(*x, slopes=slopes_of(asked, i), **defined)[0] for i, x in enumerate(parts)])
            with torch.no_grad():
                assert torch.equal(out, fa.flash_attn_varlen_func(*inputs, *cu, 9, 9, **asked))
        else:
            out = fa.flash_attn_func(*ours, **asked)
            want = torch.stack([one(*x, slopes=slopes_of(asked, i), **defined)[0] for i, x in enumerate(zip(*theirs))])
        weight = torch.randn_like(out)
        (out * weight).sum().backward()
        (want * weight.double()).sum().backward()
        for x, y in zip(ours, theirs):
            found = torch.zeros_like(x) if x.grad is None else x.grad
            wanted = torch.zeros_like(y) if y.grad is None else y.grad
            assert found.shape == wanted.shape
            if found.numel():
                assert (found - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max().item()), (asked, packed)


def test_compiled():
    q, k, v = (torch.randn(2, 9, 4, 16) for _ in range(3))
    qkv = torch.stack([q, k, v], 2)
    call = torch.compile(lambda x: fa.flash_attn_qkvpacked_func(x, causal=True, window_size=(3, 0)), fullgraph=True)
    found = call(qkv)
    assert torch.equal(found, fa.flash_attn_func(q, k, v, causal=True, window_size=(3, 0))) and found.is_contiguous()


def test_what_is_missing_is_refused_by_name():
    x = torch.randn(1, 32, 2, 16)
    qkv, kv, rows = x[:, :, None].expand(1, 32, 3, 2, 16), x[:, :, None].expand(1, 32, 2, 2, 16), x[0]
    cu = torch.tensor([0, 32], dtype=torch.int32)
    table = torch.zeros(1, 2, dtype=torch.int32)
    pages = torch.randn(2, 16, 2, 16)
    one_index = torch.zeros(1, dtype=torch.int32)
    learned = rows.clone().requires_grad_()
    for name, argument, arguments, extra in (
        ("flash_attn_varlen_func", "block_table", (learned, pages, pages, cu, cu, 4, 4), {"block_table": table}),
        (
            "flash_attn_varlen_func", "alibi_slopes", (rows, pages, pages, cu, cu, 4, 4),
            {"block_table": table, "alibi_slopes": torch.ones(1, 2)},
        ),
        (
            "flash_attn_varlen_func", "dropout_p", (rows, pages, pages, cu, cu, 4, 4),
            {"block_table": table, "dropout_p": 0.1},
        ),
        ("flash_attn_with_kvcache", "rotary_cos", (x, x, x), {"rotary_cos": x}),
        ("flash_attn_with_kvcache", "rotary_sin", (x, x, x), {"rotary_sin": x}),
        (
            "flash_attn_with_kvcache", "cache_batch_idx", (x, pages, pages),
            {"cache_batch_idx": one_index, "block_table": table},
        ),
        (
            "flash_attn_with_kvcache", "cache_leftpad", (x, pages, pages),
            {"cache_leftpad": one_index, "block_table": table},
        ),
    ):  # fmt: skip
        with pytest.raises(NotImplementedError, match=f"^{name}: {argument}"):
            getattr(fa, name)(*arguments, **extra)


def test_bad_calls_are_errors_and_write_nothing():
    x, small = torch.randn(1, 32, 2, 16), torch.randn(1, 1, 2, 16)
    rows, cu = x[0], torch.tensor([0, 32], dtype=torch.int32)
    pages, table = torch.randn(2, 16, 2, 16), torch.zeros(1, 2, dtype=torch.int32)
    cache = torch.randn(1, 32, 2, 16)
    kept, learned = (cache.clone(), pages.clone()), rows.clone().requires_grad_()
    kvcache = fa.flash_attn_with_kvcache
    for call, text in (
        (lambda: fa.flash_attn_func(x[0], x, x), "q has 3 axes"),
        (lambda: fa.flash_attn_func(x, x.to("meta"), x), "k is on meta"),
        (lambda: fa.flash_attn_func(x, x, x.half()), "v is torch.float16"),
        (lambda: fa.flash_attn_func(x, x, x[:, :3]), "k and v differ"),
        (lambda: fa.flash_attn_func(x, x[..., :8], x), "head size"),
        (lambda: fa.flash_attn_func(x[:, :, :1], x, x), "no multiple"),
        (lambda: fa.flash_attn_func(x.repeat(2, 1, 1, 1), x, x), "differ in the batch"),
        (lambda: fa.flash_attn_func(x, x, x, alibi_slopes=torch.ones(3)), "alibi_slopes is"),
        (lambda: fa.flash_attn_func(x, x, x, softmax_scale=float("nan")), "scale"),
        (lambda: fa.flash_attn_qkvpacked_func(x), "qkv is"),
        (lambda: fa.flash_attn_kvpacked_func(x, x[None]), "kv is"),
        (lambda: fa.flash_attn_varlen_func(rows, rows, rows, cu[:1], cu, 1, 1), "cu_seqlens_q"),
        (lambda: fa.flash_attn_varlen_func(rows, rows, rows, cu, cu - 1, 1, 1), "cu_seqlens_k"),
        (lambda: fa.flash_attn_varlen_func(learned, rows, rows, cu, cu - 1, 1, 1), "cu_seqlens_k"),
        (lambda: kvcache(x, cache, cache, small, small), "needs cache_seqlens"),
        (lambda: kvcache(x, cache, cache, small, cache_seqlens=1), "come together"),
        (lambda: kvcache(x, cache, cache, small, small, cache_seqlens=32), "exceed a cache of 32"),
        (lambda: kvcache(x, cache, cache, small, small, cache_seqlens=-1), "cache_seqlens"),
        (lambda: kvcache(x, cache, cache, small, small.half(), cache_seqlens=1), "v is torch.float16"),
        (lambda: kvcache(x, cache, cache, small[:, :, :1], small[:, :, :1], cache_seqlens=1), "do not fit"),
        (lambda: kvcache(x, cache, cache, cache_seqlens=torch.tensor([1, 2])), "cache_seqlens is"),
        (lambda: kvcache(x, cache, cache, cache_seqlens=torch.tensor([1.0])), "cache_seqlens is"),
        (lambda: kvcache(x, cache, cache, cache_seqlens=33), "key_lengths"),
        (lambda: kvcache(x, cache, cache, cache_batch_idx=torch.tensor([1])), "cache_batch_idx has 1"),
        (lambda: kvcache(x, cache, cache, cache_batch_idx=torch.tensor([-1])), "cache_batch_idx has -1"),
        (lambda: kvcache(x, cache[:0], cache[:0]), "fewer entries"),
        (lambda: kvcache(x, cache, cache, small, small, cache_seqlens=1, alibi_slopes=torch.ones(3)), "alibi_slopes"),
        (lambda: kvcache(x, pages[:, :8], pages[:, :8], block_table=table), "multiple of 16"),
        (lambda: kvcache(x, pages, pages, small, small, cache_seqlens=1, block_table=table + 7), "names page 7"),
        (lambda: kvcache(x, pages, pages, block_table=table[0]), "block_table is"),
    ):
        with pytest.raises((ValueError, TypeError, RuntimeError), match=text):
            call()
    assert torch.equal(cache, kept[0]) and torch.equal(pages, kept[1])


def test_the_docstrings_run():
    assert all(getattr(fa, name).__doc__.count(">>>") for name in fa.__all__)
    found = doctest.testmod(fa)
    assert found.attempted > 0 and found.failed == 0


def test_the_page_runs():
    page = pathlib.Path(__file__).parents[2] / "docs" / "flash-attention.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), {})
