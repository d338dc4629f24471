"""Each step of the tour, done as a person would; what is seen equals what the reference counts."""
import copy
import json
import re

import numpy as np
import pytest
from playwright.sync_api import expect

import tour_reference
from conftest import root

STEPS = ["Three things at once", "One row sums to one", "A sum forgets roles", "Who reads our links?", "Grammar, or only the next word?",
         "Inside one head", "Cut d_model", "The same work", "Check yourself"]
VIEWS = {5: "pipeline", 6: "dimensions"}
PAIRS = [(1, 2), (2, 3), (3, 6)]  # words of the chapter's sentence


def link_of(step):
    return f"#step={step}&v={VIEWS.get(step, 'story')}"


def tour(page):
    return page.get_by_role("complementary", name=re.compile("^(Tour|Rundgang)$"))


def expect_done(page, done=True):
    mark = tour(page).get_by_text(re.compile("^(Done|Geschafft)[.]$"))
    expect(mark).to_have_count(1 if done else 0)


def at_step(opener, reference, step, answer=None, **options):
    # Counted before the page waits for it.
    _ = step >= 3 and reference.relations, step >= 7 and reference.ablations
    page = opener.served(answer or reference.answer, link=link_of(step), **options)
    page.locator(".stage h2").wait_for()
    return page


def links(reference):
    return reference.ask_links({"pairs": PAIRS})["links"]


def readers(link):
    """Heads by weight over what they give at that distance."""
    each = [(head["weight"] - (head["offset_mean"] or 0), f"{layer}.{i}", head)
            for layer, row in enumerate(link["heads"]) for i, head in enumerate(row)]
    return sorted(each, key=lambda one: -one[0])


def row_of(reference, head, word):
    layer, index = map(int, head.split("."))
    return reference.attention(layer, index)[1][word + 1]


def test_three_arcs_are_pressed(opener, reference):
    page = at_step(opener, reference, 0)
    expect_done(page, False)
    for name in ("black → cat", "cat → sat", "sat → mat"):
        expect_done(page, False)
        page.get_by_role("button", name=re.compile(f"^{name}")).click()
        expect(page.locator(".links-said")).to_contain_text(name)
    expect_done(page)
    expect(tour(page).get_by_text("One word needs several others at once.")).to_be_visible()
    best = readers(links(reference)[2])[0]
    expect(page.get_by_role("complementary", name="Selected")).to_contain_text(f"{best[2]['weight']:.3f}")


def test_a_row_sums_to_one_whatever_is_pulled(opener, reference):
    page = at_step(opener, reference, 1)
    head = readers(links(reference)[1])[0][1]
    weights = row_of(reference, head, 2)
    bars = page.locator(".row-bar b")
    expect(page.get_by_text(f"What “cat” gives in head {head}")).to_be_visible()
    assert bars.all_inner_texts() == [f"{weight:.3f}" for weight in weights]

    def pulled(weights, at, to):
        rest = weights * (1 - to) / (1 - weights[at])
        rest[at] = to
        return rest

    slider = page.get_by_role("slider", name="Weight of sat")
    slider.focus()
    page.keyboard.press("End")  # all of it
    expect(bars.nth(4)).to_have_text("1.000")
    expect(page.locator(".row-sum b")).to_have_text("1.000")
    page.get_by_role("button", name="As computed").click()
    assert bars.all_inner_texts() == [f"{weight:.3f}" for weight in weights]
    expect_done(page, False)
    page.get_by_role("button", name="Give 0.9 to “black”").click()
    first = pulled(weights, 3 - 1, 0.9)
    assert bars.all_inner_texts() == [f"{weight:.3f}" for weight in first]
    page.get_by_role("button", name="Give 0.9 to “sat”").click()
    second = pulled(first, 4, 0.9)
    assert bars.all_inner_texts() == [f"{weight:.3f}" for weight in second]
    expect(page.locator(".said")).to_have_text(f"“sat” has 0.90 now, and “black” falls from 0.90 to {second[2]:.2f}.")
    expect(page.locator(".row-sum b")).to_have_text("1.000")
    expect_done(page)


