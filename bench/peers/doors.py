#!/usr/bin/env python3
"""What the doors to Python cost, in one run: the same calls by C++, NumPy, PyTorch's op, PyTorch's function while
manyheads takes it, and PyTorch's own.

Each has a process of its own, pinned to the same processors, and all are timed in turn; the best of each counts. The
results of ours must have the bits of C++.
"""

import argparse
import datetime
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import peers as of_peers
import tables

DOORS = ("door_numpy", "door_op", "door_taken", "door_torch")
# What is imported, and what is imported already.
IMPORTS = (("manyheads", "numpy"), ("manyheads.torch", "torch"))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, required=True, help="the program peers_ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15, help="samples of each, taken in turn")
    parser.add_argument("--only", default="", help="only cases whose name contains this, or imports")
    parser.add_argument("--markdown", type=pathlib.Path, help="also write the tables to this file")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    return parser.parse_args()


def measure(case, ours, doors, rounds):
    import cases
    import numpy as np

    inputs = case.inputs()
    samplers, results = {}, {}
    if not isinstance(case, (cases.Multihead, cases.MultiheadTraining)):
        samplers[ours.NAME], result = ours.prepare(case, inputs, inputs["q"].shape)
        results[ours.NAME] = result()
    for door in doors:
        result = door.prepare(case)
        if result is not None:
            samplers[door.NAME], results[door.NAME] = door.sample, result
    for name, result in results.items():
        if ours.NAME in results and name != "PyTorch" and not np.array_equal(result, results[ours.NAME]):
            sys.exit(f"doors: {case.name}: {name} has other bits than C++")
        if np.abs(result - results["PyTorch"]).max() > 2e-2:
            sys.exit(f"doors: {case.name}: {name} is not what PyTorch computes")
    samples = {name: [] for name in samplers}
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= of_peers.LEAST_ROUNDS and time.perf_counter() - begin > of_peers.LONG:
            break
        for name, sample in samplers.items():
            time.sleep(0.01)  # the last one's threads may still spin
            samples[name].append(sample())
    return {"case": case.name, "kind": type(case).__name__, "seconds": {n: min(v) for n, v in samples.items()}}


def imports(rounds):
    """Seconds that an import takes beyond what is there already."""
    samples = {ours: [] for ours, _ in IMPORTS}
    for _ in range(rounds):
        for ours, there in IMPORTS:
            code = f"import time, {there}; t = time.perf_counter(); import {ours}; print(time.perf_counter() - t)"
            samples[ours].append(float(subprocess.check_output([sys.executable, "-c", code])))
    return [{"import": ours, "beyond": there, "seconds": min(samples[ours])} for ours, there in IMPORTS]


def main():
    args = parse()
    of_peers.pin(args.threads)
    sys.dont_write_bytecode = True
    import cases
    from peer_ours import Ours
    from peer_process import Peer

    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"doors: this machine is busy (load {load:.1f}): the figures will be rough", file=sys.stderr)
    doors = [Peer(module, args.threads) for module in DOORS]
    with tempfile.TemporaryDirectory() as folder, Ours(args.ours, args.threads, folder) as ours:
        result = {
            "machine": of_peers.machine(),
            "threads": args.threads,
            "isa": ours.isa(),
            "versions": {door.NAME: door.VERSION for door in doors},
            "date": datetime.date.today().isoformat(),
            "load_before": load,
            "rows": [],
        }
        for case in cases.door_cases():
            if args.only not in case.name:
                continue
            row = measure(case, ours, doors, args.rounds)
            result["rows"].append(row)
            print(f"{row['case']}: " + ", ".join(f"{n} {s * 1e6:.2f} us" for n, s in row["seconds"].items()), flush=True)
    result["imports"] = imports(args.rounds) if args.only in "imports" else []
    of_peers.report(args, result, tables.doors(result))


if __name__ == "__main__":
    main()
