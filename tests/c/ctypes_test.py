#!/usr/bin/env python3
"""Drives the C door from Python's ctypes: structs, callbacks, handles, errors, threads.

  tests/c/ctypes_test.py LIBRARY
"""
import ctypes as c
import math
import sys
import threading

mh = c.CDLL(sys.argv[1])
OK, INVALID, UNSUPPORTED, FAILED = 0, 1, 2, 6
F32 = 0


class Tensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int32), ("rank", c.c_int32), ("shape", c.c_int64 * 8),
                ("strides", c.POINTER(c.c_int64))]


Task = c.CFUNCTYPE(None, c.c_void_p, c.c_int64)
Concurrency = c.CFUNCTYPE(c.c_int, c.c_void_p)
Run = c.CFUNCTYPE(None, c.c_void_p, c.c_int64, Task, c.c_void_p)


class Sized(c.Structure):
    """Zero, but for its size and what is named."""

    def __init__(self, **fields):
        super().__init__(c.sizeof(self), **fields)


class Executor(Sized):
    _fields_ = [("size", c.c_size_t), ("self", c.c_void_p), ("concurrency", Concurrency), ("run", Run)]


class Mask(Sized):
    _fields_ = [("size", c.c_size_t), ("causal", c.c_int32), ("alignment", c.c_int32),
                ("window", c.POINTER(c.c_int64))] + [
        (name, c.POINTER(Tensor)) for name in ("offsets", "key_lengths", "key_starts", "q_documents", "k_documents",
                                               "allowed", "ignored", "bias", "alibi_slopes")]


class Dropout(Sized):
    _fields_ = [("size", c.c_size_t), ("p", c.c_double), ("seed", c.c_uint64)] + [
        (name, c.c_int64) for name in ("first_query", "first_head", "first_entry")]


class Options(Sized):
    _fields_ = [("size", c.c_size_t), ("mask", c.POINTER(Mask)), ("scale", c.POINTER(c.c_double)),
                ("softcap", c.c_double), ("sinks", c.POINTER(Tensor)), ("lse", c.POINTER(Tensor)),
                ("row_states", c.c_void_p), ("num_threads", c.c_int32), ("int8_products", c.c_int32),
                ("executor", c.POINTER(Executor)), ("workspace", c.c_void_p)] + [
        (name, c.POINTER(Tensor)) for name in ("cu_seqlens_q", "cu_seqlens_k", "page_table", "k_scales", "v_scales")
    ] + [("bits", c.c_char_p), ("dropout", c.POINTER(Dropout))]


class Gradients(Sized):
    _fields_ = [("size", c.c_size_t)] + [(name, c.POINTER(Tensor)) for name in (
        "dlse", "dq", "dk", "dv", "dbias", "dsinks", "dalibi_slopes")] + [
        ("accumulate", c.c_int32), ("reserved", c.c_int32)]


class CacheOptions(Sized):
    _fields_ = [("size", c.c_size_t)] + [(name, c.c_int64) for name in (
        "num_kv_heads", "head_dim", "value_dim", "page_size", "max_tokens")] + [
        ("dtype", c.c_int32), ("in_one_piece", c.c_int32)]


mh.mh_last_error.restype = mh.mh_version.restype = c.c_char_p
mh.mh_kv_cache_add.argtypes = [c.c_void_p, c.c_void_p]
mh.mh_kv_cache_append.argtypes = [c.c_void_p, c.c_int64, c.c_void_p, c.c_void_p, c.c_int32, c.c_void_p]
mh.mh_kv_cache_attention.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_void_p]
mh.mh_kv_cache_destroy.argtypes = [c.c_void_p]
mh.mh_kv_cache_destroy.restype = None
ref = c.byref


def floats(count, value=lambda i: 0.0):
    return (c.c_float * count)(*map(value, range(count)))


def tensor(data, *shape, dtype=F32):
    return Tensor(c.addressof(data), dtype, len(shape), (c.c_int64 * 8)(*shape))


def ok(code):
    assert code == OK, (code, mh.mh_last_error())


def error(code, text, expected=INVALID):
    assert code == expected and text in mh.mh_last_error().decode(), (code, mh.mh_last_error())


heads, tokens, width = 4, 160, 32
shape = (1, heads, tokens, width)
count = math.prod(shape)
q_data = floats(count, lambda i: math.sin(i))
k_data = floats(count, lambda i: math.cos(3 * i))
v_data = floats(count, lambda i: i % width)
out_data, lse_data = floats(count), floats(heads * tokens)
q, k, v, out = (tensor(data, *shape) for data in (q_data, k_data, v_data, out_data))
lse = tensor(lse_data, 1, heads, tokens)
mask = Mask(causal=1)
options = Options(mask=c.pointer(mask), lse=c.pointer(lse), num_threads=1)
ok(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(options)))
# Each value is its column, so each output is too.
assert all(abs(out_data[i] - i % width) < 1e-4 for i in range(count))
assert abs(lse_data[0] - sum(q_data[e] * k_data[e] for e in range(width)) / math.sqrt(width)) < 1e-5
expected = bytes(out_data)

# The caller's threads, in Python: the same bits.
ran = []


