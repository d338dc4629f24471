"""Gradients of torch.ops.manyheads, and the ops by PyTorch's own operations, where a function transform runs."""

import torch

from .. import _core

_NOT_TWICE = "manyheads::attention: no second derivatives; sdpa_kernel(SDPBackend.MATH) has them"
_NO_PAGES = "manyheads::attention: no gradient with page_table; detach the inputs"
_SEEDS = 2**63 - 1


def draw_seed(dropout_p):
    """A seed of PyTorch's default generator, int64 []; None where nothing is dropped."""
    return torch.randint(_SEEDS, ()) if dropout_p else None


def refuse_dropout(name, dropout_p):
    """Where a function transform runs: whether its copies drop alike is not ours to say."""
    if dropout_p:
        _core._torch_count("refused: dropout under a function transform")
        raise NotImplementedError(
            f"manyheads::{name}: dropout_p is {dropout_p}; no dropout under a function transform or forward-mode derivatives"
        )


def _refuse_twice(ctx, *grads, why=_NOT_TWICE):
    _core._torch_count("refused: a second derivative")
    raise NotImplementedError(why)


class _Last(torch.autograd.Function):
    """Passes gradients on, which have none of their own. why: what is said of them; of: what they are made of."""

    @staticmethod
    def forward(ctx, why, grads, *of):
        ctx.why = why
        return tuple(None if x is None else x.detach() for x in grads)

    @staticmethod
    def backward(ctx, *grads):
        _refuse_twice(ctx, why=ctx.why)


def once(why):
    """A backward that cannot be differentiated, and what is said of it."""

    def decorated(backward):
        def run(ctx, *grads):
            with torch.no_grad():
                found = backward(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            return _Last.apply(why, found, *grads, *ctx.saved_tensors)

        return run

    return decorated


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
        scale, softcap, q_documents=None, k_documents=None,
    ):  # fmt: skip
        self.query, self.key = query, key
        self.attn_mask, self.sinks, self.slopes = attn_mask, sinks, alibi_slopes
        self.lengths, self.starts = key_lengths, key_starts
        self.causal, self.alignment, self.left, self.right = causal, alignment, window_left, window_right
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale
        self.softcap = softcap
        self.documents = q_documents, k_documents

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
        if self.documents[0] is not None:
            yield self.documents[0][:, None, :, None] != self.documents[1][:, None, None, :]

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

    def weights(self, lse, dropout_p=0.0, dropout_seed=None):
        return torch.ops.manyheads.attention_weights(
            self.query, self.key, lse, self.attn_mask, self.sinks, self.lengths, self.starts, self.slopes, self.causal,
            self.alignment, self.left, self.right, self.scale, self.softcap, False, *self.documents,
            dropout_p, dropout_seed,
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


_flash_backward = torch.library.get_kernel("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "CPU")
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def _lies_as_pytorch_says(grad):
    """[B,H,T,D] that lies as [B,T,H,D]."""
    return grad.transpose(1, 2).contiguous().transpose(1, 2)


@torch.library.custom_op("manyheads::pytorch_backward", mutates_args=())
def pytorch_backward(
    grad_out: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, out: torch.Tensor, lse: torch.Tensor,
    attn_mask: torch.Tensor | None, causal: bool, scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of query, key and value by PyTorch's own flash attention, which has no gradient of a mask. An op, since
    use() stands before PyTorch's."""
    wide_query, wide_key, wide_value = _broadcast(query, key, value)
    batch, heads, tq = wide_query.shape[:3]
    mask = attn_mask
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -torch.inf)
        mask = mask.to(query.dtype).expand(batch, heads, tq, key.shape[2])
    lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # a row without keys: weights exp(score - lse) of 0
    grads = _flash_backward.call_boxed(
        _CPU, grad_out, wide_query, _wide(wide_key, heads), _wide(wide_value, heads), out, lse, 0.0, causal, attn_mask=mask,
        scale=scale,
    )  # fmt: skip
    grads = (grads[0], _narrow(grads[1], wide_key), _narrow(grads[2], wide_value))
    return tuple(_lies_as_pytorch_says(_sum_to(grad, x.shape)) for grad, x in zip(grads, (query, key, value)))


@pytorch_backward.register_fake
def _(grad_out, query, key, value, out, lse, attn_mask, causal, scale):
    return tuple(torch.empty_permuted(x.shape, (0, 2, 1, 3), dtype=x.dtype) for x in (query, key, value))


def _refuse_to_pytorch(inputs, needs):
    """Refuses what PyTorch's own backward does not know."""
    query, key, value, attn_mask, sinks, lengths, starts, slopes, cu_q, cu_k = inputs[:10]
    causal, alignment, left, right, _, softcap, q_documents, k_documents, _, dropout_p = inputs[11:21]
    unknown = {
        "packed sequences": cu_q is not None or cu_k is not None, "sinks": sinks is not None, "softcap": softcap > 0,
        "dropout": dropout_p > 0,
        "a window": left >= 0 or right >= 0, "key_lengths": lengths is not None, "key_starts": starts is not None,
        "alibi_slopes": slopes is not None, "documents": q_documents is not None or k_documents is not None,
        "values of another width": value.shape[-1] != query.shape[-1], "attn_mask beside causal": causal and attn_mask is not None,
        "a gradient of attn_mask": any(needs[3:4]),
        "causal from the bottom right": causal and alignment == 2 and query.shape[-2] != key.shape[-2],
    }  # fmt: skip
    for what, given in unknown.items():
        if given:
            raise NotImplementedError(f"manyheads::attention: PyTorch's own backward knows no {what}; ours does")


def _setup(ctx, inputs, output):
    if inputs[10] is not None:
        _core._torch_count("refused: a gradient of pages")
        raise NotImplementedError(_NO_PAGES)
    ctx.by_pytorch = inputs[19]
    if ctx.by_pytorch:
        _refuse_to_pytorch(inputs, ctx.needs_input_grad)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3], *output, *inputs[3:10], *inputs[17:19], inputs[21])
    ctx.rest, ctx.dropout_p = inputs[11:17], inputs[20]


