"""Reads GGUF, versions 2 and 3: metadata, and tensors of F32, Q4_1 and Q8_0 as the float32 values that they mean."""

import math
from dataclasses import dataclass

import numpy as np

from .source import Fault, Source, shown

# By number: the letter of `struct`, None for a string and for an array.
STRING, ARRAY = 8, 9
VALUE_TYPES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", STRING: None, ARRAY: None}
VALUE_TYPES |= {10: "Q", 11: "q", 12: "d"}

SMALLEST_ENTRY = 8 + 4 + 1  # bytes of metadata: length of the name, type, value
SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8  # length of the name, number of axes, one axis, type, offset


def q4_1(blocks):
    """value = scale · (0 to 15) + least. A block is scale and least in float16, then 32 numbers: low halves first."""
    scale, least = (blocks[:, i : i + 2].copy().view("<f2").astype(np.float32) for i in (0, 2))
    numbers = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return numbers * scale + least


def q8_0(blocks):
    """value = scale · (−128 to 127). A block is scale in float16, then 32 numbers."""
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    return blocks[:, 2:].view(np.int8).astype(np.float32) * scale


def f32(blocks):
    return blocks.view("<f4")


# By number: name, values in a block, bytes of a block, what the bytes mean.
TENSOR_TYPES = {0: ("F32", 1, 4, f32), 3: ("Q4_1", 32, 20, q4_1), 8: ("Q8_0", 32, 34, q8_0)}


@dataclass
class Tensor:
    name: str
    shape: tuple  # as the hub writes it, rows first
    type: int
    offset: int  # from the first byte of data

    def row_bytes(self):
        _, values, size, _ = TENSOR_TYPES[self.type]
        return self.shape[-1] // values * size

    def bytes(self):
        return math.prod(self.shape[:-1]) * self.row_bytes()


class Gguf:
    """metadata: name to value, numbers in arrays as NumPy's. tensors: name to Tensor."""

    def __init__(self, file):
        self.source = Source(file)
        take, number = self.source.take, self.source.number
        if self.source.size < 24 or take(4, "the magic") != b"GGUF":
            raise Fault("not GGUF: it does not begin with 'GGUF' and a header of 24 bytes")
        version = number("I", "the version")
        if version in (0x02000000, 0x03000000):
            raise Fault("GGUF of big-endian numbers is not read")
        if version not in (2, 3):
            raise Fault(f"GGUF version {version} is not read: 2 and 3 are")
        tensors, entries = number("Q", "the number of tensors"), number("Q", "the number of metadata entries")
        self._enough_bytes(entries, SMALLEST_ENTRY, "metadata entries")
        self._enough_bytes(tensors, SMALLEST_TENSOR, "tensors")
        self.metadata = {}
        for _ in range(entries):
            name = self._string("the name of a metadata entry")
            if name in self.metadata:
                raise Fault(f"metadata {shown(name)} is there twice")
            self.metadata[name] = self._value(number("I", f"the type of {shown(name)}"), f"metadata {shown(name)}")
        self.tensors = {}
        for _ in range(tensors):
            tensor = self._tensor()
            if tensor.name in self.tensors:
                raise Fault(f"tensor {shown(tensor.name)} is there twice")
            self.tensors[tensor.name] = tensor
        self._place_tensors()

    def _enough_bytes(self, count, smallest, what):
        if count > self.source.left() // smallest:
            raise Fault(f"says {count} {what}, for which {self.source.left()} bytes are too few")

    def _string(self, what):
        data = self.source.take(self.source.number("Q", f"the length of {what}"), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Fault(f"{what} is not UTF-8") from None

    def _value(self, kind, what):
        if kind not in VALUE_TYPES:
            raise Fault(f"{what} is of type {kind}, which GGUF does not have")
        if kind == STRING:
            return self._string(what)
        if kind == ARRAY:
            return self._array(what)
        return self._numbers(kind, 1, what)[0].item()

    def _array(self, what):
        kind, count = self.source.number("I", f"the type in {what}"), self.source.number("Q", f"the length of {what}")
        if kind not in VALUE_TYPES or kind == ARRAY:
            raise Fault(f"{what} is an array of type {kind}, which is not read")
        if kind != STRING:
            return self._numbers(kind, count, what)
        self._enough_bytes(count, 8, f"strings in {what}")
        return [self._string(what) for _ in range(count)]

    def _numbers(self, kind, count, what):
        kind = np.dtype(np.uint8 if VALUE_TYPES[kind] == "?" else "<" + VALUE_TYPES[kind])
        return np.frombuffer(self.source.take(count * kind.itemsize, what), kind)

    def _tensor(self):
        number = self.source.number
        name = self._string("the name of a tensor")
        what = f"tensor {shown(name)}"
        axes = number("I", f"the number of axes of {what}")
        if not 1 <= axes <= 4:
            raise Fault(f"{what} has {axes} axes; 1 to 4 are possible")
        shape = tuple(number("Q", f"the shape of {what}") for _ in range(axes))[::-1]
        kind, offset = number("I", f"the type of {what}"), number("Q", f"the offset of {what}")
        if kind not in TENSOR_TYPES:
            raise Fault(f"{what} is of type {kind}, which is not read: F32 (0), Q4_1 (3) and Q8_0 (8) are")
        type_name, values, _, _ = TENSOR_TYPES[kind]
        if min(shape) == 0:
            raise Fault(f"{what} has the shape {list(shape)}, without values")
        if shape[-1] % values:
            raise Fault(f"{what} of {type_name} has rows of {shape[-1]} values, no whole number of blocks of {values}")
        return Tensor(name, shape, kind, offset)

    def _place_tensors(self):
        """Where data begins; each tensor lies in it, aligned, and on no other."""
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise Fault(f"general.alignment is {shown(alignment)}; it is a power of two from 8 on")
        self.start = -(-self.source.place // alignment) * alignment
        size = max(self.source.size - self.start, 0)
        end, before = 0, None
        for tensor in sorted(self.tensors.values(), key=lambda t: t.offset):
            what = f"tensor {shown(tensor.name)}"
            if tensor.offset % alignment:
                raise Fault(f"{what} begins at {tensor.offset}, no multiple of general.alignment, {alignment}")
            if tensor.offset + tensor.bytes() > size:
                raise Fault(
                    f"{what} of shape {list(tensor.shape)} takes {tensor.bytes()} bytes at {tensor.offset}, "
                    f"and the file has {size} bytes of data"
                )
            if tensor.offset < end:
                raise Fault(f"{what} lies on tensor {shown(before)}")
            end, before = tensor.offset + tensor.bytes(), tensor.name

    def rows(self, tensor, step):
        """The tensor's values in float32 [rows, columns], `step` rows at a time."""
        _, values, size, meaning = TENSOR_TYPES[tensor.type]
        rows, width = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        for first in range(0, rows, step):
            count = min(step, rows - first)
            self.source.seek(self.start + tensor.offset + first * tensor.row_bytes())
            data = self.source.take(count * tensor.row_bytes(), f"tensor {shown(tensor.name)}")
            blocks = np.frombuffer(data, np.uint8).reshape(count * width // values, size)
            with np.errstate(invalid="ignore"):  # 0 · inf, which is refused below
                part = meaning(blocks).reshape(count, width)
            if not np.isfinite(part).all():
                raise Fault(f"tensor {shown(tensor.name)} holds a value that is not finite")
            yield part
