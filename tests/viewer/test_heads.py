"""The view Heads: what is seen equals the engine's numbers, by hand and by keys alone, on a phone too."""
import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from reference_heads import HeadsReference

# The reference counts in Python: 72 heads by 72 take it a while on a busy machine.
expect.set_options(timeout=20_000)
OVERVIEWS = ["Grid", "Scatter", "Clusters", "Mean", "Rollout"]
DETAILS = ["Map", "Links", "Why", "Distance", "Side by side", "Switch off"]


@pytest.fixture(scope="module")
def answers(trace):
    from conftest import model, program
    return HeadsReference(program, trace, model)


@pytest.fixture
def heads(opener, answers):
    """Opens the view with a link and waits for it."""
    def open_view(link="", **options):
        page = opener.served(answers.answer, link=f"#v=heads&tour=0{link}", **options)
        page.wait_for_selector(".heads-all[aria-busy=false]", state="attached")
        return page
    return open_view


def number(text):
    return float(text.replace("−", "-"))


def table(page, region):
    """The table behind a picture, as rows of text."""
    region.get_by_role("button", name="As a table").first.click()
    rows = region.locator("figure table").first.locator("tr")
    found = rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    region.get_by_role("button", name="As a picture").first.click()
    return found


def all_heads(page):
    return page.locator(".heads-all")


def one_head(page):
    return page.locator(".heads-one")


def names(page):
    return page.locator(".thumb").evaluate_all("thumbs => thumbs.map(thumb => thumb.dataset.head)")


def scores(answers, name):
    return {f"{head['layer']}.{head['head']}": head["scores"][name] for head in answers.look()["heads"]}


def test_the_grid_holds_every_head_and_its_picture_is_its_weights(heads, answers):
    page = heads()
    expect(page.locator(".thumb canvas")).to_have_count(72)
    assert names(page) == [f"{layer}.{head}" for layer in range(6) for head in range(12)]
    pixels = page.locator("[data-head='2.8'] canvas").evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 1)")
    weights = answers.attention(2, 8)[1]
    darkness = 255 - np.array(pixels).reshape(weights.shape)
    order = lambda values: np.argsort(values.ravel(), kind="stable")
    assert order(darkness)[-1] == order(weights)[-1]
    assert np.corrcoef(darkness.ravel(), np.sqrt(weights.ravel()))[0, 1] > 0.99


@pytest.mark.parametrize("score", ["next", "entropy", "confidence"])
def test_heads_are_sorted_by_any_score(heads, answers, score):
    page = heads()
    page.get_by_role("combobox", name=re.compile("^Sort by")).select_option(score)
    values = scores(answers, score)
    assert names(page) == sorted(values, key=lambda name: -values[name])
    first = names(page)[0]
    expect(page.locator(f"[data-head='{first}'] .thumb-name b")).to_have_text(f"{values[first]:.2f}")
    expect(page).to_have_url(re.compile(f"h.sort={score}"))


def test_heads_that_rest_on_cls_are_left_out(heads, answers):
    page = heads()
    page.get_by_role("combobox", name=re.compile("^Show")).select_option(label="without heads that rest on [CLS]")
    resting = lambda head: "first" in head["roles"] or ("sink" in head["roles"] and head["scores"]["sink_key"] == "[CLS]")
    kept = [f"{head['layer']}.{head['head']}" for head in answers.look()["heads"] if not resting(head)]
    assert 0 < len(kept) < 72
    assert names(page) == kept
    expect(page.get_by_text(f"{len(kept)} of 72 heads")).to_be_visible()


def test_a_place_that_is_being_typed_stays_when_the_page_is_drawn_again(heads):
    page = heads("&h.show=one&h.one=map")
    field = page.get_by_label("Key", exact=True)
    field.fill("7")
    page.set_viewport_size({"width": 1000, "height": 700})  # the map is drawn again
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(field).to_have_value("7")
    field.press("Enter")
    expect(page.locator(".map-said")).to_contain_text("mat")
    field.fill("99")  # past the last token
    field.press("Enter")
    expect(field).to_have_value("9")


@pytest.mark.parametrize("role", ["next", "sink"])
def test_heads_are_filtered_by_role_both_ways(heads, answers, role):
    page = heads()
    having = [f"{head['layer']}.{head['head']}" for head in answers.look()["heads"] if role in head["roles"]]
    page.get_by_role("combobox", name=re.compile("^Show")).select_option(role)
    assert names(page) == having
    page.get_by_role("combobox", name=re.compile("^Show")).select_option(f"-{role}")
    assert len(names(page)) == 72 - len(having) and not set(names(page)) & set(having)


