"""torch.nn.MultiheadAttention by manyheads."""

import torch

from .. import _core
from . import _gradients, _multihead

_TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Weights of all heads at once, up to here; beyond, one sequence at a time is averaged.
_WEIGHTS_AT_ONCE = 1 << 22
_NOT_TWICE = (
    "MultiheadAttention: no second derivatives; torch.nn.MultiheadAttention under sdpa_kernel(SDPBackend.MATH) has them"
)


def _lie_alike(a, b):
    steps = ((x, y) for size, x, y in zip(a.shape, a.stride(), b.stride()) if size > 1)
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and all(x == y for x, y in steps)


class _Call:
    """A call of the engine's layer, as its forward and its backward take it. same: query is key and value too, which are
    None."""

    def __init__(self, layer, query, same, batch_first, causal, dropout_p):
        self.layer, self.same, self.causal = layer, same, causal
        self.batched, self.batch_first = query.dim() == 3, batch_first
        self.dropout_p = dropout_p
        self.seed = int(_gradients.draw_seed(dropout_p)) if dropout_p else 0

    def rows(self, x):
        """What lies as the module takes it, as [B,T,E]."""
        if not self.batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def inputs(self, query, key, value, at):
        query, key, value = (x.detach() if x is not None and x.requires_grad else x for x in (query, key, value))
        if self.same:
            return self.rows(query)[at], None, None
        return [self.rows(x)[at] for x in (query, key, value)]

    def options(self, key_padding_mask, attn_mask, at):
        if key_padding_mask is not None:
            key_padding_mask = (key_padding_mask if self.batched else key_padding_mask.unsqueeze(0))[at]
        if attn_mask is not None and attn_mask.dim() == 3 and at != slice(None):  # [B H,T,S]: runs of heads
            heads = self.layer.num_heads
            attn_mask = attn_mask[at.start * heads : at.stop * heads]
        return {
            "key_padding_mask": key_padding_mask, "attn_mask": attn_mask, "mask": self.causal, "dropout_p": self.dropout_p,
            "dropout_seed": self.seed, "dropout_origin": (at.start or 0, 0, 0),
        }  # fmt: skip

    def forward(self, query, key, value, key_padding_mask, attn_mask, out, weights=False, keep=False, at=slice(None)):
        """Sequences `at`. What is asked for comes behind out."""
        return self.layer._forward_on_torch(
            *self.inputs(query, key, value, at), weights=weights, out=self.rows(out)[at], keep=keep,
            **self.options(key_padding_mask, attn_mask, at),
        )  # fmt: skip

    def backward(self, dy, activations, query, key, value, key_padding_mask, attn_mask, gradients):
        at = slice(None)
        self.layer._backward_on_torch(
            self.rows(dy.detach()), activations, *self.inputs(query, key, value, at), gradients=gradients,
            **self.options(key_padding_mask, attn_mask, at),
        )  # fmt: skip


