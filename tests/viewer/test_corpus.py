"""The view Corpus: one head over a scan, as manyheads scan --show tells it; a relation table beside its baselines."""
import json
import re

import pytest
from playwright.sync_api import expect

from conftest import model, program, root
from reference_heads import HeadsReference

SCORE = "next"


class CorpusReference(HeadsReference):
    """Answers by the program's own JSON."""

    def __init__(self, folder, *arguments):
        super().__init__(*arguments)
        self.scan = folder / "scan.safetensors"
        texts = folder / "texts.txt"
        texts.write_text("".join(f"The {kind} {animal} sat on the {thing}.\n" for kind in ("black", "old", "small")
                                 for animal in ("cat", "dog", "bird") for thing in ("mat", "roof", "chair", "very large table")))
        self.run("scan", texts, "--model", model, "-o", self.scan)
        self._treebank = None

    def ask_about(self, question):
        return {**super().ask_about(question), "scans": [{"id": 3, "model": "all-MiniLM-L6-v2"}]}

    def ask_scan(self, question):
        more = ["--head", "{}.{}".format(*question["head"]), "--sort", question["score"]] if "head" in question else []
        return self.run("scan", "--show", self.scan, *more)

    def ask_encode(self, _):
        return {"trace": 1, "embedding": None, "next": None}

    def ask_treebank(self, _):
        if self._treebank is None:
            self._treebank = self.run("roles", "--treebank", root / "examples/relations.conllu", "--relation", "amod", "--model", model)
        return self._treebank


@pytest.fixture(scope="module")
def answers(trace, tmp_path_factory):
    return CorpusReference(tmp_path_factory.mktemp("corpus"), program, trace, model)


@pytest.fixture
def corpus(opener, answers):
    def open_view(link="", **options):
        page = opener.served(answers.answer, link=f"#v=corpus&tour=0&c.score={SCORE}&head=1.8{link}", **options)
        page.wait_for_selector("#corpus-panel")
        return page
    return open_view


def number(text):
    return float(text.replace("−", "-"))


def one(answers, head=(1, 8)):
    return answers.ask_scan({"head": head, "score": SCORE})["heads"][0]


def test_heads_stand_by_their_mean_over_the_passages(corpus, answers):
    page = corpus()
    expect(page.locator(".range")).to_have_count(72)
    means = {f"{head['layer']}.{head['head']}": next(score["mean"] for score in head["scores"] if score["name"] == SCORE) for head in answers.ask_scan({})["heads"]}
    shown = page.locator(".range").evaluate_all("rows => rows.map(row => [row.children[0].textContent, row.children[2].textContent])")
    assert [name for name, _ in shown] == sorted(means, key=lambda name: -means[name])
    assert [number(mean) for _, mean in shown] == pytest.approx([means[name] for name, _ in shown], abs=6e-4)
    page.locator(".range", has_text="2.8").first.click()
    expect(page).to_have_url(re.compile("head=2.8"))


def test_a_distribution_holds_every_passage(corpus, answers):
    page = corpus("&c.part=distribution")
    score = one(answers)["scores"][0]
    expect(page.locator(".facts dd").first).to_have_text(str(score["count"]))
    facts = [number(text) for text in page.locator(".facts dd").all_inner_texts()]
    assert facts[1:] == pytest.approx([score["mean"], score["min"], score["deciles"][4], score["max"]], abs=6e-4)
    page.get_by_role("button", name="As a table").click()
    counts = [int(cell) for cell in page.locator("figure tbody td").all_inner_texts()]
    assert counts == score["histogram"] and sum(counts) == score["count"]


