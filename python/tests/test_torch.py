"""PyTorch's door: what is taken, with which numbers and gradients, and what is left to PyTorch and said."""

import contextlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
if tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2]) < (2, 10):
    pytest.skip("PyTorch is older than 2.10", allow_module_level=True)

import torch.nn.functional as F  # noqa: E402

import manyheads as mh  # noqa: E402
import manyheads.torch as mt  # noqa: E402

sdpa = F.scaled_dot_product_attention  # bound before use()
own = {"taken: attention", "taken: weights"}


@pytest.fixture(autouse=True)
def fresh():
    torch.manual_seed(7)
    mt.report(reset=True)
    yield
    assert not mt._core._torch_active()


def qkv(*shape, dtype=torch.float32, kv=None, dv=None, grad=False):
    b, h, t, d = shape
    tensors = (
        torch.randn(b, h, t, d), torch.randn(b, kv or h, t, d), torch.randn(b, kv or h, t, dv or d)
    )  # fmt: skip
    return [x.to(dtype).requires_grad_(grad) for x in tensors]


def taken(count=None):
    report = mt.report(reset=True)
    assert set(report) <= own, report
    if count is not None:
        assert report.get("taken: attention", 0) == count
    return report


def definition(q, k, v, mask=None, causal=False, scale=None):
    q, k, v = (x.detach().double() for x in (q, k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    return torch.softmax(scores, -1).nan_to_num(0) @ v


def tolerance(dtype):
    # Values of a few units: one rounding to the type, and F32 sums; products of BF16 pairs round weights to BF16.
    return {torch.float32: 4e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]


def variants(q, k):
    tq, tk = q.shape[2], k.shape[2]
    full = torch.rand(q.shape[0], q.shape[1], tq, tk) > 0.3
    yield {}
    yield {"is_causal": True}
    yield {"scale": 0.2}
    yield {"attn_mask": full}
    yield {"attn_mask": full[:1, :1]}
    yield {"attn_mask": full[0, 0]}
    yield {"attn_mask": torch.randn(tq, tk).to(q.dtype)}
    yield {"attn_mask": torch.randn(q.shape[0], 1, 1, tk)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad_mode", ["grad", "no_grad", "inference"])
def test_sdpa_is_taken_and_is_the_definition(dtype, grad_mode):
    context = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[grad_mode]
    with mt.use(), context():
        q, k, v = qkv(2, 4, 37, 32, dtype=dtype)
        count = 0
        for extra in variants(q, k):
            if dtype != torch.float32 and grad_mode == "grad" and extra.get("attn_mask") is not None:
                mask = extra["attn_mask"]
                extra = {"attn_mask": mask if mask.dtype == torch.bool else mask.to(dtype)}
            y = sdpa(q, k, v, **extra)
            want = definition(q, k, v, extra.get("attn_mask"), extra.get("is_causal", False), extra.get("scale"))
            assert y.dtype == dtype and (y.double() - want).abs().max() <= tolerance(dtype), extra
            count += 1
        taken(count)


def test_the_same_bits_through_every_door():
    q, k, v = qkv(2, 4, 70, 64)
    mask = torch.rand(2, 1, 70, 70) > 0.3
    want = mh.attention(q.numpy(), k.numpy(), v.numpy(), mask=mask.numpy())
    with mt.use():
        results = [sdpa(q, k, v, attn_mask=mask), torch.compile(sdpa)(q, k, v, attn_mask=mask)]
        with torch.inference_mode():
            results.append(sdpa(q, k, v, attn_mask=mask))
            results.append(sdpa(q[:1], k[:1], v[:1], attn_mask=mask[:1]).expand(2, -1, -1, -1))
            results[-1] = torch.cat([results[-1][:1], sdpa(q[1:], k[1:], v[1:], attn_mask=mask[1:])])
            results.append(torch.cat([sdpa(q[:, :, i : i + 1], k, v, attn_mask=mask[:, :, i : i + 1]) for i in range(70)], 2))
            for n in (1, 2, 3, 8):
                before = torch.get_num_threads()
                torch.set_num_threads(n)
                results.append(sdpa(q, k, v, attn_mask=mask))
                torch.set_num_threads(before)
        found = [None] * 8

        def run(at):
            with torch.no_grad():
                found[at] = sdpa(q, k, v, attn_mask=mask)

        threads = [threading.Thread(target=run, args=(at,)) for at in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    results += found
    results.append(mh.attention(q, k, v, mask=mask))
    results.append(mt.scaled_dot_product_attention(q, k, v, mask))
    for y in results:
        assert np.array_equal(y.detach().numpy(), want)
    taken()


def test_what_pytorch_computes_by_matrices_is_taken_without_gradients():
    with mt.use(), torch.no_grad():
        q, k, v = qkv(2, 4, 9, 16, dv=24)
        assert torch.allclose(sdpa(q, k, v).double(), definition(q, k, v), atol=4e-6)
        q, k, v = qkv(2, 6, 9, 16, kv=2)
        assert torch.allclose(sdpa(q, k, v, enable_gqa=True).double(), definition(q, k, v), atol=4e-6)
        q, k, v = qkv(2, 4, 9, 16)
        for x, y, z in ((q, k[:1], v[:1]), (q, k[:, :1], v[:, :1]), (q[:1], k, v)):
            wide = torch.broadcast_tensors(x, y, z)
            assert torch.allclose(sdpa(x, y, z).double(), definition(*wide), atol=4e-6)
        for rank in (2, 3, 5):
            x, y, z = ((t[0, 0], t[0], None, t.reshape(1, 2, 4, 9, 16))[rank - 2] for t in (q, k, v))
            four = [t.reshape(-1, *([1] * (rank < 3)), *([4] * (rank >= 3)), 9, 16) for t in (x, y, z)]
            assert torch.allclose(sdpa(x, y, z).double().reshape(four[0].shape), definition(*four), atol=4e-6)
        assert torch.equal(sdpa(q[..., ::2], k[..., ::2], v), mh.attention(q[..., ::2], k[..., ::2], v))
        taken()


def test_gradients_are_those_of_pytorch():
    for kv, dv in ((4, 16), (2, 16), (4, 24)):
        base = qkv(2, 4, 19, 16, kv=kv, dv=dv)
        for extra in variants(base[0], base[1]):
            mask = extra.get("attn_mask")
            learned = mask is not None and mask.dtype == torch.float32
            gradients = []
            for use in (True, False):
                x = [t.double() if not use else t for t in base]
                x = [t.clone().requires_grad_() for t in x]
                now = dict(extra)
                if learned:
                    now["attn_mask"] = (mask if use else mask.double()).clone().requires_grad_()
                if use:
                    with mt.use():
                        y = sdpa(*x, **now, enable_gqa=kv != 4)
                    taken(1)
                else:
                    y = sdpa(*x, **now, enable_gqa=kv != 4)
                (y * torch.arange(1, 1 + y.shape[-1]).to(y.dtype)).sum().backward()
                gradients.append([t.grad for t in x] + ([now["attn_mask"].grad] if learned else []))
            for ours, theirs in zip(*gradients):
                # F32 sums against F64.
                assert (ours - theirs).abs().max() <= 3e-5 * max(1, theirs.abs().max().item()), (extra.keys(), kv, dv)


def test_gradients_of_sinks_and_windows():
    q, k, v = (t.requires_grad_() for t in qkv(1, 2, 11, 8))
    sinks = torch.tensor([0.5, -1.0], requires_grad=True)
    out, lse = torch.ops.manyheads.attention(q, k, v, sinks=sinks, causal=True, alignment=1, window_left=4)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    i, j = torch.arange(11)[:, None], torch.arange(11)
    x = [t.detach().double().requires_grad_() for t in (q, k, v, sinks)]
    scores = (x[0] @ x[1].mT * 8**-0.5).masked_fill((j > i) | (j < i - 4), -torch.inf)
    wide = torch.cat([scores, x[3].reshape(1, 2, 1, 1).expand(1, 2, 11, 1)], -1)
    (torch.softmax(wide, -1)[..., :-1] @ x[2] * weight.double()).sum().backward()
    for ours, theirs in zip((q, k, v, sinks), x):
        assert (ours.grad - theirs.grad).abs().max() < 2e-6


def test_what_is_left_to_pytorch_is_said():
    q, k, v = qkv(1, 2, 5, 8)
    with mt.use(), torch.no_grad():
        sdpa(q, k, v, dropout_p=0.5)
        sdpa(q.double(), k.double(), v.double())
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            sdpa(q, k, v)
        with pytest.raises(RuntimeError):
            sdpa(q, k, v, attn_mask=torch.ones(5, 5, dtype=torch.bool), is_causal=True)
        with pytest.raises(RuntimeError):
            sdpa(q, k[:, :, :3], v)
        report = mt.report(reset=True)
    assert len(report) == 5 and all(text.startswith("PyTorch's own: ") and n == 1 for text, n in report.items()), report


def test_what_is_left_to_pytorch_is_as_without_us():
    q, k, v = qkv(2, 4, 9, 16)
    q5 = q.reshape(1, 2, 4, 9, 16)
    none = torch.zeros(9, 9, dtype=torch.bool)
    none[3:] = True
    for mask in (torch.rand(2, 1, 9, 9) > 0.3, none, torch.randn(9, 9), None):
        for kept in (
            lambda: sdpa(q.double(), k.double(), v.double(), attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.double()),
            lambda: sdpa(q, k, v, attn_mask=mask, dropout_p=0.5),
            lambda: sdpa(q5, q5, q5, attn_mask=mask),
            lambda: by_math(lambda: sdpa(q, k, v, attn_mask=mask)),
        ):
            results = []
            for use in (False, True):
                for grad in (torch.enable_grad, torch.no_grad):
                    with grad(), mt.use() if use else contextlib.nullcontext():
                        torch.manual_seed(5)
                        results.append(kept())
            for y in results[1:]:
                assert torch.allclose(y, results[0], atol=2e-6)


def by_math(call):
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return call()


def test_use_nests_and_is_undone_after_an_exception():
    q, k, v = qkv(1, 2, 5, 8)
    before = sdpa(q, k, v)
    with pytest.raises(KeyError):
        with mt.use(), mt.use():
            sdpa(q, k, v)
            raise KeyError
    taken(1)
    assert torch.equal(sdpa(q, k, v), before)
    assert mt.report() == {}


def test_the_registry_has_the_name():
    q, k, v = qkv(1, 2, 5, 8)
    torch.nn.attention.activate_flash_attention_impl("manyheads")
    try:
        sdpa(q, k, v)
        taken(1)
    finally:  # PyTorch 2.10 has no restore
        getattr(torch.nn.attention, "restore_flash_attention_impl", mt.stop)()
    sdpa(q, k, v)
    assert mt.report() == {}


def test_lse_and_weights():
    q, k, v = qkv(2, 6, 9, 16, kv=2)
    out, lse, weights = mt.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True, return_lse=True, return_weights=True
    )
    scores = (q.double() @ k.repeat_interleave(3, 1).double().mT / 4).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf)
    assert (weights - torch.softmax(scores, -1)).abs().max() < 2e-6
    assert (lse - torch.logsumexp(scores, -1)).abs().max() < 1e-5
    mean = torch.ops.manyheads.attention_weights(q, k, lse, causal=True, alignment=1, average=True)
    assert (mean - weights.mean(1)).abs().max() < 1e-6
    for bad in ({"dropout_p": 0.1}, {"attn_mask": torch.ones(9, 9), "is_causal": True}, {}):
        with pytest.raises((NotImplementedError, ValueError), match="manyheads.torch.scaled_dot_product_attention"):
            mt.scaled_dot_product_attention(q, k, v, **bad)


def test_means_of_a_batch_are_those_of_each_entry():
    # More weights than are averaged together: the batch is cut.
    q, k, _ = qkv(3, 4, 400, 16, kv=2)
    lengths, starts = torch.tensor([400, 250, 33]), torch.tensor([0, 7, 2])
    bias = torch.randn(3, 4, 400, 400)
    lse = torch.ops.manyheads.attention(q, k, k, bias, key_lengths=lengths, key_starts=starts)[1]

    def weights(average, rows=slice(None)):
        return torch.ops.manyheads.attention_weights(
            q[rows], k[rows], lse[rows], bias[rows], key_lengths=lengths[rows], key_starts=starts[rows], average=average
        )

    mean = torch.zeros(3, 400, 400)
    for head in weights(False).unbind(1):
        mean += head * 0.25
    assert torch.equal(weights(True), mean)
    for b in range(3):
        assert torch.equal(weights(True, slice(b, b + 1))[0], mean[b])
    for bad in ({"key_lengths": lengths[:1]}, {"key_starts": starts[:2]}, {"attn_mask": bias[:2]}):
        with pytest.raises(RuntimeError):
            torch.ops.manyheads.attention_weights(q, k, lse, **bad, average=True)
    with pytest.raises(RuntimeError):
        torch.ops.manyheads.attention_weights(q, k[:1], lse, average=True)


def test_opcheck():
    q, k, v = qkv(2, 4, 9, 16, grad=True)
    mask = torch.rand(9, 9) > 0.3
    for arguments in ((q, k, v), (q, k, v, mask), (q, k[:, :2].detach(), v[:, :2].detach()), (q, k, v.detach()[..., :8])):
        torch.library.opcheck(torch.ops.manyheads.attention.default, arguments)
    lse = torch.ops.manyheads.attention(q, k, v)[1].detach()
    for average in (False, True):
        torch.library.opcheck(
            torch.ops.manyheads.attention_weights.default, (q.detach(), k.detach(), lse), {"average": average}
        )


def test_opcheck_with_every_option():
    q, k, v = (torch.randn(2, n, 7, 8, requires_grad=True) for n in (4, 2, 2))
    heads = {"sinks": torch.randn(4, requires_grad=True), "alibi_slopes": torch.rand(4)}
    rest = {"causal": True, "alignment": 2, "window_left": 3, "scale": 0.4, "softcap": 2.0}
    entries = {"key_lengths": torch.tensor([7, 5]), "key_starts": torch.tensor([0, 2])}
    attention, weights = torch.ops.manyheads.attention.default, torch.ops.manyheads.attention_weights.default
    torch.library.opcheck(attention, (q, k, v), {**heads, **entries, **rest})
    lse = attention(q, k, v, **heads, **entries, **rest)[1].detach()
    torch.library.opcheck(weights, (q, k, lse), {**heads, **entries, **rest, "average": True})
    starts = torch.tensor([0, 3, 7])
    packed = [x.detach()[0].transpose(0, 1) for x in (q, k, v)]
    torch.library.opcheck(attention, packed, {**heads, **rest, "cu_seqlens_q": starts, "cu_seqlens_k": starts})
    pages = torch.randn(4, 2, 16, 8)
    paged = {"page_table": torch.tensor([[3, 0], [2, 1]]), "key_lengths": torch.tensor([20, 32])}
    torch.library.opcheck(attention, (q.detach(), pages, pages), {**paged, **rest})


def test_compiled_and_exported():
    q, k, v = qkv(2, 4, 33, 16)
    layouts = [(q, k, v), [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]]
    with mt.use(), torch.no_grad():
        for inputs in layouts:
            for extra in ({}, {"is_causal": True}, {"attn_mask": torch.rand(2, 1, 33, 33) > 0.3}):
                torch._dynamo.reset()
                eager = sdpa(*inputs, **extra)
                compiled = torch.compile(lambda a, b, c: sdpa(a, b, c, **extra), dynamic=True)(*inputs)
                assert torch.equal(compiled, eager) and compiled.stride() == eager.stride()
                taken(2)

        class Module(torch.nn.Module):
            def forward(self, a, b, c):
                return sdpa(a, b, c)

        exported = torch.export.export(Module(), (q, k, v)).module()
        assert torch.equal(exported(q, k, v), sdpa(q, k, v))
        taken()


def test_compiled_gradients():
    gradients = []
    for run in (sdpa, torch.compile(sdpa)):
        torch.manual_seed(3)
        x = qkv(2, 4, 17, 16, grad=True)
        with mt.use():
            run(*x, attn_mask=torch.ones(17, 17).tril().bool()).square().sum().backward()
        gradients.append([t.grad for t in x])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients))
    taken()


