import { render } from "preact";
import { App } from "./frame/App";
import { readStart } from "./start";
import { keepDocument } from "./state/app";
import { keepLink } from "./state/link";
import { messageOf, open, trouble } from "./state/session";
import "./style/tokens.css";
import "./style/page.css";
import "./style/parts.css";

keepLink();
keepDocument();
try {
  // Before the frame is drawn, so that the engine starts beside it.
  const start = readStart();
  if (start) void open(start);
} catch (error) {
  trouble.value = messageOf(error);
}
render(<App />, document.getElementById("page")!);