# Places of what has gradients: query, key, value, attn_mask, sinks, alibi_slopes.
_LEARNED = (0, 1, 2, 3, 4, 7)


@once(_NOT_TWICE)
def _backward(ctx, grad_out, grad_lse):
    found = [None] * 22
    if grad_out is None and grad_lse is None:
        return tuple(found)
    query, key, value, out, lse, attn_mask, *options, dropout_seed = ctx.saved_tensors
    if grad_out is None:
        grad_out = out.new_zeros(()).expand(out.shape)
    if ctx.by_pytorch:
        if grad_lse is not None:
            raise NotImplementedError("manyheads::attention: PyTorch's own backward knows no gradient of lse; ours does")
        causal, scale = ctx.rest[0], ctx.rest[4]
        found[:3] = torch.ops.manyheads.pytorch_backward(grad_out, query, key, value, out, lse, attn_mask, causal, scale)
        return tuple(found)
    wanted = ctx.needs_input_grad  # of the arguments that were passed
    needs = sum(1 << i for i, place in enumerate(_LEARNED) if place < len(wanted) and wanted[place])
    grads = torch.ops.manyheads.attention_backward(
        grad_out, grad_lse, query, key, value, out, lse, attn_mask, *options[:6], *ctx.rest, *options[6:], needs,
        ctx.dropout_p, dropout_seed,
    )  # fmt: skip
    for i, place in enumerate(_LEARNED):
        if needs >> i & 1:
            found[place] = grads[i]
    return tuple(found)


def _setup_weights(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:8], *inputs[15:17], inputs[18])
    ctx.rest, ctx.average, ctx.dropout_p = inputs[8:14], inputs[14], inputs[17]


@once(_NOT_TWICE)
def _backward_weights(ctx, grad):
    """An lse without a gradient of its own is that of the same scores: the gradient by way of it is in here."""
    query, key, lse, attn_mask, sinks, lengths, starts, slopes, *documents, seed = ctx.saved_tensors
    call = Call(query, key, attn_mask, sinks, lengths, starts, slopes, *ctx.rest, *documents)
    weights = call.weights(lse.detach(), ctx.dropout_p, seed)
    grad = grad.float()
    if ctx.average:
        grad = grad.unsqueeze(1) / query.shape[1]
    weighed = weights * grad
    rows = weighed.sum(-1, keepdim=True)
    grad_lse = None
    if ctx.needs_input_grad[2]:
        grad_lse, grad_scores, rows = -rows.squeeze(-1), weighed, torch.zeros_like(rows)
    else:
        # What was dropped has a score all the same: its part of the rows is of the weights before dropout.
        grad_scores = weighed - (call.weights(lse.detach()) if ctx.dropout_p else weights) * rows
    needs = [x is not None and ctx.needs_input_grad[i] for i, x in ((3, attn_mask), (4, sinks), (7, slopes))]
    grad_query, grad_key, *rest = call.of_weighed(grad_scores, rows, lse, needs)
    return grad_query, grad_key, grad_lse, *rest[:2], None, None, rest[2], *[None] * 11


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
    q_documents=None, k_documents=None, pytorch_backward=False, dropout_p=0.0, dropout_seed=None,
):  # fmt: skip
    refuse_dropout("attention", dropout_p)
    rest = (
        attn_mask, sinks, key_lengths, key_starts, alibi_slopes, causal, alignment, window_left, window_right, scale, softcap,
        q_documents, k_documents,
    )  # fmt: skip
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
    alignment=0, window_left=-1, window_right=-1, scale=None, softcap=0.0, average=False, q_documents=None, k_documents=None,
    dropout_p=0.0, dropout_seed=None,
):  # fmt: skip
    refuse_dropout("attention_weights", dropout_p)
    call = Call(
        query, key, attn_mask, sinks, key_lengths, key_starts, alibi_slopes, causal, alignment, window_left, window_right,
        scale, softcap, q_documents, k_documents,
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
            results = BY_MATH[name](*args, **kwargs)
            _core._torch_count("PyTorch's own: a function transform, or weights under autocast or tracing")
            return results

        super().impl(name, run, key, **options)


_library = _Gradients("manyheads", "FRAGMENT")
torch.library.register_autograd("manyheads::attention", _backward, setup_context=_setup, lib=_library)
torch.library.register_autograd("manyheads::attention_weights", _backward_weights, setup_context=_setup_weights, lib=_library)
torch.library.register_autograd("manyheads::attention_backward", _refuse_twice)
