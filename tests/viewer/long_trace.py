"""A made-up trace of any length, its exact weights in float64, and answers to a map's questions by the program.

Keys repeat 64 vectors, so that the sum of a row has 65 terms whatever the length; one key stands alone, and one query sees it.
"""
import json
import struct
import subprocess

import numpy as np

from reference import read_safetensors

DEPTH = 16
KINDS = 64
LONE_QUERY, LONE_KEY = 12345, 77777


class LongTrace:
    def __init__(self, path, program, tokens=100_000, seed=5):
        self.path, self.program, self.tokens = path, program, tokens
        numbers = np.random.default_rng(seed)
        self.scale = DEPTH**-0.5
        kinds = numbers.normal(size=(KINDS, DEPTH)).astype(np.float32)
        self.kind = numbers.integers(0, KINDS, tokens)
        self.k = kinds[self.kind]
        self.q = numbers.normal(size=(tokens, DEPTH)).astype(np.float32)
        self.k[LONE_KEY] = 4 * numbers.normal(size=DEPTH)
        self.q[LONE_QUERY] = 3 * self.k[LONE_KEY]
        self.counts = np.bincount(np.delete(self.kind, LONE_KEY), minlength=KINDS)
        distinct = np.vstack([kinds, self.k[LONE_KEY]]).astype(np.float64)
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

    def picture(self, rows, keys, size, pool):
        out = self.path.with_name("part.safetensors")
        subprocess.run([self.program, "map", self.path, "--head", "0.0", "--rows", f"{rows[0]}:{rows[1]}", "--keys", f"{keys[0]}:{keys[1]}",
                        "--size", str(size), "--pool", pool, "-o", out], check=True, capture_output=True)
        return read_safetensors(out)
