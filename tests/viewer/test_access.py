"""What axe-core cannot see: width, the keyboard, motion, the pointer."""
import numpy as np
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


# What a hand can press: all that takes the focus, and whatever shows the pointer of something to press. A control of a group in
# which arrow keys walk has no place of its own in the order of Tab; one of its group has.
CONTROLS = """() => {
    const seen = (each) => each.checkVisibility({ visibilityProperty: true }) && !each.disabled && each.getClientRects().length > 0;
    const focusable = 'button, a[href], input, select, textarea, summary, [tabindex]';
    const pointed = [...document.querySelectorAll('body *')].filter((each) =>
        getComputedStyle(each).cursor === 'pointer' && getComputedStyle(each.parentElement).cursor !== 'pointer');
    const controls = new Set([...document.querySelectorAll(focusable), ...pointed].filter(seen));
    const missed = [...controls].filter((each) => {
        if (each.matches('label') || each.closest('label')) each = (each.closest('label').control ?? each);
        if (each.dataset.reached || each.closest('[data-reached]')) return false;
        if (each.closest('[aria-hidden=true]')) return false;  // a hand's short way to what a control beside it does
        if (each.id === 'stage') return false;  // takes the focus from the tabs, and is no control
        const group = each.closest('[role=tablist], [role=radiogroup], [role=listbox], [role=grid], [role=toolbar], [role=group], fieldset, table, svg, ol, ul');
        return !(each.tabIndex < 0 && group?.querySelector('[data-reached]'));
    });
    return missed.map((each) => each.outerHTML.slice(0, 160));
}"""


def missed_by_tab(page):
    for _ in range(600):
        page.keyboard.press("Tab")
        # Behind the last control the browser's own bar has the focus.
        if page.evaluate("""() => {
            const at = document.activeElement;
            if (at === document.body) return document.querySelector('[data-reached]') !== null;
            const before = at.dataset.reached;
            at.dataset.reached = '1';
            return before !== undefined;
        }"""):
            break
    assert page.evaluate("document.querySelectorAll('[data-reached]').length") > 10
    return page.evaluate(CONTROLS)


@pytest.mark.parametrize("link", [*LINKS, "v=heads&h.show=one&h.one=map", "v=heads&h.show=one&h.one=links", "v=heads&h.show=scatter"])
def test_tab_reaches_every_control(opener, reference, link):
    page = opener.served(reference.answer, link=f"#{link}")
    shown(page)
    assert missed_by_tab(page) == []


def test_a_control_without_the_keyboard_is_found(opener, reference):
    page = opener.served(reference.answer, link="#v=dimensions")
    shown(page)
    page.evaluate("""() => {
        const main = document.querySelector('main');
        main.insertAdjacentHTML('beforeend', '<button tabindex=-1>one</button><div>press</div>');
        main.lastElementChild.style.cursor = 'pointer';
    }""")
    assert [each[:7] for each in missed_by_tab(page)] == ["<button", "<div st"]


def seen_by(rgb, lacks):
    """A colour as eyes see it that lack a kind of cone: Vienot, Brettel and Mollon 1999, in linear light."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = {"none": np.eye(3), "red": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
              "green": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]}[lacks]
    x, y, z = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ (np.array(matrix) @ linear) / [0.9505, 1, 1.089]
    f = [np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_query_key_and_value_differ_for_every_eye(opener, reference, theme):
    page = opener.served(reference.answer, color_scheme=theme)
    style = page.evaluate("Object.fromEntries(['q', 'k', 'v'].map((name) => [name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))")
    if theme == "light":
        assert style == {"q": "#0072b2", "k": "#d55e00", "v": "#009e73"}  # Okabe and Ito
    rgb = {name: np.array([int(value[i:i + 2], 16) for i in (1, 3, 5)]) / 255 for name, value in style.items()}
    for lacks in ("none", "red", "green"):
        for a, b in ("qk", "qv", "kv"):
            assert np.linalg.norm(seen_by(rgb[a], lacks) - seen_by(rgb[b], lacks)) > 20, (lacks, a, b)  # 2.3 can just be told apart


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
