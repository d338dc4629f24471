import { render } from "preact";
import { early } from "./early";
import { App } from "./frame/App";
import { readFirst, readStart, type First } from "./start";
import { keepDocument } from "./state/app";
import { keepLink } from "./state/link";
import { messageOf, open, openFirst, trouble } from "./state/session";
import "./style/tokens.css";
import "./style/page.css";
import "./style/parts.css";

function begin(): void {
  try {
    const start = readStart();
    if (start) void open(start);
  } catch (error) {
    trouble.value = messageOf(error);
  }
}

const draw = (): void => render(<App />, document.getElementById("page")!);

early.begun = true;
keepLink();
keepDocument();
const whole = document.readyState === "loading" ? new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true })) : Promise.resolve();
let first: First | null = null;
try {
  first = readFirst();
} catch {
  // Damaged: so is what follows, which says so.
}
if (first) {
  // While the page's data is still being read.
  openFirst(first);
  draw();
  // Behind the frame that shows it; a page that nobody sees has none.
  void whole.then(() => (document.hidden ? begin() : requestAnimationFrame(() => setTimeout(begin))));
} else {
  void whole.then(() => {
    // Before the frame is drawn, so that the engine starts beside it.
    begin();
    draw();
  });
}
