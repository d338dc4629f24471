"""SmolLM2 on as many tokens as it takes, served by the program: from the whole to single numbers, against float64. Needs the model
(scripts/fetch-model smollm2), a minute, and 0.8 GB of the run's temporary folder."""
import json
import re
import subprocess

import numpy as np
import pytest
from playwright.sync_api import expect

from conftest import program, root, viewing
from test_long import reads

smol = root / "models/SmolLM2-135M-Instruct"
pytestmark = pytest.mark.skipif(not (smol / "model.safetensors").exists(), reason="scripts/fetch-model smollm2 fetches the model")
TOKENS = 8192
LAYER, HEAD = 11, 4


class Trace:
    """Queries and keys of a head, read where they lie."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            self.header = json.loads(file.read(size))
        self.begin = 8 + size
        self.scale = float(self.header["__metadata__"]["scale"])

    def of(self, name, head):
        tensor = self.header[f"layers.{LAYER}.{name}"]
        heads, tokens, depth = tensor["shape"]
        every = self.header[f"layers.{LAYER}.q"]["shape"][0] // heads  # queries that share a key's head
        values = np.memmap(self.path, np.float32, "r", self.begin + tensor["data_offsets"][0], (heads, tokens, depth))
        return values[head // every].astype(np.float64)

    def row(self, query):
        scores = self.scale * self.of("k", HEAD)[:query + 1] @ self.of("q", HEAD)[query]
        weights = np.exp(scores - scores.max())
        return np.append(weights / weights.sum(), np.zeros(TOKENS - query - 1))


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("smol") / "long.safetensors"
    sentences = [line.removeprefix("# text = ") for line in (root / "examples/relations.conllu").read_text().splitlines() if line.startswith("# text = ")]
    text = " ".join(sentence for _ in range(4) for sentence in sentences)
    subprocess.run([program, "trace", text, "--model", smol, "--truncate", "-o", path], check=True, capture_output=True)
    return Trace(path)


@pytest.fixture(scope="module")
def link(trace):
    with viewing(trace.path) as link:
        yield link


def test_every_weight_of_8192_tokens_is_there(opener, trace, link):
    context = opener.context()
    context.set_default_timeout(300_000)
    page = opener.watch(context.new_page())
    page.goto(f"{link}#v=heads&tour=0&h.show=one&head={LAYER}.{HEAD}&q=5000&k=4990")
    note = page.locator(".map-note")
    expect(note).to_contain_text("8,192 queries × 8,192 keys.", timeout=300_000)
    page.locator(".map-canvas").focus()
    for _ in range(12):
        page.keyboard.press("+")
    shown = page.locator(".map-said output")
    numbers = np.random.default_rng(7)
    queries = [5000, 8191, 0, *numbers.integers(1, TOKENS, 6)]
    seen = []
    for query in map(int, queries):
        exact = trace.row(query)
        for key in {int(exact.argmax()), int(numbers.integers(0, query + 1)), query, min(query + 1, TOKENS - 1)}:
            for field, place in (("Query", query), ("Key", key)):
                page.get_by_label(field, exact=True).fill(str(place))
                page.get_by_label(field, exact=True).press("Enter")
            expect(page).to_have_url(re.compile(rf"q={query}&k={key}\b|k={key}&q={query}\b"))
            expect(note).to_contain_text("Each cell is one weight.", timeout=300_000)
            expect(note).not_to_contain_text("being computed", timeout=300_000)
            expect(shown).not_to_have_text("…", timeout=300_000)
            assert reads(shown.inner_text(), exact[key]), (query, key, shown.inner_text(), exact[key])
            seen.append(exact[key])
    assert len(seen) > 20 and max(seen) > 0.1 and min(seen) == 0  # a decoder's word sees only words before it


def test_a_difference_of_largest_weights_says_so(opener, link):
    context = opener.context()
    context.set_default_timeout(300_000)
    page = opener.watch(context.new_page())
    page.goto(f"{link}#v=heads&tour=0&h.show=one&h.one=compare&head={LAYER}.{HEAD}")
    page.get_by_role("combobox", name=re.compile("^Other head")).select_option(f"{LAYER}.{HEAD + 1}")
    notes = page.locator(".side-by-side .map-note")
    expect(notes.nth(2)).to_contain_text(re.compile(r"Each cell is the mean of \d+ × \d+ weights"), timeout=300_000)
    page.get_by_label("A cell of many shows their").select_option("max")
    expect(notes.nth(0)).to_contain_text(re.compile(r"Each cell is the largest of \d+ × \d+ weights\."))
    expect(notes.nth(2)).to_contain_text(re.compile(r"the largest of \d+ × \d+ weights of the second less the largest of the first"))
