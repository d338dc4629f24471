"""A sentence of the reader's own: every view follows it."""
import re

from playwright.sync_api import expect

OWN = "The quick brown fox jumps over the lazy dog."


def type_sentence(page, text):
    field = page.get_by_role("textbox", name="Sentence")
    field.fill(text)
    field.press("Enter")


def test_the_views_follow_the_sentence(page, reference):
    page.keyboard.press("2")
    page.locator(".flow").wait_for()
    type_sentence(page, OWN)
    expect(page.get_by_role("spinbutton", name="query word")).to_have_text("quick")
    own = reference.opened[max(reference.opened)]
    weights = own.attention(2, 8)[1]
    expect(page.locator(".flow [role=status]")).to_have_text(f"quick → brown: {weights[2, 3]:.4f}")
    expect(page).to_have_url(re.compile("text=The\\+quick\\+brown"))


def test_a_link_with_a_sentence_opens_it(opener, reference):
    page = opener.served(reference.answer, link="#v=pipeline&text=A+dog+barked.")
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value("A dog barked.")
    expect(page.get_by_role("spinbutton", name="query word")).to_have_text("dog")


def test_an_example_is_a_sentence_too(page):
    page.get_by_label("Examples").select_option("The dog that chased the cat was tired.")
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value("The dog that chased the cat was tired.")


def test_what_the_model_refuses_is_said_and_nothing_is_lost(opener, reference):
    def answer(question):
        if question["ask"] == "encode":
            raise ValueError("encode: 802 tokens, and the model takes 512")
        return reference.answer(question)

    page = opener.served(answer, link="#v=pipeline")
    page.locator(".flow").wait_for()
    type_sentence(page, "word " * 800)
    expect(page.get_by_role("alert")).to_have_text("This did not work: encode: 802 tokens, and the model takes 512")
    expect(page.locator(".flow [role=status]")).to_contain_text("black → cat")
    opener.complaints = [text for text in opener.complaints if "400" not in text]


def test_german_on_the_english_model_is_said_in_one_sentence(page):
    type_sentence(page, "Die schwarze Katze saß auf der Matte.")
    expect(page.get_by_text("4 of 8 words fall into pieces (matt ##e): this model hardly knows the language of the text.")).to_be_visible()
    type_sentence(page, OWN)
    expect(page.get_by_text("fall into pieces")).to_have_count(0)


def test_of_two_sentences_the_later_one_stays(opener, reference):
    page = opener.served(reference.answer)
    page.get_by_text("black → cat").first.wait_for()
    page.evaluate("""window.fetch = ((ask) => (...given) => String(given[1]?.body).includes('slow')
        ? new Promise((done) => setTimeout(() => done(ask(...given)), 1500)) : ask(...given))(window.fetch)""")
    type_sentence(page, "A slow one.")
    type_sentence(page, "A quick one.")
    expect(page).to_have_url(re.compile("quick"))
    page.wait_for_timeout(2000)
    expect(page.get_by_role("textbox", name="Sentence")).to_have_value("A quick one.")
