"""Header, views, language, theme, link: the frame around every view."""
import re

import pytest
from playwright.sync_api import expect

VIEWS = {"1": "Story", "2": "Pipeline", "3": "Dimensions", "4": "Heads", "5": "Corpus"}


def test_keys_choose_the_view(page):
    for key, name in VIEWS.items():
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(page).to_have_url(re.compile(r"#?" if key == "1" else f"v={name.lower()}"))


def test_a_digit_typed_into_the_sentence_is_a_digit(page):
    page.get_by_role("textbox", name="Sentence").click()
    page.keyboard.press("End")
    page.keyboard.type("3")
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value("The black cat sat on the mat.3")
    expect(page.get_by_role("tab", name="Story")).to_have_attribute("aria-selected", "true")


def test_arrow_keys_walk_through_the_tabs(page):
    page.get_by_role("tab", name="Story").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Corpus")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Pipeline")).to_have_attribute("aria-selected", "true")


def test_language_changes_every_word_and_the_document(page):
    page.get_by_label("Language").select_option("de")
    expect(page.get_by_role("tab", name="Köpfe")).to_be_visible()
    expect(page.get_by_role("tab", name="Heads")).to_have_count(0)
    assert page.evaluate("document.documentElement.lang") == "de"
    expect(page).to_have_url(re.compile("lang=de"))


def test_a_german_browser_reads_german(opener, reference):
    page = opener.served(reference.answer, locale="de-DE")
    expect(page.get_by_role("tab", name="Geschichte")).to_be_visible()


def test_the_reader_s_theme_and_the_button(opener, reference):
    page = opener.served(reference.answer, color_scheme="dark")
    document = page.locator("html")
    expect(document).to_have_css("background-color", "rgb(23, 24, 27)")
    page.get_by_role("button", name="Light").click()
    expect(document).to_have_css("background-color", "rgb(253, 253, 251)")
    expect(page).to_have_url(re.compile("theme=light"))


def test_a_link_restores_the_view(opener, reference):
    page = opener.served(reference.answer, link="#v=heads&lang=de&theme=dark&head=5.11&tour=0")
    expect(page.get_by_role("tab", name="Köpfe")).to_have_attribute("aria-selected", "true")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    expect(page.get_by_role("complementary", name="Rundgang").get_by_role("button")).to_have_attribute("aria-expanded", "false")


def test_copy_link_copies_what_restores_the_view(opener, reference):
    page = opener.served(reference.answer, permissions=["clipboard-read", "clipboard-write"])
    page.keyboard.press("3")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("tab", name="Dimensions")).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("link", [
    "#v=<script>alert(1)</script>",
    "#v=heads&head=99.99&q=123456789&k=-7",
    "#v=__proto__&lang=constructor&theme=%00&step=1e9",
    "#%%%&&&===&v",
    "#text=" + "a" * 70000,
    "#head=1.2.3&embed=yes&tour=" + "9" * 400,
])
def test_a_hostile_link_changes_nothing_and_runs_nothing(opener, reference, link):
    dialogs = []
    page = opener.served(reference.answer, link=link)
    page.on("dialog", lambda dialog: dialogs.append(dialog))
    expect(page.get_by_text("manyheads 0")).to_be_visible()
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value("The black cat sat on the mat.")
    assert dialogs == []


def test_markup_in_a_text_is_text(opener, reference):
    evil = "<img src=x onerror=alert(1)>"

    def answer(question):
        kind, body = reference.answer(question)
        return kind, body.replace(b'"cat"', b'"%s"' % evil.encode()) if question["ask"] == "trace" else body

    page = opener.served(answer)
    page.keyboard.press("2")
    expect(page.get_by_text(evil).first).to_be_visible()
    assert page.locator("img").count() == 0


def test_embed_shows_one_view_alone(opener, reference):
    page = opener.served(reference.answer, link="#v=heads&embed=1")
    expect(page.get_by_role("heading", name="All heads of this text")).to_be_visible()
    expect(page.get_by_role("tablist", name="Views")).to_have_count(0)
    expect(page.get_by_role("banner")).to_have_count(0)
    expect(page.get_by_role("contentinfo")).to_contain_text("Every figure was computed by")


def test_the_foot_says_who_computed_and_to_what_error(page):
    expect(page.get_by_role("contentinfo")).to_contain_text("the program on this machine (float64), with an error of at most 1e-5")


def test_without_data_the_page_says_so(opener, tmp_path):
    page = opener.file(tmp_path, {})
    expect(page.get_by_text("This page holds no data.")).to_be_visible()
    assert [url for url in opener.requests if not url.startswith("blob:")] == [page.url]


def test_what_the_engine_refuses_is_one_sentence(opener, reference):
    def answer(question):
        if question["ask"] == "heads":
            raise ValueError("heads: no such trace")
        return reference.answer(question)

    page = opener.served(answer)
    page.keyboard.press("4")
    expect(page.get_by_role("alert")).to_have_text("This did not work: heads: no such trace")
    opener.complaints = [text for text in opener.complaints if "400" not in text]


def test_on_a_phone_the_tour_is_a_sheet_and_nothing_is_wider_than_the_screen(opener, reference):
    page = opener.served(reference.answer, width=360, height=740, has_touch=True, is_mobile=True)
    tour = page.get_by_role("complementary", name="Tour")
    expect(tour).to_be_visible()
    box = tour.bounding_box()
    assert box["x"] == 0 and box["width"] == 360 and abs(box["y"] + box["height"] - 740) < 1
    for key in VIEWS:
        page.keyboard.press(key)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
