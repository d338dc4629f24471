#!/usr/bin/env python3
"""Times manyheads beside PyTorch, ONNX Runtime and OpenVINO on this machine, in one run.

Every case is timed in turn: this machine's limit of multiply-adds, manyheads, each peer, the limit again, and so on;
the medians are printed. All get the same inputs, the same processors and the same number of threads. Time in Python
is part of a peer's time, as it is for its users.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=pathlib.Path, required=True, help="the program peers_ours")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9, help="samples of each, taken in turn")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--markdown", type=pathlib.Path, help="also write the table to this file")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    return parser.parse_args()


def pin(threads):
    """Before any library starts its threads."""
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= threads <= len(available):
        sys.exit(f"peers: --threads {threads}: this process may run on {len(available)} processors")
    os.sched_setaffinity(0, available[-threads:])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def machine():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return os.uname().machine


def per_run(run, least=0.02):
    """A sampler of seconds a run, over enough runs to fill `least` seconds."""
    run()
    begin = time.perf_counter()
    run()
    runs = max(1, round(least / max(time.perf_counter() - begin, 1e-6)))

    def sample():
        begin = time.perf_counter()
        for _ in range(runs):
            run()
        return (time.perf_counter() - begin) / runs

    return sample


def measure(case, ours, peers, rounds):
    import numpy as np

    inputs = case.inputs()
    expected = case.expected(inputs)
    samplers = {}
    errors = {}
    sample, result = ours.prepare(case, inputs, expected.shape)
    samplers[ours.NAME] = sample
    errors[ours.NAME] = float(np.abs(result() - expected).max())
    for peer in peers:
        prepared = getattr(peer, type(case).__name__.lower())(case, inputs)
        if prepared is None:
            continue
        run, result = prepared
        errors[peer.NAME] = float(np.abs(result() - expected).max())
        samplers[peer.NAME] = per_run(run)
    ours.limit(case.dtype)  # the first one finds how much work makes a sample
    limits = []
    samples = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            # The last one's threads may still spin for more work.
            time.sleep(0.01)
            limits.append(ours.limit(case.dtype))
            samples[name].append(sample())
    limit = statistics.median(limits)
    row = {"case": case.name, "flop": case.flop, "limit_gflops": limit, "figures": {}}
    for name, values in samples.items():
        seconds = statistics.median(values)
        gflops = case.flop / seconds / 1e9
        row["figures"][name] = {
            "seconds": seconds,
            "seconds_least": min(values),
            "seconds_most": max(values),
            "gflops": gflops,
            "fraction": gflops / limit,
            "max_error": errors[name],
        }
    return row


def table_head(names):
    ours, *others = names
    cells = ["Case", "Limit, GFLOP/s", f"{ours}, GFLOP/s", ours]
    for name in others:
        cells += [name, "ratio"]
    cells.append(f"Largest error: {', '.join(names)}")
    return [line(cells), line(["---"] + ["--:"] * (len(cells) - 2) + ["---"])]


def table_row(row, names):
    figures = row["figures"]
    mine = figures[names[0]]
    cells = [row["case"], f"{row['limit_gflops']:.1f}", f"{mine['gflops']:.1f}", f"{mine['fraction']:.2f}"]
    for name in names[1:]:
        if name in figures:
            ratio = figures[name]["seconds"] / mine["seconds"]
            cells += [f"{figures[name]['fraction']:.2f}", f"{ratio:.2f}×"]
        else:
            cells += ["–", "–"]
    cells.append(", ".join(f"{figures[n]['max_error']:.1e}" if n in figures else "–" for n in names))
    return line(cells)


def line(cells):
    return "| " + " | ".join(cells) + " |"


def write(path, text):
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    beside.replace(path)


def main():
    args = parse()
    pin(args.threads)
    sys.dont_write_bytecode = True
    import cases
    import peer_onnxruntime
    import peer_openvino
    import peer_torch
    from peer_ours import Ours

    if not args.ours.is_file():
        sys.exit(f"peers: no program {args.ours}; bench/peers/run builds it")
    if not (args.model / "model.safetensors").exists():
        sys.exit(f"peers: no model in {args.model}; scripts/fetch-model gets it")
    chosen = [case for case in cases.all_cases(str(args.model)) if args.only in case.name]
    if not chosen:
        sys.exit(f"peers: no case has {args.only!r} in its name")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"peers: this machine is busy (load {load:.1f}): the figures will be rough", file=sys.stderr)
    peers = [peer_torch, peer_onnxruntime, peer_openvino]
    for peer in peers:
        peer.start(args.threads)

    lines = []

    def say(text):
        lines.append(text)
        print(text, flush=True)

    with tempfile.TemporaryDirectory() as folder, Ours(args.ours, args.threads, folder) as ours:
        names = [ours.NAME] + [peer.NAME for peer in peers]
        about = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "threads": args.threads,
            "load_before": load,
            "isa": ours.isa(),
            "versions": {peer.NAME: peer.VERSION for peer in peers},
        }
        versions = "; ".join(f"{name} {version}" for name, version in about["versions"].items())
        say(
            f"{about['date']}, {about['machine']}, {args.threads} thread{'s' * (args.threads > 1)}, {ours.NAME} on "
            f"{about['isa']}; {versions}."
        )
        say(
            "A figure is the fraction of the multiply-add rate measured in turn with it (bf16: of float32 ones or of "
            "the bf16 dot product, whichever is faster here); a ratio is the peer's time by ours, above 1 where ours "
            "is faster. Errors are against float64."
        )
        say("")
        for text in table_head(names):
            say(text)
        rows = []
        for case in chosen:
            rows.append(measure(case, ours, peers, args.rounds))
            say(table_row(rows[-1], names))
    if args.markdown:
        write(args.markdown, "\n".join(lines) + "\n")
    if args.json:
        write(args.json, json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
