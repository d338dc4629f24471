"""Small GGUF files for the tests: a decoder of one layer, whole or damaged."""

import struct
from dataclasses import dataclass

import numpy as np

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
LETTERS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
TENSOR_F32, TENSOR_Q4_1, TENSOR_Q8_0 = 0, 3, 8

HIDDEN, HEADS, KV_HEADS, DIM, INNER = 32, 2, 1, 16, 64
TOKENS = ["<|endoftext|>", "<|im_start|>", "a", "b", "c", "ab", "abc", "1"]
MERGES = ["a b", "ab c"]


def number(kind, value):
    return struct.pack("<" + LETTERS[kind], value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return number(U64, len(data)) + data


@dataclass
class Array:
    kind: int
    values: list

    def data(self):
        values = (string(v) if self.kind == STRING else number(self.kind, v) for v in self.values)
        return number(U32, self.kind) + number(U64, len(self.values)) + b"".join(values)


@dataclass
class Raw:
    """The bytes of a value, right or wrong."""

    bytes: bytes


def value_data(kind, value):
    if isinstance(value, Raw):
        return value.bytes
    if kind == STRING:
        return string(value)
    return value.data() if kind == ARRAY else number(kind, value)


@dataclass
class Tensor:
    axes: list  # as GGUF has them, columns first
    kind: int
    data: bytes
    offset: int | None = None  # None: after the tensor before

    def entry(self, name, offset):
        sizes = b"".join(number(U64, size) for size in self.axes)
        return string(name) + number(U32, len(self.axes)) + sizes + number(U32, self.kind) + number(U64, offset)


def random_tensor(random, kind, rows, columns):
    """A tensor and the values that it means, told again one by one. No rows: a vector."""
    count = max(rows, 1) * columns
    if kind == TENSOR_F32:
        values = random.standard_normal(count).astype(np.float32)
        data = values.tobytes()
    else:
        data, values = b"", []
        for _ in range(count // 32):
            scale, least = np.float16(random.standard_normal()), np.float16(random.standard_normal())
            if kind == TENSOR_Q8_0:
                numbers = random.integers(-128, 128, 32)
                data += scale.tobytes() + numbers.astype(np.int8).tobytes()
                values += [np.float32(scale) * np.float32(n) for n in numbers]
            else:
                numbers = random.integers(0, 16, 32)
                packed = [int(numbers[i]) | int(numbers[i + 16]) << 4 for i in range(16)]
                data += scale.tobytes() + least.tobytes() + bytes(packed)
                values += [np.float32(scale) * np.float32(n) + np.float32(least) for n in numbers]
    shape = (rows, columns) if rows else (columns,)
    return Tensor(list(shape[::-1]), kind, data), np.array(values, np.float32).reshape(shape)


class GgufFile:
    """entries: name to (type, value), tensors: name to Tensor; change either before data(). values: of each tensor."""

    def __init__(self, **header):
        self.header = header  # magic, version, tensors, entries: in place of the right ones
        self.entries = {
            "general.architecture": (STRING, "llama"),
            "llama.block_count": (U32, 1),
            "llama.context_length": (U32, 128),
            "llama.embedding_length": (U32, HIDDEN),
            "llama.feed_forward_length": (U32, INNER),
            "llama.attention.head_count": (U32, HEADS),
            "llama.attention.head_count_kv": (U32, KV_HEADS),
            "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
            "llama.rope.freq_base": (F32, 100000.0),
            "tokenizer.ggml.model": (STRING, "gpt2"),
            "tokenizer.ggml.pre": (STRING, "smollm"),
            "tokenizer.ggml.tokens": (ARRAY, Array(STRING, list(TOKENS))),
            "tokenizer.ggml.token_type": (ARRAY, Array(I32, [3, 3, 1, 1, 1, 1, 1, 1])),
            "tokenizer.ggml.merges": (ARRAY, Array(STRING, list(MERGES))),
            "tokenizer.ggml.bos_token_id": (U32, 1),
            "tokenizer.ggml.eos_token_id": (U32, 0),
            "tokenizer.chat_template": (STRING, "{{ messages }}"),
        }
        random = np.random.default_rng(3)
        self.tensors, self.values = {}, {}
        for name, kind, rows, columns in (
            ("token_embd.weight", TENSOR_Q8_0, len(TOKENS), HIDDEN),
            ("blk.0.attn_norm.weight", TENSOR_F32, 0, HIDDEN),
            ("blk.0.ffn_down.weight", TENSOR_Q4_1, HIDDEN, INNER),
            ("blk.0.ffn_gate.weight", TENSOR_Q4_1, INNER, HIDDEN),
            ("blk.0.ffn_up.weight", TENSOR_F32, INNER, HIDDEN),
            ("blk.0.ffn_norm.weight", TENSOR_F32, 0, HIDDEN),
            ("blk.0.attn_k.weight", TENSOR_Q4_1, KV_HEADS * DIM, HIDDEN),
            ("blk.0.attn_output.weight", TENSOR_Q8_0, HIDDEN, HEADS * DIM),
            ("blk.0.attn_q.weight", TENSOR_Q4_1, HEADS * DIM, HIDDEN),
            ("blk.0.attn_v.weight", TENSOR_Q4_1, KV_HEADS * DIM, HIDDEN),
            ("output_norm.weight", TENSOR_F32, 0, HIDDEN),
        ):
            self.tensors[name], self.values[name] = random_tensor(random, kind, rows, columns)

    def data(self):
        alignment = self.entries.get("general.alignment", (U32, 32))[1]
        alignment = alignment if isinstance(alignment, int) and 0 < alignment < 4096 else 32
        entries, tensors, data = b"", b"", b""
        for name, (kind, value) in self.entries.items():
            entries += string(name.removesuffix("#")) + number(U32, kind) + value_data(kind, value)
        for name, tensor in self.tensors.items():
            offset = len(data) if tensor.offset is None else tensor.offset
            tensors += tensor.entry(name.removesuffix("#"), offset)
            data += tensor.data + b"\0" * (-len(tensor.data) % alignment)
        header = self.header.get("magic", b"GGUF") + number(U32, self.header.get("version", 3))
        header += number(U64, self.header.get("tensors", len(self.tensors)))
        header += number(U64, self.header.get("entries", len(self.entries)))
        front = header + entries + tensors
        return front + b"\0" * (-len(front) % alignment) + data
