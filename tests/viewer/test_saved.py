"""A figure saved from the page, as SVG and as PNG: it holds what is seen, and stands alone."""
import base64
import json
import re
import struct
import xml.etree.ElementTree as xml
import zlib

import numpy as np
import pytest
from playwright.sync_api import expect

SVG = "{http://www.w3.org/2000/svg}"


def decoded(png):
    """A PNG of 8 bits a channel by its definition: [height, width, 3 or 4]."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(png):
        size = struct.unpack(">I", png[at:at + 4])[0]
        chunks.append((png[at + 4:at + 8], png[at + 8:at + 8 + size]))
        assert zlib.crc32(png[at + 4:at + 8 + size]) == struct.unpack(">I", png[at + 8 + size:at + 12 + size])[0]
        at += 12 + size
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert depth == 8 and interlaced == 0
    channels = {2: 3, 6: 4}[kind]
    raw = np.frombuffer(zlib.decompress(b"".join(data for name, data in chunks if name == b"IDAT")), np.uint8).reshape(height, 1 + width * channels)
    rows = np.zeros((height, width * channels), np.uint8)
    for y in range(height):
        line, above, method = raw[y, 1:].astype(int), rows[y - 1].astype(int) if y else np.zeros(width * channels, int), raw[y, 0]
        if method in (0, 2):
            rows[y] = (line + (above if method else 0)) & 255
            continue
        out = np.zeros(width * channels, int)
        for x in range(width * channels):
            a, b, c = (out[x - channels], above[x], above[x - channels]) if x >= channels else (0, above[x], 0)
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            out[x] = (line[x] + {1: a, 3: (a + b) // 2, 4: nearest}[method]) & 255
        rows[y] = out
    return rows.reshape(height, width, channels)


def saved(page, figure, kind, label="Save as {}"):
    with page.expect_download() as download:
        figure.get_by_role("button", name=label.format(kind), exact=True).click()
    return download.value.suggested_filename, open(download.value.path(), "rb").read()


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


@pytest.fixture
def at(opener, reference):
    def open_view(link, **options):
        page = opener.served(reference.answer, link=link, accept_downloads=True, **options)
        page.wait_for_selector("figure.picture:visible")
        return page
    return open_view


def test_a_drawing_keeps_its_lines_and_words(at):
    page = at("#v=story&tour=0")
    figure = page.locator("figure.picture").first
    expect(figure.locator("svg path").first).to_be_visible()
    name, data = saved(page, figure, "SVG")
    root = xml.fromstring(data)
    caption = figure.locator("figcaption span").first.inner_text()
    assert name == re.sub(r"[^\w.]+", "-", caption) + ".svg" and root.find(f"{SVG}title").text == caption
    assert {"black", "cat", "sat", "mat"} <= set(texts(root)) and caption in texts(root)
    # Its lines are the page's, with their own colours and widths, and nothing of the page's style sheet or script.
    shown = figure.locator("svg path").evaluate_all(
        "paths => paths.map(path => [path.getAttribute('d'), getComputedStyle(path).stroke, getComputedStyle(path).strokeWidth, getComputedStyle(path).fill])")
    assert [(path.get("d"), *(path.get(name) for name in ("stroke", "stroke-width", "fill"))) for path in root.iter(f"{SVG}path")] == [tuple(path) for path in shown]
    assert not [element for element in root.iter() if element.tag.rpartition("}")[2] in ("script", "style", "foreignObject", "button")]
    assert not [name for element in root.iter() for name in element.keys() if name.startswith("on") or name == "class"]
    # What is there to be pressed is no part of it.
    assert not {"As a table", "SVG", "PNG"} & set(texts(root))


def test_any_word_is_a_word_in_the_file(opener, reference):
    """Markup stays text; what no XML holds (a control character, half of a pair) stands as U+FFFD."""
    evil = "<script>alert(1)</script>&\x01\ud800]]>"

    def answer(question):
        kind, body = reference.answer(question)
        if question["ask"] == "trace":
            trace = json.loads(body)
            trace["words"][2]["text"] = evil
            body = json.dumps(trace).encode()
        return kind, body

    page = opener.served(answer, link="#v=story&tour=0", accept_downloads=True)
    figure = page.locator("figure.picture").first
    expect(figure.locator("svg path").first).to_be_visible()
    root = xml.fromstring(saved(page, figure, "SVG")[1])
    assert evil.replace("\x01", "\ufffd").replace("\ud800", "\ufffd") in texts(root)
    assert not list(root.iter(f"{SVG}script"))
    assert decoded_size(saved(page, figure, "PNG")[1])[0] > 0


def test_figures_written_beside_bars_are_the_page_s(at, reference):
    page = at("#v=heads&tour=0&h.show=one&h.one=distance&head=2.8")
    figure = page.locator("figure.picture:has(.named-bars)")
    expect(figure.locator(".bar-said").first).to_be_visible()
    root = xml.fromstring(saved(page, figure, "SVG")[1])
    shown = figure.locator(".bar-name, .bar-said").all_inner_texts()
    assert len(shown) > 10 and texts(root)[1:] == shown
    # Each bar is as long as its number.
    _, weights = reference.attention(2, 8)
    n = len(weights)
    mass = {d: sum(weights[q, q - d] for q in range(n) if 0 <= q - d < n) for d in range(-n, n)}
    widths = figure.locator(".bar-room i").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    drawn = [float(box.get("width")) for box in root.iter(f"{SVG}rect") if box.get("fill") == page.locator(".bar-room i").first.evaluate(
        "bar => getComputedStyle(bar).backgroundColor")]
    assert drawn == pytest.approx([width for width in widths if width > 0], abs=0.02)
    assert max(drawn) / sum(drawn) == pytest.approx(max(mass.values()) / sum(mass.values()), abs=2e-3)


def canvas_of(figure, selector):
    data = figure.locator(selector).evaluate("canvas => canvas.toDataURL()")
    return decoded(base64.b64decode(data.partition(",")[2]))


def test_a_map_keeps_its_pixels_in_both_kinds(at):
    page = at("#v=heads&tour=0&h.show=one&h.one=map&head=2.8")
    figure = page.locator("figure.picture:has(.map-canvas)")
    expect(figure.get_by_text("Each cell is one weight.")).to_be_visible()
    expect(figure.get_by_text("being computed")).to_have_count(0)
    root = xml.fromstring(saved(page, figure, "SVG")[1])
    image = root.find(f".//{SVG}image")
    inside = decoded(base64.b64decode(image.get("href").partition(",")[2]))
    shown = canvas_of(figure, ".map-canvas")
    assert np.array_equal(inside, shown) and len(np.unique(shown.reshape(-1, 4), axis=0)) > 20
    name, data = saved(page, figure, "PNG")
    assert name.endswith(".png")
    pixels = decoded(data)
    assert pixels.shape[:2] == (2 * int(root.get("height")), 2 * int(root.get("width")))
    paper = page.evaluate("getComputedStyle(document.querySelector('body')).getPropertyValue('--paper')")
    assert tuple(pixels[0, 0, :3]) == tuple(bytes.fromhex(paper.strip().removeprefix("#"))), "the ground"
    # Where the page has one colour all around, the file has it too.
    x, y, width, height = (float(image.get(side)) for side in ("x", "y", "width", "height"))
    left, top = map(float, root.get("viewBox").split()[:2])
    x, y = x - left, y - top
    flat = 0
    for row in np.linspace(0.02, 0.98, 60):
        for column in np.linspace(0.02, 0.98, 60):
            at_row, at_column = int(row * shown.shape[0]), int(column * shown.shape[1])
            around = shown[at_row - 3:at_row + 4, at_column - 3:at_column + 4].reshape(-1, 4)
            if not around.size or (around != around[0]).any() or around[0, 3] < 255:
                continue
            flat += 1
            there = pixels[int(2 * (y + row * height)), int(2 * (x + column * width)), :3]
            assert np.abs(there.astype(int) - around[0, :3]).max() <= 1, (row, column)
    assert flat > 500


def test_all_heads_by_keys_in_german(at):
    page = at("#v=heads&tour=0&lang=de")
    expect(page.locator(".thumb-picture")).to_have_count(72)
    figure = page.locator("figure.picture:has(.thumbs)")
    figure.get_by_role("button", name="Als SVG speichern").focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    root = xml.parse(download.value.path()).getroot()
    assert len(list(root.iter(f"{SVG}image"))) == 72
    assert not [text for text in root.iter(f"{SVG}text") if float(text.get("x")) + float(text.get("textLength")) > float(root.get("width")) + 1]
    assert {f"{layer}.{head}" for layer in range(6) for head in range(12)} <= set(texts(root))


@pytest.mark.parametrize("link", ["#v=pipeline&part=product", "#v=pipeline&part=x", "#v=dimensions", "#v=heads&h.all=scatter", "#v=heads&h.show=one&h.one=links"])
def test_any_view_s_figures_are_saved_whole(at, link):
    page = at(f"{link}&tour=0")
    page.wait_for_timeout(1000)
    for i in range(page.locator("figure.picture:visible").count()):
        figure = page.locator("figure.picture:visible").nth(i)
        root = xml.fromstring(saved(page, figure, "SVG")[1])
        drawn = [element for element in root.iter() if element.tag.rpartition("}")[2] in ("text", "image", "path", "line", "circle", "rect")]
        assert len(drawn) > 3
        assert decoded_size(saved(page, figure, "PNG")[1]) == (2 * int(root.get("width")), 2 * int(root.get("height")))


def decoded_size(png):
    return struct.unpack(">II", png[16:24])
