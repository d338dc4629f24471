"""Gradients of torch.ops.manyheads, and the ops by PyTorch's own operations, where a function transform runs."""

import torch

from .. import _core

_NO_PAGES = "manyheads::attention: no gradient with page_table; detach the inputs"


class _Last(torch.autograd.Function):
    """Passes gradients on, which have none of their own. of: what they are made of."""

    @staticmethod
    def forward(ctx, grads, *of):
        return tuple(None if x is None else x.detach() for x in grads)

    @staticmethod
    def backward(ctx, *grads):
        _core._torch_count("refused: a second derivative")
        raise NotImplementedError("manyheads::attention: no second derivatives; sdpa_kernel(SDPBackend.MATH) has them")


def _once(backward):
    """A backward that cannot be differentiated."""

    def run(ctx, *grads):
        with torch.no_grad():
            found = backward(ctx, *grads)
        if not torch.is_grad_enabled():
            return found
        return _Last.apply(found, *grads, *ctx.saved_tensors)

    return run


def _wide(x, heads):
    """Keys or values, once for each query head."""
    return x.repeat_interleave(heads // x.shape[1], 1) if x.shape[1] != heads else x


def _sum_to(grad, shape):
    """The gradient of what was broadcast."""
    extra = grad.dim() - len(shape)
    axes = [i for i in range(grad.dim()) if i < extra or (shape[i - extra] == 1 and grad.shape[i] != 1)]
    return grad.sum(axes, keepdim=True).reshape(shape) if axes else grad


def _narrow(grad, like):
    """The gradient of keys or values [B,Hkv,S,..] of that of each query head's."""
    groups = grad.shape[1] // like.shape[1]
    return grad.unflatten(1, (like.shape[1], groups)).sum(2) if groups > 1 else grad


def _broadcast(query, key, value):
    """All with one batch; a head of 1 as often as it is read, where query heads share no keys."""
    batch = max(x.shape[0] for x in (query, key, value))
    heads = max(x.shape[1] for x in (query, key, value))
    kv_heads = -1 if key.shape[1] == value.shape[1] else heads
    return query.expand(batch, heads, -1, -1), *(x.expand(batch, kv_heads, -1, -1) for x in (key, value))


class Call:
    """The arguments of a call behind query, key and value or lse."""

    def __init__(
        self, query, key, attn_mask, sinks, key_lengths, key_starts, alibi_slopes, causal, alignment, window_left, window_right,
        scale, softcap,
    ):  # fmt: skip
        self.query, self.key = query, key
        self.attn_mask, self.sinks, self.slopes = attn_mask, sinks, alibi_slopes
        self.lengths, self.starts = key_lengths, key_starts
        self.causal, self.alignment, self.left, self.right = causal, alignment, window_left, window_right
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale
        self.softcap = softcap

    def distance(self):
        """[B or 1,1,Tq,Tk]: how far a key lies behind its query's own."""
        tq, tk = self.query.shape[2], self.key.shape[2]
        distance = torch.arange(tk) - torch.arange(tq)[:, None]
        if self.alignment != 2:
            return distance.reshape(1, 1, tq, tk)
        return distance - ((tk if self.lengths is None else self.lengths.reshape(-1, 1, 1, 1)) - tq)

    def forbidden(self):
        """The keys that no query may see, as parts of [B,1,Tq,Tk]."""
        columns = torch.arange(self.key.shape[2])
        if self.lengths is not None:
            yield columns >= self.lengths.reshape(-1, 1, 1, 1)
        if self.starts is not None:
            yield columns < self.starts.reshape(-1, 1, 1, 1)
        if self.causal:
            yield self.distance() > 0
        if self.left >= 0:
            yield self.distance() < -self.left
        if self.right >= 0:
            yield self.distance() > self.right

    def added(self):
        """What is added to the scores, float32; None where nothing is."""
        added = self.attn_mask
        if added is not None:
            added = torch.zeros(added.shape).masked_fill(~added, -torch.inf) if added.dtype == torch.bool else added.float()
        if self.slopes is not None:
            bias = -self.slopes.reshape(1, -1, 1, 1) * self.distance().abs()
            added = bias if added is None else added + bias
        for part in self.forbidden():
            added = (torch.zeros(part.shape) if added is None else added).masked_fill(part, -torch.inf)
        return added

    def capped(self):
        """tanh(scores / softcap)."""
        scores = self.query.float() @ _wide(self.key, self.query.shape[1]).float().mT
        return torch.tanh(scores * (self.scale / self.softcap))

    def weights(self, lse):
        return torch.ops.manyheads.attention_weights(
            self.query, self.key, lse, self.attn_mask, self.sinks, self.lengths, self.starts, self.slopes, self.causal,
            self.alignment, self.left, self.right, self.scale, self.softcap,
        )  # fmt: skip

    def of_weighed(self, grad, rows, lse, needs):
        """Gradients of query, key, attn_mask, sinks and alibi_slopes, of that of the weighed scores [B,H,Tq,Tk]. rows
        [B,H,Tq,1]: the sum of each row, which what normalizes it takes."""
        key = _wide(self.key, self.query.shape[1])
        grad_mask = grad_sinks = grad_slopes = None
        if self.attn_mask is not None and self.attn_mask.is_floating_point() and needs[0]:
            grad_mask = _sum_to(grad, self.attn_mask.shape).to(self.attn_mask.dtype)
        if self.sinks is not None and needs[1]:
            grad_sinks = -(torch.exp(self.sinks.reshape(1, -1, 1) - lse) * rows.squeeze(-1)).sum((0, 2))
        if self.slopes is not None and needs[2]:
            grad_slopes = -(grad * self.distance().abs()).sum((0, 2, 3))
        if self.softcap:
            grad = grad * (1 - self.capped() ** 2)
        grad_query = (grad @ key.float() * self.scale).to(self.query.dtype)
        grad_key = _narrow((grad.mT @ self.query.float() * self.scale).to(self.key.dtype), self.key)
        return grad_query, grad_key, grad_mask, grad_sinks, grad_slopes


def _dense(call, value, out, lse, grad_out, grad_lse, needs):
    """What PyTorch's backward has not: the weights once more, as a Tq x Tk matrix."""
    lse = lse.detach()
    weights = call.weights(lse)
    grad = grad_out.float()
    rows = (grad * out.float()).sum(-1, keepdim=True)
    if grad_lse is not None:
        rows = rows - grad_lse.unsqueeze(-1)
    grad_scores = weights * (grad @ _wide(value, call.query.shape[1]).float().mT - rows)
    grad_query, grad_key, *rest = call.of_weighed(grad_scores, rows, lse, needs)
    return grad_query, grad_key, _narrow((weights.mT @ grad).to(value.dtype), value), *rest


def _by_pytorch(call, value, out, lse, grad_out):
    """PyTorch's own backward fits: its forward's lse is the natural log too."""
    query, key = call.query, call.key
    batch, heads, tq = query.shape[:3]
    plain = call.causal and call.alignment != 2 and all(
        x is None for x in (call.attn_mask, call.lengths, call.starts, call.slopes)
    )  # fmt: skip
    mask = None if plain else call.added()
    if mask is not None:
        mask = mask.to(query.dtype).expand(batch, heads, tq, key.shape[2])
    lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # a row without keys: weights exp(score - lse) of 0
    wide = [_wide(x, heads) for x in (key, value)]
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad_out, query, *wide, out, lse, 0.0, plain, attn_mask=mask, scale=call.scale
    )
    return grads[0], _narrow(grads[1], key), _narrow(grads[2], value), None, None, None


