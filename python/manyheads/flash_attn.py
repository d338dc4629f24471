"""flash-attn's functions on CPU tensors: the names, arguments and meaning of flash-attn 2.8.

    from manyheads.flash_attn import flash_attn_func

q is [B,T,H,D], k and v [B,S,Hkv,D]; float32, bfloat16 or float16. Causal masks, windows and ALiBi count from the bottom
right, as flash-attn's do. q, k and v are read where they lie. lse is -inf where a query sees no key.
"""

import torch

from . import _core
from .torch import _gradients, _ops  # noqa: F401  (torch.ops.manyheads)

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]

_CHAIN = 16  # a page has a multiple of so many keys


def _shapes(**tensors):
    return ", ".join(f"{name} {list(x.shape)}" for name, x in tensors.items())


def _check(name, ranks, **tensors):
    """Checks q, k and v, in this order: devices, types, axes, heads and head sizes."""
    (q_name, q), (k_name, k), (v_name, v) = tensors.items()
    for (argument, x), rank in zip(tensors.items(), ranks):
        if x.device.type != "cpu":
            raise ValueError(f"{name}: {argument} is on {x.device}, expected the CPU")
        if x.dtype != q.dtype:
            raise TypeError(f"{name}: {argument} is {x.dtype}, {q_name} is {q.dtype}; expected one type")
        if x.dim() != rank:
            raise ValueError(f"{name}: {argument} has {x.dim()} axes, expected {rank}: {_shapes(**tensors)}")
    if k.shape[:-1] != v.shape[:-1]:
        raise ValueError(f"{name}: {k_name} and {v_name} differ: {_shapes(**tensors)}")
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"{name}: {q_name} and {k_name} differ in the head size: {_shapes(**tensors)}")
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        raise ValueError(f"{name}: {q_name}'s heads are no multiple of {k_name}'s: {_shapes(**tensors)}")


def _check_slopes(name, slopes, batch, heads):
    if slopes is not None and list(slopes.shape) not in ([heads], [batch, heads]):
        raise ValueError(f"{name}: alibi_slopes is {list(slopes.shape)}, expected [{heads}] or [{batch}, {heads}]")


def _check_dropout(name, dropout_p):
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"{name}: dropout_p is {dropout_p}, expected 0 to 1")


def _dropout(dropout_p):
    """The op's arguments of one call: one number of PyTorch's default generator is the seed."""
    return {"dropout_p": dropout_p, "dropout_seed": _gradients.draw_seed(dropout_p)}


def _packed(name, argument, x, axis, parts):
    if x.dim() <= axis or x.shape[axis] != parts:
        raise ValueError(f"{name}: {argument} is {list(x.shape)}, expected {parts} in axis {axis}")
    return x.unbind(axis)


def _options(softmax_scale, causal, window_size, softcap, aligned=False):
    """flash-attn's options as the op's. `aligned`: as many queries as keys, where both corners are one diagonal."""
    left, right = (side if side >= 0 else -1 for side in window_size)
    return {
        "causal": causal,
        "alignment": 1 if aligned else 2,
        "window_left": left,
        "window_right": right,
        "scale": softmax_scale,
        "softcap": max(softcap, 0.0),
    }


def _entries(slopes, batch, call, each=False):
    """call(entries, slopes) for all entries at once, or one by one: where `each` says so or they have own slopes."""
    own = slopes is not None and slopes.dim() == 2
    if batch == 0 or not (own or each):
        return call(None, None if own else slopes)
    parts = [call(slice(b, b + 1), slopes[b] if own else slopes) for b in range(batch)]
    return tuple(torch.cat(results) for results in zip(*parts))


def _take(x, entries):
    return x if x is None or entries is None else x[entries]


