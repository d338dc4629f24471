"""scaled_dot_product_attention with what PyTorch's own leaves out."""

import torch

from . import _gradients


def scaled_dot_product_attention(
    query,
    key,
    value,
    attn_mask=None,
    dropout_p=0.0,
    is_causal=False,
    scale=None,
    enable_gqa=False,
    *,
    return_lse=False,
    return_weights=False,
    backward="manyheads",
):
    """torch.nn.functional.scaled_dot_product_attention by manyheads, with its signature and meaning.

    return_lse=True also returns lse float32 [B,H,T], return_weights=True the weights float32 [B,H,T,S], those that dropout
    left. dropout_p takes one number of PyTorch's default generator as its seed: torch.manual_seed repeats it.
    backward="pytorch": gradients by PyTorch's own backward, for comparison; what it does not know is a
    NotImplementedError.
    A call that manyheads does not take is an error here: it never falls to PyTorch's own.

    >>> import torch
    >>> x = torch.ones(1, 8, 7, 64)
    >>> out, weights = scaled_dot_product_attention(x, x, x, is_causal=True, return_weights=True)
    >>> weights[0, 0, 1, :3].tolist()
    [0.5, 0.5, 0.0]
    """
    name = "manyheads.torch.scaled_dot_product_attention"
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"{name}: dropout_p is {dropout_p}, expected 0 to 1")
    if is_causal and attn_mask is not None:
        raise ValueError(f"{name}: attn_mask and is_causal exclude each other")
    if query.dim() != 4 or key.dim() != 4 or value.dim() != 4:
        raise ValueError(
            f"{name}: expected [B,H,T,D], query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
        )
    if not enable_gqa and key.shape[1] != query.shape[1]:
        raise ValueError(
            f"{name}: key has {key.shape[1]} heads, query {query.shape[1]}; enable_gqa=True lets heads share keys"
        )
    if query.device.type != "cpu":
        raise ValueError(f"{name}: query is on {query.device}, expected the CPU")
    if backward not in ("manyheads", "pytorch"):
        raise ValueError(f"{name}: backward is {backward!r}, expected 'manyheads' or 'pytorch'")
    options = {
        "causal": is_causal, "alignment": 1 if is_causal else 0, "scale": scale, "dropout_p": dropout_p,
        "dropout_seed": _gradients.draw_seed(dropout_p),
    }  # fmt: skip
    out, lse = torch.ops.manyheads.attention(
        query, key, value, attn_mask, pytorch_backward=backward == "pytorch", **options
    )
    results = [out]
    if return_lse:
        results.append(lse)
    if return_weights:
        results.append(torch.ops.manyheads.attention_weights(query, key, lse.detach(), attn_mask, **options))
    return results[0] if len(results) == 1 else tuple(results)