def test_a_swap_is_seen_by_two_heads_alone(opener, reference):
    page = at_step(opener, reference, 2)
    first, second = links(reference)[:2]
    a = readers(first)[0][1]
    layer = a.split(".")[0]
    b = next(name for _, name, _ in readers(second) if name.split(".")[0] == layer and name != a)
    value = lambda head, token: reference.of("v", *map(int, head.split(".")))[token]
    black, sat = 2, 4
    change = max(np.abs(value(a, black) - value(a, sat)).max(), np.abs(value(b, sat) - value(b, black)).max())
    figures = page.locator(".change b")
    expect(figures).to_have_text(["0.000", "0.000"])
    page.get_by_role("button", name="Swap “black” and “sat”").click()
    expect(figures).to_have_text(["0.000", f"{change:.3f}"])
    assert change > 0.1
    expect(page.get_by_text(f"v(sat) of {a} | v(black) of {b}")).to_be_visible()
    expect_done(page)
    page.get_by_role("button", name="As a table").click()
    for place, head, before, after in ((3, a, black, sat), (32 + 3, b, sat, black)):
        cells = page.locator("table tbody tr").nth(32 + place).locator("td").all_inner_texts()
        assert [cell.replace("−", "-") for cell in cells] == [str(place), f"{value(head, before)[3]:.4f}", f"{value(head, after)[3]:.4f}"]


def test_the_grid_names_who_reads_a_link(opener, reference):
    page = at_step(opener, reference, 3)
    all_links = links(reference)
    for name, link in zip(("black → cat", "cat → sat", "sat → mat"), all_links):
        expect(page.get_by_role("button", name=name)).to_contain_text(f"mean {link['mean']:.2f}")
    expect_done(page, False)
    page.get_by_role("button", name="sat → mat").click()
    expect_done(page)
    ranked = readers(all_links[2])
    _, best, head = ranked[0]
    expect(page.locator(".said")).to_contain_text(
        f"sat → mat: head {best} gives {head['weight']:.2f}, and {head['offset_mean']:.2f} to other words at that distance. "
        f"The mean of all heads is {all_links[2]['mean']:.2f}.")
    assert page.locator(".reader-grid .best").count() == 3
    page.get_by_role("button", name="As a table").click()
    rows = page.locator("table tbody tr")
    assert rows.count() == 72
    assert rows.nth(1).locator("th, td").all_inner_texts() == [ranked[1][1], f"{ranked[1][2]['weight']:.3f}", f"{ranked[1][2]['offset_mean']:.3f}"]
    first, second = (name for _, name, _ in readers(all_links[0])[:2])
    expect(tour(page).locator(".keep")).to_contain_text(f"black → cat gets most from the heads {first} and {second}")


def share(right, n, interval):
    return f"{right} of {n} ({round(100 * right / n)} %; 95 % interval {round(100 * interval[0])} to {round(100 * interval[1])} %)"


def test_grammar_is_told_from_the_next_word_by_counts(opener, reference):
    page = at_step(opener, reference, 4)
    counted = reference.relations
    relation = counted["relations"][0]
    reading = sorted((head for head in relation["heads"] if head["reads"]), key=lambda head: -head["interval"][0])
    assert reading, "the model has a head for black → cat"
    best = reading[0]
    verdicts = page.locator(".verdicts")
    expect(verdicts).to_contain_text(f"Head {best['layer']}.{best['head']}: {share(round(best['accuracy'] * 30), 30, best['interval'])}")
    expect(verdicts).to_contain_text(f"({relation['offset']:+d}: {round(100 * relation['offset_accuracy'])} %)")
    # 1.8, which gives black → cat most, is no better than the next word.
    (heavy,) = [head for head in relation["heads"] if (head["layer"], head["head"]) == (1, 8)]
    expect(verdicts).to_contain_text(f"Head 1.8, which gives the first link most weight in your sentence, finds the noun in "
                                     f"{share(round(heavy['accuracy'] * 30), 30, heavy['interval'])}")
    expect(verdicts).to_contain_text("we cannot tell it from “always the next word”")
    expect_done(page, False)
    page.get_by_role("combobox", name=re.compile("^Head")).select_option("1.8")
    expect_done(page)
    rows = page.locator(".dozen tbody tr")
    assert rows.count() == 12
    for i, text in enumerate(counted["texts"][:12]):
        found = ["✓ found" if yes else "other" for yes in ((1, 8) in text["hits"][0], text["links"][0]["offset"] == relation["offset"])]
        assert rows.nth(i).locator("th, td").all_inner_texts() == [text["text"], *found]
    page.get_by_role("button", name="sat → mat").click()
    for i, text in enumerate(counted["texts"][:12]):
        place = text["links"][2]
        assert rows.nth(i).locator("th b").all_inner_texts() == [place["head"], place["word"]]


