"""What the Pipeline view shows is what float64 gives from the trace and the model's weights."""
import re

import numpy as np
import pytest
from playwright.sync_api import expect

LAYER, HEAD, QUERY, KEY = 2, 8, 2, 3  # black -> cat


def number(text):
    return float(text.replace("−", "-").replace(",", "."))


@pytest.fixture
def pipeline(page):
    page.keyboard.press("2")
    page.locator(".flow").wait_for()
    return page


def open_part(page, name):
    page.locator(".flow-part").filter(has=page.locator(f"b:text-is('{name}')")).click()


@pytest.fixture(scope="module")
def expected(reference):
    tensors, _ = reference.ask_pipeline({"layer": LAYER, "head": HEAD, "model": 1})
    scores, weights = reference.attention(LAYER, HEAD)
    return {**tensors, "scores": scores[QUERY], "weights": weights[QUERY], "products": tensors["q"][QUERY] * tensors["k"][KEY],
            "output": weights[QUERY] @ tensors["v"]}


def test_the_reference_is_the_model(reference, expected):
    """Without it every comparison below would be of one thing with itself."""
    for name in "qkv":
        assert np.allclose(expected["x"] @ expected[f"W_{name}"] + expected[f"b_{name}"], expected[name], atol=1e-4)


def test_the_line_shows_the_score_and_the_weight(pipeline, expected):
    figures = [number(text) for text in pipeline.locator(".flow-part .figure").all_inner_texts() if "[" not in text]
    assert figures == [pytest.approx(expected["scores"][KEY], abs=6e-4), pytest.approx(expected["weights"][KEY], abs=6e-5)]
    assert figures[1] == pytest.approx(0.7363, abs=1e-4)


def test_the_products_add_up_to_the_score(pipeline, reference, expected):
    dot, scale, score = (number(text) for text in re.findall(r"[−\d.]+", pipeline.locator(".sum").inner_text()))
    assert dot == pytest.approx(expected["products"].sum(), abs=6e-4)
    assert scale == pytest.approx(reference.scale, abs=6e-5)
    assert score == pytest.approx(expected["scores"][KEY], abs=6e-4)
    pipeline.get_by_role("button", name="As a table").click()
    rows = [row.split("\t") for row in pipeline.locator(".part tbody tr").all_inner_texts()]
    assert len(rows) == 32
    for i, row in enumerate(rows):
        q, k, product = (number(cell) for cell in row[1:])
        assert q == pytest.approx(expected["q"][QUERY, i], abs=6e-5)
        assert k == pytest.approx(expected["k"][KEY, i], abs=6e-5)
        assert product == pytest.approx(expected["products"][i], abs=6e-5)


def test_bars_are_as_high_as_their_numbers(pipeline, expected):
    bars = pipeline.locator(".bars").nth(2).locator("rect:not(.reach)")
    heights = np.array([float(bars.nth(i).get_attribute("height")) for i in range(32)])
    below = np.array([bars.nth(i).get_attribute("class") == "below" for i in range(32)])
    products = expected["products"]
    assert (below == (products < 0)).all()
    large = np.abs(products) > 0.05 * np.abs(products).max()
    ratio = heights[large] / np.abs(products[large])
    assert np.allclose(ratio, ratio[0], rtol=1e-3)


def test_softmax_in_three_steps(pipeline, reference, expected):
    open_part(pipeline, "softmax")
    table = pipeline.locator(".softmax")
    steps = [number(re.search(r"[−\d.]+$", text).group()) for text in (table.locator("thead th").nth(i).inner_text() for i in (2, 4))]
    scores = expected["scores"]
    assert steps == [pytest.approx(scores.max(), abs=6e-4), pytest.approx(np.exp(scores - scores.max()).sum(), abs=6e-4)]
    rows = table.locator("tbody tr")
    assert rows.count() == len(scores)
    for i in range(rows.count()):
        assert rows.nth(i).locator("th").inner_text() == reference.tokens[i]
        cells = [number(text) for text in rows.nth(i).locator("td").all_inner_texts()]
        assert cells == [pytest.approx(scores[i], abs=6e-4), pytest.approx(scores[i] - scores.max(), abs=6e-4),
                         pytest.approx(np.exp(scores[i] - scores.max()), abs=6e-5), pytest.approx(expected["weights"][i], abs=6e-5)]
    assert number(table.locator("tfoot td").last.inner_text()) == 1


@pytest.mark.parametrize("part, label, name, column, formula", [
    ("x", "x [10, 384]", "x", 100, "x [tokens, d_model]"),
    ("q, k, v", "q [10, 32]", "q", 7, "q = x · W_q + b_q"),
    ("q, k, v", "k [10, 32]", "k", 31, "k = x · W_k + b_k"),
    ("q, k, v", "v [10, 32]", "v", 0, "v = x · W_v + b_v"),
])
def test_under_the_pointer_stand_value_shape_and_origin(pipeline, expected, part, label, name, column, formula):
    open_part(pipeline, part)
    strip = pipeline.get_by_role("img", name=label, exact=True)
    box = strip.bounding_box()
    rows, columns = expected[name].shape
    strip.hover(position={"x": (column + 0.5) / columns * box["width"], "y": (KEY + 0.5) / rows * box["height"]})
    tip = pipeline.locator(".tip")
    expect(tip).to_contain_text(f"{name} of “cat”, number {column}")
    assert number(tip.locator("b").inner_text()) == pytest.approx(expected[name][KEY, column], abs=6e-5)
    expect(tip).to_contain_text(label)
    inspector = pipeline.get_by_role("complementary", name="Selected")
    expect(inspector).to_contain_text(formula)
    expect(inspector).to_contain_text("all-MiniLM-L6-v2, layer 2, head 8")
    strip.click(position={"x": (column + 0.5) / columns * box["width"], "y": (KEY + 0.5) / rows * box["height"]})
    pipeline.mouse.move(1, 1)
    expect(inspector).to_contain_text(f"number {column}")
    inspector.get_by_role("button", name="Let go").click()
    expect(inspector).to_contain_text("Point at a number")


