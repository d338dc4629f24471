"""An exported page: one file, opened by file:// with the network cut, its figures computed by the WebAssembly inside."""
import re

import pytest
from playwright.sync_api import expect

from conftest import HEARD, built, exported, heard_map, packed, sentence

pytestmark = pytest.mark.skipif('id="wasm"' not in built.read_text(), reason="the page was built without WebAssembly (scripts/wasm)")


@pytest.fixture(scope="module")
def start(trace):
    return {"mode": "file", "traces": [packed(trace.read_bytes())], "answers": []}


@pytest.fixture
def opened(opener, tmp_path, start):
    def open_view(link="", **options):
        page = opener.file(tmp_path, options.pop("start", start), link=link, **options)
        page.get_by_role("contentinfo").get_by_text("WebAssembly in this browser").wait_for(timeout=30_000)
        return page

    yield open_view
    asked = [url for url in opener.requests if not url.startswith(("file:", "blob:", "data:"))]
    assert asked == []


def number(text):
    return float(text.replace("−", "-"))


def test_the_chapter_s_sentence_is_under_two_megabytes(tmp_path):
    """q, k, v and lse of all 72 heads, the projections of the tour's two, and what the tour asks of the model."""
    assert exported(tmp_path / "page.html").stat().st_size < 2_000_000


def test_weights_are_those_of_float64(opened, reference):
    page = opened("#v=pipeline&part=softmax")
    rows = page.locator(".softmax tbody tr")
    rows.first.wait_for()
    scores, weights = reference.attention(2, 8)
    for i in range(rows.count()):
        cells = [number(text) for text in rows.nth(i).locator("td").all_inner_texts()]
        assert cells[0] == pytest.approx(scores[2, i], abs=6e-4)
        assert cells[3] == pytest.approx(weights[2, i], abs=6e-5)


def test_all_digits_of_a_map_are_those_of_float64(opened, reference, tmp_path):
    page = opened("#v=heads&tour=0&h.show=one&h.one=map&head=2.8", before=HEARD)
    weights = reference.attention(2, 8)[1]
    assert heard_map(page, tmp_path, 2, 8, len(weights)) == pytest.approx(weights, abs=1e-6)
    expect(page.locator(".map-said output")).to_have_text(f"{weights[2, 3]:.4f}")


def first_of(reference, weight):
    """Answers of a first picture in which every weight is made up."""
    opened = reference.ask_trace({})
    words = [word["text"] for word in opened["words"]]
    at = [words.index(word) for word in ("black", "cat", "sat", "mat")]
    pairs = [list(pair) for pair in zip(at, at[1:])]
    links = [{"query_word": a, "key_word": b, "query": words[a], "key": words[b], "offset": b - a, "mean": weight,
              "heads": [[{"weight": weight, "offset_mean": 0.0}] * opened["heads"]] * opened["layers"]} for a, b in pairs]
    return [{"question": {"ask": "trace", "trace": 1}, "answer": opened}, {"question": {"ask": "links", "trace": 1, "pairs": pairs}, "answer": {"links": links}}]


def test_the_first_picture_waits_for_no_engine(opener, tmp_path, start, reference):
    """Where the engine never starts, too."""
    page = opener.file(tmp_path, {**start, "traces": []}, first={"mode": "file", "answers": first_of(reference, 0.25)}, before="window.Worker = class { postMessage() {} terminate() {} };")
    expect(page.locator(".arcs .arc")).to_have_count(3)
    expect(page.locator(".arcs .arc").first).to_have_attribute("aria-label", re.compile("0.250$"))
    assert page.get_by_role("contentinfo").inner_text() == ""


def test_the_engine_is_asked_for_the_first_picture_too(opener, tmp_path, start, reference):
    page = opener.file(tmp_path, start, first={"mode": "file", "answers": first_of(reference, 0.25)})
    page.get_by_role("contentinfo").get_by_text("WebAssembly in this browser").wait_for(timeout=30_000)
    expect(page.locator(".arcs .arc")).to_have_count(3)
    expect(page.locator(".arcs .arc").first).not_to_have_attribute("aria-label", re.compile("0.250$"))
    _, weights = reference.attention(5, 11)
    expect(page.locator(".arcs .arc").first).to_have_attribute("aria-label", re.compile(f"5[.]11, {weights[2, 3]:.3f}$"))


def test_links_are_those_of_look(opened, reference):
    page = opened("#v=story")
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value(sentence)
    expect(page.get_by_role("textbox", name="Sentence")).to_have_attribute("readonly", "")


def test_dimensions_and_times_without_a_server(opened, reference):
    page = opened("#v=dimensions&h=7&n=128&d=128")
    expect(page.locator("q")).to_have_text(reference.ask_dims(
        {"d_model": 128, "tokens": 128, "batch": 1, "dtype": "f32", "heads": [7]})["heads"][0]["problem"])
    page.get_by_role("button", name="Measure now").click()
    expect(page.locator(".times circle")).to_have_count(7, timeout=60_000)
    expect(page.get_by_text("Measured by WebAssembly in this browser, one thread")).to_be_visible()


