"""What axe-core finds serious or critical in any view, of an exported file and of the program's server; and what is wider than the screen."""
import itertools
import subprocess

import pytest

from axe import serious, shown
from conftest import model, program, root, sentence, viewing

VIEWS = [*(f"step={step}&v={view}" for step, view in enumerate(["story"] * 5 + ["pipeline", "dimensions", "story", "story"])),
         *(f"v=pipeline&head=2.8&part={part}" for part in ("x", "qkv", "product", "softmax", "mix", "output")),
         "v=dimensions", "v=dimensions&h=7&kv=1",
         *(f"v=heads&h.all={name}" for name in ("grid", "scatter", "clusters", "mean", "rollout")),
         *(f"v=heads&h.show=one&head=2.8&h.one={name}" for name in ("map", "links", "why", "distance", "compare", "off")),
         "v=heads&h.show=one&head=2.8&h.one=compare&h.other=1.8",
         "v=corpus", "v=heads&tour=0", "v=pipeline&embed=1"]
SCANNED = [f"v=corpus&head=1.8&c.part={part}" for part in ("heads", "distribution", "examples", "tokens", "components", "distances", "relations")]

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}
# Any two of screen, language and theme meet.
DRESS = {"desktop-en-light": (DESKTOP, "en", "light"), "desktop-de-dark": (DESKTOP, "de", "dark"),
         "phone-en-dark": (PHONE, "en", "dark"), "phone-de-light": (PHONE, "de", "light")}


@pytest.fixture(scope="module")
def server():
    with viewing(sentence, "--model", model, "--treebank", root / "examples/tour.conllu") as link:
        yield link


@pytest.fixture(scope="module")
def scan_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    texts = folder / "texts.txt"
    texts.write_text("".join(f"The {kind} {animal} sat on the {thing}.\n" for kind, animal, thing in itertools.product(
        ("black", "old", "small"), ("cat", "dog", "bird"), ("mat", "roof", "very large table"))))
    subprocess.run([program, "scan", texts, "--model", model, "-o", folder / "texts.scan"], check=True, capture_output=True)
    with viewing(folder / "texts.scan", "--model", model, "--treebank", root / "examples/tour.conllu") as link:
        yield link


def found(opener, address, views, dress):
    """By view, one page walked through all of them."""
    screen, language, theme = DRESS[dress]
    # Without motion: axe would meet colours on their way.
    page = opener.watch(opener.context(locale={"en": "en-GB", "de": "de-DE"}[language], color_scheme=theme, reduced_motion="reduce", **screen).new_page())
    page.goto(f"{address}#{views[0]}")
    wrong = {}
    for view in views:
        page.evaluate("(link) => { location.hash = link; }", view)
        page.wait_for_timeout(150)  # links are written a tenth of a second after
        shown(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        here = serious(page) + ([f"{wide} pixels wide"] if wide > screen["width"] else [])
        tables = page.locator("figcaption button:visible")
        for i in range(tables.count()):
            tables.nth(i).click()
        if tables.count():
            here += serious(page)
        if here:
            wrong[view] = here
    return wrong


@pytest.mark.parametrize("dress", DRESS)
def test_the_server_s_page(opener, server, dress):
    assert found(opener, server, VIEWS, dress) == {}


@pytest.mark.parametrize("dress", DRESS)
def test_an_exported_file(opener, export, dress):
    assert found(opener, export, VIEWS, dress) == {}


@pytest.mark.parametrize("dress", DRESS)
def test_a_scan(opener, scan_server, dress):
    assert found(opener, scan_server, SCANNED, dress) == {}


def test_axe_would_find_something(page):
    page.evaluate("document.querySelector('.settings select').removeAttribute('aria-label')")
    assert [found[0] for found in serious(page)] == ["select-name"]
