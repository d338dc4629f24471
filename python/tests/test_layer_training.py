"""manyheads.torch.MultiheadAttention with gradients, by the engine's layer, and where it is not."""

import contextlib
import copy
import gc
import weakref

# First: it skips where PyTorch is missing.
from layers import close, fresh, scattered, tolerance, twin, widened  # noqa: F401
import pytest  # noqa: E402
import torch  # noqa: E402
from test_multihead import configurations, inputs_of, wide  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import manyheads.torch as mt  # noqa: E402

BY_ENGINE = {"taken: nn.MultiheadAttention": 1, "taken: backward": 1}


def made(**options):
    return scattered(mt.MultiheadAttention(16, 4, batch_first=True, **options))


def slope(out):
    """A gradient of out that is no constant."""
    return torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)


def gradients(layer, *inputs, of=None, **options):
    """Those of the inputs that want one, and of the weights."""
    out = layer(*inputs, need_weights=False, **options)[0]
    seen = list({id(x): x for x in (*(of or inputs), *layer.parameters()) if x.requires_grad}.values())
    return torch.autograd.grad(out, seen, slope(out))


def near(found, wanted, dtype=torch.float32):
    # Those of float32 as in test_multihead.py; a narrower type rounds what comes in, what goes out and each gradient once.
    share = {torch.float32: 4e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}[dtype]
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        assert (ours.double() - theirs).abs().max() <= share * max(1, theirs.abs().max().item())


def right(layer, *inputs, **options):
    """The layer's gradients are the engine's, and those of PyTorch in float64."""
    mt.report(reset=True)
    found = gradients(layer, *inputs, **options)
    assert mt.report() == BY_ENGINE
    theirs = [x.detach().double().requires_grad_(x.requires_grad) for x in inputs]
    theirs = [next(t for x, t in zip(inputs, theirs) if x is y) for y in inputs]
    reference = twin(layer)
    for p, like in zip(reference.parameters(), layer.parameters()):
        p.requires_grad_(like.requires_grad)
    near(found, gradients(reference, *theirs, **{name: widened(x) for name, x in options.items()}))


def test_random_configurations():
    for case in configurations(250):
        dtype = case["dtype"]
        layer = scattered(mt.MultiheadAttention(**case["layer"], dtype=dtype))
        inputs, extra = inputs_of(case | {"need_weights": False})
        if case["layer"]["add_bias_kv"] or case["layer"]["add_zero_attn"]:
            extra.pop("is_causal", None)  # beside added keys it is PyTorch's to read
        for x in inputs:
            x.requires_grad_()
        theirs = [x.detach().requires_grad_() for x in wide(inputs)]
        theirs = [theirs[0], theirs[0] if inputs[1] is inputs[0] else theirs[1], theirs[2]]
        theirs[2] = theirs[1] if inputs[2] is inputs[1] else theirs[2]
        mt.report(reset=True)
        out = layer(*inputs, **extra)[0]
        seen = [*{id(x): x for x in inputs}.values(), *layer.parameters()]
        found = torch.autograd.grad(out, seen, slope(out))
        assert mt.report() == BY_ENGINE, case
        reference = twin(layer)
        wanted_out = reference(*theirs, **{name: widened(x) for name, x in extra.items()})[0]
        assert out.dtype == dtype and (out.double() - wanted_out).abs().max() <= 2 * tolerance(dtype), case
        seen = [*{id(x): x for x in theirs}.values(), *reference.parameters()]
        near(found, torch.autograd.grad(wanted_out, seen, slope(out).double()), dtype)
        with torch.no_grad():  # the same bits
            assert torch.equal(layer(*inputs, **extra)[0], out), case


def test_any_threads_and_a_batch_give_the_same_bits():
    layer, before = made(), torch.get_num_threads()
    x = torch.randn(3, 40, 16, requires_grad=True)
    want = gradients(layer, x, x, x)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(gradients(layer, x, x, x), want))
    torch.set_num_threads(before)
    out = layer(x, x, x, need_weights=False)[0]
    of_x = torch.autograd.grad(out, x, slope(out))[0]
    for b in range(3):
        one = x[b : b + 1].detach().requires_grad_()
        alone = layer(one, one, one, need_weights=False)[0]
        assert torch.equal(torch.autograd.grad(alone, one, slope(out)[b : b + 1])[0][0], of_x[b])


