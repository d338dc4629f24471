"""Reads a tensor bundle, TensorFlow's checkpoint: an index, the table of where each tensor lies, and the data."""

import math
import os
from dataclasses import dataclass

import numpy as np

from . import sstable
from .protobuf import fields, message
from .source import Fault, Source, shown

FLOAT = 1
LARGEST_INDEX = 64 << 20  # bytes; that of a model of 200 tensors has 8,000


@dataclass
class Tensor:
    name: str
    shape: tuple
    offset: int


def read_shape(data, what):
    shape = []
    for number, value in fields(data, what):
        if number == 2 and isinstance(value, bytes):
            size = message(value, what, size=(1, int))["size"]
            if not 1 <= size < 2**31:
                raise Fault(f"{what} has an axis of size {size}")
            shape.append(size)
        elif number == 3 and value:
            raise Fault(f"{what} has no known shape")
    return tuple(shape)


def read_tensor(name, value):
    what = f"tensor {shown(name)}"
    entry = message(
        value, what, dtype=(1, int), shape=(2, bytes), shard=(3, int), offset=(4, int), size=(5, int), slices=(7, bytes)
    )
    if entry["dtype"] != FLOAT:
        raise Fault(f"{what} is of type {entry['dtype']}, which is not read: float32 (1) is")
    if entry["shard"] or entry["slices"]:
        raise Fault(f"{what} is cut into parts, which is not read")
    shape = read_shape(entry["shape"], what)
    if entry["size"] != 4 * math.prod(shape):
        raise Fault(f"{what} of shape {list(shape)} has {entry['size']} bytes, not {4 * math.prod(shape)}")
    return Tensor(name, shape, entry["offset"])


class TensorBundle:
    """tensors: name to Tensor. index and data: open files."""

    def __init__(self, index, data):
        source = Source(index)
        if source.size > LARGEST_INDEX:
            raise Fault(f"the index has {source.size} bytes; {LARGEST_INDEX} are read at most")
        table = sstable.read(source.take(source.size, "the index"))
        header = message(table.pop(b"", b""), "the header", shards=(1, int), endianness=(2, int))
        if header != {"shards": 1, "endianness": 0}:
            raise Fault("the header says another form than one file of little-endian numbers, or is missing")
        self.tensors = {}
        for key, value in table.items():
            try:
                name = key.decode()
            except UnicodeDecodeError:
                raise Fault(f"the name {key!r} of a tensor is not UTF-8") from None
            self.tensors[name] = read_tensor(name, value)
        self.data = Source(data)
        end = 0
        for tensor in sorted(self.tensors.values(), key=lambda t: t.offset):
            if tensor.offset < end:
                raise Fault(f"tensor {shown(tensor.name)} lies on another")
            end = tensor.offset + 4 * math.prod(tensor.shape)
            if end > self.data.size:
                what = f"tensor {shown(tensor.name)}"
                raise Fault(f"{what} ends at byte {end}; {os.path.basename(data.name)} has {self.data.size}")

    def values(self, tensor):
        self.data.seek(tensor.offset)
        data = self.data.take(4 * math.prod(tensor.shape), f"tensor {shown(tensor.name)}")
        array = np.frombuffer(data, "<f4").reshape(tensor.shape)
        if not np.isfinite(array).all():
            raise Fault(f"tensor {shown(tensor.name)} holds a value that is not finite")
        return array
