"""Fake kernels and batching rules of torch.ops.manyheads; gradients are in _gradients."""

import torch

from . import _gradients


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
    q_documents=None,
    k_documents=None,
    pytorch_backward=False,
    dropout_p=0.0,
    dropout_seed=None,
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
    q_documents=None,
    k_documents=None,
    dropout_p=0.0,
    dropout_seed=None,
):
    b, h, t, _ = query.shape
    heads = () if average else (h,)
    return query.new_empty((b, *heads, t, key.shape[2]), dtype=torch.float32)


@torch.library.register_fake("manyheads::attention_backward")
def _(
    grad_out,
    grad_lse,
    query,
    key,
    value,
    out,
    lse,
    attn_mask=None,
    sinks=None,
    key_lengths=None,
    key_starts=None,
    alibi_slopes=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    causal=False,
    alignment=0,
    window_left=-1,
    window_right=-1,
    scale=None,
    softcap=0.0,
    q_documents=None,
    k_documents=None,
    needs=7,
    dropout_p=0.0,
    dropout_seed=None,
):
    inputs = (query, key, value, attn_mask, sinks, alibi_slopes)
    return tuple(
        torch.empty_like(x) if needs >> i & 1 else query.new_empty(0, dtype=torch.float32) for i, x in enumerate(inputs)
    )


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


def _loop(op, copies, in_dims, args):
    """As many calls, stacked."""
    calls = [op(*(x if at is None else x.select(at, i) for x, at in zip(args, in_dims))) for i in range(copies)]
    if isinstance(calls[0], torch.Tensor):
        return torch.stack(calls), 0
    return tuple(torch.stack(parts) for parts in zip(*calls)), (0,) * len(calls[0])


def _rule(op, ranks, tensors, unfolded, dropout):
    """The batching rule of an op: the mapped axis becomes part of the batch, else there are as many calls.

    ranks: axes of query, key, value or lse, and of the mask. tensors: so many of the first arguments may be tensors.
    unfolded: places of those that no batch folds, of packed and paged calls and of documents. dropout: of dropout_p.
    """

    def rule(info, in_dims, *args):
        copies = info.batch_size
        _gradients.refuse_dropout(op.__name__, args[dropout] if len(args) > dropout else 0.0)
        absent = (None,) * (tensors - len(args))  # what the dispatcher leaves out
        args, in_dims = args + absent, in_dims + absent
        given = any(i < len(args) and args[i] is not None for i in unfolded)
        folded = None if given else _fold(ranks, copies, in_dims, args)
        if folded is None:
            return _loop(op, copies, in_dims, args)
        results = op(*folded)

        def parted(x):
            return x.unflatten(0, (copies, x.shape[0] // copies if copies else 0))

        if isinstance(results, tuple):
            return tuple(parted(x) for x in results), (0,) * len(results)
        return parted(results), 0

    return rule


torch.library.register_vmap("manyheads::attention", _rule(torch.ops.manyheads.attention, (4, 4, 4, 4), 11, (8, 9, 10, 17, 18), 20))
torch.library.register_vmap(
    "manyheads::attention_weights", _rule(torch.ops.manyheads.attention_weights, (4, 4, 3, 4), 8, (15, 16), 17)
)
torch.library.register_vmap(
    "manyheads::attention_backward",
    lambda info, in_dims, *args: _loop(torch.ops.manyheads.attention_backward, info.batch_size, in_dims, args),
)
