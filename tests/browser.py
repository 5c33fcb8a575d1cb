"""A real browser for tests: ``Browser`` drives a headless Chromium over a pipe, by its DevTools protocol.

``opened()`` skips the test where there is no Chromium on this machine.
"""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)
WAIT_SECONDS = 20


class Browser:
    """One page of a Chromium; ``problems`` are what its console and its policy complained of."""

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, come: int) -> None:
        self._process, self._to, self._from = process, to, os.fdopen(come, "rb")
        self._numbers = itertools.count(1)
        self._rest = b""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    _session = None

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        """The next message; events go to ``problems`` and ``requests`` on the way."""
        while b"\0" not in self._rest:
            more = os.read(self._from.fileno(), 1 << 20)
            assert more, "the browser is gone"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            self.problems.append(json.dumps(message["params"]))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message

    def open(self, page: Path, width: int = 1280, height: int = 1000, **media: str) -> None:
        """Show a file; ``media`` are features such as ``prefers_color_scheme="dark"``."""
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Page.navigate", url=page.absolute().as_uri())
        self.wait_for("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Return when a JavaScript expression is true; fails where it does not become so."""
        poll = (
            f"new Promise((done) => {{ const end = Date.now() + {WAIT_SECONDS * 1000}; const look = () => "
            f"({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20); look(); }})"
        )
        assert self.run(poll), f"waited in vain for {condition}"

    def point(self, selector: str, share: float = 0.5, *, click: bool = False) -> None:
        """Move the mouse to an element, so far from its left, and perhaps click there."""
        element = f"document.querySelector({json.dumps(selector)})"
        for _ in range(3):  # what comes into view may take another height than it was thought to have
            self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
            self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        box = self.run(f"{element}.getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] * share, "y": box["y"] + box["height"] / 2}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def key(self, name: str) -> None:
        """Press a key, such as "ArrowRight", "Enter", "Tab", "Escape"."""
        text = {"Enter": "\r"}.get(name)
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}.get(name, 0)
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)

    def fill(self, selector: str, value: str) -> None:
        """Give a control a value, as a person would."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(
            f"{element}.value = {json.dumps(value)}, {element}.dispatchEvent(new Event('input', {{bubbles: true}}))"
        )

    def texts(self, selector: str) -> list[str]:
        """The text of every element that matches."""
        found: list[str] = self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")
        return found

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait(WAIT_SECONDS)
        os.close(self._to)
        self._from.close()


@contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in this folder."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    theirs_in, to = os.pipe()
    come, theirs_out = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={profile}"]
    redirected = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'  # Chromium reads from 3 and writes to 4
    process = subprocess.Popen(
        ["bash", "-c", redirected, "bash", *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    browser = Browser(process, to, come)
    try:
        yield browser
    finally:
        browser.close()
