"""manyheads, in a process of its own: peers_ours answers each line with a line."""

import os
import subprocess

import cases
import numpy as np


class Ours:
    NAME = "manyheads"

    def __init__(self, program, threads, folder):
        self.folder = folder
        self.prepared = 0
        self.process = subprocess.Popen(
            [str(program), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().rstrip("\n")
        if not answer.startswith("ok "):
            raise SystemExit(f"peers_ours: {' '.join(map(str, words))}: {answer or 'no answer'}")
        return answer.removeprefix("ok ")

    def isa(self):
        return self.ask("isa")

    def limit(self, case):
        """GFLOP/s of multiply-adds, now; of decoding GB/s of reading memory."""
        return float(self.ask("limit", "memory" if isinstance(case, cases.Decode) else case.dtype))

    def prepare(self, case, inputs, output_shape):
        """A sampler of seconds a run, and the result of a run."""
        self.prepared += 1
        folder = os.path.join(self.folder, str(self.prepared))
        os.mkdir(folder)
        decode = isinstance(case, cases.Decode)
        for name, array in inputs.items():
            if decode:
                array = array[0]  # it makes the copies itself
            np.ascontiguousarray(array).tofile(os.path.join(folder, name))
        dtype = np.dtype(np.float32)
        if isinstance(case, cases.Attention):
            dtype = cases.TYPES[case.dtype]
            sizes = (case.dtype, *inputs["q"].shape, "causal" if case.causal else "full", case.window)
        elif decode:
            dtype = cases.TYPES[case.dtype]
            sizes = (case.dtype, case.heads, case.kv_heads, case.keys, case.head_size, case.copies)
        elif isinstance(case, cases.Linear):
            sizes = (case.dtype, case.inputs_size, case.outputs_size, case.rows)
        elif isinstance(case, cases.Layer):
            sizes = (case.batch, case.tokens, case.d_model, case.heads)
        else:
            sizes = (case.dtype, case.batch, case.tokens, case.folder)
        self.ask("bits", getattr(case, "bits", "") or "-")
        self.ask("prepare", type(case).__name__.lower(), folder, *sizes)

        def result():
            return np.fromfile(os.path.join(folder, "out"), dtype).reshape(output_shape).astype(np.float64)

        return lambda: float(self.ask("time", 0.02)), result