class _Layer(torch.autograd.Function):
    """The engine's layer with gradients of query, key, value and the weights, `names`."""

    @staticmethod
    def forward(ctx, call, names, query, key, value, key_padding_mask, attn_mask, *weights):
        ctx.set_materialize_grads(False)
        out = torch.empty(query.shape, dtype=query.dtype, device="cpu")
        inputs = (query, key, value, key_padding_mask, attn_mask)
        activations = call.forward(*inputs, out, keep=True)[1]
        kept = (None if x is None else torch.from_numpy(x) for x in activations._arrays())
        # The weights too, though the call holds what it made of them: a change in between is PyTorch's error.
        ctx.save_for_backward(*inputs, *kept, *weights)
        ctx.call, ctx.names = call, names
        return out

    @staticmethod
    @_gradients.once(_NOT_TWICE)
    def backward(ctx, dy):
        found = [None] * (7 + len(ctx.names))
        if dy is None:
            return tuple(found)
        saved = ctx.saved_tensors
        inputs, kept, weights = saved[:5], saved[5:10], saved[10:]
        of = dict(zip(("query", "key", "value"), inputs)) | dict(zip(ctx.names, weights))
        places = dict(zip(of, (2, 3, 4, *range(7, 7 + len(weights)))))
        made = {
            name: torch.empty(x.shape, dtype=torch.float32, device="cpu")
            for name, x in of.items()
            if ctx.needs_input_grad[places[name]]
        }
        activations = _core.LayerActivations._of(*(None if x is None else x.contiguous() for x in kept))
        gradients = {name: ctx.call.rows(x) if places[name] < 5 else x for name, x in made.items()}
        ctx.call.backward(dy, activations, *inputs, gradients)
        _core._torch_count("taken: backward")
        for name, gradient in made.items():
            found[places[name]] = gradient.to(of[name].dtype)
        return tuple(found)


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention by manyheads: its arguments, parameters, state_dict and results.

    - The whole layer is manyheads', projections too, with gradients where need_weights is False: a sequence has the same
      bits alone and in a batch. The weights are packed once, and again when they change.
    - With gradients and need_weights=True, a mask that learns, or compiled, projections are PyTorch's and attention is
      manyheads'. The same holds for backward="pytorch".
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

    def _weights(self):
        """The tensors of state_dict() by name, as hooks and parametrizations have them; None where the engine takes none."""
        projections = ("in_proj_weight",) if self._qkv_same_embed_dim else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        found = {name: getattr(self, name) for name in (*projections, "in_proj_bias", "bias_k", "bias_v")}
        found |= {"out_proj.weight": self.out_proj.weight, "out_proj.bias": self.out_proj.bias}
        if any((found[a] is None) != (found[b] is None) for a, b in (("in_proj_bias", "out_proj.bias"), ("bias_k", "bias_v"))):
            return None
        found = {name: x for name, x in found.items() if x is not None}
        dtype = found["out_proj.weight"].dtype
        if dtype not in _TYPES or any(
            type(x) not in (torch.Tensor, torch.nn.Parameter)
            or x.dtype != dtype
            or x.device.type != "cpu"
            or x.layout != torch.strided
            or x.is_inference()  # it counts no versions
            for x in found.values()
        ):
            return None
        return found

    def _layer(self, weights):
        """The engine's layer of these weights."""
        now = [(name, x.data_ptr(), x._version) for name, x in weights.items()]
        packed = self._packed
        if packed is None or packed[0] != now:
            held = {name: x.detach() for name, x in weights.items()}
            layer = _core.MultiHeadAttention._made_on_torch(
                self.embed_dim,
                self.num_heads,
                kdim=self.kdim,
                vdim=self.vdim,
                bias="in_proj_bias" in weights,
                add_bias_kv="bias_k" in weights,
                add_zero_attn=bool(self.add_zero_attn),
                dtype=_TYPES[weights["out_proj.weight"].dtype],
                state_dict=held,
            )
            packed = self._packed = (now, layer, held)
        return packed[1]

    def _engine(self, query, key, value, key_padding_mask, need_weights, attn_mask, is_causal):
        """The engine's layer where it takes the call, and the weights where they or the inputs learn; else None."""
        inputs = (query, key, value)
        if torch.compiler.is_compiling() or any(type(x) is not torch.Tensor for x in inputs):
            return None
        masks = [m for m in (key_padding_mask, attn_mask) if m is not None]
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
            or self._qkv_same_embed_dim and (key.shape[-1] != self.embed_dim or value.shape != key.shape)
        ):
            return None
        without_gradients = need_weights or _multihead._by_pytorch or any(m.requires_grad for m in masks)

        def learn(*of):
            return torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, *masks, *of))

        if without_gradients and learn(*self.parameters()):
            return None
        # Behind that, since each reading makes a parametrized weight anew. One may be no parameter and learn.
        weights = self._weights()
        if weights is None or weights["out_proj.weight"].dtype != dtype:
            return None
        learns = learn(*weights.values())
        if without_gradients and learns:
            return None
        return self._layer(weights), weights if learns else None

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
        engine = self._engine(query, key, value, key_padding_mask, need_weights, attn_mask, is_causal)
        if engine is not None:
            return self._run(
                *engine, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
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

    def _run(self, layer, weights, query, key, value, key_padding_mask, need_weights, attn_mask, average, is_causal):
        same = query is key and key is value
        # The hint replaces the mask where PyTorch lets it.
        causal = None
        if is_causal and key_padding_mask is None and not need_weights:
            causal, attn_mask = _core.mask.causal("top_left"), None
        call = _Call(layer, query, same, self.batch_first, causal, float(self.dropout) if self.training else 0.0)
        if weights is not None:
            if same:
                key = value = None
            elif _lie_alike(query, key) and _lie_alike(key, value):
                key = key.clone()  # inputs that lie alike are one to the engine, with one gradient
            out = _Layer.apply(call, tuple(weights), query, key, value, key_padding_mask, attn_mask, *weights.values())
            _core._torch_count("taken: nn.MultiheadAttention")
            return out, None

        out = torch.empty(query.shape, dtype=query.dtype, device="cpu")
        inputs = (query, key, value, key_padding_mask, attn_mask)
        if not need_weights:
            call.forward(*inputs, out)
            _core._torch_count("taken: nn.MultiheadAttention")
            return out, None
        batch = call.rows(query).shape[0]
        found_size = batch * self.num_heads * call.rows(query).shape[1] * call.rows(key).shape[1]
        if average and batch > 1 and found_size > _WEIGHTS_AT_ONCE:
            found = [call.forward(*inputs, out, weights=True, at=slice(b, b + 1))[1].mean(1) for b in range(batch)]
            probabilities = torch.cat(found)
        else:
            probabilities = call.forward(*inputs, out, weights=True)[1]
            probabilities = probabilities.mean(1) if average else probabilities
        probabilities = probabilities.to(query.dtype)
        _core._torch_count("taken: nn.MultiheadAttention")
        return out, probabilities if call.batched else probabilities.squeeze(0)
