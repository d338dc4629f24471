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
render(<App />, document.getElementById("page")!);
try {
  const start = readStart();
  if (start) void open(start);
} catch (error) {
  trouble.value = messageOf(error);
}
