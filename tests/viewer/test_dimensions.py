"""What the Dimensions view shows is what the engine answers."""
import json
import re
import time

import pytest
from playwright.sync_api import expect


@pytest.fixture
def dimensions(page):
    page.keyboard.press("3")
    page.get_by_role("slider", name="num_heads").wait_for()
    return page


def entry(reference, heads, **changes):
    question = {"d_model": 512, "tokens": 128, "batch": 1, "dtype": "f32", "heads": [heads], **changes}
    return reference.ask_dims(question)["heads"][0]


def set_slider(page, name, value):
    slider = page.get_by_role("slider", name=name)
    slider.focus()
    now = int(slider.input_value())
    for _ in range(abs(value - now)):
        page.keyboard.press("ArrowRight" if value > now else "ArrowLeft")
    assert int(slider.input_value()) == value


def quantity(text):
    """"201 M" -> 201e6, with the places that were left out as its error."""
    digits, _, unit = text.partition(" ")
    power = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit]
    places = len(digits.partition(".")[2])
    return float(digits) * power, 0.5 * 10.0**-places * power


def shows(cell, exact):
    """Waits until the cell says this quantity: the answer comes after the key."""
    ends = time.monotonic() + 15
    while True:
        text = cell.inner_text().strip()
        value, error = quantity(text)
        if abs(value - exact) <= error:
            return
        assert time.monotonic() < ends, (text, exact)
        time.sleep(0.05)


def test_every_whole_number_of_heads_is_reached_and_said(dimensions, reference):
    filled = dimensions.locator(".dots circle")
    assert filled.count() == 64
    for heads in range(1, 65):
        divides = entry(reference, heads)["divides"]
        assert ("filled" in filled.nth(heads - 1).get_attribute("class")) == divides
    set_slider(dimensions, "num_heads", 1)
    for heads in range(1, 12):
        cut = entry(reference, heads)
        shown = f"512 = {heads} · {cut['d_k']}" if cut["divides"] else f"512 = {heads} · {cut['floor_d_k']} + {cut['dropped']}"
        expect(dimensions.locator(".cut-sum")).to_have_text(shown)
        assert dimensions.locator(".cut-bar .part:not(.left-over)").count() == heads
        dimensions.keyboard.press("ArrowRight")


def test_seven_heads_leave_a_column_over_with_the_error_s_own_sentence(dimensions, reference):
    set_slider(dimensions, "num_heads", 7)
    expect(dimensions.locator("q")).to_have_text(entry(reference, 7)["problem"])
    over, whole = (dimensions.locator(f".cut-bar {part}").first.bounding_box() for part in (".left-over", ".part"))
    assert 0 < over["width"] < whole["width"] / 5
    expect(dimensions.get_by_text("512 // 7 = 73 would not fail: it keeps 511 numbers of every token and silently drops 1.")).to_be_visible()


@pytest.mark.parametrize("name, d_model", [("chapter", 512), ("MiniLM", 384), ("BERT-base", 768), ("SmolLM2", 576)])
def test_figures_of_the_work_are_the_engine_s(dimensions, reference, name, d_model):
    dimensions.get_by_role("button", name=name).click()
    cut = entry(reference, 8, d_model=d_model)
    expect(dimensions.locator(".large")).to_have_text(f"{cut['parameters']:,}")
    rows = dimensions.locator(".work tbody tr")
    assert rows.count() == len(cut["steps"]) + 1
    for i, step in enumerate([*cut["steps"], cut["fused"]]):
        flop, size, intensity = (rows.nth(i).locator("td").nth(j).inner_text().strip() for j in range(3))
        for shown, expected in ((flop, step["flop"]), (size, step["bytes"])):
            value, error = quantity(shown)
            assert abs(value - expected) <= error
        assert float(intensity) == pytest.approx(step["intensity"], abs=0.05)


