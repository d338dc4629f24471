"""What the NumPy door takes as an array, what it refuses, and that nothing is copied or kept."""

import array
import ctypes
import datetime
import gc
import os
import sys

import numpy as np
import pytest

import manyheads as mh


def test_any_buffer_and_any_dlpack_is_taken(random):
    x = random.standard_normal((1, 1, 4, 4)).astype(np.float32)
    want = mh.attention(x, x, x)

    class Foreign:
        def __init__(self, of, versioned):
            self.of, self.versioned = of, versioned

        def __dlpack__(self, **arguments):
            if not self.versioned and arguments:
                raise TypeError("__dlpack__() takes no arguments")
            return self.of.__dlpack__(**arguments)

        def __dlpack_device__(self):
            return self.of.__dlpack_device__()

    for versioned in (True, False):
        assert np.array_equal(mh.attention(Foreign(x, versioned), x, x), want)
    assert np.array_equal(mh.attention(memoryview(x), x, x), want)
    before = sys.getrefcount(x)
    for _ in range(100):
        mh.attention(x, Foreign(x, True), memoryview(x))
    gc.collect()
    assert sys.getrefcount(x) == before
    x.flags.writeable = False
    assert np.array_equal(mh.attention(x, x, x), want)
    with pytest.raises(TypeError, match="out cannot be taken.*read-only"):
        mh.attention(x, x, x, out=x)
    with pytest.raises((TypeError, ValueError), match="out is read-only"):
        mh.attention(x, x, x, out=Foreign(x, True))
    gc.collect()
    assert sys.getrefcount(x) == before


class Capsule:
    """Gives what a call of DLPack does not."""

    def __init__(self, given, device=(1, 0)):
        self.given, self.device = given, device

    def __dlpack__(self, **arguments):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    def __dlpack_device__(self):
        return self.device


def used_capsule(x):
    """A capsule whose tensor np.from_dlpack has taken over."""
    capsule = x.__dlpack__()
    np.from_dlpack(Capsule(capsule))
    return capsule


def released(x):
    view = memoryview(x)
    view.release()
    return view


def bad_arrays(x):
    """What no array argument takes."""
    odd = np.ndarray((1, 2, 4, 8), np.float32, bytearray(2000), strides=(1000, 130, 34, 4))
    return [
        None, 3, "text", [1.0], object(), x.astype(object), np.zeros((1, 2, 4, 8), np.int32), x.astype(np.float64),
        x.astype(">f4"), np.zeros((1, 2, 4, 8), [("a", np.float32)]), odd, x.astype(np.complex64), np.float32(1),
        np.zeros((), np.float32), np.zeros((1,) * 9, np.float32), np.array(["a"]), array.array("d", [1.0]), b"bytes",
        Capsule(3), Capsule(None), Capsule(datetime.datetime_CAPI), Capsule(used_capsule(x)), Capsule(x.__dlpack__(), (2, 0)),
        Capsule(x.__dlpack__(), "cpu"), Capsule(ValueError("mine")), released(x), x.astype("datetime64[s]"),
    ]  # fmt: skip


def bad_calls(x):
    good = {"q": x, "k": x, "v": x}
    i4 = np.zeros((1, 2, 4, 8), np.int32)
    shapes = [x[0], x[None], x[:, :1, :, :7], np.zeros((1, 3, 4, 8), np.float32)]
    for name in good:
        for value in bad_arrays(x) + shapes:
            yield {**good, name: value}
    for name in ("q", "k"):  # values of no width give a result of no width
        yield {**good, name: x[:, :, :, :0]}
    lists = {
        "mask": [3, "causal", [True], i4, np.ones((5, 4), bool), np.ones((3, 3), np.float64), np.ones(9, bool), mh.mask],
        "scale": ["a", float("nan"), float("inf"), [1]],
        "softcap": [-1.0, float("nan"), float("inf"), "a", None],
        "sinks": [3, np.ones(3, np.float32), np.ones(2), i4, [1.0, 2.0]],
        "out": [3, np.zeros((1, 2, 4, 7), np.float32), np.zeros((1, 2, 4, 8)), i4, x, [0.0], np.broadcast_to(x[:1], x.shape)],
        "cu_seqlens_q": [3, np.array([0, 4]), np.array([0.0, 4.0]), np.array([4, 0]), [0, 4]],
        "cu_seqlens_k": [np.array([-1, 4]), np.array([0, 4, 2])],
        "page_table": [3, np.array([[0]]), np.array([[7]]), np.array([[-1]])],
        "k_scales": [np.ones((1, 2, 4), np.float32), 3],
        "v_scales": [np.ones((1, 2, 4), np.float32), "x"],
        "int8_products": [True, 3, "yes"],
        "num_threads": [-1, 1.5, "two", None],
        "bits": ["f32-fma-9", 3, None],
        "lse": [3, "yes"],
        "unknown": [1],
    }
    for name, values in lists.items():
        for value in values:
            yield {**good, name: value}


