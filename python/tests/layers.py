"""What the tests of nn.MultiheadAttention share: layers with weights, their twins in float64, and masks."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    pytest.skip("PyTorch is older than 2.10", allow_module_level=True)

import manyheads.torch as mt  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(7)
    mt.report(reset=True)
    yield
    assert not mt._core._torch_active()


def tolerance(dtype):
    # Outputs of about 1, weights up to 1: a rounding to the type for each of projection, attention and projection.
    return {torch.float64: 1e-12, torch.float32: 4e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]


def double(layer):
    return copy.deepcopy(layer).double()


def twin(layer):
    """torch.nn.MultiheadAttention in float64 with the layer's weights."""
    made = torch.nn.MultiheadAttention(
        layer.embed_dim, layer.num_heads, layer.dropout, layer.in_proj_bias is not None, layer.bias_k is not None,
        layer.add_zero_attn, layer.kdim, layer.vdim, layer.batch_first, dtype=torch.float64,
    )  # fmt: skip
    made.load_state_dict(layer.state_dict())
    return made.train(layer.training)


def scattered(layer):
    """Biases that are not 0."""
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn_like(p) * (p.shape[-1] ** -0.5 if p.dim() > 1 else 0.3))
    return layer


def widened(x):
    return x.double() if isinstance(x, torch.Tensor) and x.dtype.is_floating_point else x


def close(found, wanted, dtype):
    assert found.shape == wanted.shape and found.dtype == dtype
    assert (found.double() - wanted).abs().max() <= tolerance(dtype)


def same_result(found, wanted, dtype):
    close(found[0], wanted[0], dtype)
    assert (found[1] is None) == (wanted[1] is None)
    if found[1] is not None:
        close(found[1], wanted[1], dtype)


def masks_of(b, h, t, s, kinds, dtype):
    """Masks that leave each query a key: the first."""
    attn, padding = kinds
    made = {}
    if attn:
        mask = torch.rand(*((t, s) if attn[0] == "2" else (b * h, t, s))) > 0.6
        mask[..., 0] = False
        made["attn_mask"] = torch.randn(mask.shape).to(dtype) if attn.endswith("float") else mask
    if padding:
        mask = torch.rand(b, s) > 0.6
        mask[..., 0] = False
        made["key_padding_mask"] = torch.randn(mask.shape).to(dtype) if padding == "float" else mask
    if attn and padding and attn.endswith("float") != (padding == "float"):
        made.pop("attn_mask")
    return made
