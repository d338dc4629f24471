"""What axe-core finds serious or critical in any view, and what it cannot see: width, the keyboard, motion."""
import re

import pytest
from playwright.sync_api import expect

from conftest import root

AXE = (root / "viewer/node_modules/axe-core/axe.min.js").read_text()
LINKS = ["v=story", "v=dimensions", "v=dimensions&h=7&kv=1", "v=heads", "v=corpus",
         *(f"v=pipeline&part={part}" for part in ("x", "qkv", "product", "softmax", "mix", "output"))]


def shown(page):
    page.get_by_role("contentinfo").get_by_text("manyheads").wait_for()
    page.locator(".stage h2:visible").first.wait_for()
    expect(page.get_by_text(re.compile("^(Opening|Wird geöffnet) …$"))).to_have_count(0)


def serious(page):
    page.evaluate(AXE)
    violations = page.evaluate("axe.run().then(({violations}) => violations)")
    return [(each["id"], each["nodes"][0]["html"][:160], each["nodes"][0]["failureSummary"][:300])
            for each in violations if each["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("link", LINKS)
def test_axe_finds_nothing_serious(opener, reference, link):
    page = opener.served(reference.answer, link=f"#{link}")
    shown(page)
    assert serious(page) == []


@pytest.mark.parametrize("link", ["v=story", "v=pipeline&part=softmax", "v=dimensions&h=7", "v=heads"])
@pytest.mark.parametrize("how", [{"color_scheme": "dark"}, {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}, {"locale": "de-DE"}],
                         ids=["dark", "phone", "German"])
def test_axe_finds_nothing_serious_in_other_dress(opener, reference, link, how):
    page = opener.served(reference.answer, link=f"#{link}", **how)
    shown(page)
    assert serious(page) == []


def test_axe_would_find_something(page):
    page.evaluate("document.querySelector('.settings select').removeAttribute('aria-label')")
    assert [found[0] for found in serious(page)] == ["select-name"]


@pytest.mark.parametrize("link", LINKS)
def test_nothing_is_wider_than_the_screen(opener, reference, link):
    page = opener.served(reference.answer, link=f"#{link}", width=360, height=740, has_touch=True, is_mobile=True)
    shown(page)
    for width, height in ((360, 740), (768, 1024), (1280, 800), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_view_is_reached_and_used_by_keyboard_alone(page):
    """Tab comes to the stage's first control in each view, and focus is seen."""
    for key in "12345":
        page.keyboard.press(key)
        page.get_by_role("tab", selected=True).focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('main') !== null"):
                break
        else:
            assert key == "5"  # a text alone
            continue
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_reader_who_wants_less_motion_gets_none(opener, reference):
    page = opener.served(reference.answer, reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--motion').trim()") == "0ms"


def test_text_can_be_selected(page):
    page.locator(".stage h2").first.dblclick(position={"x": 12, "y": 12})
    assert page.evaluate("getSelection().toString().trim()") != ""


def test_touch_targets_are_large_enough_for_a_finger(opener, reference):
    page = opener.served(reference.answer, link="#v=dimensions", width=360, height=740, has_touch=True, is_mobile=True)
    shown(page)
    small = page.evaluate("""[...document.querySelectorAll('button:not(.plain), select, input')]
        .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 32).map((each) => each.outerHTML.slice(0, 120))""")
    assert small == []
