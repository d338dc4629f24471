"""What axe-core cannot see: width, the keyboard, motion, the pointer."""
import pytest

from axe import shown

LINKS = ["v=story", "v=dimensions", "v=dimensions&h=7&kv=1", "v=heads", "v=corpus",
         *(f"v=pipeline&part={part}" for part in ("x", "qkv", "product", "softmax", "mix", "output"))]


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


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_pressed_button_keeps_its_colours_under_the_pointer(opener, reference, theme):
    page = opener.served(reference.answer, link="#v=dimensions", color_scheme=theme, reduced_motion="reduce")
    shown(page)
    pressed = page.locator('.chip[aria-pressed="true"]').first
    colours = "button => [getComputedStyle(button).color, getComputedStyle(button).backgroundColor]"
    before = pressed.evaluate(colours)
    pressed.hover()
    assert pressed.evaluate(colours) == before


def test_text_can_be_selected(page):
    page.locator(".stage h2").first.dblclick(position={"x": 12, "y": 12})
    assert page.evaluate("getSelection().toString().trim()") != ""


def test_touch_targets_are_large_enough_for_a_finger(opener, reference):
    page = opener.served(reference.answer, link="#v=dimensions", width=360, height=740, has_touch=True, is_mobile=True)
    shown(page)
    small = page.evaluate("""[...document.querySelectorAll('button:not(.plain), select, input')]
        .filter((each) => each.offsetParent && each.getBoundingClientRect().height < 32).map((each) => each.outerHTML.slice(0, 120))""")
    assert small == []
