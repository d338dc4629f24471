"""A static site: the model comes at the first edit, from the same host, and the page cuts the sentence itself."""
import pytest
from playwright.sync_api import expect

from conftest import HEARD, exported, heard_map, model, static
from test_file import number, pytestmark  # noqa: F401

OWN = "Don't the naïve foxes jump over lazy dogs?"
FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("site") / "of", "--site-dtype", "f32")


@pytest.fixture(scope="module")
def site(folder):
    """The folder behind a plain static server; its address."""
    with static(folder) as address:
        yield address


def test_the_tour_is_there_in_a_megabyte_and_a_half(opener, folder, site, reference):
    """All of its steps, without the model; the projections come at the step that shows them."""
    page = opener.watch(opener.context().new_page())
    page.goto(f"{site}#step=3")
    page.locator(".stage h2").wait_for(timeout=30_000)
    asked = lambda: [url.removeprefix(site).split("#")[0] for url in opener.requests if not url.startswith("blob:")]
    assert asked() == [""]
    assert (folder / "index.html").stat().st_size < 1_500_000
    page.goto(f"{site}#v=pipeline&part=x&head=2.8")
    strip = page.get_by_role("img", name="x [10, 384]", exact=True)
    strip.wait_for(timeout=60_000)
    strip.focus()
    expected = reference.ask_pipeline({"layer": 2, "head": 8, "model": 1})[0]["x"]
    assert number(page.locator(".tip b").inner_text()) == pytest.approx(expected[0, 0], abs=6e-5)
    assert sorted(set(asked())) == ["", "answers/pipeline-2.8.bin"]


def test_the_tour_waits_for_no_model_and_an_own_sentence_brings_it(opener, site, reference):
    page = opener.watch(opener.context().new_page())
    page.goto(f"{site}#v=pipeline&part=softmax")
    page.locator(".softmax").wait_for(timeout=30_000)
    asked = lambda: [url for url in opener.requests if not url.startswith("blob:")]
    assert not [url for url in asked() if "/model/" in url]
    field = page.get_by_role("textbox", name="Sentence")
    field.fill(OWN)
    field.press("Enter")
    expect(page.get_by_role("spinbutton", name="query word")).to_have_text("'", timeout=60_000)
    number_of = reference.ask_encode({"text": OWN, "values": True})["trace"]
    own = reference.opened[number_of]
    rows = page.locator(".softmax tbody tr")
    expect(rows).to_have_count(len(own.tokens))
    assert [text.strip() for text in rows.locator("th").all_inner_texts()] == own.tokens
    shown = [number(rows.nth(i).locator("td").nth(3).inner_text()) for i in range(rows.count())]
    assert shown == pytest.approx(own.attention(2, 8)[1][2], abs=6e-5)
    page.locator(".flow-part").first.click()
    expect(page.get_by_label("x [", exact=False).first).to_be_visible()
    assert {url.removeprefix(site).split("#")[0] for url in asked()} == {"", "answers/pipeline-2.8.bin", *(f"model/{name}" for name in FILES)}


def test_the_model_can_be_fetched_for_the_sentence_that_is_open(opener, site, reference):
    page = opener.watch(opener.context().new_page())
    page.goto(f"{site}#v=pipeline&part=x&head=2.7")
    page.get_by_role("button", name="Fetch all-MiniLM-L6-v2 (91 MB) to see this").click()
    strip = page.get_by_role("img", name="x [10, 384]", exact=True)
    strip.wait_for(timeout=60_000)
    strip.focus()
    expected = reference.ask_pipeline({"layer": 2, "head": 7, "model": 1})[0]["x"]
    assert number(page.locator(".tip b").inner_text()) == pytest.approx(expected[0, 0], abs=6e-5)


def test_a_head_is_switched_off_in_the_browser(opener, site, reference):
    page = opener.watch(opener.context().new_page())
    page.goto(f"{site}#v=heads&tour=0&h.show=one&h.one=off&head=2.8")
    wanted = reference.likeness(reference.metadata["text"], [[2, 8, 0]])
    # One head alone needs no model: the page carries that.
    expect(page.locator(".facts dd").first).to_have_text(f"{wanted:.4f}", timeout=60_000)
    assert not [url for url in opener.requests if "/model/" in url]
    page.get_by_role("slider", name="Scale").focus()
    page.keyboard.press("ArrowRight")
    wanted = reference.likeness(reference.metadata["text"], [[2, 8, 0.1]])
    expect(page.locator(".facts dd")).to_have_count(1, timeout=60_000)
    expect(page.locator(".facts dd")).to_have_text(f"{wanted:.4f}", timeout=60_000)


def test_a_model_that_does_not_come_is_said_and_the_next_edit_tries_again(opener, site):
    context = opener.context()
    context.route("**/model.safetensors", lambda route: route.fulfill(status=404))
    page = opener.watch(context.new_page())
    page.goto(f"{site}#v=pipeline")
    page.locator(".flow").wait_for(timeout=30_000)
    field = page.get_by_role("textbox", name="Sentence")
    field.fill("A dog barked.")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This did not work: model/model.safetensors: 404", timeout=30_000)
    expect(page.locator(".flow [role=status]")).to_contain_text("black → cat")
    context.unroute("**/model.safetensors")
    field.press("Enter")
    expect(page.get_by_role("spinbutton", name="query word")).to_have_text("dog", timeout=60_000)
    opener.complaints = [text for text in opener.complaints if "404" not in text]


@pytest.mark.parametrize("dtype, within, said", [("f32", 1e-6, 0), ("bf16", 5e-3, 1)])
def test_weights_of_an_own_sentence_are_those_of_look(opener, folder, reference, tmp_path, dtype, within, said):
    of = folder if dtype == "f32" else exported(tmp_path / "site")
    with static(of) as address:
        page = opener.watch(opener.context().new_page())
        page.add_init_script(HEARD)
        page.goto(f"{address}#v=heads&tour=0&h.show=one&h.one=map&head=2.8")
        page.get_by_role("contentinfo").get_by_text("WebAssembly in this browser").wait_for(timeout=60_000)
        expect(page.get_by_role("contentinfo").get_by_text("The model beside this page is BF16")).to_have_count(said)
        field = page.get_by_role("textbox", name="Sentence")
        field.fill(OWN)
        field.press("Enter")
        own = reference.opened[reference.ask_encode({"text": OWN, "values": True})["trace"]]
        shown = heard_map(page, tmp_path, 2, 8, len(own.tokens))
        off = abs(shown - own.attention(2, 8)[1]).max()
        assert off < within
        assert off > 1e-5 or dtype == "f32"  # BF16 is BF16
