"""PyTorch's door: what use() takes, with which numbers and gradients, and what is left to PyTorch and said."""

import contextlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

# First: it skips where PyTorch is missing.
from sdpa import definition, fresh, qkv, sdpa, taken, tolerance, variants  # noqa: F401
import torch  # noqa: E402

import manyheads as mh  # noqa: E402
import manyheads.torch as mt  # noqa: E402


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


def test_what_is_left_to_pytorch_is_said():
    q, k, v = qkv(1, 2, 5, 8)
    with mt.use(), torch.no_grad():
        sdpa(q.double(), k.double(), v.double())
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            sdpa(q, k, v)
        with pytest.raises(RuntimeError):
            sdpa(q, k, v, attn_mask=torch.ones(5, 5, dtype=torch.bool), is_causal=True)
        with pytest.raises(RuntimeError):
            sdpa(q, k[:, :, :3], v)
        report = mt.report(reset=True)
    assert len(report) == 4 and all(text.startswith("PyTorch's own: ") and n == 1 for text, n in report.items()), report


def test_what_is_left_to_pytorch_is_as_without_us():
    q, k, v = qkv(2, 4, 9, 16)
    q5 = q.reshape(1, 2, 4, 9, 16)
    none = torch.zeros(9, 9, dtype=torch.bool)
    none[3:] = True
    for mask in (torch.rand(2, 1, 9, 9) > 0.3, none, torch.randn(9, 9), None):
        for kept in (
            lambda: sdpa(q.double(), k.double(), v.double(), attn_mask=mask if mask is None or mask.dtype == torch.bool else mask.double()),
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


def test_a_model_is_taken_whole():
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    x = torch.randn(2, 7, 32)
    want = layer(x)
    with mt.use():
        y = layer(x)
        y.sum().backward()
    assert (y - want).abs().max() < 2e-6
    taken(1)


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
