"""From opening a page, or from a key, to what is seen: by the browser's own clock."""
import statistics

# When the first picture with figures of the engine has been drawn, and when all small maps of a text have.
WATCH = """
window.seen = { first: null, thumbs: [], from: 0 };
const drawn = (then) => requestAnimationFrame(() => setTimeout(() => then(performance.now())));
new MutationObserver((_, watching) => {
  if (!document.querySelector('.arcs, .thumb-picture')) return;
  watching.disconnect();
  drawn((now) => { seen.first = now; });
}).observe(document, { childList: true, subtree: true });
const put = CanvasRenderingContext2D.prototype.putImageData;
CanvasRenderingContext2D.prototype.putImageData = function (...given) {
  put.apply(this, given);
  if (this.canvas.className === 'thumb-picture') drawn((now) => seen.thumbs.push(now));
};
addEventListener('keydown', (event) => {
  if (event.key !== 'Enter') return;
  seen.from = performance.now();
  seen.thumbs = [];
}, true);
"""


def opened(browser, address, wanted, timeout=300_000):
    """Milliseconds from the opening until `wanted`, in a window that has nothing in its caches."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(address)
    value = page.wait_for_function(f"() => {wanted}", timeout=timeout, polling=20).json_value()
    context.close()
    return value


def median(browser, address, wanted, times=7):
    opened(browser, address, wanted)
    return statistics.median(opened(browser, address, wanted) for _ in range(times))


def own_sentence(page, text, heads=72):
    """Milliseconds from the key until the small maps of all heads show it."""
    field = page.get_by_role("textbox", name="Sentence")
    field.fill(text)
    field.press("Enter")
    return page.wait_for_function(f"() => seen.thumbs.length >= {heads} && seen.thumbs[{heads - 1}] - seen.from", timeout=120_000, polling=20).json_value()
