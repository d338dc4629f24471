"""A made-up trace of 100,000 tokens in the page's own WebAssembly: from the whole to single numbers, against float64."""
import base64
import gzip
import os
import re

import pytest
from playwright.sync_api import expect

from conftest import packed, page_with, root
from long_trace import LONE_KEY, LONE_QUERY, LongTrace

wasm = os.environ.get("MANYHEADS_WASM") or root / "build/wasm/manyheads.wasm"
pytestmark = pytest.mark.skipif(not os.path.exists(wasm), reason="scripts/wasm builds the page's engine")


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return LongTrace(tmp_path_factory.mktemp("long") / "long.safetensors")


@pytest.fixture
def page(opener, long, tmp_path):
    """By file://, with the network cut."""
    html = page_with({"mode": "file", "traces": [packed(long.path.read_bytes())], "answers": []})
    if 'id="wasm"' not in html:
        engine = base64.b64encode(gzip.compress(open(wasm, "rb").read())).decode()
        html = html.replace('<script id="start"', f'<script id="wasm" type="application/octet-stream">{engine}</script>\n<script id="start"')
    path = tmp_path / "page.html"
    path.write_text(html)
    context = opener.context(offline=True)
    context.set_default_timeout(300_000)
    page = opener.watch(context.new_page())
    page.goto(f"{path.as_uri()}#v=heads&tour=0&h.show=one&head=0.0&q={LONE_QUERY}&k={LONE_KEY}")
    return page


def written(value):
    # A weight is an F32: below its least number it is 0.
    return f"{value:.4f}" if value >= 0.001 or value < 1e-45 else re.sub("e-0", "e-", f"{value:.2e}")


def reads(cell, exact):
    """Whether the page writes the exact number: four decimals, or three digits and the power; on an edge either way."""
    return cell in {written(exact), written(exact + 2e-7), written(exact - 2e-7), written(exact * 1.0001), written(exact * 0.9999)}


def test_from_the_whole_to_single_numbers(page, long):
    note = page.locator(".map-note")
    expect(note).to_contain_text("Each cell is the mean of 128 × 128 weights. 100,000 queries × 100,000 keys.", timeout=300_000)
    expect(note).to_contain_text("An estimate from every 8th row.")
    # The lone spike is lost in a mean of so many. The pooling is named and switched.
    pooled = page.locator(".map-said output")
    figure = lambda: float(pooled.inner_text())
    expect(pooled).not_to_have_text("…", timeout=300_000)
    assert figure() < 0.01
    page.get_by_label("A cell of many shows their").select_option("max")
    expect(note).to_contain_text("Each cell is the largest of 128 × 128 weights.")
    page.get_by_label("A cell of many shows their").select_option("mean")
    expect(note).to_contain_text("Each cell is the mean of 128 × 128 weights.")
    page.locator(".map-canvas").focus()
    for _ in range(15):
        page.keyboard.press("+")
    # The lone spike: its mean over 64 x 64 weights says nothing of it, its own number does.
    expect(page.locator(".map-said output")).to_have_text(f"{long.row(LONE_QUERY)[LONE_KEY]:.4f}", timeout=300_000)
    expect(note).to_contain_text("Each cell is one weight.")
    expect(note).not_to_contain_text("being computed", timeout=300_000)
    page.get_by_role("button", name="As a table").click()
    names, *rows = page.locator("figure table tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    assert f"w{LONE_KEY}" in names and f"w{LONE_QUERY}" in [row[0] for row in rows] and len(rows) > 5
    for name, *cells in rows:
        exact = long.row(int(name[1:]))
        for key, cell in zip(names[1:], cells):
            assert reads(cell, exact[int(key[1:])]), (name, key, cell)
    page.get_by_role("button", name="As a picture").click()
    # Any other place by its number.
    page.get_by_label("Query", exact=True).fill("99999")
    page.get_by_label("Query", exact=True).press("Enter")
    page.get_by_label("Key", exact=True).fill("5")
    page.get_by_label("Key", exact=True).press("Enter")
    expect(page.locator(".map-said")).to_contain_text("w99999 → w5")
    expect(note).to_contain_text("Each cell is one weight.", timeout=300_000)
    expect(note).not_to_contain_text("being computed", timeout=300_000)
    shown = page.locator(".map-said output").inner_text()
    assert reads(shown, long.row(99999)[5])
    expect(page).to_have_url(re.compile("q=99999&k=5"))