def run(_, tasks, task, context):
    ran.append(tasks)
    threads = [threading.Thread(target=task, args=(context, i)) for i in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


executor = Executor(concurrency=Concurrency(lambda _: 3), run=Run(run))
c.memset(out_data, 0, c.sizeof(out_data))
ok(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(Options(mask=c.pointer(mask), executor=c.pointer(executor)))))
assert ran and bytes(out_data) == expected
# One that runs nothing, as a callback that raises does.
executor.run = Run(lambda *_: None)
error(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(Options(executor=c.pointer(executor)))),
      "mh_attention: executor->run ran 0 of 3 tasks", FAILED)

# Dropout: the same weights go whenever it is asked for, and with p = 1 all of them.
dropped = []
for p in (0.5, 0.5, 1):
    options = Options(mask=c.pointer(mask), dropout=c.pointer(Dropout(p=p, seed=7)))
    ok(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(options)))
    dropped.append(bytes(out_data))
assert dropped[0] == dropped[1] != expected and not any(dropped[2])
error(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(Options(dropout=c.pointer(Dropout(p=2))))),
      "mh_attention: dropout.p is 2, expected 0 to 1")
ok(mh.mh_attention(ref(q), ref(k), ref(v), ref(out), ref(Options(mask=c.pointer(mask)))))

# Gradients of the loss that is the sum of out: every row of weights sums to 1, so all of dv together to the elements of
# out, and as each value is its column, dS is 0 and with it dq and dk.
ones, dq_data, dv_data = floats(1, lambda _: 1), floats(count), floats(count)
dout = Tensor(c.addressof(ones), F32, 4, q.shape, (c.c_int64 * 4)())
gradients = Gradients(dq=c.pointer(tensor(dq_data, *shape)), dv=c.pointer(tensor(dv_data, *shape)))
options = Options(mask=c.pointer(mask))
ok(mh.mh_attention_backward(ref(q), ref(k), ref(v), ref(out), ref(dout), ref(lse), ref(gradients), ref(options)))
assert abs(sum(dv_data) - count) < 1e-2 and all(abs(x) < 1e-3 for x in dq_data)
gradients.accumulate = 1
once = dv_data[0]
ok(mh.mh_attention_backward(ref(q), ref(k), ref(v), ref(out), ref(dout), ref(lse), ref(gradients), ref(options)))
assert dv_data[0] == 2 * once
gradients.reserved = 1
error(mh.mh_attention_backward(ref(q), ref(k), ref(v), ref(out), ref(dout), ref(lse), ref(gradients), ref(options)),
      "mh_attention_backward: gradients->reserved is 1, expected 0")

# The tokens of a cache, and an earlier and a later caller's options.
cache, sequence = c.c_void_p(), c.c_int64()
ok(mh.mh_kv_cache_create(ref(CacheOptions(num_kv_heads=heads, head_dim=width)), ref(cache)))
ok(mh.mh_kv_cache_add(cache, ref(sequence)))
ok(mh.mh_kv_cache_append(cache, sequence, ref(tensor(k_data, *shape[1:])), ref(tensor(v_data, *shape[1:])), 0, None))
for size, wrong in ((32, None), (c.sizeof(Options) + 8, None), (0, "options->size is 0"), (13, "options->size is 13")):
    room = c.create_string_buffer(c.sizeof(Options) + 8)
    c.memmove(room, ref(Options(mask=c.pointer(mask))), c.sizeof(Options))
    c.memmove(room, ref(c.c_size_t(size)), c.sizeof(c.c_size_t))
    c.memset(out_data, 0, c.sizeof(out_data))
    code = mh.mh_kv_cache_attention(ref(q), cache, ref(sequence), 1, ref(out), room)
    if wrong:
        error(code, "mh_kv_cache_attention: " + wrong)
        assert not any(bytes(out_data))
    else:
        ok(code)
        assert bytes(out_data) == expected
later = c.create_string_buffer(c.sizeof(Options) + 8)
c.memmove(later, ref(c.c_size_t(len(later))), c.sizeof(c.c_size_t))
later[len(later) - 1] = 1
error(mh.mh_kv_cache_attention(ref(q), cache, ref(sequence), 1, ref(out), later), "the rest is not 0", UNSUPPORTED)
mh.mh_kv_cache_destroy(cache)


# The machine's limits.
class Limits(Sized):
    _fields_ = [("size", c.c_size_t), ("isa", c.c_char_p), ("threads", c.c_int64)] + [(name, c.c_double) for name in (
        "fma_gflops", "bf16_dot_gflops", "bf16_tile_gflops", "int8_dot_gflops", "memory_gbs", "memory_gbs_one_thread"
    )] + [(name, c.c_int64) for name in ("l1_bytes", "l2_bytes", "l3_bytes")]


limits = Limits()
ok(mh.mh_limits(1, None, ref(limits)))
assert limits.threads == 1 and limits.fma_gflops > 0 and limits.memory_gbs == limits.memory_gbs_one_thread > 0
assert limits.l1_bytes >= 1024 and limits.isa
error(mh.mh_limits(-2, None, ref(limits)), "mh_limits: num_threads is -2, expected 0 or more")

# Errors stay with their thread.
error(mh.mh_attention(None, None, None, None, None), "mh_attention: q is undefined, expected [B,Hq,Tq,D]")
seen = []
thread = threading.Thread(target=lambda: seen.append(mh.mh_last_error()))
thread.start()
thread.join()
assert seen == [b""]
print(f"ctypes on manyheads {mh.mh_version().decode()}: right")