def test_only_what_is_wanted_is_computed(monkeypatch):
    asked = []
    engine = mt._layer._Call.backward

    def backward(self, dy, activations, *rest):
        asked.append(sorted(rest[-1]))
        engine(self, dy, activations, *rest)

    monkeypatch.setattr(mt._layer._Call, "backward", backward)
    layer = made()
    x, y = torch.randn(2, 5, 16), torch.randn(2, 7, 16, requires_grad=True)
    layer.in_proj_weight.requires_grad_(False)
    rest = ["in_proj_bias", "out_proj.bias", "out_proj.weight"]
    right(layer, x, x, x)
    right(layer, x, y, y)
    right(layer, y, y, y)
    assert asked == [rest, sorted(["key", "value", *rest]), sorted(["query", *rest])]
    layer.requires_grad_(False)
    mt.report(reset=True)
    assert not layer(x, x, x, need_weights=False)[0].requires_grad and mt.report() == {"taken: nn.MultiheadAttention": 1}


def test_inputs_that_lie_alike_have_their_own_gradients():
    layer = made()
    x = torch.randn(2, 5, 16, requires_grad=True)
    wanted = twin(layer)
    y = x.detach().double().requires_grad_()
    for pick in (
        lambda x: (x, x.detach(), x.detach()), lambda x: (x, x.detach(), x), lambda x: (x.detach(), x, x),
        lambda x: (x, x.view_as(x), x.view_as(x)), lambda x: (x, x[:, :3], x[:, :3]),
        lambda x: (x[:1], x[:1].contiguous().view(1, 5, 16), x[:1].as_strided((1, 5, 16), (7, 16, 1))),
    ):  # fmt: skip
        near(gradients(layer, *pick(x), of=[x]), gradients(wanted, *pick(y), of=[y]))
    hooked = []
    layer.register_full_backward_hook(lambda module, into, out: hooked.append(into))
    near(gradients(layer, x, x, x), gradients(wanted, y, y, y))
    assert len(hooked) == 1
    assert mt.report() == {"taken: nn.MultiheadAttention": 7, "taken: backward": 7}


def test_gradients_add_up_and_steps_are_seen():
    layer = made()
    reference = twin(layer)
    x = torch.randn(2, 5, 16)
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in (layer, reference)]
    for _ in range(3):
        for module, y in ((layer, x), (reference, x.double())):
            for _ in range(2):
                out = module(y, y, y, need_weights=False)[0]
                out.backward(slope(out))
        near([p.grad for p in layer.parameters()], [p.grad for p in reference.parameters()])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_twice_over_one_graph_and_what_is_freed():
    layer = made()
    x = torch.randn(2, 5, 16, requires_grad=True)
    out = layer(x, x, x, need_weights=False)[0]
    first = torch.autograd.grad(out, x, slope(out), retain_graph=True)[0]
    saved = [t for t in out.grad_fn.saved_tensors if t is not None]
    kept = [weakref.ref(t.untyped_storage()) for t in saved if t.data_ptr() not in {p.data_ptr() for p in (x, *layer.parameters())}]
    assert len(kept) == 3 and sum(t().nbytes() for t in kept) == 10 * 4 * (2 * 16 + 2 * 16 + 4)
    del saved
    assert all(t() is not None for t in kept)
    assert torch.equal(torch.autograd.grad(out, x, slope(out))[0], first)
    gc.collect()
    assert all(t() is None for t in kept)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(out, x, slope(out))


def test_saved_tensors_hooks_see_all_that_is_kept():
    layer = made()
    x = torch.randn(2, 5, 16, requires_grad=True)
    want = gradients(layer, x, x, x)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.shape) or t.clone(), lambda t: t):
        found = gradients(layer, x, x, x)
    assert all(torch.equal(a, b) for a, b in zip(found, want))
    assert (2, 5, 48) in seen and (2, 4, 5) in seen and len(seen) == 4 + len(list(layer.parameters()))
    with torch.autograd.graph.save_on_cpu():
        assert all(torch.equal(a, b) for a, b in zip(gradients(layer, x, x, x), want))