def test_a_badge_says_that_it_comes_from_this_text(heads):
    page = heads()
    expect(page.locator("[data-head='1.8'] .badge").first).to_have_attribute("title", "next (from this text)")
    expect(page.get_by_role("button", name=re.compile("1.8.*in this text: next"))).to_be_visible()


def test_the_table_of_the_grid_is_the_engine_s(heads, answers):
    page = heads()
    columns, *rows = table(page, all_heads(page))
    rules = answers.look()["score_rules"]
    assert len(rows) == 72 and len(columns) == 2 + len(rules)
    for row, head in zip(rows, answers.look()["heads"]):
        for cell, rule in zip(row[2:], rules):
            value = head["scores"][rule["score"]]
            assert cell.replace("−", "-") == ("–" if value is None else f"{value:.3f}")


def test_heads_by_likeness_to_the_chosen_one(heads, answers):
    page = heads("&head=2.8")
    page.get_by_role("combobox", name=re.compile("^Sort by")).select_option(label="likeness to the chosen head")
    expect(page.locator(".thumb").first).to_have_attribute("data-head", "2.8")
    distances = answers.distances()[2 * 12 + 8]
    wanted = [f"{head // 12}.{head % 12}" for head in np.argsort(distances, kind="stable")]
    assert names(page)[:10] == wanted[:10]


def test_scatter_shows_two_scores_and_a_third_as_colour(heads, answers):
    page = heads("&h.all=scatter")
    page.get_by_role("combobox", name=re.compile("^Across")).select_option("next")
    page.get_by_role("combobox", name=re.compile("^Up")).select_option("first")
    page.get_by_role("combobox", name=re.compile("^Colour")).select_option("entropy")
    expect(page.locator(".dot")).to_have_count(72)
    by_next, by_first, by_entropy = (scores(answers, name) for name in ("next", "first", "entropy"))
    expect(page.locator(".dot[data-head='1.8']")).to_have_attribute(
        "aria-label", re.compile(f"{by_next['1.8']:.3f}.*{by_first['1.8']:.3f}.*{by_entropy['1.8']:.3f}"))
    places = page.locator(".dot").evaluate_all(
        "dots => Object.fromEntries(dots.map(dot => [dot.dataset.head, [...dot.querySelectorAll('circle')].map(circle => [+circle.getAttribute('cx'), +circle.getAttribute('cy')])[0]]))")
    x, y = (np.array([place[i] for place in places.values()]) for i in (0, 1))
    assert np.corrcoef(x, [by_next[name] for name in places])[0, 1] > 0.99999
    assert np.corrcoef(-y, [by_first[name] for name in places])[0, 1] > 0.99999
    page.locator(".dot[data-head='5.11']").click()
    expect(page.get_by_role("button", name="Head 5.11", exact=True)).to_have_attribute("aria-pressed", "true")


def test_clusters_join_the_heads_that_are_alike(heads, answers):
    page = heads("&h.all=clusters&h.groups=5")
    expect(page.locator(".cluster")).to_have_count(5)
    shown = page.locator(".cluster").evaluate_all("groups => groups.map(group => [...group.querySelectorAll('.thumb')].map(thumb => thumb.dataset.head))")
    wanted = answers.ask_clusters({"clusters": 5})["clusters"]
    assert shown == [[f"{layer}.{head}" for layer, head in cluster["heads"]] for cluster in wanted]
    page.locator("label.slider", has_text="Groups").locator("input").press("ArrowRight")
    expect(page.locator(".cluster")).to_have_count(6)


def test_a_mean_over_chosen_heads(heads, answers):
    page = heads("&h.all=mean")
    expect(page.get_by_text("Mean of all 72 heads")).to_be_visible()
    page.locator(".pick", has_text="1.8").first.click()
    page.locator(".pick", has_text="2.8").first.click()
    rows = table(page, all_heads(page))
    wanted = (answers.attention(1, 8)[1] + answers.attention(2, 8)[1]) / 2
    assert [[number(cell) for cell in row[1:]] for row in rows[1:]] == pytest.approx(np.round(wanted, 4), abs=6e-5)
    page.get_by_role("button", name="Layer 3").click()
    expect(page.get_by_text("Mean of 14 heads").first).to_be_visible()


def test_rollout_adds_up_to_one_and_is_the_engine_s(heads, answers):
    page = heads("&h.all=rollout")
    expect(page.locator(".bar")).to_have_count(10)
    shown = [number(value) for value in page.locator(".bar-said").all_inner_texts()]
    assert shown == pytest.approx(answers.ask_rollout({})[0]["rollout"], abs=6e-5)
    assert sum(shown) == pytest.approx(1, abs=1e-3)