def test_what_binds_each_step_is_measured_in_this_browser(opened, reference):
    page = opened("#v=dimensions&n=4096")
    said = page.get_by_text("Measured now in this browser (").inner_text(timeout=60_000)
    found = re.search(r"one thread\): ([\d.]+) GFLOP/s of multiply-adds, and ([\d.]+) GB/s reading 67 MB of memory. A step below ([\d.]+) FLOP", said)
    fma, memory, ridge = map(float, found.groups())
    assert fma > 0.1 and memory > 0.1 and ridge == pytest.approx(fma / memory, rel=0.1, abs=0.1)
    (cut,) = reference.ask_dims({"d_model": 512, "tokens": 4096, "batch": 1, "dtype": "f32", "heads": [8]})["heads"]
    bound = page.locator(".work tbody tr td:last-child")
    expect(bound.first).to_have_text("multiply-adds")  # 360 FLOP a byte
    for i, step in enumerate([*cut["steps"], cut["fused"]]):
        if abs(step["intensity"] / ridge - 1) > 0.1:  # the page rounds the ridge
            assert bound.nth(i).inner_text() == ("memory" if step["intensity"] < ridge else "multiply-adds")


def test_a_layer_below_the_clock_s_step_is_timed_by_repeating_it(opened):
    page = opened("#v=dimensions&n=1&d=8")
    page.get_by_role("button", name="Measure now").click()
    expect(page.locator(".times circle")).to_have_count(4, timeout=60_000)
    page.locator("figure", has=page.locator(".times")).get_by_role("button", name="As a table").click()
    for cells in (row.locator("th, td").all_inner_texts() for row in page.locator("figure table tbody tr").all() if row.locator("td").count() == 3):
        _, seconds, over, runs = cells
        assert number(over) > 0.02
        assert int(runs.removeprefix("7 × ").replace(",", "")) > 100


def test_what_a_file_cannot_do_it_says(opened):
    page = opened("#v=pipeline&part=x")
    expect(page.get_by_text("This needs the model, which is not here")).to_be_visible()


def test_a_stored_answer_brings_the_model_s_numbers(opened, reference, start):
    question = {"ask": "pipeline", "head": 8, "layer": 2, "trace": 1}
    kind, body = reference.answer({**question, "model": 1})
    stored = {"question": question, "type": kind, "base64": packed(body)}
    page = opened("#v=pipeline&part=output", start={**start, "answers": [stored]})
    page.get_by_role("button", name="As a table").click()
    y = reference.ask_pipeline({"layer": 2, "head": 8, "model": 1})[0]["y"]
    assert number(page.locator(".part tbody tr").nth(5).locator("td").nth(1).inner_text()) == pytest.approx(y[2, 5], abs=6e-5)


@pytest.mark.parametrize("spoil", [
    lambda data: data[:100],
    lambda data: b"\\xff" * 8 + data[8:],
    lambda data: data.replace(b'"shape"', b'"shapf"', 1),
    lambda data: data[:-4],
    lambda data: b"",
], ids=["cut", "header of 2^64", "no shape", "too short", "empty"])
def test_a_hostile_trace_is_one_sentence(opener, tmp_path, trace, spoil):
    start = {"mode": "file", "traces": [packed(spoil(trace.read_bytes()))], "answers": []}
    page = opener.file(tmp_path, start)
    alert = page.get_by_role("alert").first
    expect(alert).to_have_text(re.compile("^This did not work: .{10,400}$"), timeout=30_000)
    expect(page.get_by_role("tab", name="Story")).to_be_visible()


def test_data_that_is_cut_short_is_one_sentence(opener, tmp_path, start):
    page = opener.file(tmp_path, {**start, "traces": [start["traces"][0][:4000]]})
    expect(page.get_by_role("alert").first).to_have_text(
        "This did not work: the data inside this page is damaged or cut short", timeout=30_000)


def test_an_error_leaves_the_engine_as_it_was(opened):
    page = opened("#v=heads&tour=0")
    page.locator(".heads").wait_for()
    page.keyboard.press("2")
    expect(page.locator(".flow [role=status]")).to_have_text("black → cat: 0.7363")


@pytest.mark.parametrize("harm", ["cut short", "changed"])
def test_a_damaged_script_is_one_sentence(opener, tmp_path, harm):
    """Cut short it cannot be unpacked; changed it is not what the security policy names."""
    before, code = built.read_text().split('<script id="code" type="application/octet-stream">')
    middle = len(code.split("<", 1)[0]) // 2
    (tmp_path / "page.html").write_text(before + '<script id="code" type="application/octet-stream">' + code[:middle] + (
        code[code.index("<"):] if harm == "cut short" else ("B" if code[middle] == "A" else "A") + code[middle + 1:]))
    page = opener.context(offline=True).new_page()
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator("#page")).to_contain_text("This page needs a browser of 2023 or later, and all of its file.")
