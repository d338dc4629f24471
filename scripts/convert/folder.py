"""Writes a model's folder. Each file is written beside its name and renamed, so that none is ever half there."""

import contextlib
import json
import math
import os

import numpy as np


@contextlib.contextmanager
def written(path):
    beside = f"{path}.tmp"
    try:
        with open(beside, "wb") as file:
            yield file
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)


def write_bytes(path, data):
    with written(path) as file:
        file.write(data)


def write_json(path, value):
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_safetensors(path, tensors):
    """tensors: (name, shape, arrays of float32 that make it up), in the file's order. One array is held at a time."""
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _ in tensors:
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with written(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape, arrays in tensors:
            begin = file.tell()
            for array in arrays:
                file.write(np.ascontiguousarray(array, "<f4"))
            assert file.tell() - begin == 4 * math.prod(shape), name