@pytest.mark.parametrize("change, said", [
    (lambda relation: [head.update(reads=False) for head in relation["heads"]], "black → cat: no head lies clearly above the best distance"),
    (lambda relation: relation.update(scored_on=3), "black → cat: this model sees too few of these pairs"),
    (lambda relation: [head.update(interval=[0.5, 0.9]) for head in relation["heads"]], "So it does not just take the next word."),
    (lambda relation: [head.update(interval=[0.0, 0.1]) for head in relation["heads"]], "less often than “always the next word” does"),
])
def test_another_model_gets_the_sentence_that_is_true_of_it(opener, reference, change, said):
    counted = copy.deepcopy(reference.relations)
    change(counted["relations"][0])

    def answer(question):
        return ("application/json", json.dumps(counted).encode()) if question["ask"] == "relations" else reference.answer(question)

    page = at_step(opener, reference, 4, answer)
    expect(page.locator(".verdicts")).to_contain_text(said)


def test_without_a_model_an_own_sentence_is_refused_in_one_sentence(opener, reference):
    def answer(question):
        kind, body = reference.answer(question)
        return kind, json.dumps({**json.loads(body), "models": []}).encode() if question["ask"] == "about" else body

    page = at_step(opener, reference, 4, answer)
    expect(page.get_by_text("A sentence of your own needs the model, which is not here")).to_be_visible()


def test_a_sentence_of_the_reader_s_own_is_looked_at(opener, reference):
    page = at_step(opener, reference, 4)
    page.get_by_label("A sentence of your own").fill("Her small brown horse slept near the door.")
    page.locator(".own").get_by_role("button", name="Look").click()
    page.locator(".own-words").get_by_role("button", name="small").click()
    head = page.get_by_role("combobox", name=re.compile("^Head")).input_value()
    own = reference.opened[max(reference.opened)]
    layer, index = map(int, head.split("."))
    weights = tour_reference.word_weights((own.tensors, own.metadata))[layer * own.heads + index, 1]
    weights[1] = -1
    words = [word["text"] for word in own.look()["words"]]
    expect(page.locator(".own")).to_contain_text(
        f"In head {head}, “small” gives “{words[weights.argmax()]}” the most: {weights.max():.3f}.")
    expect_done(page)


def test_the_pipeline_is_followed(opener, reference):
    page = at_step(opener, reference, 4)
    page.locator(".verdicts").wait_for()
    tour(page).get_by_role("button", name="Next", exact=True).click()
    best = readers(links(reference)[0])[0][1]
    expect(page.get_by_role("heading", name=f"Inside head {best}")).to_be_visible()
    expect(tour(page)).to_contain_text(f"This is how head {best} comes to its weight for black → cat.")
    for name in ("softmax", "Σ w · v"):
        expect_done(page, False)
        page.locator(".flow").get_by_role("button", name=name).click()
    expect_done(page)
    expect(page.get_by_role("tab", name="Pipeline")).to_have_attribute("aria-selected", "true")


def test_seven_is_reached(opener, reference):
    page = at_step(opener, reference, 5)
    tour(page).get_by_role("button", name="Next", exact=True).click()
    expect_done(page, False)
    page.get_by_role("slider", name="num_heads").focus()
    page.keyboard.press("ArrowLeft")
    expect_done(page)
    expect(tour(page).locator(".keep")).to_contain_text("512 = 7 · 73 + 1: a number of every token would be lost.")


