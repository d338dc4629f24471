"""Times the page's maps in a browser: patches of 512 x 512 computed and drawn by WebAssembly, pan and zoom on a standing pyramid.

    .venv-viewer/bin/python bench/page_maps.py build/wasm/manyheads.wasm [TOKENS]    (after scripts/test-viewer has built the page)
"""
import base64
import gzip
import pathlib
import statistics
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root / "tests/viewer"))

from playwright.sync_api import sync_playwright  # noqa: E402

from conftest import packed, page_with  # noqa: E402
from long_trace import LongTrace  # noqa: E402

# Times a worker's patches from question to answer, and what the canvas takes to paint them.
WATCH = """
window.times = { patch: [], paint: [] };
const send = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  const began = performance.now();
  if (message.question?.includes('"ask":"patch"')) {
    const { rows, keys } = JSON.parse(message.question);
    const whole = rows[1] - rows[0] === 512 && keys[1] - keys[0] === 512;
    if (whole) this.addEventListener('message', () => times.patch.push(performance.now() - began), { once: true });
  }
  return send.call(this, message, ...rest);
};
const put = CanvasRenderingContext2D.prototype.putImageData;
const make = CanvasRenderingContext2D.prototype.createImageData;
let began = 0;
CanvasRenderingContext2D.prototype.createImageData = function (...given) { began = performance.now(); return make.apply(this, given); };
CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
  const done = put.call(this, image, ...rest);
  if (image.width === 512 && image.height === 512) times.paint.push(performance.now() - began);
  return done;
};
"""

# One key pressed, until the frame that shows it.
FRAME = """async (key) => {
  const canvas = document.querySelector('.map-canvas');
  const began = performance.now();
  canvas.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, shiftKey: key.startsWith('Arrow') }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""


def told(name, times):
    print(f"{name:<44} median {statistics.median(times):6.1f} ms   worst {max(times):6.1f} ms   of {len(times)}")


def main():
    wasm, tokens = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8192
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        trace = LongTrace(pathlib.Path(folder) / "long.safetensors", tokens=tokens, depth=64)
        engine = base64.b64encode(gzip.compress(pathlib.Path(wasm).read_bytes())).decode()
        html = page_with({"mode": "file", "traces": [packed(trace.path.read_bytes())], "answers": []})
        if 'id="wasm"' not in html:
            html = html.replace('<script id="start"', f'<script id="wasm" type="application/octet-stream">{engine}</script><script id="start"')
        (pathlib.Path(folder) / "page.html").write_text(html)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.add_init_script(WATCH)
        page.goto((pathlib.Path(folder) / "page.html").as_uri() + "#v=heads&tour=0&h.show=one&head=0.0&m.at=600,600,1.2")
        page.locator(".map-canvas").wait_for(timeout=120_000)
        page.wait_for_function("() => times.patch.length > 0 && !/%/.test(document.querySelector('.map-note').innerText)", timeout=300_000)
        page.wait_for_timeout(2000)
        moves = []
        for key in ["ArrowDown", "ArrowRight"] * 20 + ["-", "+"] * 10:
            moves.append(page.evaluate(FRAME, key))
            page.wait_for_timeout(50)
        page.wait_for_timeout(1000)
        times = page.evaluate("times")
        told("patch 512 x 512, asked to answered", times["patch"])
        told("the same painted", times["paint"])
        told("pan or zoom, key to the frame after the next", moves)
        browser.close()


main()
