"""A head of a long text: patches computed and drawn by WebAssembly, pan and zoom on a pyramid that stands."""
import statistics

# Times a worker's patches by its own clock and from question to answer, what the canvas takes to paint them, and frames. The page asks
# while it draws a frame, and hears the answer behind it.
WATCH = """
window.times = { patch: [], heard: [], paint: [], frames: [] };
const Plain = Blob;
const clock = `let began = 0;
self.addEventListener('message', () => { began = performance.now(); });
const answer = self.postMessage.bind(self);
self.postMessage = (message, transfer) => answer({ ...message, took: performance.now() - began }, transfer);
`;
window.Blob = class extends Plain {
  constructor(parts, options) { super(options?.type === 'text/javascript' ? [clock, ...parts] : parts, options); }
};
const send = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  const began = performance.now();
  if (message.question?.includes('"ask":"patch"')) {
    const { rows, keys } = JSON.parse(message.question);
    const whole = rows[1] - rows[0] === 512 && keys[1] - keys[0] === 512;
    if (whole) this.addEventListener('message', ({ data }) => {
      times.patch.push(data.took);
      times.heard.push(performance.now() - began);
    }, { once: true });
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

COUNT = "() => { const frame = (now) => { times.frames.push(now); requestAnimationFrame(frame); }; requestAnimationFrame(frame); }"


def measured(browser, address):
    """Medians in milliseconds of a patch and of its painting, the median and the worst of moves, and the frames a second while a hand pans."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.add_init_script(WATCH)
    page.goto(f"{address}#v=heads&tour=0&h.show=one&head=0.0&m.at=600,600,1.2")
    canvas = page.locator(".map-canvas")
    canvas.wait_for(timeout=120_000)
    page.wait_for_function("() => times.patch.length > 0 && !/%/.test(document.querySelector('.map-note').innerText)", timeout=300_000)
    page.wait_for_timeout(2000)
    moves = []
    for key in ["ArrowDown", "ArrowRight"] * 20 + ["-", "+"] * 10:
        moves.append(page.evaluate(FRAME, key))
        page.wait_for_timeout(50)
    page.wait_for_timeout(1000)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(COUNT)
    for step in range(120):
        page.mouse.move(x + 80 * ((step % 40) / 40 - 0.5), y + 60 * ((step % 30) / 30 - 0.5))
    frames = page.evaluate("times.frames")
    page.mouse.up()
    times = page.evaluate("times")
    page.close()
    between = [after - before for before, after in zip(frames, frames[1:])]
    return {"patch": statistics.median(times["patch"]), "heard": statistics.median(times["heard"]), "paint": statistics.median(times["paint"]), "patches": len(times["patch"]),
            "move": statistics.median(moves), "worst": max(moves), "frames": 1000 * len(between) / sum(between), "late": max(between)}