@pytest.mark.parametrize("link, table", [("#v=dimensions", ".work"), ("#v=pipeline&part=softmax", ".softmax")])
def test_cells_stand_under_their_headings(opener, reference, link, table):
    page = opener.served(reference.answer, link=f"{link}&tour=0")
    page.locator(f"{table} tbody tr").first.wait_for()
    # At one moment: columns move when the limits come.
    headings, cells = page.locator(table).first.evaluate(
        "table => [table.tHead, table.tBodies[0]].map(part => [...part.rows[0].cells].map(cell => cell.getBoundingClientRect().left))")
    assert cells == pytest.approx(headings, abs=1)


def test_matrices_are_drawn_to_scale(dimensions, reference):
    scale = None
    for name, rows, columns in (("X", 128, 512), ("W_q", 512, 512), ("W_k", 512, 512), ("W_v", 512, 512), ("concat", 128, 512), ("W_o", 512, 512)):
        edge = dimensions.locator(f".matrix[data-name='{name}'] rect.ground")
        width, height = float(edge.get_attribute("width")), float(edge.get_attribute("height"))
        scale = scale or width / columns
        assert width == pytest.approx(columns * scale) and height == pytest.approx(rows * scale)
    one = dimensions.locator(".matrix[data-name='W_q'] rect.one")
    assert float(one.get_attribute("width")) == pytest.approx(64 * scale)
    scores = dimensions.locator(".matrix[data-name='scores'] rect.ground")
    assert scores.count() == 8 and float(scores.first.get_attribute("width")) == pytest.approx(128 * scale)
    expect(dimensions.get_by_text("nn.Linear(512, 64)").first).to_be_visible()


def test_other_sizes_change_the_figures(dimensions, reference):
    dimensions.get_by_label("batch").fill("3")
    dimensions.get_by_label("type").select_option("bf16")
    set_slider(dimensions, "tokens", 14)
    tokens = 8 * 2**7
    cut = entry(reference, 8, tokens=tokens, batch=3, dtype="bf16")
    row = dimensions.locator(".work tbody tr").nth(1)
    for column, name in enumerate(("flop", "bytes")):
        shows(row.locator("td").nth(column), cut["steps"][1][name])
    expect(dimensions).to_have_url(re.compile(f"n={tokens}&b=3&t=bf16"))


def test_times_appear_as_points_while_they_are_measured(opener, reference):
    seconds = {1: 0.002, 2: 0.0021, 4: 0.0019, 8: 0.00205, 16: 0.0023, 32: 0.003, 64: 0.004}
    asked = []

    def answer(question):
        if question["ask"] != "time":
            return reference.answer(question)
        asked.append(question["heads"])
        heads = question["heads"]
        text = '{"seconds": %g, "over_single_head": %g, "samples": 7, "repeats": %d, "where": "native", "threads": 2, "isa": "avx2"}'
        return "application/json", text % (seconds[heads], seconds[heads] / seconds[1], 20e-3 / seconds[heads])

    page = opener.served(answer, link="#v=dimensions")
    page.get_by_role("button", name="Measure now").click()
    expect(page.locator(".times circle")).to_have_count(len(seconds))
    assert asked == list(seconds)
    expect(page.get_by_text("Measured by the program on this machine, 2 threads, avx2. "
                            "Each point is the median of 7 samples, each the mean of 5 to 10 runs.")).to_be_visible()
    page.locator("figure", has=page.locator(".times")).get_by_role("button", name="As a table").click()
    cells = page.locator("figure table tbody tr").last.locator("th, td").all_inner_texts()
    assert cells == ["64", "4.00 ms", "2.00", "7 × 5"]
    page.get_by_role("button", name="MiniLM").click()
    page.get_by_role("button", name="As a picture").click()
    expect(page.locator(".times circle")).to_have_count(0)


LIMITS = {"fma_gflops": 100, "memory_gbs": 20, "memory_bytes": 268435456, "where": "native", "threads": 2, "isa": "avx2"}