def _backward_of(call, value, out, lse, grad_out, grad_lse, needs):
    """Gradients of query, key, value, attn_mask, sinks and alibi_slopes."""
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    dense = (
        grad_lse is not None or value.shape[-1] != call.query.shape[-1] or call.sinks is not None or call.softcap
        or call.left >= 0 or call.right >= 0 or any(needs)
    )  # fmt: skip
    if dense:
        return _dense(call, value, out, lse, grad_out, grad_lse, needs)
    return _by_pytorch(call, value, out, lse, grad_out)


def _setup(ctx, inputs, output):
    query, key, value, attn_mask, sinks, lengths, starts, slopes, cu_q, cu_k, pages = inputs[:11]
    if pages is not None:
        _core._torch_count("refused: a gradient of pages")
        raise NotImplementedError(_NO_PAGES)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, *output, attn_mask, sinks, lengths, starts, slopes, cu_q, cu_k)
    ctx.rest = inputs[11:]


@_once
def _backward(ctx, grad_out, grad_lse):
    query, key, value, out, lse, attn_mask, sinks, lengths, starts, slopes, cu_q, cu_k = ctx.saved_tensors
    if grad_out is None and grad_lse is None:
        return (None,) * 17
    needs = [x is not None and ctx.needs_input_grad[i] for i, x in ((3, attn_mask), (4, sinks), (7, slopes))]
    if cu_q is None:
        wide = _broadcast(query, key, value)
        call = Call(*wide[:2], attn_mask, sinks, lengths, starts, slopes, *ctx.rest)
        grads = _backward_of(call, wide[2], out, lse, grad_out, grad_lse, needs)
        grads = *(_sum_to(grad, x.shape) for grad, x in zip(grads, (query, key, value))), *grads[3:]
    else:
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        *grads, grad_sinks, grad_slopes = torch.ops.manyheads.packed_backward(
            grad_out, grad_lse, query, key, value, out, lse, cu_q, cu_k, sinks, slopes, *ctx.rest, *needs[1:]
        )  # fmt: skip
        grads += [None, grad_sinks if needs[1] else None, grad_slopes if needs[2] else None]
    grad_query, grad_key, grad_value, grad_mask, grad_sinks, grad_slopes = grads
    return grad_query, grad_key, grad_value, grad_mask, grad_sinks, None, None, grad_slopes, *[None] * 9


