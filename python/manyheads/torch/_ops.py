"""Fake kernels and gradients of torch.ops.manyheads."""

import math

import torch

# The arguments of attention behind query, key and value, by place.
_MASK, _SINKS, _LENGTHS, _STARTS, _SLOPES, _CU_Q, _CU_K, _PAGES, _CAUSAL, _ALIGNMENT, _LEFT, _RIGHT, _SCALE, _SOFTCAP = range(3, 17)


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
    shape = (*query.shape[:-1], value.shape[-1])
    strides, step = [0] * len(shape), 1
    for axis in sorted(range(len(shape)), key=lambda axis: (query.stride(axis) or math.inf, -axis)):
        strides[axis] = step
        step *= shape[axis]
    out = query.new_empty_strided(shape, strides)
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


def _dense_mask(query, key, attn_mask, key_lengths, key_starts, slopes, causal, alignment):
    """The float mask of a call, as PyTorch's backward takes it; None where there is none, and whether it is causal
    from the top left alone."""
    tq, tk = query.shape[2], key.shape[2]
    if causal and alignment != 2 and attn_mask is None and key_lengths is None and key_starts is None and slopes is None:
        return None, True
    mask = None
    if attn_mask is not None:
        mask = attn_mask
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=torch.float32).masked_fill_(~mask, -torch.inf)
    columns = torch.arange(tk)

    def forbid(where):
        nonlocal mask
        base = torch.zeros((), dtype=torch.float32) if mask is None else mask
        mask = base.masked_fill(where, -torch.inf) if mask is not None else torch.zeros(where.shape).masked_fill_(where, -torch.inf)

    offset = torch.zeros(query.shape[0], 1, 1, 1, dtype=torch.int64)
    if alignment == 2:
        offset = offset + ((tk if key_lengths is None else key_lengths.reshape(-1, 1, 1, 1)) - tq)
    if key_lengths is not None:
        forbid(columns >= key_lengths.reshape(-1, 1, 1, 1))
    if key_starts is not None:
        forbid(columns < key_starts.reshape(-1, 1, 1, 1))
    distance = columns - torch.arange(tq)[:, None] - offset
    if causal:
        forbid(distance > 0)
    if slopes is not None:
        bias = -slopes.reshape(1, -1, 1, 1) * distance.abs()
        mask = bias if mask is None else mask + bias
    return mask, False


def _setup(ctx, inputs, output):
    query, key, value = inputs[:3]
    refused = [
        name
        for name, asked in (
            ("softcap", inputs[_SOFTCAP] != 0),
            ("packed sequences", inputs[_CU_Q] is not None or inputs[_CU_K] is not None),
            ("pages", inputs[_PAGES] is not None),
            ("a gradient of alibi_slopes", inputs[_SLOPES] is not None and inputs[_SLOPES].requires_grad),
        )
        if asked
    ]
    if refused:
        raise NotImplementedError(f"manyheads::attention: no gradient with {', '.join(refused)}; detach the inputs")
    out, lse = output
    ctx.mark_non_differentiable(lse)
    tensors = (_MASK, _SINKS, _LENGTHS, _STARTS, _SLOPES)
    ctx.save_for_backward(query, key, value, out, lse, *[inputs[i] for i in tensors])
    ctx.rest = inputs[_CAUSAL:_SCALE]
    ctx.scale = inputs[_SCALE]
    ctx.dense = (
        value.shape[-1] != query.shape[-1]
        or inputs[_SINKS] is not None
        or inputs[_LEFT] >= 0
        or inputs[_RIGHT] >= 0
        or (inputs[_MASK] is not None and inputs[_MASK].requires_grad)
    )


def _grouped(grads, groups, key):
    """Sums over the query heads that share a key head."""
    return tuple(g.unflatten(1, (key.shape[1], groups)).sum(2) if groups > 1 else g for g in grads)


def _sum_to(grad, shape):
    """The gradient of what was broadcast."""
    extra = grad.dim() - len(shape)
    axes = [i for i in range(grad.dim()) if i < extra or shape[i - extra] == 1]
    return grad.sum(axes, keepdim=True).reshape(shape) if axes else grad


def _of_scores(grad_scores, query, wide_key, scale):
    """Gradients of query and key."""
    return (
        (grad_scores @ wide_key.float() * scale).to(query.dtype),
        (grad_scores.mT @ query.float() * scale).to(wide_key.dtype),
    )


