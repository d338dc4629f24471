"""Debian's Firefox, driven by the protocol it speaks itself, WebDriver BiDi: playwright drives a Firefox of its own making alone."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from websockets.sync.client import connect

KEYS = {"Enter": "\ue007", "Tab": "\ue004", "ArrowRight": "\ue014", "End": "\ue010"}


def found():
    """Its command, or None."""
    return shutil.which(os.environ.get("FIREFOX", "firefox-esr"))


class Firefox:
    """One window at a time. Keeps what the console complains of and what was asked of the network."""

    def __init__(self):
        self.profile = tempfile.mkdtemp()
        self.process = subprocess.Popen([found(), "--headless", "--no-remote", "--profile", self.profile, "--remote-debugging-port=0"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.last, self.complaints, self.requests = 0, [], []
        try:
            address = next(told for line in self.process.stderr if (told := re.search(r"listening on (ws://\S+)", line)))[1]
            # Nobody reads on: a full pipe would hold it.
            threading.Thread(target=self.process.stderr.read, daemon=True).start()
            self.connection = connect(f"{address}/session", max_size=None)
            self.socket = self.connection.__enter__()
            self.told("session.new", capabilities={})
            self.told("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
            (window,) = self.told("browsingContext.getTree")["contexts"]
            self.window = window["context"]
        except BaseException:
            self.close()
            raise

    def close(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def told(self, method, **params):
        """The answer to one command. Events that come before it are kept."""
        self.last += 1
        self.socket.send(json.dumps({"id": self.last, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.last:
                assert message["type"] == "success", message
                return message["result"]
            happened = message.get("params", {})
            if message.get("method") == "log.entryAdded" and happened["level"] in ("error", "warn"):
                self.complaints.append(happened["text"])
            elif message.get("method") == "network.beforeRequestSent":
                self.requests.append(happened["request"]["url"])

    def open(self, url, width=1280, height=800):
        # A link that differs behind the # alone would not load the page again.
        self.told("browsingContext.navigate", context=self.window, url="about:blank", wait="complete")
        self.complaints.clear()
        self.requests.clear()
        self.told("browsingContext.setViewport", context=self.window, viewport={"width": width, "height": height})
        self.told("browsingContext.navigate", context=self.window, url=url, wait="complete")

    def evaluate(self, expression):
        answer = self.told("script.evaluate", target={"context": self.window}, awaitPromise=True,
                           expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))")
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def wait(self, expression, seconds=30):
        """Its value, once there is one."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def texts(self, selector):
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText.trim())")

    def press(self, *keys):
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.told("input.performActions", context=self.window, actions=[{"type": "key", "id": "keys", "actions": actions}])

    def screenshot(self):
        return self.told("browsingContext.captureScreenshot", context=self.window)["data"]
