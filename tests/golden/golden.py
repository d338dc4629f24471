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


def save_weights(folder, state, shards=1):
    """model.safetensors, or that many files and their index, as the hub names them."""
    if shards == 1:
        save(folder / "model.safetensors", state, {"format": "pt"})
        return
    names = sorted(state)
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        where |= dict.fromkeys(part, file)
        save(folder / file, {n: state[n] for n in part}, {"format": "pt"})
    index = {"metadata": {"total_size": sum(a.nbytes for a in state.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def to_json(value):
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