def test_changes_between_forward_and_backward_are_errors():
    layer = made()
    for change in ("x", "mask", "in_proj_weight", "out_proj.bias"):
        x, mask = torch.randn(2, 5, 16, requires_grad=True).clone(), torch.zeros(5, 5)
        out = layer(x, x, x, need_weights=False, attn_mask=mask)[0]
        with torch.no_grad():
            {"x": x, "mask": mask, **dict(layer.named_parameters())}[change].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()
    x = torch.randn(2, 5, 16, requires_grad=True)
    want = gradients(layer, x, x, x)
    out = layer(x, x, x, need_weights=False)[0]
    with torch.no_grad():
        out.mul_(2)  # nothing needs it
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(out, [x, *layer.parameters()], slope(out)), want))


def test_second_derivatives_are_refused_by_name():
    layer = made()
    x = torch.randn(2, 5, 16, requires_grad=True)
    out = layer(x, x, x, need_weights=False)[0]
    (of_x,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    mt.report(reset=True)
    with pytest.raises(NotImplementedError, match="^MultiheadAttention: no second derivatives; torch.nn.MultiheadAttention under"):
        of_x.sum().backward()
    assert mt.report() == {"refused: a second derivative": 1}
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # as it says
        theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
        out = theirs(x, x, x, need_weights=False)[0]
        torch.autograd.grad(out.square().sum(), x, create_graph=True)[0].sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_with_dropout_draw_the_same_again(reentrant):
    layer = made(dropout=0.4)
    x = torch.randn(2, 5, 16, requires_grad=True)

    def run(x):
        return layer(x, x, x, need_weights=False)[0]

    results = []
    for whole in (run, lambda x: checkpoint(run, x, use_reentrant=reentrant)):
        torch.manual_seed(5)
        out = whole(x)
        results.append([out.detach(), *torch.autograd.grad(out, [x, *layer.parameters()], slope(out))] if not reentrant else None)
        if reentrant:
            layer.zero_grad()
            x.grad = None
            out.backward(slope(out))
            results[-1] = [out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(*results))
    mt.report(reset=True)
    torch.manual_seed(6)
    assert not torch.equal(run(x), results[0][0])


def test_dropout_leaves_the_same_weights_in_both_directions():
    """dout/dvalue is W_o P W_v, with P the weights that the forward left."""
    layer = made(dropout=0.5)
    x, value = torch.randn(2, 5, 16), torch.randn(2, 5, 16, requires_grad=True)
    torch.manual_seed(9)
    out = layer(x, x, value, need_weights=False)[0]
    with torch.no_grad():
        torch.manual_seed(9)
        base = layer(x, x, torch.zeros_like(value), need_weights=False)[0]
    # Linear in value, so that <dvalue, value> is <dy, out - base>; each sum has 160 terms of a few units.
    (found,) = torch.autograd.grad(out, value, slope(out))
    assert ((found * value).sum() - (slope(out) * (out - base)).sum()).abs() <= 160 * 2.0**-20
    torch.manual_seed(10)
    assert not torch.equal(torch.autograd.grad(layer(x, x, value, need_weights=False)[0], value, slope(out))[0], found)


def test_weights_of_hooks_parametrizations_and_functional_call():
    x = torch.randn(2, 5, 16, requires_grad=True)

    class Doubled(torch.nn.Module):
        def forward(self, w):
            return 2 * w

    def parametrized(layer):
        parametrize.register_parametrization(layer, "in_proj_weight", Doubled())
        parametrizations.weight_norm(layer.out_proj)
        return layer

    def pruned(layer):
        torch.manual_seed(2)
        prune.random_unstructured(layer, "in_proj_weight", 0.3)
        return layer

    for change in (parametrized, pruned):
        plain = made()
        theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
        theirs.load_state_dict(plain.state_dict())
        ours, theirs = change(plain), change(theirs).double()
        y = x.detach().double().requires_grad_()
        mt.report(reset=True)
        near(gradients(ours, x, x, x), gradients(theirs, y, y, y))
        assert mt.report() == BY_ENGINE
        with torch.no_grad():
            close(ours(x, x, x)[0], theirs(y, y, y)[0], torch.float32)
            for module in (ours, theirs):
                next(module.parameters()).mul_(1.5)
            close(ours(x, x, x)[0], theirs(y, y, y)[0], torch.float32)
    layer = made()
    given = {name: torch.randn_like(p, requires_grad=True) for name, p in layer.named_parameters()}
    mt.report(reset=True)
    out = torch.func.functional_call(layer, given, (x, x, x), {"need_weights": False})[0]
    found = torch.autograd.grad(out, given.values(), slope(out))
    assert mt.report() == BY_ENGINE
    layer.load_state_dict(given)
    y = x.detach().double()
    near(found, gradients(twin(layer), y, y, y))


def test_no_graph_is_kept_alive_by_the_packed_weights():
    layer = made()
    w = torch.randn(48, 16, requires_grad=True)
    middle = w.exp()
    made_of = middle * middle  # its graph keeps middle
    node = weakref.ref(middle.untyped_storage())
    del middle
    x = torch.randn(2, 5, 16)
    given = {name: made_of if name == "in_proj_weight" else p.detach() for name, p in layer.named_parameters()}
    out = torch.func.functional_call(layer, given, (x, x, x), {"need_weights": False})[0]
    assert node() is not None
    del out, given, made_of
    gc.collect()
    assert node() is None


def test_what_goes_the_old_way():
    x, mask = torch.randn(2, 5, 16, requires_grad=True), torch.randn(5, 5, requires_grad=True)
    old = {"taken: attention": 1, "taken: backward": 1}

    def backward(layer, **options):
        out, weights = layer(x, x, x, **options)
        (out.sum() + (0 if weights is None else weights.sum())).backward()
        return mt.report(reset=True)

    layer = made()
    reference = twin(layer)
    y = x.detach().double().requires_grad_()
    assert backward(layer, need_weights=True) == {**old, "taken: weights": 2}
    assert backward(layer, need_weights=False, attn_mask=mask) == old
    assert backward(layer, need_weights=False, attn_mask=mask.detach()) == BY_ENGINE
    with mt.use(backward="pytorch"):
        found = gradients(layer, x, x, x)
    near(found, gradients(reference, y, y, y))
    assert "taken: nn.MultiheadAttention" not in mt.report(reset=True)
    with mt.use():
        assert backward(layer, need_weights=False) == BY_ENGINE
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, x, x, need_weights=False)[0].sum().backward()
    assert "taken: nn.MultiheadAttention" not in mt.report(reset=True)
    names, values = zip(*layer.named_parameters())

    def loss(*values):
        out = torch.func.functional_call(layer, dict(zip(names, values)), (x.detach(),) * 3, {"need_weights": False})[0]
        return (out * slope(out)).sum()

    found = torch.func.grad(loss, argnums=tuple(range(len(values))))(*(p.detach() for p in values))
    near(found, gradients(reference, *[x.detach().double()] * 3))
    assert "taken: nn.MultiheadAttention" not in mt.report(reset=True)
    empty = torch.randn(0, 5, 16, requires_grad=True)
    layer(empty, empty, empty, need_weights=False)[0].sum().backward()
    assert empty.grad.shape == empty.shape