def _backward(ctx, grad_out, grad_lse):
    query, key, value, out, lse, attn_mask, sinks, lengths, starts, slopes = ctx.saved_tensors
    causal, alignment, left, right = ctx.rest
    groups = query.shape[1] // key.shape[1]
    wide_key = key.repeat_interleave(groups, 1) if groups > 1 else key
    wide_value = value.repeat_interleave(groups, 1) if groups > 1 else value
    grad_mask = grad_sinks = None
    if ctx.dense:
        # What PyTorch's backward has not: the weights once more, as a Tq x Tk matrix.
        weights = torch.ops.manyheads.attention_weights(
            query, key, lse, attn_mask, sinks, lengths, starts, slopes, causal, alignment, left, right, ctx.scale
        )
        scale = query.shape[-1] ** -0.5 if ctx.scale is None else ctx.scale
        grad = grad_out.float()
        rows = (grad * out.float()).sum(-1, keepdim=True)
        grad_scores = weights * (grad @ wide_value.float().mT - rows)
        grads = (*_of_scores(grad_scores, query, wide_key, scale), (weights.mT @ grad).to(value.dtype))
        if attn_mask is not None and attn_mask.dtype != torch.bool and ctx.needs_input_grad[_MASK]:
            grad_mask = _sum_to(grad_scores, attn_mask.shape).to(attn_mask.dtype)
        if sinks is not None and ctx.needs_input_grad[_SINKS]:
            grad_sinks = -(torch.exp(sinks.reshape(1, -1, 1) - lse) * rows.squeeze(-1)).sum((0, 2))
    else:
        # PyTorch's own backward fits: its forward's lse is the natural log too.
        mask, plain = _dense_mask(query, key, attn_mask, lengths, starts, slopes, causal, alignment)
        if mask is not None:
            mask = mask.to(query.dtype).expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # a row without keys: weights exp(score - lse) of 0
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_out, query, wide_key, wide_value, out, lse, 0.0, plain, attn_mask=mask, scale=ctx.scale
        )
    grads = (grads[0], *_grouped(grads[1:], groups, key))
    return (*grads, grad_mask, grad_sinks, *[None] * 12)


torch.library.register_autograd("manyheads::attention", _backward, setup_context=_setup)


def _setup_weights(ctx, inputs, output):
    query, key, lse, attn_mask, sinks, lengths, starts, slopes = inputs[:8]
    refused = [
        name
        for name, asked in (
            ("softcap", inputs[13] != 0),
            ("a gradient of alibi_slopes", slopes is not None and slopes.requires_grad),
        )
        if asked
    ]
    if refused:
        raise NotImplementedError(f"manyheads::attention_weights: no gradient with {', '.join(refused)}; detach the inputs")
    ctx.save_for_backward(query, key, lse, attn_mask, sinks, lengths, starts, slopes)
    ctx.rest = inputs[8:12]
    ctx.scale, ctx.average = inputs[12], inputs[14]


def _backward_weights(ctx, grad):
    """lse is that of the same scores, so the gradient by way of it is in here, and it gets none of its own."""
    query, key, lse, attn_mask, sinks, lengths, starts, slopes = ctx.saved_tensors
    heads = query.shape[1]
    groups = heads // key.shape[1]
    weights = torch.ops.manyheads.attention_weights(
        query, key, lse, attn_mask, sinks, lengths, starts, slopes, *ctx.rest, ctx.scale
    )
    grad = grad.float()
    if ctx.average:
        grad = grad.unsqueeze(1) / heads
    rows = (weights * grad).sum(-1, keepdim=True)
    grad_scores = weights * (grad - rows)
    scale = query.shape[-1] ** -0.5 if ctx.scale is None else ctx.scale
    wide_key = key.repeat_interleave(groups, 1) if groups > 1 else key
    grad_query, grad_key = _of_scores(grad_scores, query, wide_key, scale)
    grad_mask = grad_sinks = None
    if attn_mask is not None and attn_mask.dtype != torch.bool and ctx.needs_input_grad[3]:
        grad_mask = _sum_to(grad_scores, attn_mask.shape).to(attn_mask.dtype)
    if sinks is not None and ctx.needs_input_grad[4]:
        grad_sinks = -(torch.exp(sinks.reshape(1, -1, 1) - lse) * rows.squeeze(-1)).sum((0, 2))
    return (grad_query, *_grouped((grad_key,), groups, key), None, grad_mask, grad_sinks, *[None] * 10)


torch.library.register_autograd("manyheads::attention_weights", _backward_weights, setup_context=_setup_weights)