def test_examples_are_the_scan_s_and_open_as_a_text(corpus, answers):
    page = corpus("&c.part=examples")
    score = one(answers)["scores"][0]
    first = page.locator(".example").first
    expect(first.locator(".example-text")).to_have_text(score["top"][0]["text"])
    expect(first.locator(".figure")).to_have_text(f"{score['top'][0]['value']:.3f}")
    expect(page.locator(".example")).to_have_count(len(score["top"]) + sum(len(tenth) for tenth in score["samples"]))
    first.get_by_role("button", name="Open").click()
    expect(page.get_by_role("tab", name="Heads", exact=True)).to_have_attribute("aria-selected", "true")
    assert [question["text"] for question in answers.asked if question["ask"] == "encode"][-1] == score["top"][0]["text"]


def test_tokens_components_and_distances_are_the_scan_s(corpus, answers):
    page = corpus("&c.part=tokens")
    head = one(answers)
    expect(page.locator(".of-q .bar-name").first).to_have_text(head["asking"][0]["token"])
    expect(page.locator(".of-k .bar-name").first).to_have_text(head["asked"][0]["token"])
    page.get_by_role("tab", name="Components").click()
    expect(page.locator(".of-q .bar-said").first).to_have_text(f"{100 * head['query_components'][0]:.1f} %")
    expect(page.locator(".of-k .bar-said").first).to_have_text(f"{100 * head['key_components'][0]:.1f} %")
    page.get_by_role("tab", name="Distances").click()
    expect(page.locator(".bar-said").first).to_be_visible()
    largest = max(head["distances"], key=lambda bin: bin["share"])
    assert f"{largest['share']:.4f}" in page.locator(".bar-said").all_inner_texts()


def test_relations_stand_beside_the_best_fixed_distance(corpus, answers):
    page = corpus("&c.part=relations")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".relation")).to_have_count(2, timeout=120_000)
    relation = answers.ask_treebank({})["relations"][0]
    band = page.locator(".relation").first
    expect(band.locator(".offset")).to_contain_text(f"{100 * relation['offset_accuracy']:.0f} %")
    for i, head in enumerate(relation["heads"]):
        row = band.locator(".band").nth(1 + i)
        expect(row).to_contain_text(f"{head['layer']}.{head['head']}")
        expect(row).to_contain_text(f"{100 * head['accuracy']:.0f} %")
        assert ("reads it" in row.inner_text()) == head["reads"]


def test_badges_say_whether_they_come_from_the_scan_or_from_this_text(opener, answers):
    page = opener.served(answers.answer, link="#v=heads&tour=0&head=1.8")
    over = {f"{head['layer']}.{head['head']}": head for head in answers.ask_scan({})["heads"]}
    here = {f"{head['layer']}.{head['head']}": head["roles"] for head in answers.look()["heads"]}
    badges = lambda: {name: set(titles) for name, titles in page.locator(".thumb").evaluate_all(
        "heads => heads.map(head => [head.dataset.head, [...head.querySelectorAll('.badge')].map(badge => badge.title)])")}
    expect(page.get_by_text("A solid badge is what the head does in the mean over 36 passages")).to_be_visible()
    first = lambda roles: next((role for role in roles if role not in ("sink", "first")), roles[0] if roles else None)
    titled = lambda roles, where: {f"{first(roles)} ({where})"} if roles else set()
    assert badges() == {name: titled(head["roles"], "from a scan of 36 passages") for name, head in over.items()}
    # The roles are those of the means.
    rules = {rule["score"]: rule for rule in answers.look()["score_rules"] if rule["role"]}
    for head in over.values():
        means = {score["name"]: score["mean"] for score in head["scores"] if score["count"]}
        assert head["roles"] == [rule["role"] for name, rule in rules.items() if name in means and (
            means[name] >= rule["threshold"] if name == "positional" else means[name] > rule["threshold"])]
    assert any(head["roles"] != here[name] for name, head in over.items())  # else nothing is told apart
    page.get_by_role("combobox", name="Show").select_option("next")
    shown = page.locator(".thumb").evaluate_all("heads => heads.map(head => head.dataset.head)")
    assert shown == [name for name, head in over.items() if "next" in head["roles"]] and shown
    page.get_by_role("combobox", name="Show").select_option("")
    page.get_by_role("combobox", name="Roles over").select_option("text")
    expect(page).to_have_url(re.compile("h.from=text"))
    assert badges() == {name: titled(roles, "from this text") for name, roles in here.items()}
    # The chosen head tells both.
    page.get_by_role("button", name="Head 1.8", exact=True).click()
    roles = page.locator(".roles summary")
    expect(roles).to_contain_text("in the mean over 36 passages of the scan")
    expect(roles).to_contain_text("from this one text")
    page.locator(".roles summary").click()
    row = page.locator(".roles tr", has_text="weight on the token after")
    mean = next(score["mean"] for score in over["1.8"]["scores"] if score["name"] == "next")
    expect(row.locator("td").nth(1)).to_have_text(f"{mean:.3f}")