def test_the_slabs_hold_the_real_weights(pipeline, expected):
    open_part(pipeline, "q, k, v")
    slab = pipeline.get_by_label("slab of head 8 in W_k")
    assert pipeline.locator(".slabs.of-k .slab").count() == 12
    box = slab.bounding_box()
    slab.hover(position={"x": 20.5 / 32 * box["width"], "y": 200.5 / 384 * box["height"]})
    shown = number(pipeline.locator(".tip b").inner_text())
    expect(pipeline.locator(".tip")).to_contain_text(re.compile(r"W_k, row \d+, column \d+"))
    row, column = map(int, re.search(r"row (\d+), column (\d+)", pipeline.locator(".tip").inner_text()).groups())
    assert abs(row - 200) <= 3 and abs(column - 8 * 32 - 20) <= 1
    assert shown == pytest.approx(expected["W_k"][row, column - 8 * 32], abs=6e-5)


def test_the_mix_of_values(pipeline, expected):
    open_part(pipeline, "Σ w · v")
    bars = pipeline.get_by_label("their sum, the head's output")
    bars.focus()
    for i in range(32):
        shown = number(pipeline.locator(".tip b").inner_text())
        assert shown == pytest.approx(expected["output"][i], abs=6e-5)
        pipeline.keyboard.press("ArrowRight")


def test_heads_side_by_side_and_w_o(pipeline, expected):
    open_part(pipeline, "W_o")
    assert pipeline.locator(".cuts span").count() == 12
    pipeline.get_by_role("button", name="As a table").click()
    rows = [[number(cell) for cell in row.split("\t")] for row in pipeline.locator(".part tbody tr").all_inner_texts()]
    shown = np.array(rows)
    assert np.allclose(shown[:, 1], expected["concat"][QUERY], atol=6e-5)
    assert np.allclose(shown[:, 2], expected["y"][QUERY], atol=6e-5)
    assert np.allclose(shown[:, 3], expected["x"][QUERY], atol=6e-5)
    assert np.allclose(shown[:, 4], expected["x"][QUERY] + expected["y"][QUERY], atol=6e-5)
    assert np.allclose(shown[HEAD * 32:(HEAD + 1) * 32, 1], expected["output"], atol=6e-5)


def test_arrow_keys_choose_query_key_head_and_layer(pipeline, reference):
    def weight(layer, head, query, key):
        expect(pipeline.locator(".flow [role=status]")).to_have_text(
            re.compile(re.escape(f"{reference.tokens[query]} → {reference.tokens[key]}: ")
                       + f"{reference.attention(layer, head)[1][query, key]:.4f}"))

    pipeline.keyboard.press("ArrowRight")
    weight(2, 8, 3, 3)
    pipeline.keyboard.press("Shift+ArrowRight")
    weight(2, 8, 3, 4)
    pipeline.get_by_role("spinbutton", name="head").press("ArrowUp")
    weight(2, 9, 3, 4)
    pipeline.get_by_role("spinbutton", name="layer").press("End")
    weight(5, 9, 3, 4)
    pipeline.get_by_role("spinbutton", name="query word").press("Home")
    weight(5, 9, 0, 4)
    expect(pipeline).to_have_url(re.compile("head=5.9&q=0&k=4"))


def test_a_press_on_a_token_chooses_it(pipeline):
    open_part(pipeline, "softmax")
    pipeline.locator(".softmax").get_by_role("button", name="sat").click()
    expect(pipeline.get_by_role("spinbutton", name="key word")).to_have_text("sat")
    open_part(pipeline, "x")
    pipeline.locator(".tokens").get_by_role("button", name="mat").click()
    expect(pipeline.get_by_role("spinbutton", name="query word")).to_have_text("mat")


def test_layers_above_the_first_say_that_x_is_mixed(pipeline):
    open_part(pipeline, "x")
    expect(pipeline.get_by_text("Layer 2 is not the first: x already mixes")).to_be_visible()
    pipeline.get_by_role("spinbutton", name="layer").press("Home")
    expect(pipeline.get_by_text("This is the first layer")).to_be_visible()


def test_without_a_model_the_head_itself_stays(opener, reference):
    def answer(question):
        kind, body = reference.answer(question)
        return kind, re.sub(rb'"models": \[.*?\]', b'"models": []', body) if question["ask"] == "about" else body

    page = opener.served(answer, link="#v=pipeline&part=x")
    expect(page.get_by_text("This needs the model, which is not here")).to_be_visible()
    open_part(page, "q · k")
    expect(page.locator(".sum")).to_contain_text("Σ = ")
    expect(page.get_by_role("textbox", name="Sentence")).to_have_attribute("readonly", "")
