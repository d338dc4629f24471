#!/usr/bin/env python3
"""A decoder, SmolLM2-135M, by manyheads and by transformers: reading, writing one token by one, a batch, a trace.

Each has a process of its own, pinned to the same processors, and all are timed in turn with this machine's limit; the
best of each counts.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import sys
import tempfile
import time

import peers as of_peers
import tables

MODEL = of_peers.ROOT / "models" / "SmolLM2-135M-Instruct"
LONG = 60  # seconds of a case, of which the slow ones then take few rounds


@dataclasses.dataclass
class Case:
    dtype: str
    tokens: int
    folder: str
    batch: int = 1

    def inputs(self):
        import numpy as np

        random = np.random.default_rng(1)
        return {"ids": random.integers(0, 49152, (self.batch, self.tokens + self.more), np.int64)}


@dataclasses.dataclass
class Sizes:
    """Of a Llama model's config.json."""

    hidden: int
    layers: int
    wide: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def weights(self):
        """Of the layers' projections."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.wide)


def sizes(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    heads = config["num_attention_heads"]
    hidden = config["hidden_size"]
    return Sizes(
        hidden,
        config["num_hidden_layers"],
        config["intermediate_size"],
        heads,
        config["num_key_value_heads"],
        config.get("head_dim") or hidden // heads,
        config["vocab_size"],
    )


class Prefill(Case):
    more = 0
    limit = "f32"

    @property
    def name(self):
        return f"prefill {self.dtype}, {self.tokens} tokens"

    def work(self):
        s = sizes(self.folder)
        pairs = self.tokens * (self.tokens + 1) / 2
        return 2.0 * self.tokens * s.weights + 4.0 * pairs * s.layers * s.heads * s.head_dim


class Generate(Case):
    more = 1
    limit = "memory"

    @property
    def name(self):
        return f"decode {self.dtype}, {self.batch} sequence{'s' * (self.batch > 1)}, {self.tokens} tokens before"

    def work(self):
        s = sizes(self.folder)
        size = {"f32": 4, "bf16": 2}[self.dtype]
        cache = 2.0 * self.batch * self.tokens * s.layers * s.kv_heads * s.head_dim
        return size * (s.weights + s.hidden * s.vocabulary + cache)


class Trace(Case):
    more = 0
    limit = None

    @property
    def name(self):
        return f"trace of {self.tokens} tokens, written"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, required=True, help="the program peers_ours")
    parser.add_argument("--model", type=pathlib.Path, default=MODEL)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="samples of each, taken in turn")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--markdown", type=pathlib.Path, help="also write the table to this file")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    return parser.parse_args()


def prepare_ours(ours, case, inputs):
    """A sampler of seconds a run, and the result of one."""
    import numpy as np

    ours.prepared += 1
    folder = os.path.join(ours.folder, str(ours.prepared))
    os.mkdir(folder)
    inputs["ids"].tofile(os.path.join(folder, "ids"))
    batch = (case.batch,) if isinstance(case, Generate) else ()
    ours.ask("prepare", type(case).__name__.lower(), folder, case.dtype, *batch, case.tokens, case.folder)
    result = np.fromfile(os.path.join(folder, "out"), np.float32)
    return (lambda: float(ours.ask("time", 0.05))), result.astype(np.float64)


def measure(case, ours, theirs, rounds):
    import numpy as np

    inputs = case.inputs()
    sample, result = prepare_ours(ours, case, inputs)
    samplers = {ours.NAME: sample}
    difference = None
    if not isinstance(case, Trace) and case.batch == 1:
        expected = theirs.prepare(case)
        difference = np.abs(result.reshape(expected.shape) - expected).max() / np.abs(expected).max()
        samplers[theirs.NAME] = theirs.sample
    samples = {name: [] for name in samplers}
    limits = []
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= of_peers.LEAST_ROUNDS and time.perf_counter() - begin > LONG:
            break
        for name, one in samplers.items():
            if case.limit:
                limits.append(float(ours.ask("limit", case.limit)))
            samples[name].append(one())
    seconds = {name: min(values) for name, values in samples.items()}
    row = {"case": case.name, "kind": type(case).__name__, "tokens": case.tokens, "batch": case.batch, "seconds": seconds}
    if case.limit:
        row["limit"] = max(limits)
        row["fraction"] = case.work() / seconds[ours.NAME] / 1e9 / row["limit"]
    return row | {"difference": difference}


def main():
    args = parse()
    if not args.model.is_dir():
        sys.exit(f"decoders: {args.model} is not here: scripts/fetch-model smollm2 fetches it")
    of_peers.pin(args.threads)
    sys.dont_write_bytecode = True
    from peer_ours import Ours
    from peer_process import Peer

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"decoders: this machine is busy (load {load:.1f}): the figures will be rough", file=sys.stderr)
    folder = str(args.model)
    cases = [
        Prefill("f32", 2048, folder),
        Prefill("f32", 8192, folder),
        Trace("f32", 8192, folder),
        Generate("bf16", 512, folder),
        Generate("bf16", 4096, folder),
        Generate("bf16", 512, folder, batch=8),
    ]
    theirs = Peer("peer_decoder", args.threads)
    with tempfile.TemporaryDirectory() as work, Ours(args.ours, args.threads, work) as ours:
        result = {
            "machine": of_peers.machine(),
            "threads": args.threads,
            "isa": ours.isa(),
            "versions": {theirs.NAME: theirs.VERSION},
            "date": datetime.date.today().isoformat(),
            "load_before": load,
            "rows": [],
        }
        for case in cases:
            if args.only in case.name:
                result["rows"].append(measure(case, ours, theirs, args.rounds))
                row = result["rows"][-1]
                print(f"{row['case']}: " + ", ".join(f"{n} {s * 1e3:.2f} ms" for n, s in row["seconds"].items()), flush=True)
    of_peers.report(args, result, tables.decoders(result))


if __name__ == "__main__":
    main()
