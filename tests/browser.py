"""A real browser for tests: Playwright drives this machine's Chromium; ``opened()`` skips where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.needs import absent

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--disable-gpu", "--mute-audio", "--autoplay-policy=no-user-gesture-required")
WAIT_MS = 20_000


class Browser:
    """One page of a Chromium; ``problems`` are what its console and its policy complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: message.type in ("error", "warning") and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dismiss(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, page: Path, width: int = 1280, height: int = 1000, color_scheme: str | None = None) -> None:
        """Show a file."""
        self.page.emulate_media(color_scheme=color_scheme)
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.goto(page.absolute().as_uri())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        return self.page.evaluate(expression)

    def wait_for(self, condition: str) -> None:
        """Return when a JavaScript expression is true; fails where it does not become so.

        Not by Playwright's ``wait_for_function``, which the pages' own security policy refuses.
        """
        poll = (
            f"new Promise((done) => {{ const end = Date.now() + {WAIT_MS}; const look = () => "
            f"({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20); look(); }})"
        )
        assert self.run(poll), f"waited in vain for {condition}"

    def point(self, selector: str, share: float = 0.5, *, click: bool = False) -> None:
        """Move the mouse to an element, so far from its left, and perhaps click there."""
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        at = {"x": box["width"] * share, "y": box["height"] / 2}
        (element.click if click else element.hover)(position=at)

    def key(self, name: str) -> None:
        """Press a key, such as "ArrowRight", "Enter", "Tab", "Escape"."""
        self.page.keyboard.press(name)

    def fill(self, selector: str, value: str) -> None:
        """Give a control a value, as a person would."""
        element = self.page.locator(selector)
        is_list = element.evaluate("element => element.tagName === 'SELECT'")
        (element.select_option if is_list else element.fill)(value)

    def texts(self, selector: str) -> list[str]:
        """The text of every element that matches."""
        found: list[str] = self.page.locator(selector).all_text_contents()
        return found


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser with an empty profile."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        absent("needs Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield Browser(browser.new_page())
        browser.close()
