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
# What is left to PyTorch of the samples, at each of the three types.
KEPT = {"PyTorch's own: dropout"}


def tensors(result):
    return [x for x in (result if isinstance(result, tuple) else (result,)) if x is not None]


def doubled(value):
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(OPS))
def test_every_sample_without_dropout_is_taken_and_no_worse_than_pytorch(name, dtype):
    op = OPS[name]
    taken = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        arguments, keywords = (sample.input, *sample.args), sample.kwargs
        torch.manual_seed(0)
        theirs = op(*arguments, **keywords)
        with mt.use(), torch.no_grad():
            mt.report(reset=True)
            torch.manual_seed(0)
            ours = op(*arguments, **keywords)
            report = mt.report(reset=True)
        if set(report) == KEPT:
            assert keywords.get("dropout_p") or "attention_forward" in name
            assert all(torch.equal(x, y) for x, y in zip(tensors(ours), tensors(theirs)))
            continue
        assert report and all(text.startswith("taken") for text in report), (report, keywords)
        taken += 1
        exact = op(*map(doubled, arguments), **{k: doubled(v) for k, v in keywords.items()})
        for x, y, z in zip(tensors(ours), tensors(theirs), tensors(exact)):
            if not x.numel():
                continue
            scale = max(z.abs().max().item(), 1e-30)
            step = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
            # Scores of hundreds make sharp rows, where the order of a sum shows: the largest of a few such errors is compared.
            assert (x.double() - z).abs().max() <= 4 * (y.double() - z).abs().max() + 16 * step * scale, keywords
    assert taken >= 13