def test_vmap_and_autocast():
    q, k, v = (x[None].repeat(3, 1, 1, 1, 1) for x in qkv(2, 4, 9, 16))
    with mt.use(), torch.no_grad():
        mapped = torch.vmap(sdpa)(q, k, v)
        assert torch.allclose(mapped[1], sdpa(q[1], k[1], v[1]), atol=1e-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert sdpa(q[0], k[0], v[0]).dtype == torch.bfloat16


def test_a_model_is_taken_whole():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    x = torch.randn(2, 7, 32)
    want = layer(x)
    with mt.use():
        y = layer(x)
        y.sum().backward()
    assert (y - want).abs().max() < 2e-6
    taken(1)


def test_results_lie_as_empty_like_has_them():
    generator = np.random.default_rng(23)
    with mt.use(), torch.no_grad():
        for _ in range(300):
            shape = [int(n) for n in generator.integers(1, 4, 4)]
            order = [int(n) for n in generator.permutation(4)]
            base = torch.randn([shape[i] + int(generator.integers(2)) for i in order])
            q = base.permute([order.index(i) for i in range(4)])[tuple(slice(0, n) for n in shape)]
            if generator.integers(3) == 0:
                axis = int(generator.integers(2))
                q = q.narrow(axis, 0, 1).expand(*[n + 1 if i == axis else -1 for i, n in enumerate(q.shape)])
            assert sdpa(q, q, q).stride() == torch.empty_like(q).stride(), (q.shape, q.stride())
            v = torch.randn(*q.shape[:3], 5)
            like = torch.empty_like(q.new_empty_strided(v.shape, q.stride()))
            for y in (sdpa(q, q, v), torch.ops.manyheads.attention(q, q, v)[0]):
                assert y.stride() == like.stride(), (q.shape, q.stride())
    taken(900)


class Attended(torch.utils.data.Dataset):
    """Items that are attention's, computed in a worker."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        x = torch.full((1, 4, 300, 64), float(i + 1))
        y = sdpa(x, x, x)
        return y[0, 0, 0, 0], torch.from_numpy(mh.attention(x.numpy(), x.numpy(), x.numpy()))[0, 0, 0, 0]


def test_workers_of_a_data_loader_go_on_after_use():
    with mt.use():
        Attended()[0]
        items = list(torch.utils.data.DataLoader(Attended(), num_workers=2, timeout=60))
    assert all(abs(float(x) - i - 1) < 1e-5 for i, pair in enumerate(items) for x in pair) and len(items) == 6


def test_use_beside_another_provider():
    q, k, v = qkv(1, 2, 5, 8)
    calls = []

    def other(query, key, value, dropout_p=0.0, is_causal=False, *, attn_mask=None, scale=None):
        calls.append(1)
        return query * 0, query.new_zeros(query.shape[:3])

    library = torch.library.Library("aten", "IMPL")
    library.impl("_scaled_dot_product_flash_attention_for_cpu", other, "CPU", allow_override=True)
    with torch.no_grad():
        assert not sdpa(q, k, v).any() and calls == [1]
        with mt.use():
            assert sdpa(q, k, v).any() and calls == [1]
        taken(1)
        assert not sdpa(q, k, v).any() and calls == [1, 1]
        library._destroy()
        assert (sdpa(q, k, v) - definition(q, k, v)).abs().max() < 4e-6
    assert mt.report() == {}


def test_a_process_forked_after_use_goes_on():
    code = (
        "import os, torch, manyheads.torch as mt\n"
        "x = torch.ones(4, 8, 300, 64)\n"
        "F = torch.nn.functional.scaled_dot_product_attention\n"
        "mt.start()\n"
        "F(x, x, x)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    torch.set_num_threads(1)\n"
        "    F(x, x, x)\n"
        "    os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=os.environ)
    assert found.stdout.strip() == "7", found.stderr


def test_calls_keep_no_memory():
    x = torch.randn(1, 2, 4, 8)
    y = x.clone().requires_grad_()
    mask = torch.rand(4, 4) > 0.3
    mask[:, 0] = True

    def calls(n):
        with mt.use(), torch.no_grad():
            for _ in range(n):
                sdpa(x, x, x, attn_mask=mask)
                torch.ops.manyheads.attention(x, x, x)
                try:
                    torch.ops.manyheads.attention(x, x, x[:, :, :3])
                except RuntimeError:
                    pass
        with mt.use():
            for _ in range(n // 20):
                sdpa(y, y, y, attn_mask=mask).sum().backward()
                y.grad = None

    def pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    calls(3000)
    before = pages()
    calls(int(os.environ.get("MANYHEADS_PYTHON_CALLS", "20000")) // 3)
    assert pages() - before < 512  # 2 MiB


def test_five_thousand_random_calls():
    generator = np.random.default_rng(11)
    with mt.use(), torch.no_grad():
        for _ in range(5000):
            b, kv, tq, tk, d, dv = (int(generator.integers(1, n)) for n in (3, 4, 40, 90, 70, 70))
            h = kv * int(generator.integers(1, 4))
            dtype = [torch.float32, torch.bfloat16, torch.float16][generator.integers(3)]
            q = torch.randn(b, h, tq, d).to(dtype)
            k, v = torch.randn(b, kv, tk, d).to(dtype), torch.randn(b, kv, tk, dv).to(dtype)
            extra = {}
            kind = generator.integers(4)
            if kind == 1:
                extra["is_causal"] = True
            if kind == 2:
                extra["attn_mask"] = torch.rand(*[(b, 1)[generator.integers(2)], (h, 1)[generator.integers(2)], tq, tk]) > 0.4
            if kind == 3:
                extra["attn_mask"] = torch.randn(tq, tk).to(dtype)
            y = sdpa(q, k, v, **extra, enable_gqa=True)
            mask = extra.get("attn_mask")
            if extra.get("is_causal"):
                mask = torch.ones(tq, tk, dtype=torch.bool).tril()
            assert (y.double() - definition(q, k, v, mask)).abs().max() <= 2 * tolerance(dtype), (q.shape, k.shape, extra)
        taken(5000)


def test_float64_is_right_through_the_flash_op_and_what_does_not_fit_is_refused():
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    q, k, v = (x.double() for x in qkv(2, 4, 9, 16))
    masks = (None, torch.randn(9, 9).double(), torch.rand(2, 1, 9, 9) > 0.3)
    with mt.use():
        for mask in masks:
            out, lse = flash(q, k, v, attn_mask=mask)
            assert (out - definition(q, k, v, mask)).abs().max() < 1e-12
        for bad in (
            lambda: flash(q, k.float(), v),
            lambda: flash(q, k[:, :, :, :8], v),
            lambda: flash(q, k[:1], v),
            lambda: flash(q, k[:, :3], v[:, :3]),
            lambda: flash(q, k, v, attn_mask=torch.ones(9, 9)),
            lambda: flash(q, k, v, attn_mask=torch.ones(9, 8).double()),
        ):
            with pytest.raises(RuntimeError, match="float64 tensors that do not fit"):
                bad()


def test_five_axes_collapse_only_where_they_are_equal():
    q, k = torch.randn(2, 3, 4, 9, 16), torch.randn(3, 2, 4, 9, 16)
    mask = torch.rand(2, 3, 1, 9, 9) > 0.3
    with mt.use(), torch.no_grad():
        y = sdpa(q, q, q, attn_mask=mask)
        want = definition(q.flatten(0, 1), q.flatten(0, 1), q.flatten(0, 1), mask.flatten(0, 1))
        assert (y.flatten(0, 1) - want).abs().max() < 4e-6
        taken(1)
        last = torch.rand(3, 1, 9, 9) > 0.3
        assert torch.allclose(sdpa(q, q, q, attn_mask=last)[1], sdpa(q[1], q[1], q[1], attn_mask=last), atol=1e-6)
        for bad in (lambda: sdpa(q, k, k), lambda: sdpa(q, q, q, attn_mask=torch.rand(6, 1, 9, 9) > 0.3)):
            with pytest.raises(RuntimeError):
                bad()


def test_bad_tensors_are_errors():
    x = torch.randn(1, 2, 4, 8)
    lse = torch.zeros(1, 2, 4)
    for call in (
        lambda: mh.attention(x.requires_grad_(), x.detach(), x.detach()),
        lambda: mh.attention(x.to("meta"), x, x),
        lambda: mh.attention(x.detach().to(torch.complex64), x.detach(), x.detach()),
        lambda: mh.attention(x.detach().to_sparse(), x.detach(), x.detach()),
        lambda: torch.ops.manyheads.attention(x[0], x[0], x[0]),
        lambda: torch.ops.manyheads.attention(x, x, x, sinks=torch.ones(3)),
        lambda: torch.ops.manyheads.attention(x, x, x, key_lengths=torch.tensor([9])),
        lambda: torch.ops.manyheads.attention(x, x, x, page_table=torch.tensor([[0]])),
        lambda: torch.ops.manyheads.attention(x, x.double(), x),
        lambda: torch.ops.manyheads.attention(x, x, x, scale=float("nan")),
        lambda: torch.ops.manyheads.attention_weights(x[0], x[0], x),
        lambda: torch.ops.manyheads.attention_weights(x, x, torch.ones(1, 2, 3), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, torch.ones(1, 1, 4), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, sinks=torch.ones(1), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, alibi_slopes=torch.ones(3), average=True),
        lambda: torch.ops.manyheads.attention_weights(x, x, lse, torch.ones(1, 3, 4, 4), average=True),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError, BufferError, NotImplementedError)):
            call()
