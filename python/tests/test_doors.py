"""One call through every door: NumPy, PyTorch, C by ctypes and a program in C++. The bits are the same."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import torch.nn.functional as F  # noqa: E402

import manyheads as mh  # noqa: E402
import manyheads.torch as mt  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
LIBRARY = os.environ.get("MANYHEADS_LIBRARY")
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # numbers of C's mh_dtype and C++'s DType
BATCH, HEADS, KV_HEADS, TOKENS, SIZE = 3, 4, 2, 70, 64
PROGRAM = r"""
#include <manyheads/attention.hpp>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <vector>

// PROGRAM DTYPE THREADS IN OUT: causal attention of q, k and v, which lie behind one another in IN.
int main(int, char** arguments) {
  using namespace manyheads;
  const auto type = static_cast<DType>(std::atoi(arguments[1]));
  const Dims q{3, 4, 70, 64}, k{3, 2, 70, 64};
  const auto bytes = [&](const Dims& shape) { return static_cast<std::size_t>(element_count(shape)) * size_of(type); };
  std::vector<char> in(bytes(q) + 2 * bytes(k)), out(bytes(q));
  std::ifstream(arguments[3], std::ios::binary).read(in.data(), static_cast<std::streamsize>(in.size()));
  AttentionOptions options;
  options.mask = mask::causal(Alignment::kBottomRight);
  options.threads.num_threads = std::atoi(arguments[2]);
  attention(ConstTensorView(in.data(), type, q), ConstTensorView(in.data() + bytes(q), type, k),
            ConstTensorView(in.data() + bytes(q) + bytes(k), type, k), TensorView(out.data(), type, q), options);
  std::ofstream(arguments[4], std::ios::binary).write(out.data(), static_cast<std::streamsize>(out.size()));
}
"""


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("dtype", ctypes.c_int32), ("rank", ctypes.c_int32), ("shape", ctypes.c_int64 * 8),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
    ]  # fmt: skip


class Mask(ctypes.Structure):  # the first fields, as its size says
    _fields_ = [("size", ctypes.c_size_t), ("causal", ctypes.c_int32), ("alignment", ctypes.c_int32)]


class Options(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("mask", ctypes.POINTER(Mask)), ("scale", ctypes.c_void_p), ("softcap", ctypes.c_double),
        ("sinks", ctypes.c_void_p), ("lse", ctypes.c_void_p), ("row_states", ctypes.c_void_p), ("num_threads", ctypes.c_int32),
        ("int8_products", ctypes.c_int32),
    ]  # fmt: skip


def library():
    if LIBRARY is None:
        pytest.skip("MANYHEADS_LIBRARY names no shared library")
    return LIBRARY


def inputs(dtype):
    torch.manual_seed(1)
    return [torch.randn(BATCH, heads, TOKENS, SIZE).to(dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def by_numpy(q, k, v, threads=None):
    extra = {} if threads is None else {"num_threads": threads}
    arrays = [x.numpy() if x.dtype != torch.bfloat16 else x for x in (q, k, v)]
    out = mh.attention(*arrays, mask=mh.mask.causal("bottom_right"), **extra)
    return out if isinstance(out, torch.Tensor) else torch.from_numpy(out)


def by_torch(q, k, v, threads=None):
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        # One query alone stands at the end, which F.sdpa's is_causal, from the top left, cannot say.
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        extra = {"is_causal": True} if q.shape[2] == k.shape[2] else {"attn_mask": mask}
        return F.scaled_dot_product_attention(q, k, v, **extra, enable_gqa=True)
    finally:
        if threads is not None:
            torch.set_num_threads(before)


def by_c(q, k, v, threads=None):
    door = ctypes.CDLL(library())
    door.mh_last_error.restype = ctypes.c_char_p
    out = torch.empty_like(q)
    tensors = []
    for x in (q, k, v, out):
        strides = (ctypes.c_int64 * 4)(*x.stride())
        tensors.append(Tensor(x.data_ptr(), DTYPES[x.dtype], 4, (ctypes.c_int64 * 8)(*x.shape), strides))
    mask = Mask(ctypes.sizeof(Mask), 1, 2)
    options = Options(size=ctypes.sizeof(Options), mask=ctypes.pointer(mask), num_threads=threads or 0)
    assert door.mh_attention(*(ctypes.byref(t) for t in tensors), ctypes.byref(options)) == 0, door.mh_last_error()
    return out


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no c++")
    folder = tmp_path_factory.mktemp("program")
    (folder / "one.cpp").write_text(PROGRAM)
    path = pathlib.Path(library()).resolve()
    call = [compiler, "-std=c++20", f"-I{ROOT}/include", folder / "one.cpp", path, f"-Wl,-rpath,{path.parent}"]
    subprocess.run([*call, "-o", folder / "one"], check=True)
    return folder


def by_program(folder, q, k, v, threads):
    (folder / "in").write_bytes(b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in (q, k, v)))
    subprocess.run([folder / "one", str(DTYPES[q.dtype]), str(threads), folder / "in", folder / "out"], check=True)
    return torch.frombuffer(bytearray((folder / "out").read_bytes()), dtype=q.dtype).reshape(q.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_door_gives_the_same_bits(dtype, program):
    q, k, v = inputs(dtype)
    want = by_numpy(q, k, v)
    mt.report(reset=True)
    with torch.no_grad(), mt.use():
        for door in (by_numpy, by_torch, by_c):
            for threads in (None, 1, 2, 3, 8):
                assert torch.equal(door(q, k, v, threads), want), (door, threads)
            alone = [door(q[b : b + 1], k[b : b + 1], v[b : b + 1]) for b in range(BATCH)]
            assert torch.equal(torch.cat(alone), want), door
            steps = [door(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1]) for i in range(TOKENS)]
            assert torch.equal(torch.cat(steps, 2), want), door
            found = [None] * 8

            def run(at):
                with torch.no_grad():
                    found[at] = door(q, k, v)  # noqa: B023

            threads = [threading.Thread(target=run, args=(at,)) for at in range(8)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            assert all(torch.equal(y, want) for y in found), door
        assert set(mt.report(reset=True)) == {"taken: attention"}
    for threads in (0, 1, 2, 3, 8):
        assert torch.equal(by_program(program, q, k, v, threads), want), threads
    assert np.isfinite(want.float().numpy()).all()