def test_copies_and_default_types():
    layer = made()
    x = torch.randn(2, 5, 16, requires_grad=True)
    want = gradients(layer, x, x, x)
    for module in (copy.deepcopy(layer), layer):
        with torch.device("meta") if module is layer else contextlib.nullcontext():
            torch.set_default_dtype(torch.float64)
            try:
                found = gradients_with(module, x)
            finally:
                torch.set_default_dtype(torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(found, want))


def gradients_with(module, x):
    out = module(x, x, x, need_weights=False)[0]
    dy = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device="cpu").reshape(out.shape)
    return torch.autograd.grad(out, [x, *module.parameters()], dy)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_weight_is_made_once_a_call_and_may_be_no_parameter(need_weights):
    class Twice(torch.nn.Module):
        count = 0

        def forward(self, weight):
            self.count += 1
            return 2 * weight

    torch.manual_seed(3)
    layer, x = mt.MultiheadAttention(16, 2, batch_first=True), torch.randn(2, 5, 16)
    made = torch.nn.utils.parametrize.register_parametrization(layer, "in_proj_weight", Twice()).parametrizations
    made.in_proj_weight[0].count = 0
    layer(x, x, x, need_weights=need_weights)[0].sum().backward()
    assert made.in_proj_weight[0].count == 1
    assert made.in_proj_weight.original.grad.abs().sum() > 0

    layer = mt.MultiheadAttention(16, 2, batch_first=True).requires_grad_(False)
    weight = layer.out_proj.weight.detach().clone().requires_grad_()
    del layer.out_proj.weight
    layer.out_proj.weight = weight
    layer(x, x, x, need_weights=need_weights)[0].sum().backward()
    assert weight.grad.abs().sum() > 0
