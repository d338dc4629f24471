"""A decoder's next tokens in the page, with all heads and with some off, are those that generate chooses from."""
import json
import math
import subprocess

import pytest
from playwright.sync_api import expect

from conftest import program, root, viewing

smollm2 = root / "models/SmolLM2-135M-Instruct"
pytestmark = pytest.mark.skipif(not smollm2.exists(), reason="scripts/fetch-model smollm2 fetches the decoder")
PROMPT = "The capital of Italy is Rome, and the capital of France is"


def words(page, column):
    cells = page.locator(".next tbody td").evaluate_all("cells => cells.map(cell => [...cell.children].map(part => part.textContent))")
    return [(word, float(probability)) for word, probability in cells[column::2]]


def test_a_head_off_changes_the_next_words_and_all_heads_give_those_of_generate(opener):
    greedy = json.loads(subprocess.run([program, "generate", PROMPT, "--model", smollm2, "--tokens", "1", "--json"],
                                       check=True, capture_output=True).stdout)
    with viewing(PROMPT, "--model", smollm2) as link:
        page = opener.watch(opener.context().new_page())
        page.goto(f"{link}#v=heads&tour=0&h.show=one&h.one=off&head=0.0")
        expect(page.locator(".next tbody tr")).to_have_count(10, timeout=60_000)
        before, after = words(page, 0), words(page, 1)
        assert before[0][0] == greedy["text"].replace(" ", "␣") == "␣Paris"
        assert before[0][1] == pytest.approx(math.exp(greedy["log_probabilities"][0]), abs=6e-4)
        assert [p for _, p in before] == sorted((p for _, p in before), reverse=True)
        asked = lambda scale: page.evaluate(
            """async ([text, scale]) => {
              const ask = async (question) => (await fetch("./ask", { method: "POST", headers: { "Content-Type": "application/json" },
                body: JSON.stringify(question) })).json();
              const { models: [model] } = await ask({ ask: "about" });
              return (await ask({ ask: "encode", model: model.id, text, values: false, heads_off: [[0, 0, scale]] })).next;
            }""", [PROMPT, scale])
        shown = lambda next: [(each["token"].replace(" ", "␣").replace("\n", "↵"), round(each["probability"], 3)) for each in next]
        close = lambda found, wanted: [word for word, _ in found] == [word for word, _ in wanted] and all(
            abs(a - b) <= 1.1e-3 for (_, a), (_, b) in zip(found, wanted))
        assert close(before, shown(asked(1))) and close(after, shown(asked(0))) and before != after
        # The slider: the words follow while it moves. At 1 they are those of all heads again.
        slider = page.locator("label.slider", has_text="Scale").locator("input")
        slider.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        expect(page.locator(".next tbody td:last-child .figure").first).to_have_text(f"{before[0][1]:.3f}", timeout=60_000)
        assert close(words(page, 1), before)
        expect(page.get_by_text("␣ is the blank that a word begins with")).to_be_visible()
        expect(page.get_by_label("Other text")).to_have_count(0)
