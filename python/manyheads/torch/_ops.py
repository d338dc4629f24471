"""Fake kernels and batching rules of torch.ops.manyheads; gradients are in _gradients."""

import torch

from . import _gradients  # noqa: F401


@torch.library.register_fake("manyheads::attention")
def _(
    query,
    key,
    value,
    attn_mask=None,
    sinks=None,
    key_lengths=None,
    key_starts=None,
    alibi_slopes=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    page_table=None,
    causal=False,
    alignment=0,
    window_left=-1,
    window_right=-1,
    scale=None,
    softcap=0.0,
):
    if query.dim() == 4 and page_table is None:  # broadcast as the call does
        (batch,) = torch.broadcast_shapes(query.shape[:1], key.shape[:1], value.shape[:1])
        heads = query.shape[1]
        if heads == 1:
            (heads,) = torch.broadcast_shapes(key.shape[1:2], value.shape[1:2])
        query = query.expand(batch, heads, -1, -1)
    # A tensor without memory of query's strides and the result's shape: PyTorch's own rule says the result's strides.
    out = torch.empty_like(query.new_empty_strided((*query.shape[:-1], value.shape[-1]), query.stride()))
    if cu_seqlens_q is not None:
        return out, query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    b, h, t, _ = query.shape
    return out, query.new_empty((b, t, h), dtype=torch.float32).transpose(1, 2)


@torch.library.register_fake("manyheads::attention_weights")
def _(
    query,
    key,
    lse,
    attn_mask=None,
    sinks=None,
    key_lengths=None,
    key_starts=None,
    alibi_slopes=None,
    causal=False,
    alignment=0,
    window_left=-1,
    window_right=-1,
    scale=None,
    softcap=0.0,
    average=False,
):
    b, h, t, _ = query.shape
    heads = () if average else (h,)
    return query.new_empty((b, *heads, t, key.shape[2]), dtype=torch.float32)


# Places of numbers of each entry, key_lengths and key_starts, and of each head, sinks and alibi_slopes.
_LENGTHS, _PER_HEAD = (5, 6), (4, 7)


def _fold(ranks, copies, in_dims, args):
    """The arguments with the mapped axis inside their batch, nothing copied; None where one call cannot say it so."""
    if any(in_dims[i] is not None for i in _PER_HEAD):
        return None
    folded = list(args)
    query = args[0] if in_dims[0] is None else args[0].movedim(in_dims[0], 0)
    if query.dim() != 4 + (in_dims[0] is not None):
        return None
    batch = query.shape[-4]
    for i, rank in enumerate(ranks):
        x, axis = args[i], in_dims[i]
        if x is None or (axis is None and x.dim() < rank):  # a mask that is broadcast
            continue
        x = x.unsqueeze(0) if axis is None else x.movedim(axis, 0)
        if x.dim() > rank + 1:
            return None
        x = x.reshape(x.shape[0], *[1] * (rank + 1 - x.dim()), *x.shape[1:])
        if x.shape[1] not in (1, batch):
            return None  # the call itself says what is wrong
        x = x.expand(copies, batch, *x.shape[2:])
        if copies > 1 and batch > 1 and x.stride(0) != x.stride(1) * batch:
            return None
        folded[i] = x.flatten(0, 1)
    for i in _LENGTHS:
        x, axis = args[i], in_dims[i]
        if x is None:
            continue
        x = x.unsqueeze(0) if axis is None else x.movedim(axis, 0)
        if x.shape[1:] != (batch,):
            return None
        folded[i] = x.expand(copies, batch).flatten()
    return folded


def _rule(op, ranks, tensors):
    """The batching rule of an op: the mapped axis becomes part of the batch, else there are as many calls.

    ranks: axes of query, key, value or lse, and of the mask. tensors: so many arguments may be tensors; those from the
    ninth on make a call packed or paged.
    """

    def rule(info, in_dims, *args):
        copies = info.batch_size
        absent = (None,) * (tensors - len(args))  # what the dispatcher leaves out
        args, in_dims = args + absent, in_dims + absent
        folded = None if any(x is not None for x in args[8:tensors]) else _fold(ranks, copies, in_dims, args)
        if folded is not None:
            results = op(*folded)

            def parted(x):
                return x.unflatten(0, (copies, x.shape[0] // copies if copies else 0))

        else:
            calls = [
                op(*(x if at is None else x.select(at, i) for x, at in zip(args, in_dims))) for i in range(copies)
            ]
            results = calls if isinstance(calls[0], torch.Tensor) else tuple(zip(*calls))
            parted = torch.stack
        if isinstance(results, tuple):
            return tuple(parted(x) for x in results), (0,) * len(results)
        return parted(results), 0

    return rule


torch.library.register_vmap("manyheads::attention", _rule(torch.ops.manyheads.attention, (4, 4, 4, 4), 11))
torch.library.register_vmap("manyheads::attention_weights", _rule(torch.ops.manyheads.attention_weights, (4, 4, 3, 4), 8))
