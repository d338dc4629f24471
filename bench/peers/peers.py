#!/usr/bin/env python3
"""Times manyheads beside PyTorch, ONNX Runtime, OpenVINO and JAX on this machine, in one run.

Every case is timed in turn: this machine's limit (multiply-adds; of decoding, reading memory), manyheads, the limit
again, the next peer, and so on; the best of each is printed, since others take time from a shared machine and never
give any. Each has a process of its own, pinned to the same processors. All get the same inputs and the same number of
threads. Time in Python is part of a peer's time, as it is for its users.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import tables

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Rounds of a case end after this many seconds, where some peer is slow: long samples need fewer.
LONG = 12
LEAST_ROUNDS = 3
PEERS = ("peer_torch", "peer_onnxruntime", "peer_openvino", "peer_jax")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, required=True, help="the program peers_ours")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="samples of each, taken in turn")
    parser.add_argument("--cases", choices=("all", "amx"), default="all", help="amx: those of bench/amx")
    parser.add_argument("--peers", default=",".join(PEERS), help="which of them, separated by commas")
    parser.add_argument("--only", default="", help='only cases whose name, as "CASE, N threads", contains this')
    parser.add_argument("--list", action="store_true", help="print these names and end")
    parser.add_argument("--markdown", type=pathlib.Path, help="also write the table to this file")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file, after each case")
    parser.add_argument("--resume", action="store_true", help="keep the cases that the --json file has already")
    args = parser.parse_args()
    if args.resume and not args.json:
        parser.error("--resume takes a --json file")
    return args


def pin(threads):
    """Before any library starts its threads."""
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(available):
        sys.exit(f"peers: --threads {threads}: this process may run on {len(available)} processors")
    os.sched_setaffinity(0, available[-threads:])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["CI"] = "true"  # OpenVINO's converter then reports to nobody, for which it would fork


def machine():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


def measure(case, ours, peers, rounds):
    import cases
    import numpy as np

    inputs = case.inputs()
    expected = case.expected(inputs)
    samplers = {}
    errors = {}
    sample, result = ours.prepare(case, inputs, expected.shape)
    samplers[ours.NAME] = sample
    errors[ours.NAME] = float(np.abs(result() - expected).max())
    for peer in peers:
        result = peer.prepare(case)
        if result is not None:
            errors[peer.NAME] = float(np.abs(result - expected).max())
            samplers[peer.NAME] = peer.sample
    ours.limit(case)  # the first one touches what later ones read
    limits = []
    samples = {name: [] for name in samplers}
    begin = time.perf_counter()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.perf_counter() - begin > LONG:
            break
        for name, sample in samplers.items():
            # The last one's threads may still spin for more work.
            time.sleep(0.01)
            limits.append(ours.limit(case))
            samples[name].append(sample())
    limit = max(limits)
    work, unit = (case.bytes, "gbs") if isinstance(case, cases.Decode) else (case.flop, "gflops")
    row = {"case": case.name, f"limit_{unit}": limit, "figures": {}}
    for name, values in samples.items():
        reached = work / min(values) / 1e9
        row["figures"][name] = {
            "seconds": min(values),
            "seconds_median": statistics.median(values),
            "seconds_most": max(values),
            unit: reached,
            "fraction": reached / limit,
            "max_error": errors[name],
        }
    return row


def write(path, text):
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    beside.replace(path)


def report(args, result, text):
    """Prints the text, and writes the files that were asked for."""
    print("\n" + text, end="")
    if args.json:
        write(args.json, json.dumps(result, indent=2) + "\n")
    if args.markdown:
        write(args.markdown, text)


def standing(path, about):
    """The rows of an earlier run of the same kind, by the names of their cases."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    differ = [key for key, value in about.items() if earlier.get(key) != value]
    if differ:
        sys.exit(f"peers: {path} is of another {', '.join(differ)}: --resume would mix them")
    return {row["case"]: row for row in earlier["rows"]}


def main():
    args = parse()
    pin(args.threads)
    sys.dont_write_bytecode = True
    import cases
    from peer_ours import Ours
    from peer_process import Peer

    if not args.ours.is_file():
        sys.exit(f"peers: no program {args.ours}; bench/peers/run builds it")
    if not (args.model / "model.safetensors").exists():
        sys.exit(f"peers: no model in {args.model}; scripts/fetch-model gets it")
    of_set = {"all": cases.all_cases, "amx": cases.amx_cases}[args.cases](str(args.model))
    chosen = [case for case in of_set if args.only in f"{case.name}, {args.threads} threads"]
    if args.list:
        print("".join(f"{case.name}, {args.threads} threads\n" for case in chosen), end="")
        return
    if not chosen:
        sys.exit(f"peers: no case has {args.only!r} in its name")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"peers: this machine is busy (load {load:.1f}): the figures will be rough", file=sys.stderr)
    peers = [Peer(module, args.threads) for module in args.peers.split(",")]

    with tempfile.TemporaryDirectory() as folder, Ours(args.ours, args.threads, folder) as ours:
        about = {
            "machine": machine(),
            "threads": args.threads,
            "isa": ours.isa(),
            "program": hashlib.sha256(args.ours.read_bytes()).hexdigest(),
            "versions": {peer.NAME: peer.VERSION for peer in peers},
        }
        rows = standing(args.json, about) if args.resume else {}
        result = about | {"date": datetime.date.today().isoformat(), "load_before": load}
        for case in chosen:
            if case.name in rows:
                continue
            rows[case.name] = measure(case, ours, peers, args.rounds)
            print(tables.summary(rows[case.name]), flush=True)
            result["rows"] = list(rows.values())
            if args.json:
                write(args.json, json.dumps(result, indent=2) + "\n")
    text = tables.markdown(result | {"rows": list(rows.values())})
    print("\n" + text, end="")
    if args.markdown:
        write(args.markdown, text)


if __name__ == "__main__":
    main()