def test_a_scan_of_another_model_gives_no_roles(opener, answers):
    def foreign(question):
        kind, body = answers.answer(question)
        if question["ask"] != "about":
            return kind, body
        return kind, json.dumps({**json.loads(body), "scans": [{"id": 3, "model": "another"}]}).encode()

    page = opener.served(foreign, link="#v=heads&tour=0&head=1.8")
    expect(page.get_by_text("A dashed badge is what the head does in this one text")).to_be_visible()
    expect(page.get_by_role("combobox", name="Roles over")).to_have_count(0)


def test_by_keys_and_on_a_phone_in_german(corpus):
    page = corpus(width=360, height=740, has_touch=True, is_mobile=True, locale="de-DE")
    page.get_by_role("tab", name="Alle Köpfe").focus()
    for name in ("Verteilung", "Beispiele", "Tokens", "Komponenten", "Abstände", "Beziehungen"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.evaluate((root / "viewer/node_modules/axe-core/axe.min.js").read_text())
        found = page.evaluate("axe.run(document.querySelector('main'), {resultTypes: ['violations']})")["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:120]) for each in found if each["impact"] in ("serious", "critical")] == []


def test_without_a_scan_the_page_says_how_to_make_one(opener, answers):
    def none(question):
        kind, body = answers.answer(question)
        return (kind, json.dumps({**json.loads(body), "scans": []}).encode()) if question["ask"] == "about" else (kind, body)

    page = opener.served(none, link="#v=corpus&tour=0")
    expect(page.get_by_text("No scan is open.")).to_be_visible()


def test_markup_in_a_scan_is_text(opener, answers):
    """Of the passages, the tokens, the model and the files."""
    markup = "<img src=x onerror='window.ran = 1'><script>window.ran = 2</script>"

    def marked(value):
        if isinstance(value, dict):
            return {name: markup if name in ("text", "token", "model") else marked(each) for name, each in value.items()}
        if isinstance(value, list):
            return [marked(each) for each in value]
        return value

    def answer(question):
        kind, body = answers.answer(question)
        return kind, json.dumps({**marked(json.loads(body)), "files": [markup]}).encode() if question["ask"] == "scan" else body

    page = opener.served(answer, link=f"#v=corpus&tour=0&c.score={SCORE}&head=1.8&c.part=examples")
    expect(page.locator(".example-text").first).to_have_text(markup)
    page.get_by_role("tab", name="Tokens").click()
    expect(page.locator(".of-q .bar-name").first).to_contain_text("<img")
    expect(page.locator("#corpus-panel")).to_be_visible()
    assert page.evaluate("window.ran") is None and page.locator("#page img, #page script").count() == 0


def test_a_damaged_scan_is_one_sentence(opener, answers):
    def answer(question):
        if question["ask"] == "scan":
            raise ValueError("scan: it is cut short")
        return answers.answer(question)

    page = opener.served(answer, link="#v=corpus&tour=0")
    expect(page.get_by_role("alert")).to_have_text("This did not work: scan: it is cut short")
    page.keyboard.press("2")
    expect(page.locator(".flow")).to_be_visible()
    opener.complaints = [text for text in opener.complaints if "400" not in text]
