"""The tour links a study's report that lies beside the page, and none where there is none."""
import pytest
from playwright.sync_api import expect

from conftest import exported, model, sentence, static, viewing

REPORT = "<!doctype html><title>Study</title><h1>Did several heads help?</h1>"
LINK = "What came out"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study of heads #1.html"
    path.write_text(REPORT)
    return path


def opens(page, address):
    page.goto(f"{address}#step=7")
    page.get_by_role("link", name=LINK).click(timeout=30_000)
    expect(page.get_by_role("heading", name="Did several heads help?")).to_be_visible()


def test_beside_a_served_page(opener, report):
    with viewing(sentence, "--model", model, "--study", report) as link:
        opens(opener.context().new_page(), link)


def test_beside_a_site(opener, report, tmp_path):
    folder = exported(tmp_path / "site", "--study", report)
    assert (folder / "study.html").read_text() == REPORT
    with static(folder) as address:
        opens(opener.context().new_page(), address)


def test_beside_a_file(opener, report):
    opens(opener.context().new_page(), exported(report.parent / "page.html", "--study", report).as_uri())


def test_no_link_without_one(opener, export):
    page = opener.watch(opener.context().new_page())
    page.goto(f"{export}#step=7")
    expect(page.get_by_role("heading", name="The same work", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name=LINK)).to_have_count(0)