def test_bad_calls_are_exceptions_that_name_the_argument(random):
    x = random.standard_normal((1, 2, 4, 8)).astype(np.float32)
    keep = x.copy()
    seen = 0
    for call in bad_calls(x):
        with pytest.raises((ValueError, TypeError)) as error:
            result = mh.attention(**call)
            print("no error:", {n: v for n, v in call.items() if v is not x}, result)
        assert str(error.value)
        seen += 1
    assert np.array_equal(x, keep)
    more = [
        lambda: mh.attention(x),
        lambda: mh.attention_weights(x, x, x),
        lambda: mh.attention_weights(x, x, np.zeros((1, 2, 4))),
        lambda: mh.attention_weights(x[0], x[0], x),
        lambda: mh.merge_attention(x, x, x, x),
        lambda: mh.merge_attention(x, np.zeros((1, 2, 4), np.float32), x[:, :1], np.zeros((1, 2, 4), np.float32)),
        lambda: mh.mask.causal("left"),
        lambda: mh.mask.causal(3),
        lambda: mh.mask.window(-3, 0),
        lambda: mh.mask.window("a", 0),
        lambda: mh.mask.window(1, 1) | mh.mask.window(2, 2),
        lambda: mh.mask.causal() | 3,
        lambda: mh.mask.key_lengths(3),
        lambda: mh.mask.allowed(None),
        lambda: mh.attention(x, x, x, mask=mh.mask.key_lengths(np.array([9]))),
        lambda: mh.attention(x, x, x, mask=mh.mask.key_lengths(np.array([1.0]))),
        lambda: mh.attention(x, x, x, mask=mh.mask.allowed(x)),
        lambda: mh.attention(x, x[:, :, :2], x[:, :, :2], mask=mh.mask.causal()),
        lambda: mh.KVCache(num_kv_heads=0, head_dim=8),
        lambda: mh.KVCache(num_kv_heads=1, head_dim=8, dtype="float8"),
        lambda: mh.KVCache(num_kv_heads=1, head_dim=8, page_size=3),
        lambda: mh.KVCache(num_kv_heads=1, head_dim=8).length(5),
        lambda: mh.KVCache(num_kv_heads=1, head_dim=8).append(0, x, x),
        lambda: mh.MultiHeadAttention(0, 0),
        lambda: mh.MultiHeadAttention(8, 2, dtype="int8"),
        lambda: mh.MultiHeadAttention(8, 2)(x),
        lambda: mh.MultiHeadAttention(8, 2)(x[0], num_threads="a"),
        lambda: mh.MultiHeadAttention(8, 2, state_dict={"a": 3}),
        lambda: mh.set_isa("z80"),
        lambda: mh.active_bits("float8"),
        lambda: mh.Encoder("/nowhere", dtype="float64"),
        lambda: mh.explain(x, x, 3),
    ]
    lse, layer, cache = np.zeros((1, 2, 4), np.float32), mh.MultiHeadAttention(8, 2), mh.KVCache(num_kv_heads=2, head_dim=8)
    sequence = cache.add()
    for value in bad_arrays(x):
        more += [
            lambda value=value: mh.attention_weights(value, x, lse),
            lambda value=value: mh.attention_weights(x, value, lse),
            lambda value=value: mh.attention_weights(x, x, value),
            lambda value=value: mh.merge_attention(value, lse, x, lse),
            lambda value=value: mh.merge_attention(x, lse, x, value),
            lambda value=value: layer(value),
            lambda value=value: cache.append(sequence, value, x[0]),
            lambda value=value: cache.attention(value, [sequence]),
        ]
    for number, call in enumerate(more):
        with pytest.raises((ValueError, TypeError)):
            print(number, call())
    assert seen + len(more) >= 350 and np.array_equal(x, keep) and cache.length(sequence) == 0
    with pytest.raises((OSError, ValueError)):
        mh.Encoder("/nowhere")


def test_a_refused_call_keeps_nothing(random):
    x = random.standard_normal((1, 2, 4, 8)).astype(np.float32)

    def calls(n):
        for _ in range(n):
            try:
                mh.attention(x, x[:, :, :3], x)
            except ValueError:
                pass
            mh.attention(x, x, x, lse=True)

    def pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    calls(2000)
    before = pages()
    calls(int(os.environ.get("MANYHEADS_PYTHON_CALLS", "100000")))
    assert pages() - before < 256  # 1 MiB


def test_arrays_at_odd_addresses_are_read_right(random):
    buffer = (ctypes.c_char * (4 * 64 + 4))()
    odd = np.frombuffer(buffer, np.uint8)[2:-2].view(np.float32).reshape(1, 1, 8, 8)
    odd[...] = random.standard_normal((1, 1, 8, 8))
    assert np.array_equal(mh.attention(odd, odd, odd), mh.attention(odd.copy(), odd.copy(), odd.copy()))