def _packed(tensors, gradients, cu_q, cu_k, rest, needs):
    """The same of packed sequences, one by one: [T,H,D] and lse [H,T]."""
    query, key, value, out, lse = tensors
    grad_out, grad_lse = gradients
    starts_q, starts_k = cu_q.tolist(), cu_k.tolist()
    results = [torch.zeros_like(x) for x in (query, key, value)]
    shared = [None, None, None]
    for b in range(len(starts_q) - 1):
        rows, keys = slice(starts_q[b], starts_q[b + 1]), slice(starts_k[b], starts_k[b + 1])
        if rows.start == rows.stop:
            continue

        def one(x, part):
            return None if x is None else x[part].transpose(0, 1).unsqueeze(0)

        call = Call(one(query, rows), one(key, keys), *rest)
        grads = _backward_of(
            call, one(value, keys), one(out, rows), lse[None, :, rows], one(grad_out, rows),
            None if grad_lse is None else grad_lse[None, :, rows], needs,
        )  # fmt: skip
        for result, grad, part in zip(results, grads, (rows, keys, keys)):
            result[part] = grad[0].transpose(0, 1)
        shared = [g if s is None else s if g is None else s + g for s, g in zip(shared, grads[3:])]
    return *results, *shared


@torch.library.custom_op("manyheads::packed_backward", mutates_args=())
def packed_backward(
    grad_out: torch.Tensor, grad_lse: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    out: torch.Tensor, lse: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor, sinks: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None, causal: bool, alignment: int, window_left: int, window_right: int,
    scale: float | None, softcap: float, needs_sinks: bool, needs_slopes: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of query, key, value, sinks and alibi_slopes; of no elements where they are not needed. An op, since it
    reads where sequences begin."""
    rest = (None, sinks, None, None, alibi_slopes, causal, alignment, window_left, window_right, scale, softcap)
    grads = _packed(
        (query, key, value, out, lse), (grad_out, grad_lse), cu_seqlens_q, cu_seqlens_k, rest,
        (False, needs_sinks, needs_slopes),
    )  # fmt: skip
    return *grads[:3], *(query.new_zeros(0, dtype=torch.float32) if x is None else x for x in grads[4:])


@packed_backward.register_fake
def _(
    grad_out, grad_lse, query, key, value, out, lse, cu_seqlens_q, cu_seqlens_k, sinks, alibi_slopes, causal, alignment,
    window_left, window_right, scale, softcap, needs_sinks, needs_slopes,
):  # fmt: skip
    none = query.new_empty(0, dtype=torch.float32)
    return (
        *(torch.empty_like(x) for x in (query, key, value)),
        torch.empty_like(sinks) if needs_sinks else none,
        torch.empty_like(alibi_slopes) if needs_slopes else torch.empty_like(none),
    )


def varlen_backward(
    grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, rng_state, unused,
    *, scale=None, window_size_left=None, window_size_right=None,
):  # fmt: skip
    """aten::_flash_attention_backward, which PyTorch's varlen_attn calls: gradients of query, key and value."""
    if dropout_p or cum_seq_q is None or cum_seq_k is None:
        raise NotImplementedError("_flash_attention_backward: only of packed sequences, without dropout")
    sides = [-1 if side is None else max(side, -1) for side in (window_size_left, window_size_right)]
    rest = (None, None, None, None, None, is_causal, 2, *sides, scale, 0.0)
    return _packed(
        (query, key, value, out, logsumexp), (grad_out, None), cum_seq_q, cum_seq_k, rest, (False,) * 3
    )[:3]  # fmt: skip


def _setup_weights(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:8])
    ctx.rest, ctx.average = inputs[8:14], inputs[14]


