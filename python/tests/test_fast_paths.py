"""PyTorch's fast paths under use(): nn.MultiheadAttention in eval, TransformerEncoderLayer, and their operators."""

import itertools

import pytest

# First: it skips where PyTorch is missing.
from layers import double, fresh, masks_of, same_result, scattered, tolerance, widened  # noqa: F401
import torch  # noqa: E402

import manyheads.torch as mt  # noqa: E402

LAYER = "taken: nn.MultiheadAttention"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("grad", [False, True])
def test_fast_paths_are_taken(dtype, grad):
    layer = scattered(torch.nn.MultiheadAttention(32, 4, batch_first=True, dtype=dtype)).eval()
    if grad:
        layer.requires_grad_(False)  # grad mode with nothing to record
    reference = double(layer)
    x = torch.randn(3, 7, 32).to(dtype)
    count = 0
    with torch.set_grad_enabled(grad):
        for attn, padding in itertools.product((None, "2", "3"), (None, "bool")):
            for need, average in ((True, True), (True, False), (False, True)):
                extra = masks_of(3, 4, 7, 7, (attn, padding), dtype)
                extra |= {"need_weights": need, "average_attn_weights": average}
                with mt.use():
                    found = layer(x, x, x, **extra)
                same_result(found, reference(*[x.double()] * 3, **extra), dtype)
                assert found[0].is_contiguous() and (found[1] is None or found[1].is_contiguous())
                count += 1
    assert mt.report() == {LAYER if dtype != torch.float64 else "PyTorch's own: float64": count}


def test_the_ops_themselves():
    """What the modules never ask for: other keys than queries, bool masks, each mask_type, bad shapes."""
    layer = scattered(torch.nn.MultiheadAttention(16, 2, batch_first=True)).eval().requires_grad_(False)
    weights = (16, 2, layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias)
    x, y = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    reference = double(layer)
    op = torch.ops.aten._native_multi_head_attention
    square, padding, full = torch.rand(5, 5) > 0.5, torch.rand(2, 5) > 0.5, torch.rand(2, 2, 5, 5) > 0.5
    for mask in (square, padding, full):
        mask[..., 0] = False
    with mt.use():
        for kind, mask in enumerate((square, padding, full)):
            extra = {"key_padding_mask": mask} if kind == 1 else {"attn_mask": mask.reshape(-1, 5, 5).squeeze(0)}
            for keys in (x, y):
                want = reference(x.double(), keys.double(), keys.double(), **extra)
                same_result(op(x, keys, keys, *weights, mask, mask_type=kind), want, torch.float32)
        for bad in (
            {"mask": square}, {"mask": square, "mask_type": 3}, {"mask": square, "mask_type": 2},
            {"mask": padding, "mask_type": 0}, {"mask": torch.ones(5, 5, dtype=torch.int64), "mask_type": 0},
        ):  # fmt: skip
            with pytest.raises(RuntimeError):
                op(x, x, x, *weights, **bad)
        for bad in ((x[0], x, x, *weights), (x, x[:1], x[:1], *weights), (x, x, x, 16, 3, *weights[2:])):
            with pytest.raises(RuntimeError, match="_native_multi_head_attention: "):
                op(*bad)
        empty = op(x[:0], x[:0], x[:0], *weights)
        assert empty[0].shape == (0, 5, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_encoder_layers_are_taken(dtype):
    count = 0
    for norm_first, activation in itertools.product((False, True), ("relu", "gelu")):
        layer = scattered(
            torch.nn.TransformerEncoderLayer(
                32, 4, 48, norm_first=norm_first, activation=activation, batch_first=True, dtype=dtype
            )
        ).eval()
        reference = double(layer)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            for kinds in itertools.product((None, "2", "3", "2float"), (None, "bool")):
                masks = {f"src_{k.removeprefix('attn_')}": v for k, v in masks_of(3, 4, 6, 6, kinds, dtype).items()}
                for x in (torch.randn(3, 6, 32).to(dtype), torch.randn(6, 3, 32).to(dtype).transpose(0, 1)):
                    with torch.no_grad():
                        want = reference(x.double(), **{k: widened(v) for k, v in masks.items()})
                        torch.backends.mha.set_fastpath_enabled(True)
                        with mt.use():
                            found = layer(x, **masks)
                        torch.backends.mha.set_fastpath_enabled(False)
                    assert found.stride() == torch.empty_like(x).stride() and found.shape == x.shape
                    assert (found.double() - want).abs().max() <= 4 * tolerance(dtype), (kinds, norm_first)
                    count += 1
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    assert mt.report() == {LAYER if dtype != torch.float64 else "PyTorch's own: float64": count}


def test_nested_tensors_are_left_to_pytorch_and_right():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0)
    encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    x, padding = torch.randn(2, 6, 32), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    rows = ~padding
    with torch.no_grad():
        want = double(encoder)(x.double(), src_key_padding_mask=padding)
        with mt.use():
            found = encoder(x, src_key_padding_mask=padding)
            flat = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
            flat.load_state_dict(encoder.state_dict())
            padded = flat(x, src_key_padding_mask=padding)
    assert (found[rows] - want[rows]).abs().max() < 1e-5
    assert (padded[rows] - want[rows]).abs().max() < 1e-5
    assert mt.report(reset=True) == {LAYER: 2, "PyTorch's own: a nested tensor": 2}
    inner = mt.MultiheadAttention(32, 4, batch_first=True).eval()
    nested = torch.nested.nested_tensor([x[0], x[1, :4]])
    with torch.no_grad():
        y = inner(nested, nested, nested, need_weights=False)[0]
        assert torch.allclose(y[1], inner(x[1:, :4], x[1:, :4], x[1:, :4])[0][0], atol=1e-6)
    assert mt.report(reset=True)["PyTorch's own: a nested tensor"] == 1
    with torch.no_grad():
        encoder(x, src_key_padding_mask=padding)
    assert mt.report() == {}


def test_encoders_train():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0)
    encoder = torch.nn.TransformerEncoder(layer, 2)
    reference = double(encoder)
    x = torch.randn(2, 6, 32)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(6)
    with mt.use():
        y = encoder(x, mask=causal, is_causal=True)
        y.square().sum().backward()
    want = reference(x.double(), mask=causal.double(), is_causal=True)
    want.square().sum().backward()
    assert (y - want).abs().max() < 1e-5
    for ours, theirs in zip(encoder.parameters(), reference.parameters()):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * max(1, theirs.grad.abs().max().item())
    assert mt.report() == {"taken: attention": 2, "taken: backward": 2}


def test_float64_with_bool_masks_on_the_fast_path():
    # The layer makes masks float; the op takes bool ones too.
    layer = torch.nn.MultiheadAttention(16, 4, batch_first=True, dtype=torch.float64).eval()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    weights = (layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    with torch.no_grad():
        for mask, kind in ((later, 0), (padding, 1)):
            call = (x, x, x, 16, 4, *weights, mask, True, True, kind)
            want = torch._native_multi_head_attention(*call)
            with mt.use():
                got = torch._native_multi_head_attention(*call)
            for y, z in zip(got, want):
                assert (y - z).abs().max() < 1e-12, kind
