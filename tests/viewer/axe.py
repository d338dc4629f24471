"""axe-core in a page that has come to rest."""
import re

from playwright.sync_api import expect

from conftest import root

AXE = (root / "viewer/node_modules/axe-core/axe.min.js").read_text()


def shown(page):
    page.get_by_role("contentinfo").get_by_text("manyheads").wait_for()
    page.locator(".stage h2:visible").first.wait_for()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    expect(page.get_by_text(re.compile("^(Opening|Wird geöffnet) …$"))).to_have_count(0)


def serious(page):
    page.evaluate(AXE)
    violations = page.evaluate("axe.run().then(({violations}) => violations)")
    return [(each["id"], each["nodes"][0]["html"][:160], each["nodes"][0]["failureSummary"][:300])
            for each in violations if each["impact"] in ("serious", "critical")]