def test_the_same_work_is_measured_and_heads_are_switched_off(opener, reference):
    seconds = {1: 0.002, 2: 0.0021, 4: 0.0019, 8: 0.00205, 16: 0.0023}

    def answer(question):
        if question["ask"] != "time":
            return reference.answer(question)
        heads = question["heads"]
        return "application/json", json.dumps({"seconds": seconds[heads], "over_single_head": 1, "where": "native", "threads": 2, "isa": "avx2"}).encode()

    page = at_step(opener, reference, 7, answer)
    page.get_by_role("slider", name="num_heads").focus()
    page.keyboard.press("End")
    rows = page.locator(".same-work tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.nth(4).locator("td").last).to_have_text("× 1.15")
    cuts = reference.ask_dims({"d_model": 512, "tokens": 128, "batch": 1, "dtype": "f32", "heads": [1, 16]})["heads"]
    flop = [{step["step"]: step["flop"] for step in cut["steps"]} for cut in cuts]
    products = [sum(value for name, value in steps.items() if name != "softmax") for steps in flop]
    assert rows.nth(4).locator("th, td").all_inner_texts() == [
        "16", "32", f"{cuts[1]['parameters']:,}", f"× {products[1] / products[0]:.2f}", f"× {flop[1]['softmax'] / flop[0]['softmax']:.2f}", "× 1.15"]
    expect_done(page)
    expect(tour(page).locator(".keep")).to_contain_text("with 16 heads the clock showed 1.15 times")

    left = reference.ablations
    figures = page.locator(".off-figures dd")
    expect(figures).to_have_text(["1.000", f"{left['similarity']:.3f}"])
    off = page.get_by_role("slider", name="heads off")
    off.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    fifth = left["in_order"][4]
    expect(figures).to_have_text([f"{fifth['self']:.3f}", f"{fifth['other']:.3f}"])
    expect(page.get_by_text("5 are off")).to_contain_text(f"{fifth['layer']}.{fifth['head']}")
    page.keyboard.press("End")
    expect(figures.first).to_have_text(f"{left['in_order'][-1]['self']:.3f}")


def test_five_questions_are_answered_with_pictures(opener, reference):
    page = at_step(opener, reference, 8)
    rights = ["Each head can look at other words", "1", "64", "4", "One sentence cannot tell."]
    for i, name in enumerate(rights):
        expect_done(page, False)
        question = page.locator(".quiz > li").nth(i)
        question.get_by_role("radio").last.check()
        question.get_by_role("radio", name=re.compile(f"^{name}")).check()
        expect(question.locator(".why b")).to_have_text("Right.")
        expect(question.locator("svg, table").first).to_be_visible()
    expect_done(page)
    assert page.locator(".quiz > li").nth(3).locator("rect").count() == 4
    page.locator(".quiz > li").nth(3).get_by_role("radio", name="8").check()
    expect(page.locator(".quiz > li").nth(3).locator(".why b")).to_have_text("Not quite.")


def test_another_sentence_is_followed(opener, reference):
    words = "A small dog slept near the old door .".split()

    def answer(question):
        kind, body = reference.answer(question)
        if question["ask"] == "trace":
            now = json.loads(body)
            for word, text in zip(now["words"], words):
                word["text"] = text
            body = json.dumps({**now, "text": " ".join(words)}).encode()
        return kind, body

    page = at_step(opener, reference, 0, answer)
    expect(tour(page)).to_contain_text("small → dog, dog → slept and slept → old")
    page.get_by_label("Link 3, second word").select_option("door")
    expect(tour(page)).to_contain_text("small → dog, dog → slept and slept → door")
    expect(page).to_have_url(re.compile("links=1-2%2C2-3%2C3-7"))
    tour(page).get_by_role("button", name="Next", exact=True).click()
    expect(tour(page)).to_contain_text("These bars are the weights of “dog”")
    tour(page).get_by_role("button", name="Next", exact=True).click()
    expect(page.get_by_role("button", name="Swap “small” and “slept”")).to_be_visible()


def test_the_tour_is_walked_by_keyboard_alone(opener, reference):
    _ = reference.relations, reference.ablations
    page = at_step(opener, reference, 0)
    for i, title in enumerate(STEPS):
        expect(tour(page).get_by_role("heading", name=title)).to_be_visible()
        assert page.evaluate("document.documentElement.dataset.step") is not None
        if i + 1 < len(STEPS):
            tour(page).get_by_role("button", name="Next", exact=True).focus()
            page.keyboard.press("Enter")
    tour(page).get_by_role("button", name=re.compile("^1 of 9")).focus()
    page.keyboard.press("Enter")
    for name in ("black → cat", "cat → sat", "sat → mat"):
        page.get_by_role("button", name=re.compile(f"^{name}")).focus()
        page.keyboard.press("Enter")
    expect_done(page)


@pytest.mark.parametrize("step", range(9))
def test_each_step_points_at_something_that_is_seen(opener, reference, step):
    page = at_step(opener, reference, step)
    thing = page.locator({5: ".flow", 6: ".heads-control"}.get(step, ".target")).first
    expect(thing).to_be_visible()
    assert thing.evaluate("of => getComputedStyle(of).outlineStyle") == "dashed"


# The field's words, in English and German. Those of terms.json are explained where they first stand; no others are there.
FIELD = {
    "en": "attention head|transformer|embeddings?|logits?|positional|normali[sz]ation|residual|gradient|bias|encoder|decoder|corpus|treebank|amod|nsubj|obl|"
          "dependency|argmax|entropy|matri(?:x|ces)|dimensions?|linear|projections?|FLOPs?|intensity|bandwidth|cache|batch|causal|mask\\w*|lse|hyperparameters?|"
          "epochs?|tensors?|scalars?|dot products?|cosine similarity|Wilson|accuracy|baselines?|ablat\\w+|prun\\w+|offsets?|self-attention|multi-head|"
          "W_[qkvo]|KV|GPU|BERT|GPT|pooling|checkpoints?|inference|fine-tun\\w+|pre-train\\w+|hidden states?|activations?|neurons?|circuits?",
    "de": "Attention-Kopf|Transformer|Einbettung\\w*|Embeddings?|Logits?|Normalisierung|Residuum|Gradient\\w*|Bias|Encoder|Decoder|Korpus|Baumbank|amod|nsubj|"
          "obl|Dependenz\\w*|Argmax|Entropie|Matri(?:x|zen)|Dimension\\w*|linear\\w*|Projektion\\w*|FLOPs?|Intensität|Bandbreite|Cache|Batch|kausal\\w*|Maske\\w*|"
          "lse|Tensor\\w*|Skalar\\w*|Skalarprodukt\\w*|Wilson|Genauigkeit|Baseline\\w*|Ablation\\w*|Offsets?|Self-Attention|W_[qkvo]|KV|GPU|BERT|GPT|Pooling|"
          "Aktivierung\\w*|Neuron\\w*",
}


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_term_is_explained_where_it_first_stands_and_there_are_no_others(opener, reference, language):
    terms = json.loads((root / "viewer/src/tour/terms.json").read_text())
    _ = reference.relations, reference.ablations
    page = at_step(opener, reference, 0, locale={"en": "en-GB", "de": "de-DE"}[language])
    known = set()
    for step in range(9):
        tour(page).get_by_role("button", name=re.compile(f"^{step + 1} (of|von) 9")).click()
        page.locator(".stage h2").wait_for()
        if step in (1, 2, 3, 4, 7):
            page.locator(".stage .target").first.wait_for()
        said = "\n".join(tour(page).locator("#tour-step > :not(.terms)").all_inner_texts())
        explained = "\n".join(tour(page).locator(".terms dd").all_inner_texts())
        if step not in VIEWS:  # the views that are handed over to explain themselves
            said += "\n" + page.locator(".stage").inner_text()
        here = {term["id"] for term in terms if term["step"] == step}
        assert tour(page).locator(".terms dt").count() == len(here)
        known |= here
        for term in terms:
            uses = lambda where: re.search(rf"(?<!\w)(?:{term[language]})(?!\w)", where, re.I if len(term["id"]) > 1 else 0)
            assert term["id"] in known or not uses(said + explained), (step, term["id"], "stands unexplained")
            assert term["step"] != step or uses(said), (step, term["id"], "is explained and not used")
        other = re.search(rf"(?<!\w)(?:{FIELD[language]})(?!\w)", said + explained, re.I)
        assert not other, (step, other)