def matrix(page):
    return np.array([[number(cell) for cell in row[1:]] for row in table(page, one_head(page))[1:]])


@pytest.mark.parametrize("layer, head", [(2, 8), (1, 8), (5, 11)])
def test_a_head_s_map_holds_its_weights(heads, answers, layer, head):
    page = heads(f"&h.show=one&head={layer}.{head}")
    expect(page.locator(".map-said output")).not_to_have_text("…")
    assert matrix(page) == pytest.approx(answers.attention(layer, head)[1], abs=6e-5)


def canvas_place(page, row, key, count=10):
    """The middle of a cell on the screen: strips and cells as the page lays them out, measured on its pixels."""
    surface = one_head(page).locator(".map-canvas").first
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    left, top, zoom = surface.evaluate("canvas => [canvas.dataset.left, canvas.dataset.top, canvas.dataset.zoom].map(Number)")
    return box["x"] + left + (key + 0.5) * zoom, box["y"] + top + (row + 0.5) * zoom


def test_the_number_under_the_pointer_and_the_one_that_is_pressed(heads, answers):
    page = heads("&h.show=one&head=2.8")
    weights = answers.attention(2, 8)[1]
    page.mouse.move(*canvas_place(page, 4, 0))
    expect(page.locator(".tip b")).to_have_text(f"{weights[4, 0]:.4f}")
    page.mouse.click(*canvas_place(page, 6, 7))
    expect(page.locator(".map-said")).to_contain_text("the → mat")
    expect(page.locator(".map-said output")).to_have_text(f"{weights[6, 7]:.4f}")
    expect(page.get_by_role("complementary", name="Selected")).to_contain_text(f"{weights[6, 7]:.4f}")
    expect(page).to_have_url(re.compile("q=6&k=7"))


def test_the_wheel_zooms_where_the_map_has_the_focus_and_dragging_moves_it(heads, answers):
    page = heads("&h.show=one&head=2.8")
    place = canvas_place(page, 3, 3)
    page.mouse.click(*place)
    page.locator(".map-canvas").focus()
    before = page.locator(".map-canvas").evaluate("canvas => Number(canvas.dataset.zoom)")
    page.mouse.move(*place)
    page.mouse.wheel(0, -400)
    expect(page.locator(".mini-map")).to_be_visible()
    assert page.locator(".map-canvas").evaluate("canvas => Number(canvas.dataset.zoom)") > before
    expect(page).to_have_url(re.compile("m.at="))
    expect(page.locator(".mini-map")).to_be_visible()
    page.keyboard.press("0")
    expect(page.locator(".mini-map")).to_have_count(0)


def test_links_join_the_largest_weights_between_words(heads, answers):
    page = heads("&h.show=one&h.one=links&head=2.8&q=2")
    weights = answers.attention(2, 8)[1]
    rows = table(page, one_head(page))[1:]
    wanted = []
    for query in range(10):
        for key in np.argsort(-weights[query], kind="stable")[:2]:
            wanted.append(f"{weights[query, key]:.4f}" if weights[query, key] >= 0.001 else f"{weights[query, key]:.2e}")
    assert [row[2] for row in rows] == [figure.replace("e-0", "e-") for figure in wanted]
    page.locator("label.slider", has_text="Links a query").locator("input").press("ArrowRight")
    assert len(table(page, one_head(page))) == 31


def test_links_without_special_tokens_are_renormalised_and_said_so(heads, answers):
    page = heads("&h.show=one&h.one=links&head=2.8&q=2")
    weights = answers.attention(2, 8)[1]
    expect(page.locator("#links-told")).to_have_text(re.compile(f"black → cat {weights[2, 3]:.4f}"))
    page.get_by_label("without special tokens").check()
    kept = weights[2, 3] / weights[2, 1:9].sum()
    expect(page.locator("#links-told")).to_have_text(re.compile(f"black → cat {kept:.4f}"))
    expect(page.get_by_text("adds up to 1 again")).to_be_visible()


def test_a_word_s_links_alone_under_the_pointer_and_held(heads):
    page = heads("&h.show=one&h.one=links&head=2.8")
    expect(page.locator(".link").first).to_be_attached()
    page.locator(".unit-q", has_text="mat").hover()
    expect(page.locator(".link.focused")).to_have_count(8)
    expect(page.locator("#links-told")).to_have_text(re.compile("^mat → "))
    page.locator(".unit-k", has_text="cat").hover()
    expect(page.locator(".unit-q small").first).to_be_visible()
    page.locator(".unit-q", has_text="sat").click()
    page.mouse.move(0, 0)
    expect(page.get_by_role("button", name="Let go of “sat”")).to_be_visible()
    expect(page.locator("#links-told")).to_have_text(re.compile("^sat → "))


