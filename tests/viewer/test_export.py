"""The file that the program exports, with the network cut and no server: all of the tour, and what the file cannot do it says."""
import json
import re
import subprocess

import pytest
from playwright.sync_api import expect

import tour_reference
from conftest import exported as exported_to, model, program, root
from test_file import number, pytestmark  # noqa: F401


@pytest.fixture(scope="module")
def treebank(tmp_path_factory):
    """The first sentences of the relations' treebank: enough for the halves, quick to read."""
    sentences = (root / "examples/relations.conllu").read_text().split("\n\n")[:80]
    path = tmp_path_factory.mktemp("trees") / "some.conllu"
    path.write_text("\n\n".join(sentences) + "\n\n")
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, treebank):
    return exported_to(tmp_path_factory.mktemp("export") / "page.html", "--treebank", str(treebank))


@pytest.fixture
def opened(opener, exported):
    def open_view(link, **options):
        page = opener.watch(opener.context(offline=True, **options).new_page())
        page.goto(f"{exported.as_uri()}{link}")
        page.get_by_role("contentinfo").get_by_text("WebAssembly in this browser").wait_for(timeout=30_000)
        return page

    yield open_view
    assert [url for url in opener.requests if not url.startswith(("file:", "blob:", "data:"))] == []


def test_the_projections_of_the_tour_s_heads_are_in_it_and_of_others_it_says(opened, reference):
    page = opened("#v=pipeline&part=output&head=2.8&tour=0")
    page.get_by_role("button", name="As a table").click()
    y = reference.ask_pipeline({"layer": 2, "head": 8, "model": 1})[0]["y"]
    cells = page.locator(".part tbody tr")
    expect(cells.first).to_be_visible()
    assert number(cells.nth(5).locator("td").nth(1).inner_text()) == pytest.approx(y[2, 5], abs=6e-5)
    page.goto(page.url.replace("head=2.8", "head=4.6").replace("part=output", "part=x"))
    page.reload()
    expect(page.get_by_text("This needs the model, which is not here")).to_be_visible(timeout=30_000)
    page.get_by_text("This page carries it for these heads").get_by_role("button", name="2.8").click()
    strip = page.get_by_role("img", name="x [10, 384]", exact=True)
    strip.focus()
    x = reference.ask_pipeline({"layer": 2, "head": 8, "model": 1})[0]["x"]
    assert number(page.locator(".tip b").inner_text()) == pytest.approx(x[0, 0], abs=6e-5)


def test_the_tour_s_sentences_are_counted_in_it(opened, reference):
    page = opened("#step=4&v=story")
    relation = reference.relations["relations"][0]
    expect(page.locator(".dozen tbody tr")).to_have_count(12, timeout=30_000)
    select = page.get_by_role("combobox", name="Head")
    best = relation["heads"][0]
    select.select_option(f"{best['layer']}.{best['head']}")
    expect(page.locator(".share b").first).to_contain_text(f"{round(100 * best['accuracy'])} %")
    # An own sentence needs the model: said, with the command.
    expect(page.get_by_text("A sentence of your own needs the model")).to_contain_text("manyheads view --model DIR")
    expect(page.get_by_role("complementary", name="Tour").get_by_text(re.compile("^Done[.]$"))).to_be_visible()


def test_heads_are_switched_off_in_it(opened, reference):
    page = opened("#step=7&v=story")
    left = reference.ablations
    figures = page.locator(".off-figures dd")
    expect(figures.first).to_have_text("1.000", timeout=30_000)
    page.get_by_role("slider").last.focus()
    page.keyboard.press("End")
    wanted = left["in_order"][-1]
    expect(figures.first).to_have_text(f"{wanted['self']:.3f}".replace("-", "−"))
    expect(figures.nth(1)).to_have_text(f"{wanted['other']:.3f}".replace("-", "−"))


def test_one_head_alone_is_switched_off_in_the_view_of_heads(opened, reference):
    page = opened("#v=heads&tour=0&h.show=one&h.one=off&head=5.3")
    left = reference.ablations
    shown = page.locator(".facts dd")
    expect(shown.first).to_have_text(f"{left['alone'][5][3]['self']:.4f}", timeout=30_000)
    expect(shown.nth(1)).to_have_text(f"{left['similarity']:.4f} → {left['alone'][5][3]['other']:.4f}")
    expect(page.locator(".facts dt").nth(1)).to_contain_text(tour_reference.OTHER)
    # What it cannot do it says, and offers nothing that would fail.
    expect(page.get_by_text("To scale heads, to switch off several, or to try another text, run: manyheads view TEXT --model DIR")).to_be_visible()
    expect(page.get_by_role("slider")).to_have_count(0)
    page.goto(page.url.replace("head=5.3", "head=0.2"))
    page.reload()
    expect(page.locator(".facts dd").first).to_have_text(f"{left['alone'][0][2]['self']:.4f}", timeout=30_000)


def test_the_table_of_relations_is_that_of_roles(opened, treebank):
    told = json.loads(subprocess.run([program, "roles", "--treebank", treebank, "--model", model, "--json"], check=True, capture_output=True).stdout)
    page = opened("#v=corpus&tour=0")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".relation")).to_have_count(len(told["relations"]), timeout=30_000)
    page.get_by_role("button", name="As a table").click()
    rows = page.locator("figure.picture tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
    heads = [(head, relation) for relation in told["relations"] for head in relation["heads"]]
    assert len(rows) == len(heads) > 20
    for row, (head, relation) in zip(rows, heads):
        assert row[1] == f"{head['layer']}.{head['head']}" and row[7] == ("yes" if head["reads"] else "no")
        shown = [number(row[column].removesuffix(" %")) for column in (2, 6)]
        assert shown == pytest.approx([100 * head["accuracy"], 100 * relation["offset_accuracy"]], abs=0.5001)


def test_what_the_file_cannot_do_it_says_in_one_sentence(opener, tmp_path, trace):
    """A trace alone, without a model."""
    out = tmp_path / "alone.html"
    subprocess.run([program, "view", trace, "--export", out], check=True, capture_output=True)
    page = opener.watch(opener.context(offline=True).new_page())
    for link, says in [("#v=pipeline&part=x", "This needs the model, which is not here"), ("#step=4&v=story", "This did not work"),
                       ("#step=7&v=story", "Heads can be switched off where the model is"), ("#v=heads&h.show=one&h.one=off", "This needs the model"),
                       ("#v=corpus", "No scan is open")]:
        page.goto("about:blank")
        page.goto(f"{out.as_uri()}{link}")
        expect(page.get_by_text(says).first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Measure").click()
    expect(page.get_by_text("A relation table needs a model and a treebank")).to_be_visible()
