"""Debian's Firefox opens an exported file and a site, as the program writes them, and shows the engine's figures."""
import pytest

import firefox as client
from conftest import exported, sentence, static

OWN = "A small dog slept near the old door."
pytestmark = pytest.mark.skipif(client.found() is None, reason="no firefox (Debian: apt-get install firefox-esr)")


@pytest.fixture(scope="module")
def window():
    firefox = client.Firefox()
    yield firefox
    firefox.close()


@pytest.fixture
def firefox(window):
    yield window
    assert window.complaints == [], "the browser's console"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    exported(folder)
    with static(folder) as address:
        yield address


def softmax(firefox):
    """The table of one row: tokens, scores, weights."""
    firefox.wait("document.querySelectorAll('.softmax tbody tr').length > 0")
    number = lambda text: float(text.replace("−", "-"))
    rows = firefox.evaluate("[...document.querySelectorAll('.softmax tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")
    return [row[0] for row in rows], [number(row[1]) for row in rows], [number(row[4]) for row in rows]


def asked_elsewhere(firefox, *own):
    return [url for url in firefox.requests if not url.startswith(("file:", "blob:", "data:", "about:", *own))]


def test_the_export_s_first_figures_are_look_s(firefox, export, reference):
    firefox.open(f"{export}#lang=en")
    firefox.wait("document.querySelectorAll('.arcs path').length >= 3")
    firefox.wait("document.querySelector('footer').innerText.includes('WebAssembly in this browser')")  # the first figures stand before
    assert firefox.evaluate("document.querySelector('.sentence input, .sentence textarea').value") == sentence
    firefox.evaluate("[...document.querySelectorAll('figure button')].find((each) => each.innerText === 'As a table').click()")
    firefox.wait("document.querySelectorAll('figure table tbody tr').length === 3")
    rows = firefox.evaluate("[...document.querySelectorAll('figure table tbody tr')].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")
    for row, link in zip(rows, reference.ask_links({"pairs": [(1, 2), (2, 3), (3, 6)]})["links"]):
        best = max((head for layer in link["heads"] for head in layer), key=lambda head: head["weight"] - (head["offset_mean"] or 0))
        assert row[2:] == [f"{best['weight']:.3f}", f"{best['offset_mean']:.3f}", f"{link['mean']:.3f}"]
    assert asked_elsewhere(firefox) == []


def test_the_export_s_pipeline_is_that_of_float64(firefox, export, reference):
    firefox.open(f"{export}#lang=en&v=pipeline&head=2.8&part=softmax")
    tokens, scores, weights = softmax(firefox)
    expected, shares = reference.attention(2, 8)
    assert tokens == reference.tokens
    assert scores == pytest.approx(expected[2], abs=6e-4)
    assert weights == pytest.approx(shares[2], abs=6e-5)
    assert asked_elsewhere(firefox) == []


def test_the_export_s_map_is_drawn_and_says_its_weights(firefox, export, reference):
    firefox.open(f"{export}#lang=en&v=heads&tour=0&head=2.8&h.show=one&h.one=map")
    firefox.wait("document.querySelector('.map-canvas') !== null")
    colours = """new Set(new Uint32Array(((canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer)(
        document.querySelector('.map-canvas')))).size"""
    firefox.wait(f"{colours} > 10")
    weights = reference.attention(2, 8)[1]
    said = "document.querySelector('.map-said output').innerText"
    figure = lambda unlike="": float(firefox.wait(f"/^[0-9.]+$/.test({said}) && {said} !== '{unlike}' && {said}"))
    assert figure() == pytest.approx(weights[2, 3], abs=6e-5)
    before = firefox.evaluate(said)
    firefox.evaluate("document.querySelector('.map-canvas').focus()")
    firefox.press("ArrowRight")
    assert figure(unlike=before) == pytest.approx(weights[2, 4], abs=6e-5)
    assert asked_elsewhere(firefox) == []


def test_an_own_sentence_on_the_site(firefox, site, reference):
    firefox.open(f"{site}#lang=en&v=pipeline&head=2.8&part=softmax")
    assert softmax(firefox)[0] == reference.tokens
    assert not [url for url in asked_elsewhere(firefox) if "/model/" in url]
    firefox.evaluate("((field) => (field.focus(), field.select()))(document.querySelector('.sentence input, .sentence textarea'))")
    firefox.press(*OWN, "Enter")
    own = reference.opened[reference.ask_encode({"text": OWN, "values": True})["trace"]]
    firefox.wait(f"document.querySelectorAll('.softmax tbody tr').length === {len(own.tokens)} && document.body.innerText.includes('slept')", 60)
    tokens, _, weights = softmax(firefox)
    assert tokens == own.tokens
    # The site's weights are BF16.
    assert weights == pytest.approx(own.attention(2, 8)[1][2], abs=5e-3)
    assert asked_elsewhere(firefox, site) == []