def test_why_the_products_add_up_to_the_score(heads, answers):
    page = heads("&h.show=one&h.one=why&head=2.8&q=2&k=3")
    q, k = answers.of("q", 2, 8)[2], answers.of("k", 2, 8)[3]
    expect(page.locator(".bar")).to_have_count(32)
    shown = [number(value) for value in page.locator(".bar-said").all_inner_texts()]
    assert shown == pytest.approx(q * k, abs=6e-4)
    facts = [number(value) for value in page.locator(".facts dd").all_inner_texts()]
    scores, weights = answers.attention(2, 8)
    assert facts == pytest.approx([q @ k, scores[2, 3], scores[2, 3], weights[2, 3]], abs=6e-5)
    page.get_by_label("largest first").check()
    shown = [abs(number(value)) for value in page.locator(".bar-said").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    page.get_by_label("k to").select_option("0")
    expect(page.locator(".facts dd").last).to_have_text(f"{weights[2, 0]:.4f}")


def test_distances_hold_all_weight(heads, answers):
    page = heads("&h.show=one&h.one=distance&head=1.8")
    expect(page.locator(".bar")).to_have_count(19)
    weights = answers.attention(1, 8)[1]
    shown = [number(value) for value in page.locator(".bar-said").all_inner_texts()]
    wanted = [np.trace(weights, offset=-distance) / 10 for distance in range(-9, 10)]
    assert shown == pytest.approx(wanted, abs=6e-5)


def test_two_heads_side_by_side_and_their_difference(heads, answers):
    page = heads("&h.show=one&h.one=compare&head=2.8")
    expect(page.get_by_text("Choose another head or another text.")).to_be_visible()
    page.get_by_role("combobox", name=re.compile("^Other head")).select_option("1.8")
    expect(page.locator(".side-by-side .map")).to_have_count(3)
    figures = page.locator(".side-by-side figure")
    figures.nth(2).get_by_role("button", name="As a table").click()
    cells = figures.nth(2).locator("tbody td").all_inner_texts()
    wanted = answers.attention(1, 8)[1] - answers.attention(2, 8)[1]
    assert [number(cell) for cell in cells] == pytest.approx(wanted.ravel(), abs=6e-5)


def test_two_texts_side_by_side_and_their_difference(heads, answers):
    page = heads("&h.show=one&h.one=compare&head=2.8")
    of = page.get_by_label("Other text")
    of.fill("The small dog lay on the rug.")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".side-by-side .map")).to_have_count(3)
    other = answers.opened[max(answers.opened)]
    assert other.metadata["text"] == "The small dog lay on the rug."
    for place, wanted in ((1, other.attention(2, 8)[1]), (2, other.attention(2, 8)[1] - answers.attention(2, 8)[1])):
        picture = page.locator(".side-by-side figure").nth(place)
        picture.get_by_role("button", name="As a table").click()
        cells = picture.locator("tbody td").all_inner_texts()
        assert [number(cell) for cell in cells] == pytest.approx(wanted.ravel(), abs=6e-5)
    of.fill("A dog barked.")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("There is no difference of 10 and 6 tokens")).to_be_visible()
    expect(page.locator(".side-by-side figure")).to_have_count(2)


def test_tracks_at_the_edges_are_what_keys_get_and_how_widely_rows_spread(heads, answers):
    page = heads("&h.show=one&head=2.8")
    expect(page.get_by_text("Bars below: what each key gets of all queries.")).to_be_visible()
    weights = answers.attention(2, 8)[1]
    # The bars' lengths in pixels, in the middle of each key's column and of each row.
    lengths = page.locator(".map-canvas").first.evaluate("""(canvas) => {
        const [left, top, zoom] = [canvas.dataset.left, canvas.dataset.top, canvas.dataset.zoom].map(Number);
        const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const pixels = new Uint32Array(data.buffer);
        const bar = (x, y, dx, dy) => {
            let count = 0;
            while (pixels[(y + (5 + count) * dy) * width + x + (5 + count) * dx] !== pixels.at(-1) && count < 40) ++count;
            return count;
        };
        const middles = Array.from({ length: 10 }, (_, i) => Math.round((i + 0.5) * zoom));
        const end = Math.round(10 * zoom);
        return [middles.map((at) => bar(left + at, top + end, 0, 1)), middles.map((at) => bar(left + end, top + at, 1, 0))];
    }""")
    entropy = -(weights * np.log(weights)).sum(1)
    for shown, wanted in zip(lengths, (weights.sum(0), entropy)):
        assert max(shown) > 15
        assert np.array(shown) / max(shown) == pytest.approx(wanted / wanted.max(), abs=0.1)