@_once
def _backward_weights(ctx, grad):
    """An lse without a gradient of its own is that of the same scores: the gradient by way of it is in here."""
    query, key, lse, attn_mask, sinks, lengths, starts, slopes = ctx.saved_tensors
    call = Call(query, key, attn_mask, sinks, lengths, starts, slopes, *ctx.rest)
    weights = call.weights(lse.detach())
    grad = grad.float()
    if ctx.average:
        grad = grad.unsqueeze(1) / query.shape[1]
    weighed = weights * grad
    rows = weighed.sum(-1, keepdim=True)
    grad_lse = None
    if ctx.needs_input_grad[2]:
        grad_lse, grad_scores, rows = -rows.squeeze(-1), weighed, torch.zeros_like(rows)
    else:
        grad_scores = weights * (grad - rows)
    needs = [x is not None and ctx.needs_input_grad[i] for i, x in ((3, attn_mask), (4, sinks), (7, slopes))]
    grad_query, grad_key, *rest = call.of_weighed(grad_scores, rows, lse, needs)
    return grad_query, grad_key, grad_lse, *rest[:2], None, None, rest[2], *[None] * 7


def _weighed(call, lse=None):
    """Weights [B,H,Tq,Tk] and lse, by PyTorch's own operations."""
    if call.softcap:
        scores = call.softcap * call.capped()
    else:
        scores = call.query.float() @ _wide(call.key, call.query.shape[1]).float().mT * call.scale
    added = call.added()
    if added is not None:
        scores = scores + added
    if lse is None:
        lse = torch.logsumexp(scores, -1)
        if call.sinks is not None:
            lse = torch.logaddexp(lse, call.sinks.float().reshape(1, -1, 1))
    none = lse.unsqueeze(-1) == -torch.inf
    return torch.exp(scores - lse.unsqueeze(-1).masked_fill(none, 0)).masked_fill(none, 0), lse


def attention_by_math(
    query, key, value, attn_mask=None, sinks=None, key_lengths=None, key_starts=None, alibi_slopes=None, cu_seqlens_q=None,
    cu_seqlens_k=None, page_table=None, causal=False, alignment=0, window_left=-1, window_right=-1, scale=None, softcap=0.0,
):  # fmt: skip
    rest = (attn_mask, sinks, key_lengths, key_starts, alibi_slopes, causal, alignment, window_left, window_right, scale, softcap)
    if page_table is not None:
        _core._torch_count("refused: a gradient of pages")
        raise NotImplementedError(_NO_PAGES)
    if cu_seqlens_q is None:
        query, key, value = _broadcast(query, key, value)
        call = Call(query, key, *rest)
        weights, lse = _weighed(call)
        return (weights @ _wide(value, query.shape[1]).float()).to(query.dtype), lse
    parts = [
        x.split(cu.diff().tolist()) for x, cu in ((query, cu_seqlens_q), (key, cu_seqlens_k), (value, cu_seqlens_k))
    ]  # fmt: skip
    results = [
        attention_by_math(
            *(x.transpose(0, 1).unsqueeze(0) for x in part), *rest[:5], None, None, None, *rest[5:]
        )  # fmt: skip
        for part in zip(*parts)
    ]
    return torch.cat([out[0].transpose(0, 1) for out, _ in results]), torch.cat([lse[0] for _, lse in results], 1)


def attention_weights_by_math(
    query, key, lse, attn_mask=None, sinks=None, key_lengths=None, key_starts=None, alibi_slopes=None, causal=False,
    alignment=0, window_left=-1, window_right=-1, scale=None, softcap=0.0, average=False,
):  # fmt: skip
    call = Call(
        query, key, attn_mask, sinks, key_lengths, key_starts, alibi_slopes, causal, alignment, window_left, window_right,
        scale, softcap,
    )  # fmt: skip
    weights = _weighed(call, lse)[0]
    return weights.mean(1) if average else weights


BY_MATH = {"attention": attention_by_math, "attention_weights": attention_weights_by_math}


class _Gradients(torch.library.Library):
    """Where a function transform runs or derivatives go forward, the ops are PyTorch's own operations."""

    def impl(self, name, kernel, key, **options):
        def run(keys, *args, **kwargs):
            if torch._C._functorch.peek_interpreter_stack() is None and torch.autograd.forward_ad._current_level < 0:
                return kernel(keys, *args, **kwargs)
            _core._torch_count("PyTorch's own: a function transform, or weights under autocast or tracing")
            return BY_MATH[name](*args, **kwargs)

        super().impl(name, run, key, **options)


_library = _Gradients("manyheads", "FRAGMENT")
torch.library.register_autograd("manyheads::attention", _backward, setup_context=_setup, lib=_library)
torch.library.register_autograd("manyheads::attention_weights", _backward_weights, setup_context=_setup_weights, lib=_library)
