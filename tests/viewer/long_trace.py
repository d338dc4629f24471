"""A made-up trace of any length, and its exact weights in float64.

Keys repeat 64 vectors, so that the sum of a row has 65 terms whatever the length; one key stands alone, and one query sees it.
"""
import json
import struct

import numpy as np

KINDS = 64
LONE_QUERY, LONE_KEY = 12345, 77777  # of a shorter trace their remainders


class LongTrace:
    def __init__(self, path, tokens=100_000, depth=16, seed=5):
        self.path, self.tokens = path, tokens
        numbers = np.random.default_rng(seed)
        self.scale = depth**-0.5
        kinds = numbers.normal(size=(KINDS, depth)).astype(np.float32)
        self.kind = numbers.integers(0, KINDS, tokens)
        self.k = kinds[self.kind]
        self.q = numbers.normal(size=(tokens, depth)).astype(np.float32)
        lone_query, lone_key = LONE_QUERY % tokens, LONE_KEY % tokens
        self.k[lone_key] = 4 * numbers.normal(size=depth)
        self.q[lone_query] = 3 * self.k[lone_key]
        self.counts = np.bincount(np.delete(self.kind, lone_key), minlength=KINDS)
        distinct = np.vstack([kinds, self.k[lone_key]]).astype(np.float64)
        scores = self.scale * self.q.astype(np.float64) @ distinct.T
        top = scores.max(1)
        sums = np.exp(scores - top[:, None]) @ np.append(self.counts, 1)
        self.lse = top + np.log(sums)
        words = [f"w{place}" for place in range(tokens)]
        self.write({"layers.0.q": self.q[None], "layers.0.k": self.k[None], "layers.0.lse": self.lse[None].astype(np.float32)},
                   {"manyheads_trace": "1", "model": "made up", "text": "a long text", "tokens": json.dumps(words), "scale": json.dumps(self.scale)})

    def write(self, tensors, metadata):
        header, body = {"__metadata__": metadata}, b""
        for name, values in tensors.items():
            data = np.ascontiguousarray(values, np.float32).tobytes()
            header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        text = json.dumps(header).encode()
        self.path.write_bytes(struct.pack("<Q", len(text)) + text + body)

    def row(self, query):
        """The weights of a query in float64."""
        return np.exp(self.scale * self.k.astype(np.float64) @ self.q[query].astype(np.float64) - self.lse[query])