def _dense(name, q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes):
    """(out [B,T,H,D], lse [B,H,T]) of q [B,T,H,D] and k, v [B,S,Hkv,D]."""
    _check(name, (4, 4, 4), q=q, k=k, v=v)
    _check_dropout(name, dropout_p)
    _check_slopes(name, alibi_slopes, q.shape[0], q.shape[2])
    if q.shape[0] != k.shape[0]:
        raise ValueError(f"{name}: q and k differ in the batch: {_shapes(q=q, k=k, v=v)}")
    options = _options(softmax_scale, causal, window_size, softcap, q.shape[1] == k.shape[1])

    def call(entries, slopes):
        views = (_take(x, entries).transpose(1, 2) for x in (q, k, v))
        out, lse = torch.ops.manyheads.attention(*views, alibi_slopes=slopes, **options, **_dropout(dropout_p))
        return out.transpose(1, 2), lse

    return _entries(alibi_slopes, q.shape[0], call)


def _lengths(name, argument, cu_seqlens, rows):
    """The length of each packed sequence."""
    starts = cu_seqlens.tolist()
    lengths = [after - before for before, after in zip(starts, starts[1:])]
    if not starts or starts[0] != 0 or starts[-1] != rows or any(length < 0 for length in lengths):
        raise ValueError(f"{name}: {argument} does not ascend from 0 to {rows} rows: {starts}")
    return lengths


def _sequences(name, q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes, **rest):
    """Packed sequences one by one, each with slopes of its own. The bits are those of the packed call."""
    lengths_q = _lengths(name, "cu_seqlens_q", cu_seqlens_q, q.shape[0])
    lengths_k = _lengths(name, "cu_seqlens_k", cu_seqlens_k, k.shape[0])
    outs, lses = [], []
    parts = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k))
    for b, sequence in enumerate(parts):
        if sequence[0].shape[0] == 0:
            continue
        out, lse = _dense(name, *(x[None] for x in sequence), alibi_slopes=alibi_slopes[b], **rest)
        outs.append(out[0])
        lses.append(lse[0])
    if not outs:
        out = q[..., :1].expand(*q.shape[:-1], v.shape[-1]).contiguous()  # no queries
        return out, q.new_empty((q.shape[1], 0), dtype=torch.float32)
    return torch.cat(outs), torch.cat(lses, 1)


def _varlen(
    name, q, k, v, cu_seqlens_q, cu_seqlens_k, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes,
    block_table=None,
):  # fmt: skip
    """(out [T,H,D], lse [H,T]) of packed q [T,H,D] and packed or paged k, v."""
    _check(name, (3, 3, 3) if block_table is None else (3, 4, 4), q=q, k=k, v=v)
    _check_dropout(name, dropout_p)
    batch = cu_seqlens_q.shape[0] - 1
    if cu_seqlens_q.dim() != 1 or batch < 0 or cu_seqlens_k.shape != cu_seqlens_q.shape:
        raise ValueError(
            f"{name}: expected cu_seqlens_q and cu_seqlens_k [B+1]: "
            f"{_shapes(cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k)}"
        )
    _check_slopes(name, alibi_slopes, batch, q.shape[1])
    own = alibi_slopes is not None and alibi_slopes.dim() == 2
    if block_table is not None:
        if own:
            raise NotImplementedError(f"{name}: alibi_slopes [B,H] with block_table")
        if dropout_p:
            raise NotImplementedError(f"{name}: dropout_p with block_table")
        if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
            _core._torch_count("refused: a gradient of pages")
            raise NotImplementedError(f"{name}: block_table has no gradient; detach q, k and v")
        return torch.ops.manyheads.attention(
            q, k.transpose(1, 2), v.transpose(1, 2), key_lengths=cu_seqlens_k.diff(), alibi_slopes=alibi_slopes,
            cu_seqlens_q=cu_seqlens_q, page_table=block_table, **_options(softmax_scale, causal, window_size, softcap),
        )  # fmt: skip
    if own:
        return _sequences(
            name, q, k, v, cu_seqlens_q, cu_seqlens_k, alibi_slopes, dropout_p=dropout_p, softmax_scale=softmax_scale,
            causal=causal, window_size=window_size, softcap=softcap,
        )  # fmt: skip
    return torch.ops.manyheads.attention(
        q, k, v, alibi_slopes=alibi_slopes, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
        **_options(softmax_scale, causal, window_size, softcap), **_dropout(dropout_p),
    )  # fmt: skip


