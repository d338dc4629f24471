"""torch.nn.MultiheadAttention by manyheads."""

import torch

from .. import _core
from . import _gradients, _multihead

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Weights of all heads at once, up to here; beyond, one sequence at a time is averaged.
_WEIGHTS_AT_ONCE = 1 << 22


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention by manyheads: its arguments, parameters, state_dict and results.

    - Without gradients the whole layer is manyheads', projections too: a sequence has the same bits alone
      and in a batch. The weights are packed once, and again when they change.
    - With gradients, projections are PyTorch's and attention is manyheads'.
    - Dropout in training takes one number of PyTorch's default generator a call as its seed; the weights are those left.
    - float64, nested tensors, other devices and autocast are PyTorch's own; report() counts them.
    - A query whose keys are all masked has output out_proj.bias and weights 0, where PyTorch may have NaN.

    >>> import torch
    >>> layer = MultiheadAttention(64, 8, batch_first=True).eval()
    >>> x = torch.ones(2, 5, 64)
    >>> with torch.no_grad():
    ...     y, weights = layer(x, x, x)
    >>> y.shape, weights.shape
    (torch.Size([2, 5, 64]), torch.Size([2, 5, 5]))
    """

    _packed = None  # (what the parameters were, the layer made of them)

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_packed", None)
        return state

    def _layer(self):
        """The engine's layer of the parameters as they are; None where they are not to be packed."""
        parameters = dict(self.named_parameters())
        first = next(iter(parameters.values()))
        kind = _TYPES.get(first.dtype)
        if kind is None or any(p.dtype != first.dtype or p.device.type != "cpu" for p in parameters.values()):
            return None
        if any(p.is_inference() for p in parameters.values()):
            return None  # they count no versions
        now = [(name, p.data_ptr(), p._version) for name, p in parameters.items()]
        packed = self._packed
        if packed is None or packed[0] != now:
            layer = _core.MultiHeadAttention(
                self.embed_dim,
                self.num_heads,
                kdim=self.kdim,
                vdim=self.vdim,
                bias=self.in_proj_bias is not None,
                add_bias_kv=self.bias_k is not None,
                add_zero_attn=bool(self.add_zero_attn),
                dtype=kind,
                state_dict={name: p.detach() for name, p in parameters.items()},
            )
            packed = self._packed = (now, layer, list(parameters.values()))
        return packed[1]

    def _engine(self, query, key, value, key_padding_mask, attn_mask, is_causal):
        """The engine's layer where it takes the call, else None."""
        inputs = (query, key, value)
        if torch.compiler.is_compiling() or any(type(x) is not torch.Tensor for x in inputs):
            return None
        masks = [m for m in (key_padding_mask, attn_mask) if m is not None]
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *masks, *self.parameters())):
            return None
        dtype = query.dtype
        if (
            dtype not in _TYPES
            or any(x.dtype != dtype or x.device.type != "cpu" or x.is_nested or x.layout != torch.strided for x in inputs)
            or any(type(m) is not torch.Tensor or m.dtype not in (torch.bool, *_TYPES) for m in masks)
            or torch.is_autocast_enabled("cpu")
            or _multihead.transformed()
            or query.dim() not in (2, 3)
            or key.dim() != query.dim()
            or value.dim() != query.dim()
            or query.numel() == 0
            or key.numel() == 0
            or (is_causal and (attn_mask is None or self.bias_k is not None or self.add_zero_attn))
            or self.in_proj_weight is not None and (key.shape[-1] != self.embed_dim or value.shape != key.shape)
        ):
            return None
        layer = self._layer()
        return layer if layer is not None and next(self.parameters()).dtype == dtype else None

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
    ):
        layer = self._engine(query, key, value, key_padding_mask, attn_mask, is_causal)
        if layer is not None:
            return self._run(
                layer, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        if query.is_nested or key.is_nested or value.is_nested:
            _multihead.count("a nested tensor")
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
        batch_first = self.batch_first and query.dim() == 3
        if batch_first:
            same_query, same_value = query is key, key is value
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
            key = query if same_query else key
            value = key if same_value else value
        out, weights = _multihead.attend(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return (out.transpose(0, 1) if batch_first else out), weights

    def _run(self, layer, query, key, value, key_padding_mask, need_weights, attn_mask, average, is_causal):
        batched = query.dim() == 3
        same = query is key and key is value
        query, key, value = (x.detach() if x.requires_grad else x for x in (query, key, value))
        axis = 0 if self.batch_first or not batched else 1
        out = torch.empty(query.shape, dtype=query.dtype)
        if not batched:
            query, key, value, y = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0), out.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif axis == 1:
            query, key, value, y = (x.transpose(0, 1) for x in (query, key, value, out))
        else:
            y = out
        # The hint replaces the mask where PyTorch lets it.
        mask = None
        if is_causal and key_padding_mask is None and not need_weights:
            mask, attn_mask = _core.mask.causal("top_left"), None

        dropout_p = float(self.dropout) if self.training else 0.0
        seed = int(_gradients.draw_seed(dropout_p)) if dropout_p else 0

        def run(at):
            parts = [x[at] for x in (query, key, value, y)]
            return layer._forward_on_torch(
                parts[0],
                None if same else parts[1],
                None if same else parts[2],
                key_padding_mask=None if key_padding_mask is None else key_padding_mask[at],
                attn_mask=self._mask_of(attn_mask, at),
                mask=mask,
                weights=need_weights,
                out=parts[3],
                dropout_p=dropout_p,
                dropout_seed=seed,
                dropout_origin=(at.start or 0, 0, 0),
            )

        batch = query.shape[0]
        everything = slice(None)
        if not need_weights:
            run(everything)
            _core._torch_count("taken: nn.MultiheadAttention")
            return out, None
        if average and batch > 1 and batch * self.num_heads * query.shape[1] * key.shape[1] > _WEIGHTS_AT_ONCE:
            weights = torch.cat([run(slice(b, b + 1))[1].mean(1) for b in range(batch)])
        else:
            weights = run(everything)[1]
            weights = weights.mean(1) if average else weights
        weights = weights.to(query.dtype)
        _core._torch_count("taken: nn.MultiheadAttention")
        return out, weights if batched else weights.squeeze(0)

    def _mask_of(self, attn_mask, at):
        """The mask of sequences `at`; one [B H,T,S] has them in runs of heads."""
        if attn_mask is None or attn_mask.dim() != 3 or at == slice(None):
            return attn_mask
        return attn_mask[at.start * self.num_heads : at.stop * self.num_heads]
