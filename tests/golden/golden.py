"""Writes golden files: safetensors with sorted names, so that the same content gives the same bytes."""

import json
import os

import ml_dtypes
import numpy as np

TYPES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int8): "I8",
}


def save(path, tensors, metadata):
    header = {"__metadata__": {name: metadata[name] for name in sorted(metadata)}}
    blocks = []
    offset = 0
    # Wide types first: each tensor then lies on its own alignment.
    for name in sorted(tensors, key=lambda n: (-tensors[n].dtype.itemsize, n)):
        array = np.asarray(tensors[name], order="C")
        data = array.tobytes()
        header[name] = {
            "dtype": TYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        blocks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    beside = f"{path}.tmp"
    with open(beside, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(blocks))
    os.replace(beside, path)


def to_json(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
