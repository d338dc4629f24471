"""Prints what the page takes, a row each beside its goal. bench/page/run calls it."""
import argparse
import functools
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import numpy as np

root = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "tests/viewer"))

from playwright.sync_api import sync_playwright  # noqa: E402

import maps  # noqa: E402
import opening  # noqa: E402
from conftest import model, program, sentence, static, viewing  # noqa: E402
from long_trace import LongTrace  # noqa: E402

OWN = ["The small dog lay on the rug.", "The old bird sang in the tree.", "The white horse ran to the gate.", "The black cat sat on the mat."]
BERTVIZ_TOKENS = 400
ALL_THUMBS = "seen.thumbs.length >= {0} && seen.thumbs[{0} - 1]"


def row(what, value, unit, goal=None, note=""):
    figures = f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
    met = "" if goal is None else f"   goal {'<' if goal > 0 else '>'} {abs(goal):g} {unit}: {'met' if (value < goal if goal > 0 else value > -goal) else 'MISSED'}"
    print(f"{what:<76} {figures:>8} {unit:<5}{met}{'   ' + note if note else ''}", flush=True)


def view(*arguments):
    subprocess.run([program, "view", *map(str, arguments)], check=True, capture_output=True)


def tokens_of(text):
    return len(json.loads(subprocess.run([program, "look", text, "--model", model, "--json"], check=True, capture_output=True).stdout)["tokens"])


def export_rows(browser, folder):
    page = folder / "page.html"
    view(sentence, "--model", model, "--export", page)
    row("exported page of the chapter's sentence", page.stat().st_size / 1e6, "MB", 2)
    row("  first figures after opening", opening.median(browser, page.as_uri(), "seen.first"), "ms", 200)


def site_rows(browser, folder):
    view(sentence, "--model", model, "--export-site", folder / "site")
    long = " ".join(itertools.islice(itertools.cycle("the black cat sat on a mat and".split()), 126))
    assert [tokens_of(text) for text in OWN] == [10] * len(OWN) and tokens_of(long) == tokens_of(long.replace("cat", "dog")) == 128
    sent = []
    with static(folder / "site", sent) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.locator(".arcs").wait_for(timeout=60_000)
        page.wait_for_timeout(500)
        row("bytes before the tour can be used", sum(sent) / 1e6, "MB", 1.5)
        for step in range(2, 10):
            page.get_by_role("button", name=re.compile(f"^{step} of 9")).click()
            page.locator(".stage h2").first.wait_for()
            page.wait_for_timeout(500)
        row("  after all nine steps", sum(sent) / 1e6, "MB")
        page.close()
        sent.clear()
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(opening.WATCH)
        page.goto(f"{address}#v=heads&tour=0")
        page.locator(".thumb-picture").nth(71).wait_for(timeout=60_000)
        first = opening.own_sentence(page, OWN[0])
        row("bytes with the model", sum(sent) / 1e6, "MB", 50)
        row("  the first own sentence, the model fetched from this machine with it", first, "ms")
        for texts, count, goal in ((OWN[1:] + OWN, 10, 100), ([long, long.replace("cat", "dog")] * 3, 128, 500)):
            times = [opening.own_sentence(page, text) for text in texts]
            row(f"an own sentence of {count} tokens, from the key to the maps of 72 heads", statistics.median(times), "ms", goal)
        page.close()


def maps_rows(browser, folder):
    trace = LongTrace(folder / "long.safetensors", tokens=8192, depth=64)
    view(trace.path, "--export", folder / "long.html")
    found = maps.measured(browser, (folder / "long.html").as_uri())
    row("a patch of 512 x 512, D 64, computed and drawn in the browser", found["patch"] + found["paint"], "ms", 10,
        f"{found['patch']:.1f} computed, {found['paint']:.1f} painted; {found['patches']} patches; heard after {found['heard']:.0f}, behind the frame that asked")
    row("pan or zoom, from the key to the frame after the next", found["move"], "ms", 100, f"worst {found['worst']:.0f}")
    row("frames a second while a hand pans", found["frames"], "", -55, f"the latest after {found['late']:.0f} ms")