def test_each_step_has_the_limit_that_binds_it(opener, reference):
    """At 100 GFLOP/s and 20 GB/s the ridge lies at 5 FLOP a byte."""
    asked, cut = [], entry(reference, 8, tokens=1024)
    steps = [*cut["steps"], cut["fused"]]

    def answer(question):
        asked.append(question["ask"])
        if question["ask"] == "limits":
            return "application/json", json.dumps(LIMITS)
        if question["ask"] != "dims":
            return reference.answer(question)
        found = reference.ask_dims(question)
        for each in found["heads"]:
            for step in [*each.get("steps", []), *([each["fused"]] if each["divides"] else [])]:
                step["limit"] = ("memory" if step["intensity"] < 5 else "fma") if "limits" in asked else None
        return "application/json", json.dumps(found)

    page = opener.served(answer, link="#v=dimensions&n=1024")
    expect(page.get_by_text("Measured now on this machine (avx2, 2 threads): 100 GFLOP/s of multiply-adds, and 20.0 GB/s reading 268 MB "
                            "of memory. A step below 5.0 FLOP per byte waits for memory, unless a cache holds its data.")).to_be_visible()
    bound = page.locator(".work tbody tr td:last-child")
    expect(bound).to_have_text(["memory" if step["intensity"] < 5 else "multiply-adds" for step in steps])
    assert {"memory", "multiply-adds"} == set(bound.all_inner_texts())
    page.get_by_role("button", name="MiniLM").click()
    expect(page.locator(".cut-sum")).to_have_text("384 = 8 · 48")
    assert asked.count("limits") == 1


def test_limits_that_cannot_be_measured_are_said(opener, reference):
    reference.measured = False

    def answer(question):
        if question["ask"] == "limits":
            raise RuntimeError("out of memory")
        return reference.answer(question)

    page = opener.served(answer, link="#v=dimensions")
    expect(page.get_by_role("alert")).to_have_text("The limits could not be measured here: out of memory")
    expect(page.locator(".work tbody tr td:last-child").first).to_have_text("not measured yet")
    opener.complaints.clear()  # the browser tells of status 400


def test_measuring_can_be_stopped(opener, reference):
    def answer(question):
        return ("application/json", '{"seconds": 1, "over_single_head": 1, "samples": 7, "repeats": 1, "where": "native", "threads": 1, "isa": "avx2"}') \
            if question["ask"] == "time" else reference.answer(question)

    page = opener.served(answer, link="#v=dimensions")
    page.evaluate("window.fetch = ((ask) => (...given) => String(given[1]?.body).includes('time') ? new Promise((_, no) => "
                  "given[1].signal.addEventListener('abort', () => no(new DOMException('', 'AbortError')))) : ask(...given))(window.fetch)")
    page.get_by_role("button", name="Measure now").click()
    expect(page.get_by_text("Measuring 1 …")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Measure now")).to_be_visible()
    expect(page.locator(".times circle")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_pytorch_lines_carry_the_numbers_and_are_copied(opener, reference):
    page = opener.served(reference.answer, link="#v=dimensions&d=384&h=12&n=10", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "d_model, num_heads = 384, 12" in code and "nn.Linear(384, 32) for _ in range(12)" in code and "torch.randn(1, 10, d_model)" in code
    compile(code, "copied", "exec")
    assert code.strip() == page.locator("pre").inner_text().strip()


def test_the_link_restores_all_sizes(opener, reference):
    page = opener.served(reference.answer, link="#v=dimensions&d=576&h=9&n=2048&b=2&t=f16")
    expect(page.locator(".cut-sum")).to_have_text("576 = 9 · 64")
    expect(page.get_by_label("batch")).to_have_value("2")
    expect(page.get_by_label("type")).to_have_value("f16")
    expect(page.get_by_label("d_model numbers of a token")).to_have_value("576")


def test_an_absurd_size_is_not_taken(dimensions):
    field = dimensions.get_by_label("d_model numbers of a token")
    for absurd in ("0", "-5", "1e9", ""):
        field.fill(absurd)
    expect(dimensions.locator(".cut-sum")).to_have_text("512 = 8 · 64")
