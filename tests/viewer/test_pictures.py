"""The tour as it looks, compared with the pictures in pictures/: nine steps on a desktop and on a phone.

The pictures are kept in steps of STEP levels a channel, so that they have few colours: half a step off at most. A pixel differs where a
channel is LEVELS off, which leaves the drawing as much again and more. One changed digit of a figure makes at least twice PIXELS differ
(asked below); PIXELS are let pass.

    scripts/test-viewer -k test_pictures --renew-pictures     makes them again; look at them before you commit
"""
import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from axe import shown
from conftest import root

FONT = pathlib.Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
pytestmark = pytest.mark.skipif(not FONT.exists(), reason="no DejaVu Sans (Debian: apt-get install fonts-dejavu-core)")

STEP, LEVELS, PIXELS = 17, 24, 10
SCREENS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}}
PICTURES = pathlib.Path(__file__).parent / "pictures"
VIEWS = {5: "pipeline", 6: "dimensions"}
# One font whatever the machine has; the foot says the version.
STYLE = "*, *::before, *::after { font-family: 'DejaVu Sans' !important; } .footer { opacity: 0; }"


def differing(one, other, levels=LEVELS):
    """How many pixels; a size that differs is all of them."""
    if one.size != other.size:
        return max(one.size[0] * one.size[1], other.size[0] * other.size[1])
    one, other = (np.asarray(image.convert("RGB"), np.int16) for image in (one, other))
    return int((np.abs(one - other).max(-1) > levels).sum())


@pytest.fixture
def step_of(opener, export):
    def open_step(step, screen):
        context = opener.context(color_scheme="light", reduced_motion="reduce", bypass_csp=True, **SCREENS[screen])
        page = opener.watch(context.new_page())
        page.goto(f"{export}#step={step}&v={VIEWS.get(step, 'story')}")
        page.add_style_tag(content=STYLE)
        shown(page)
        return page
    return open_step


def picture(page, step):
    hidden = []  # measured times
    if step == 7:
        slider = page.get_by_role("slider", name="num_heads")
        slider.focus()
        page.keyboard.press("End")
        rows = page.locator(".same-work tbody tr")
        expect(rows).to_have_count(5)
        expect(page.get_by_text("measuring")).to_have_count(0, timeout=60_000)
        slider.blur()
        hidden = [page.locator(".same-work td:last-child"), page.locator(".tour .keep"), page.get_by_text(re.compile("^Measured now"))]
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return Image.open(io.BytesIO(page.screenshot(mask=hidden, animations="disabled")))


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("step", range(9))
def test_the_tour_looks_as_it_did(step_of, step, screen, request):
    now = picture(step_of(step, screen), step)
    kept = PICTURES / f"{screen}-{step + 1}.png"
    if request.config.getoption("--renew-pictures"):
        PICTURES.mkdir(exist_ok=True)
        coarse = now.convert("RGB").point(lambda level: round(level / STEP) * STEP)
        small = coarse.quantize(256)
        assert differing(small, coarse, levels=0) == 0
        small.save(kept, optimize=True)
    wrong = differing(Image.open(kept), now)
    if wrong > PIXELS:
        seen = root / "build/pictures" / kept.name
        seen.parent.mkdir(parents=True, exist_ok=True)
        now.save(seen)
        pytest.fail(f"{wrong} pixels of {kept.name} differ: see {seen}")


@pytest.mark.parametrize("screen", SCREENS)
def test_one_changed_digit_is_seen(step_of, screen):
    page = step_of(1, screen)
    before = picture(page, 1)
    assert differing(before, picture(page, 1)) == 0
    figure = page.locator(".row-bar b").first
    figure.evaluate("(of) => { const [first] = of.innerText.slice(-1); of.innerText = of.innerText.slice(0, -1) + (first === '1' ? '7' : '1'); }")
    assert differing(before, picture(page, 1)) >= 2 * PIXELS


def test_the_pictures_are_small():
    assert sum(each.stat().st_size for each in PICTURES.glob("*.png")) < 1_500_000