def test_links_between_words_or_between_pieces(heads, answers):
    text = "Unbelievably quick foxes jumped."
    page = heads(f"&h.show=one&h.one=links&head=2.8&text={text.replace(' ', '+')}")
    words = page.get_by_label("words, not pieces")
    expect(words).to_be_checked()
    own = answers.opened[max(answers.opened)]
    weights = own.attention(2, 8)[1]
    of_word = np.array(json.loads(own.metadata["words"]))
    units = [[token] for token in range(len(of_word)) if of_word[token] < 0] + [list(np.flatnonzero(of_word == word)) for word in range(of_word.max() + 1)]
    units.sort()
    assert len(units) < len(of_word)

    def shown():
        rows = table(page, one_head(page))[1:]
        return [number(row[2]) for row in rows]

    between = np.array([[weights[np.ix_(query, key)].sum(1).mean() for key in units] for query in units])
    assert shown() == pytest.approx([weight for row in between for weight in sorted(row, reverse=True)[:2]], abs=6e-5)
    expect(page.get_by_text("Between words: the sum over the pieces")).to_be_visible()
    words.uncheck()
    expect(page.get_by_text("Between pieces, as the model reads them.")).to_be_visible()
    assert shown() == pytest.approx([weight for row in weights for weight in sorted(row, reverse=True)[:2]], abs=6e-5)


def test_switching_a_head_off_shows_what_the_engine_gives(heads, answers):
    before = len(answers.asked)
    page = heads("&h.show=one&h.one=off&head=2.8")
    wanted = answers.likeness(answers.metadata["text"], [[2, 8, 0]])
    expect(page.locator(".facts dd")).to_have_text(f"{wanted:.4f}")
    page.locator("label.slider", has_text="Scale").locator("input").press("End")
    wanted = answers.likeness(answers.metadata["text"], [[2, 8, 2]])
    expect(page.locator(".facts dd")).to_have_text(f"{wanted:.4f}")
    asks = [question["ask"] for question in answers.asked[before:]]
    assert asks.count("close") == asks.count("encode") > 0


def test_without_a_model_the_page_says_what_it_needs(opener, answers):
    def no_model(question):
        kind, body = answers.answer(question)
        return (kind, re.sub(rb'"models": \[.*\]', b'"models": []', body)) if question["ask"] == "about" else (kind, body)

    page = opener.served(no_model, link="#v=heads&tour=0&h.show=one&h.one=off")
    expect(page.get_by_text("This needs the model, which is not here")).to_be_visible()


def test_by_keys_alone_from_the_grid_into_a_number(heads, answers):
    page = heads("&head=1.8")
    expect(page.locator(".thumb canvas")).to_have_count(72)
    page.locator(".thumb[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Head 2.8", exact=True)).to_have_attribute("aria-pressed", "true")
    tab = page.get_by_role("tab", name="Map")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('map-canvas')"):
            break
    expect(page.locator(".map-canvas")).to_be_focused()
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    weight = answers.attention(2, 8)[1][4, 1]
    expect(page.locator(".map-said output")).to_have_text(f"{weight:.4f}")
    expect(page.get_by_role("complementary", name="Selected")).to_contain_text(f"{weight:.4f}")
    page.keyboard.press("+")
    page.keyboard.press("-")
    tab.focus()
    for name in DETAILS[1:]:
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("panel", [f"&h.all={name.lower()}" for name in OVERVIEWS]
                         + [f"&h.show=one&h.one={name}&h.other=1.8" for name in ("map", "links", "why", "distance", "compare", "off")])
@pytest.mark.parametrize("look", ["phone", "dark", "German"])
def test_every_panel_fits_a_phone_and_speaks_german_and_has_no_fault_that_axe_finds(heads, panel, look):
    from conftest import root
    options = {"phone": {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}, "dark": {"color_scheme": "dark"}, "German": {"locale": "de-DE"}}
    page = heads(panel, **options[look])
    expect(page.get_by_text(re.compile("^(Opening|Wird geöffnet) …"))).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    page.evaluate((root / "viewer/node_modules/axe-core/axe.min.js").read_text())
    found = page.evaluate("axe.run(document.querySelector('main'), {resultTypes: ['violations']})")["violations"]
    serious = [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []
