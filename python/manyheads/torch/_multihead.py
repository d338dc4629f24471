"""torch.nn.functional.multi_head_attention_forward by manyheads, with its weights from the fused path."""

import torch
import torch.nn.functional as F
from torch.overrides import has_torch_function
from torch.utils.checkpoint import set_checkpoint_early_stop

from .. import _core
from . import _gradients

_original = F.multi_head_attention_forward
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_active = False
_by_pytorch = False  # whether gradients are by PyTorch's own backward
_library = None
_recompute_whole = None


def count(reason):
    if not torch.compiler.is_compiling():
        _core._torch_count("PyTorch's own: " + reason)


def transformed():
    """Whether a trace of TorchScript, a function transform or forward-mode AD runs: our ops have no rules for them."""
    if torch.compiler.is_compiling():
        return False
    return (
        torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def _why_not(query, key, value, masks, weights, bias_k, bias_v, static):
    """Why PyTorch keeps the call; None where it is taken."""
    tensors = (query, key, value, *weights)
    if query.is_nested or key.is_nested or value.is_nested:
        return "a nested tensor"
    if query.dtype == torch.float64:
        return "float64"
    if query.dtype not in _TYPES or any(t is not None and t.dtype != query.dtype for t in tensors):
        return "a type other than float32, bfloat16 and float16, or several"
    if any(m is not None and m.dtype not in (torch.bool, torch.float32, query.dtype) for m in masks):
        return "a type other than float32, bfloat16 and float16, or several"
    if any(t is not None and t.device.type != "cpu" for t in tensors):
        return "another device"
    if torch.is_autocast_enabled("cpu") or transformed():
        return "a function transform, or weights under autocast or tracing"
    if static or (bias_k is None) != (bias_v is None) or query.numel() == 0 or key.numel() == 0:
        return "a shape that only PyTorch's math path takes, or refuses"
    return None


def _fits(query, key, value, embed_dim, num_heads, separate, key_padding_mask, attn_mask):
    """Whether the shapes are those of the documentation; PyTorch's own says what is wrong with others."""
    rank = query.dim()
    if rank not in (2, 3) or key.dim() != rank or value.dim() != rank:
        return False
    batch = query.shape[1] if rank == 3 else 1
    tq, tk = query.shape[0], key.shape[0]
    return (
        query.shape[-1] == embed_dim
        and embed_dim % num_heads == 0
        and key.shape[:-1] == value.shape[:-1]
        and (rank == 2 or key.shape[1] == batch)
        and (separate or (key.shape[-1] == embed_dim and value.shape[-1] == embed_dim))
        and (key_padding_mask is None or key_padding_mask.shape == ((batch, tk) if rank == 3 else (tk,)))
        and (attn_mask is None or attn_mask.shape in ((tq, tk), (batch * num_heads, tq, tk)))
    )


def _merged(attn_mask, key_padding_mask, batch, num_heads, added, dtype):
    """Both masks as one that attention takes, [T,S] to [B,H,T,S]; a bool one says which keys to attend to."""
    if attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.unflatten(0, (batch, num_heads))
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask[:, None, None]
    masks = [m for m in (attn_mask, key_padding_mask) if m is not None]
    if not masks:
        return None
    if added:  # added keys are seen by all
        masks = [F.pad(m, (0, added)) for m in masks]
    if all(m.dtype == torch.bool for m in masks):
        return ~(masks[0] | masks[1] if len(masks) == 2 else masks[0])
    masks = [torch.zeros_like(m, dtype=dtype).masked_fill_(m, -torch.inf) if m.dtype == torch.bool else m for m in masks]
    return masks[0] + masks[1] if len(masks) == 2 else masks[0]


def _projected(query, key, value, in_proj_weight, in_proj_bias, separate):
    """q, k and v; self-attention's are views of one product."""
    if separate is None and query is key and key is value:
        return F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    weights = in_proj_weight.chunk(3) if separate is None else separate
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases)]


def attend(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
):
    """multi_head_attention_forward by our ops; PyTorch's own, counted, where they do not take the call."""
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    weights = (in_proj_weight, in_proj_bias, bias_k, bias_v, out_proj_weight, out_proj_bias, *(separate or ()))
    masks = (attn_mask, key_padding_mask)
    static = static_k is not None or static_v is not None
    why = _why_not(query, key, value, masks, weights, bias_k, bias_v, static)
    if why is None and (
        (is_causal and attn_mask is None)
        or None in (separate or (in_proj_weight,))
        or not _fits(query, key, value, embed_dim_to_check, num_heads, separate, key_padding_mask, attn_mask)
    ):
        why = "a shape that only PyTorch's math path takes, or refuses"
    if why is not None:
        count(why)
        return _original(
            query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v, add_zero_attn,
            dropout_p, out_proj_weight, out_proj_bias, training, key_padding_mask, need_weights, attn_mask,
            use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, static_k, static_v,
            average_attn_weights, is_causal,
        )  # fmt: skip
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, separate)
    batched = q.dim() == 3
    if not batched:
        q, k, v = q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    tgt_len, batch, embed_dim = q.shape
    added = (bias_k is not None) + bool(add_zero_attn)
    if bias_k is not None:
        k, v = torch.cat([k, bias_k.expand(1, batch, -1)]), torch.cat([v, bias_v.expand(1, batch, -1)])
    if add_zero_attn:
        k, v = F.pad(k, (0, 0, 0, 0, 0, 1)), F.pad(v, (0, 0, 0, 0, 0, 1))
    # The hint replaces the mask where PyTorch lets it.
    causal = is_causal and key_padding_mask is None and not need_weights
    mask = None if causal else _merged(attn_mask, key_padding_mask, batch, num_heads, added, q.dtype)
    q, k, v = (x.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for x in (q, k, v))
    dropout = {"dropout_p": dropout_p, "dropout_seed": _gradients.draw_seed(dropout_p)} if training and dropout_p > 0 else {}
    out, lse = torch.ops.manyheads.attention(
        q, k, v, mask, causal=causal, alignment=1 if causal else 0, pytorch_backward=_by_pytorch, **dropout
    )
    lse = lse.detach() if _by_pytorch else lse  # PyTorch's own takes no gradient of lse
    out = F.linear(out.permute(2, 0, 1, 3).reshape(tgt_len, batch, embed_dim), out_proj_weight, out_proj_bias)
    probabilities = None
    if need_weights:  # those that dropout left, as PyTorch's
        probabilities = torch.ops.manyheads.attention_weights(
            q, k, lse, mask, average=average_attn_weights, **dropout
        ).to(q.dtype)
    if batched:
        return out, probabilities
    return out.squeeze(1), None if probabilities is None else probabilities.squeeze(0)


def multi_head_attention_forward(query, key, value, *args, **kwargs):
    """Stands in torch.nn.functional while use() holds. A call without weights reaches us by F.sdpa."""
    need_weights = args[12] if len(args) > 12 else kwargs.get("need_weights", True)
    if _active and need_weights and not has_torch_function((query, key, value, *args, *kwargs.values())):
        return attend(query, key, value, *args, **kwargs)
    return _original(query, key, value, *args, **kwargs)


_forward_ad = torch.autograd.forward_ad
_enter_dual_level, _exit_dual_level = _forward_ad.enter_dual_level, _forward_ad.exit_dual_level


def _levels():
    _core._torch_forward_levels(_forward_ad._current_level + 1)


def _enter_watched():
    level = _enter_dual_level()
    _levels()
    return level


def _exit_watched(*, level=None):
    _exit_dual_level(level=level)
    _levels()


def _counted(kernel):
    def run(keys, *args, **kwargs):
        count("a nested tensor")
        return kernel.call_boxed(keys, *args, **kwargs)

    return run


def begin(by_pytorch):
    global _active, _by_pytorch, _library, _recompute_whole
    if _active:
        return
    _active, _by_pytorch = True, by_pytorch
    # Checkpoints end recomputation by a Python exception, which does not pass PyTorch's C ABI.
    _recompute_whole = set_checkpoint_early_stop(False)
    _recompute_whole.__enter__()
    _forward_ad.enter_dual_level, _forward_ad.exit_dual_level = _enter_watched, _exit_watched
    _levels()
    F.multi_head_attention_forward = multi_head_attention_forward
    # PyTorch's own kernel of nested tensors, counted; that of encoder layers calls it.
    kernel = torch.library.get_kernel("aten::_native_multi_head_attention", "NestedTensorCPU")
    _library = torch.library.Library("aten", "IMPL")
    _library.impl(
        "_native_multi_head_attention", _counted(kernel), "NestedTensorCPU", with_keyset=True, allow_override=True
    )


def end():
    global _active, _by_pytorch, _library, _recompute_whole
    _active = _by_pytorch = False
    if _recompute_whole is not None:
        _recompute_whole.__exit__(None, None, None)
        _recompute_whole = None
    _forward_ad.enter_dual_level, _forward_ad.exit_dual_level = _enter_dual_level, _exit_dual_level
    if _library is not None:
        _library._destroy()
        _library = None
    if F.multi_head_attention_forward is multi_head_attention_forward:
        F.multi_head_attention_forward = _original
