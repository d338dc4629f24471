"""The page in Debian's Chromium, as a person has it before them."""
import base64
import contextlib
import functools
import gzip
import http.server
import json
import os
import pathlib
import subprocess
import threading

import pytest
from playwright.sync_api import expect, sync_playwright

from reference import read_safetensors
from reference_heads import HeadsReference

root = pathlib.Path(__file__).resolve().parents[2]
program = root / "build/release/bin/manyheads"
model = root / "models/all-MiniLM-L6-v2"
built = root / "viewer/dist/page.html"
sentence = "The black cat sat on the mat."
examples = [sentence, "The dog that chased the cat was tired."]


expect.set_options(timeout=15_000)  # a loaded machine is slow, not wrong


def page_with(start, first=None):
    """The built page with its data in it, as the program writes them; `first`: what it draws first from."""
    html = built.read_text()
    for name, data in (("start", start), ("first", first)):
        empty = f'<script id="{name}" type="application/json">{{}}</script>'
        assert html.count(empty) == 1
        if data is not None:
            html = html.replace(empty, empty.replace("{}", json.dumps(data).replace("<", "\\u003c")))
    return html


def exported(out, *more):
    """Has the program write a page of one file, or a site, of the chapter's sentence."""
    to = "--export" if pathlib.Path(out).suffix else "--export-site"
    subprocess.run([program, "view", sentence, "--model", model, to, out, *more], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    """The address of a page of one file, as the program writes it."""
    return exported(tmp_path_factory.mktemp("export") / "page.html").as_uri()


@contextlib.contextmanager
def static(folder, sent=None):
    """The address of a folder behind a plain static server, which adds the bytes of each file to `sent`."""
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def copyfile(self, source, out):
            data = source.read()
            if sent is not None:
                sent.append(len(data))
            out.write(data)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextlib.contextmanager
def viewing(*what):
    """The link to the program's own server."""
    serving = subprocess.Popen([program, "view", *map(str, what), "--no-browser", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(serving.stdout.readline())["link"]
    finally:
        serving.terminate()
        serving.wait()


def pytest_addoption(parser):
    parser.addoption("--renew-pictures", action="store_true", help="makes the pictures of the tour again")


# Text is drawn alike on any machine.
DRAWING = ["--font-render-hinting=none", "--disable-lcd-text", "--force-color-profile=srgb"]


# Keeps what the page's worker answers: each question, and the bytes as they come.
HEARD = """
window.heard = [];
window.Worker = class extends Worker {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => {
      if (data.kind === "answer" && !data.json) heard.push({ question: JSON.parse(this.asked), bytes: [...new Uint8Array(data.bytes)] });
    });
  }
  postMessage(message, ...more) {
    if (message.do === "ask") this.asked = message.question;
    super.postMessage(message, ...more);
  }
};
"""


def heard_map(page, tmp_path, layer, head, tokens):
    """The weights of a whole head as the page's worker gave them, by the number of their trace, once they are there."""
    page.wait_for_function("""([layer, head, tokens]) => heard.some(({ question: of }) => of.ask === "patch" && of.layer === layer && of.head === head
        && of.rows[0] === 0 && of.rows[1] === tokens && of.keys[0] === 0 && of.keys[1] === tokens)""", arg=[layer, head, tokens], timeout=60_000)
    for each in page.evaluate("heard"):
        of = each["question"]
        if of["ask"] == "patch" and (of["layer"], of["head"]) == (layer, head) and of["rows"] == of["keys"] == [0, tokens]:
            path = tmp_path / "heard.safetensors"
            path.write_bytes(bytes(each["bytes"]))
            return read_safetensors(path)[0]["weights"]


def packed(data):
    """A safetensors file as it lies in the page: all first bytes of its words of four, all second ones, ...; gzipped; in base64."""
    words = len(data) // 4 * 4
    planes = b"".join(data[plane:words:4] for plane in range(4)) + data[words:]
    return base64.b64encode(gzip.compress(planes)).decode()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", *DRAWING])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "cat.safetensors"
    subprocess.run([program, "trace", sentence, "--model", model, "--values", "-o", path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def reference(trace):
    return HeadsReference(program, trace, model)


class Opener:
    """Opens the page; keeps what the browser complains of and asks for."""

    def __init__(self, browser):
        self.browser, self.contexts, self.complaints, self.requests = browser, [], [], []

    def context(self, width=1280, height=800, locale="en-GB", **options):
        context = self.browser.new_context(viewport={"width": width, "height": height}, locale=locale, **options)
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        return context

    def watch(self, page):
        def complain(message):
            # A question may have its answer just before the page asks how far it is.
            if message.type in ("error", "warning") and "/job/" not in message.location["url"]:
                self.complaints.append(message.text)

        page.on("console", complain)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        goto = page.goto

        def drawn(url):
            """The page unpacks its own script: a person's hand is slower."""
            goto(url)
            if url != "about:blank":
                page.wait_for_selector("#page > *", state="attached")

        page.goto = drawn
        return page

    def file(self, tmp_path, start, link="", first=None, before="", **options):
        """By file://, with the network cut. `before` runs before any script of the page."""
        path = tmp_path / "page.html"
        path.write_text(page_with(start, first))
        context = self.context(offline=True, **options)
        page = self.watch(context.new_page())
        if before:
            page.add_init_script(before)
        page.goto(f"{path.as_uri()}{link}")
        return page

    def served(self, answer, link="", **options):
        """From a server whose answers `answer` gives."""
        context = self.context(**options)

        def serve(route):
            if "/job/" in route.request.url:  # how far a question is, and that it is no longer wanted
                route.fulfill(content_type="application/json", body=json.dumps({"share": 0.5, "waiting": False}))
                return
            if route.request.method == "GET":
                route.fulfill(content_type="text/html; charset=utf-8", body=page_with({"mode": "server", "examples": examples}))
                return
            try:
                kind, body = answer(json.loads(route.request.post_data))
                route.fulfill(content_type=kind, body=body)
            except Exception as error:
                route.fulfill(status=400, content_type="application/json", body=json.dumps({"error": str(error)}))

        context.route("http://127.0.0.1:1/**", serve)
        page = self.watch(context.new_page())
        page.goto(f"http://127.0.0.1:1/token/{link}")
        return page


@pytest.fixture
def opener(browser):
    opener = Opener(browser)
    yield opener
    for context in opener.contexts:
        context.close()
    assert opener.complaints == [], "the browser's console"


@pytest.fixture
def page(opener, reference):
    """The chapter's sentence, answered by the reference."""
    page = opener.served(reference.answer)
    page.wait_for_selector(".footer:has-text('manyheads')")
    return page
