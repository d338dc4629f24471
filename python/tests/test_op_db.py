"""PyTorch's own samples of its attention functions, under use()."""

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("expecttest", reason="PyTorch's samples need expecttest")

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import manyheads.torch as mt  # noqa: E402

OPS = {
    op.name: op
    for op in op_db
    if op.name in ("nn.functional.scaled_dot_product_attention", "nn.functional.multi_head_attention_forward")
}
# Place of dropout_p among multi_head_attention_forward's arguments; it counts in training.
DROPOUT = 10


def tensors(result):
    return [x for x in (result if isinstance(result, tuple) else (result,)) if x is not None]


def doubled(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def drops(sample):
    if sample.kwargs.get("training"):
        return len(sample.args) > DROPOUT - 1 and sample.args[DROPOUT - 1] > 0
    return sample.kwargs.get("dropout_p", 0) > 0


def ours_of(op, arguments, keywords, runs=1):
    """The results of each run under use(), where it is taken."""
    with mt.use(), torch.no_grad():
        mt.report(reset=True)
        found = [tensors(op(*arguments, **keywords)) for _ in range(runs)]
        report = mt.report(reset=True)
    assert report and all(text.startswith("taken") for text in report), (report, keywords)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(OPS))
def test_every_sample_is_taken_and_no_worse_than_pytorch(name, dtype):
    op = OPS[name]
    taken = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        arguments, keywords = (sample.input, *sample.args), sample.kwargs
        if drops(sample):
            continue
        theirs = op(*arguments, **keywords)
        (ours,) = ours_of(op, arguments, keywords)
        taken += 1
        exact = op(*map(doubled, arguments), **{k: doubled(v) for k, v in keywords.items()})
        for x, y, z in zip(ours, tensors(theirs), tensors(exact)):
            if not x.numel():
                continue
            scale = max(z.abs().max().item(), 1e-30)
            step = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
            # Scores of hundreds make sharp rows, where the order of a sum shows: the largest of a few such errors is compared.
            assert (x.double() - z).abs().max() <= 4 * (y.double() - z).abs().max() + 16 * step * scale, keywords
    assert taken >= 13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(OPS))
def test_every_sample_with_dropout_is_taken_and_right_in_the_mean(name, dtype):
    op = OPS[name]
    torch.manual_seed(0)
    # PyTorch's projections of half types take a millisecond: their mean is left out.
    runs, seen = 64 if dtype == torch.float32 else 1, 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        if not drops(sample):
            continue
        arguments, keywords = (sample.input, *sample.args), sample.kwargs
        without = {**keywords, **({"training": False} if "training" in keywords else {"dropout_p": 0.0})}
        exact = op(*map(doubled, arguments), **{k: doubled(v) for k, v in without.items()})
        # PyTorch's wrapper seeds the generator before each call: the function itself is asked.
        call = lambda *x, **y: getattr(torch.nn.functional, name.split(".")[-1])(*x, **y)  # noqa: B023, E731
        for x, z in zip(zip(*ours_of(call, arguments, keywords, runs)), tensors(exact)):
            x = torch.stack(x)
            assert x.dtype == dtype and x.shape[1:] == z.shape and x.isfinite().all()
            if runs > 1:
                # Six standard deviations of a mean, and roundings as without dropout.
                room = 6 * x.double().std(0) / runs**0.5 + 16 * 2.0**-24 * x.abs().max()
                assert ((x.double().mean(0) - z).abs() <= room).all(), keywords
                assert x.std(0).max() > 0
        seen += 1
    assert seen >= 12