def _returned(results, return_attn_probs):
    return (*results, None) if return_attn_probs else results[0]


def flash_attn_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """Attention of q [B,T,H,D] over k and v [B,S,Hkv,D], as [B,T,H,D]; H is a multiple of Hkv.

    - causal, window_size (left, right; -1 is unbounded) and alibi_slopes ([H] or [B,H]) count from the bottom right.
    - dropout_p drops weights behind the softmax; one number of PyTorch's default generator is the seed.
    - return_attn_probs=True gives (out, lse [B,H,T], None): flash-attn's third is what its dropout left, a matrix that is
      not made here; torch.ops.manyheads.attention_weights gives that of a seed.
    - Results are always deterministic, of a seed with dropout.
    - Gradients of q, k, v and alibi_slopes, through out and lse.

    >>> import torch
    >>> q = torch.ones(1, 2, 4, 64)
    >>> k = v = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 2, 64)
    >>> flash_attn_func(q, k * 0, v, causal=True)[0, :, 0, 0].tolist()
    [0.5, 1.0]
    """
    results = _dense(
        "flash_attn_func", q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes
    )  # fmt: skip
    return _returned(results, return_attn_probs)


def flash_attn_kvpacked_func(
    q,
    kv,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """flash_attn_func of q [B,T,H,D] and kv [B,S,2,Hkv,D].

    >>> import torch
    >>> flash_attn_kvpacked_func(torch.ones(1, 2, 4, 64), torch.ones(1, 3, 2, 2, 64)).shape
    torch.Size([1, 2, 4, 64])
    """
    name = "flash_attn_kvpacked_func"
    results = _dense(
        name, q, *_packed(name, "kv", kv, 2, 2), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes
    )
    return _returned(results, return_attn_probs)


def flash_attn_qkvpacked_func(
    qkv,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """flash_attn_func of qkv [B,T,3,H,D].

    >>> import torch
    >>> flash_attn_qkvpacked_func(torch.ones(1, 2, 3, 4, 64)).shape
    torch.Size([1, 2, 4, 64])
    """
    name = "flash_attn_qkvpacked_func"
    results = _dense(
        name, *_packed(name, "qkv", qkv, 2, 3), dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes
    )
    return _returned(results, return_attn_probs)


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
):
    """Attention of packed sequences: q [T,H,D], k and v [S,Hkv,D], as [T,H,D]; lse is [H,T].

    - Sequence b is rows cu_seqlens[b] to cu_seqlens[b+1]; cu_seqlens_q and cu_seqlens_k are [B+1] int32 or int64. The
      longest lengths, max_seqlen_q and max_seqlen_k, are not needed.
    - block_table [B,N] int32: k and v are pages [pages,size,Hkv,D], size a multiple of 16. Key j of sequence b is row
      j % size of page block_table[b, j / size].
    - Gradients as in flash_attn_func; not with block_table.

    >>> import torch
    >>> x = torch.ones(5, 4, 64)
    >>> starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_func(x, x, x, starts, starts, 3, 3, causal=True, return_attn_probs=True)[1].shape
    torch.Size([4, 5])
    """
    results = _varlen(
        "flash_attn_varlen_func", q, k, v, cu_seqlens_q, cu_seqlens_k, dropout_p, softmax_scale, causal, window_size,
        softcap, alibi_slopes, block_table,
    )  # fmt: skip
    return _returned(results, return_attn_probs)


def flash_attn_varlen_kvpacked_func(
    q,
    kv,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """flash_attn_varlen_func of q [T,H,D] and kv [S,2,Hkv,D].

    >>> import torch
    >>> starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_kvpacked_func(torch.ones(5, 4, 64), torch.ones(5, 2, 2, 64), starts, starts, 3, 3).shape
    torch.Size([5, 4, 64])
    """
    name = "flash_attn_varlen_kvpacked_func"
    results = _varlen(
        name, q, *_packed(name, "kv", kv, 1, 2), cu_seqlens_q, cu_seqlens_k, dropout_p, softmax_scale, causal,
        window_size, softcap, alibi_slopes,
    )  # fmt: skip
    return _returned(results, return_attn_probs)


def flash_attn_varlen_qkvpacked_func(
    qkv,
    cu_seqlens,
    max_seqlen,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """flash_attn_varlen_func of qkv [T,3,H,D].

    >>> import torch
    >>> starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_qkvpacked_func(torch.ones(5, 3, 4, 64), starts, 3).shape
    torch.Size([5, 4, 64])
    """
    name = "flash_attn_varlen_qkvpacked_func"
    results = _varlen(
        name, *_packed(name, "qkv", qkv, 1, 3), cu_seqlens, cu_seqlens, dropout_p, softmax_scale, causal, window_size,
        softcap, alibi_slopes,
    )  # fmt: skip
    return _returned(results, return_attn_probs)


def _places(name, k, capacity, lengths, cache_batch_idx, block_table, pages, size):
    """Where the cache takes k [B,T,Hkv,D]: the entry or page and the row of each key."""
    batch, count = k.shape[:2]
    if batch * count and (int(lengths.min()) < 0 or int(lengths.max()) + count > capacity):
        raise ValueError(f"{name}: cache_seqlens {lengths.tolist()} and {count} new keys exceed a cache of {capacity}")
    rows = lengths.long()[:, None] + torch.arange(count)
    if block_table is None:
        entries = torch.arange(batch) if cache_batch_idx is None else cache_batch_idx.long()
        return entries[:, None], rows
    found = block_table.long().gather(1, rows // size)
    if found.numel() and (int(found.min()) < 0 or int(found.max()) >= pages):
        raise ValueError(f"{name}: block_table names page {int(found.max())}, the cache has {pages}")
    return found, rows % size


def _check_cache(name, q, k_cache, v_cache, k, v, lengths, cache_batch_idx, cache_leftpad, block_table):
    _check(name, (4, 4, 4), q=q, k_cache=k_cache, v_cache=v_cache)
    batch = q.shape[0]
    for argument, x in (
        ("cache_seqlens", lengths),
        ("cache_batch_idx", cache_batch_idx),
        ("cache_leftpad", cache_leftpad),
    ):
        if x is not None and (list(x.shape) != [batch] or x.dtype not in (torch.int32, torch.int64)):
            raise ValueError(f"{name}: {argument} is {x.dtype} {list(x.shape)}, expected int32 or int64 [{batch}]")
    if block_table is not None:
        if block_table.dim() != 2 or block_table.shape[0] != batch:
            raise ValueError(f"{name}: block_table is {list(block_table.shape)}, expected [{batch}, N]")
        if k_cache.shape[1] == 0 or k_cache.shape[1] % _CHAIN:
            raise ValueError(f"{name}: k_cache has pages of {k_cache.shape[1]} keys, expected a multiple of {_CHAIN}")
        for argument, x in (("cache_batch_idx", cache_batch_idx), ("cache_leftpad", cache_leftpad)):
            if x is not None:
                raise NotImplementedError(f"{name}: {argument} with block_table")
    elif cache_batch_idx is None and k_cache.shape[0] < batch:
        raise ValueError(f"{name}: the cache has fewer entries than q: {_shapes(q=q, k_cache=k_cache)}")
    elif cache_batch_idx is not None and batch:
        low, high = int(cache_batch_idx.min()), int(cache_batch_idx.max())
        if low < 0 or high >= k_cache.shape[0]:
            raise ValueError(f"{name}: cache_batch_idx has {low} to {high}, the cache has {k_cache.shape[0]} entries")
    if (k is None) != (v is None):
        raise ValueError(f"{name}: k and v come together")
    if k is not None:
        if lengths is None:
            raise ValueError(f"{name}: k needs cache_seqlens")
        _check(name, (4, 4, 4), q=q, k=k, v=v)
        if k.shape[0] != batch or k.shape[2] != k_cache.shape[2] or v.shape[3] != v_cache.shape[3]:
            raise ValueError(f"{name}: k and v do not fit: {_shapes(q=q, k=k, v=v, k_cache=k_cache, v_cache=v_cache)}")


@torch.no_grad()
def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    """Attention of q [B,T,H,D] over a cache, as [B,T,H,D]; k and v [B,N,Hkv,D] are written into it first.

    - k_cache and v_cache are [entries,S,Hkv,D], or pages [pages,size,Hkv,D] with block_table [B,n], size a multiple of
      16.
    - cache_seqlens, an int or [B]: the keys there are before k is appended, in place. None: all of them.
    - cache_batch_idx [B]: the entry of each row of q. cache_leftpad [B]: its first key. Neither with block_table.
    - No gradients, as in flash-attn. num_splits is not needed. rotary_cos and rotary_sin are NotImplementedErrors.
    - return_softmax_lse=True gives (out, lse [B,H,T]).

    >>> import torch
    >>> k_cache, v_cache = torch.zeros(2, 1, 32, 2, 64)
    >>> x = torch.ones(1, 1, 2, 64)
    >>> for length in range(3):
    ...     out = flash_attn_with_kvcache(x, k_cache, v_cache, x, x * length, cache_seqlens=length, causal=True)
    >>> out[0, 0, 0, 0].item(), v_cache[0, :4, 0, 0].tolist()
    (1.0, [0.0, 1.0, 2.0, 0.0])
    """
    name = "flash_attn_with_kvcache"
    for argument, x in (("rotary_cos", rotary_cos), ("rotary_sin", rotary_sin)):
        if x is not None:
            raise NotImplementedError(f"{name}: {argument}; rotate q and k before the call")
    batch = q.shape[0]
    lengths = torch.full((batch,), cache_seqlens) if isinstance(cache_seqlens, int) else cache_seqlens
    _check_cache(name, q, k_cache, v_cache, k, v, lengths, cache_batch_idx, cache_leftpad, block_table)
    _check_slopes(name, alibi_slopes, batch, q.shape[2])
    pages, size = k_cache.shape[:2]
    capacity = size if block_table is None else size * block_table.shape[1]
    if k is not None:
        where = _places(name, k, capacity, lengths, cache_batch_idx, block_table, pages, size)
        k_cache[where] = k
        v_cache[where] = v
        lengths = lengths + k.shape[1]
    options = _options(softmax_scale, causal, window_size, softcap)
    each = False
    if block_table is None:
        if cache_batch_idx is None:
            k_cache, v_cache = k_cache[:batch], v_cache[:batch]
        else:
            # Each entry is one page, where the keys lie within whole chains.
            whole = size // _CHAIN * _CHAIN
            used = size if lengths is None or not batch else int(lengths.max())
            each = cache_leftpad is not None or used > whole or whole == 0
            if not each:
                k_cache, v_cache, block_table = k_cache[:, :whole], v_cache[:, :whole], cache_batch_idx[:, None]

    def call(entries, slopes):
        keys = entries if block_table is None else None
        if each:
            at = int(cache_batch_idx[entries])
            keys = slice(at, at + 1)
        out, lse = torch.ops.manyheads.attention(
            _take(q, entries).transpose(1, 2),
            _take(k_cache, keys).transpose(1, 2),
            _take(v_cache, keys).transpose(1, 2),
            key_lengths=_take(lengths, entries),
            key_starts=_take(cache_leftpad, entries),
            alibi_slopes=slopes,
            page_table=_take(block_table, entries),
            **options,
        )
        return out.transpose(1, 2), lse

    out, lse = _entries(alibi_slopes, batch, call, each)
    return (out, lse) if return_softmax_lse else out