def thumbnails_rows(browser, folder):
    trace = LongTrace(folder / "heads.safetensors", tokens=10_000, depth=64)
    tensors = {f"layers.0.{name}": np.repeat(values[None], 12, 0).astype(np.float32) for name, values in (("q", trace.q), ("k", trace.k), ("lse", trace.lse))}
    trace.write(tensors, {"manyheads_trace": "1", "model": "made up", "text": "a long text", "scale": json.dumps(trace.scale),
                          "tokens": json.dumps([f"w{place}" for place in range(trace.tokens)])})
    with viewing(trace.path) as link:
        address = f"{link}#v=heads&tour=0"
        row("10,000 tokens: from opening to the small maps of 12 heads, by the server", opening.median(browser, address, ALL_THUMBS.format(12), times=3), "ms", 1000)
        page = browser.new_page()
        page.goto(address)
        print("  named:", page.get_by_text("an estimate from every").inner_text(timeout=60_000))
        page.close()


def answer(file, route):
    route.fulfill(path=file)


def bertviz_rows(browser, folder):
    python, scripts = root / ".venv-bertviz/bin/python", root / "build/bertviz/node_modules"
    if subprocess.run([python, "-c", "import bertviz"], capture_output=True).returncode if python.exists() else True:
        return print("BertViz: left out, .venv-bertviz has none (see bench/page/run)")
    if not (scripts / "requirejs/require.js").exists():
        return print("BertViz: left out, for want of its scripts in build/bertviz (npm)")
    text, theirs, ours = folder / "text.txt", folder / "bertviz.html", folder / "ours.html"
    lines = (root / "examples/relations.conllu").read_text().splitlines()
    text.write_text(" ".join(line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")))
    made = subprocess.run([python, root / "bench/page/bertviz_page.py", model, str(BERTVIZ_TOKENS), text, theirs], check=True, stdout=subprocess.PIPE)
    told = json.loads(made.stdout)
    view(text.read_text(), "--model", model, "--export", ours)
    assert tokens_of(text.read_text()) == told["tokens"]
    sizes = [each.stat().st_size for each in (theirs, ours)]
    row(f"BertViz, MiniLM, {told['tokens']} tokens: its page over ours", sizes[0] / sizes[1], "times", -20, f"{sizes[0] / 1e6:,.1f} MB and {sizes[1] / 1e6:,.1f} MB")
    mine = opening.median(browser, f"{ours.as_uri()}#v=heads&tour=0", ALL_THUMBS.format(72), times=3)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    for name, file in (("require", "requirejs/require.js"), ("d3", "d3/dist/d3.min.js"), ("jquery", "jquery/dist/jquery.min.js")):
        context.route(re.compile(f"^https://cdnjs.cloudflare.com/.*/{name}[.]"), functools.partial(answer, scripts / file))
    page = context.new_page()
    try:
        page.goto(theirs.as_uri(), wait_until="commit", timeout=300_000)
        its = page.wait_for_function("""() => document.querySelectorAll('#attention line').length > 0 &&
            new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))""", timeout=300_000).json_value()
    except Exception as error:
        its = None
        print(f"  BertViz did not open: {str(error).splitlines()[0]}")
    context.close()
    if its:
        row("  BertViz's 12 heads of one layer drawn, over our 72 heads drawn", its / mine, "times", -10, f"{its:,.0f} ms and {mine:,.0f} ms")
    each = sizes[0] / told["weights"]
    row("  a page of BertViz, one layer of 12 heads, 10,000 tokens (by bytes a weight)", 12 * 10_000**2 * each / 1e9, "GB", None,
        "a script of Chromium's holds 0.5 GB")


ROWS = {"export": export_rows, "site": site_rows, "maps": maps_rows, "thumbnails": thumbnails_rows, "bertviz": bertviz_rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="default: all")
    chosen = parser.parse_args().rows or ROWS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        print(f"Chromium {browser.version}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before")
        for name in chosen:
            with tempfile.TemporaryDirectory() as folder:
                ROWS[name](browser, pathlib.Path(folder))
        browser.close()
    print(f"load {os.getloadavg()[0]:.1f} after")


main()
