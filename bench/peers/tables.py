"""The figures of peers.py as Markdown. Standard library only: bench/figures writes them without the peers."""

OURS = "manyheads"


def line(cells):
    return "| " + " | ".join(cells) + " |"


def rows_of(rows, names, unit, name_of_unit):
    """A table of the rows that are limited in this unit."""
    cells = ["Case", f"Limit, {name_of_unit}", f"{OURS}, {name_of_unit}", OURS]
    for name in names:
        cells += [name, "ratio"]
    cells.append(f"Largest error: {', '.join([OURS, *names])}")
    lines = [line(cells), line(["---"] + ["--:"] * (len(cells) - 2) + ["---"])]
    for row in rows:
        figures = row["figures"]
        mine = figures[OURS]
        cells = [row["case"], f"{row[f'limit_{unit}']:.1f}", f"{mine[unit]:.1f}", f"{mine['fraction']:.2f}"]
        for name in names:
            if name in figures:
                ratio = figures[name]["seconds"] / mine["seconds"]
                cells += [f"{figures[name]['fraction']:.2f}", f"{ratio:.2f}×"]
            else:
                cells += ["–", "–"]
        cells.append(", ".join(f"{figures[n]['max_error']:.1e}" if n in figures else "–" for n in [OURS, *names]))
        lines.append(line(cells))
    return lines


def summary(row):
    """A line for a row as soon as it stands."""
    figures = ", ".join(f"{name} {figure['fraction']:.2f}" for name, figure in row["figures"].items())
    return f"{row['case']}: {figures}"


def markdown(result):
    names = list(result["versions"])
    versions = "; ".join(f"{name} {version}" for name, version in result["versions"].items())
    threads = result["threads"]
    lines = [
        f"{result['date']}, {result['machine']}, {threads} thread{'s' * (threads > 1)}, {OURS} on {result['isa']}; "
        f"{versions}.",
        "A figure is the fraction of the limit measured in turn with it, the best of several of both. A ratio is the "
        "peer's time over ours, above 1 where ours is faster. – is what a peer does not do. Errors are against float64.",
    ]
    tables = (
        ("gflops", "GFLOP/s", "The limit is the multiply-add rate (bf16: of float32 ones, of the bf16 dot product or "
         "of AMX tiles, whichever is fastest here)."),
        ("gbs", "GB/s", "Decoding, one token: the limit is reading memory. Every run takes another copy of the keys and "
         "values, so that none finds them in a cache."),
    )  # fmt: skip
    for unit, name_of_unit, says in tables:
        rows = [row for row in result["rows"] if f"limit_{unit}" in row]
        if rows:
            lines += ["", says, "", *rows_of(rows, names, unit, name_of_unit)]
    return "\n".join(lines) + "\n"


def door_rows(rows, unit, factor, digits):
    """A table of the calls of one kind: C++, the doors, and PyTorch's own over the call that was taken."""
    timed = {name for row in rows for name in row["seconds"]}
    names = [name for name in (OURS, "NumPy", "torch op", "PyTorch, taken", "PyTorch") if name in timed]
    cells = ["Call", *[f"{'C++' if name == OURS else name}, {unit}" for name in names], "ratio"]
    lines = [line(cells), line(["---"] + ["--:"] * (len(cells) - 1))]
    for row in rows:
        seconds = row["seconds"]
        times = [f"{seconds[name] * factor:.{digits}f}" if name in seconds else "–" for name in names]
        lines.append(line([row["case"], *times, f"{seconds['PyTorch'] / seconds['PyTorch, taken']:.2f}×"]))
    return lines


def doors(result):
    """What doors.py measured."""
    threads = result["threads"]
    versions = "; ".join(f"{name} {result['versions'][name]}" for name in ("NumPy", "PyTorch"))
    lines = [
        f"{result['date']}, {result['machine']}, {threads} thread{'s' * (threads > 1)}, {OURS} on {result['isa']}; {versions}.",
        "Times are of whole calls, the best of several taken in turn. A ratio is the time of PyTorch's own over that of "
        "the same call taken, above 1 where ours is faster.",
    ]
    small = [row for row in result["rows"] if row["kind"] == "Attention" and row["seconds"][OURS] < 1e-4]
    layers = [row for row in result["rows"] if row["kind"] == "Multihead"]
    steps = [row for row in result["rows"] if row["kind"] == "MultiheadTraining"]
    large = [row for row in result["rows"] if row not in small and row not in layers and row not in steps]
    if small:
        lines += ["", "Small calls, whose fixed cost counts:", "", *door_rows(small, "µs", 1e6, 2), ""]
        seconds = small[0]["seconds"]
        above = [f"{name} {(seconds[name] - seconds[OURS]) * 1e6:.1f}" for name in ("NumPy", "torch op", "PyTorch, taken")]
        lines += [f"Above C++ the first call takes, in µs: {', '.join(above)}."]
    parts = (
        (large, "Calls of a millisecond and more:"), (layers, "The layer in eval, by its fast path:"),
        (steps, "A step of its training, by `mt.MultiheadAttention`, which packs its weights in each:"),
    )  # fmt: skip
    for rows, says in parts:
        if rows:
            lines += ["", says, "", *door_rows(rows, "ms", 1e3, 2)]
    if result["imports"]:
        lines += ["", "Imports, the best of several: " + ", ".join(
            f"`import {i['import']}` takes {i['seconds'] * 1e3:.0f} ms beyond `{i['beyond']}`" for i in result["imports"]) + "."]
    return "\n".join(lines) + "\n"


def decoders(result):
    """What decoders.py measured."""
    (theirs, version), threads = *result["versions"].items(), result["threads"]
    lines = [
        f"{result['date']}, {result['machine']}, {threads} thread{'s' * (threads > 1)}, {OURS} on {result['isa']}; "
        f"{theirs} {version}.",
        "Times are the best of several taken in turn. The limit is the rate of F32 multiply-adds or of reading memory, "
        "measured in turn with them; of decoding it is held against the bytes of weights and cache. A ratio is the "
        "peer's time over ours, above 1 where ours is faster. A difference is the largest between the two, over the "
        "largest value: of last hidden states, or of logits.",
        "",
        line(["SmolLM2-135M", f"{OURS}, ms", "of the limit", f"{theirs}, ms", "ratio", "difference"]),
        line(["---"] + ["--:"] * 5),
    ]
    for row in result["rows"]:
        ours, peer = row["seconds"][OURS], row["seconds"].get(theirs)
        lines.append(line([
            row["case"], f"{ours * 1e3:.1f}", f"{row['fraction']:.2f}" if "fraction" in row else "–",
            f"{peer * 1e3:.1f}" if peer else "–", f"{peer / ours:.2f}×" if peer else "–",
            f"{row['difference']:.1e}" if row["difference"] is not None else "–"]))
    by_kind = {(row["kind"], row["tokens"], row["batch"]): row["seconds"][OURS] for row in result["rows"]}
    says = []
    if ("Trace", 8192, 1) in by_kind and ("Prefill", 8192, 1) in by_kind:
        says.append(f"The trace takes {by_kind['Trace', 8192, 1] / by_kind['Prefill', 8192, 1]:.2f} × the forward's time.")
    if ("Generate", 512, 8) in by_kind and ("Generate", 512, 1) in by_kind:
        says.append(
            f"A batch of 8 writes {8 * by_kind['Generate', 512, 1] / by_kind['Generate', 512, 8]:.1f} × the tokens a second.")
    return "\n".join(lines + ([""] if says else []) + says) + "\n"
