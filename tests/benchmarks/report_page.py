"""The page of a large archive: how long it takes to make, how large it is, how fast a browser opens and filters it.

python tests/benchmarks/report_page.py [--videos 5000]     (needs Chromium)
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.browser import Browser, opened
from tests.report.conftest import labelled, write_results
from tests.synthetic import write_video
from vadis.batch import LastResults
from vadis.report.page import write_page

CLASSES = 400
SEGMENTS = 30  # of each video: a minute
NAMES = "document.querySelectorAll('#videos h3')"


def write_archive(folder: Path, count: int) -> Path:
    """So many results of a minute each, and their videos, which are one file by many names."""
    video = write_video(folder / "video.webm", num_frames=100, codec="libvpx")
    results = []
    for number in range(count):
        path = folder / f"tape {number:05}.webm"
        os.link(video, path)
        leaders = [(f"class {(number * 7 + i // 5) % CLASSES}", 0.3 + (number + i) % 70 / 100) for i in range(SEGMENTS)]
        results.append(labelled(str(path), leaders))
    return write_results(folder / "results.jsonl", *results)


WATCH = (  # how often the list of videos has changed
    "window.changes = 0; new MutationObserver(() => ++window.changes)"
    ".observe(document.querySelector('#videos'), {childList: true, subtree: true})"
)


def milliseconds(browser: Browser, action: Callable[[], object], condition: str) -> float:
    """From an action until the page shows what it leads to, painted."""
    began = time.perf_counter()
    action()
    browser.wait_for(condition)
    browser.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    return 1e3 * (time.perf_counter() - began)


def changing(browser: Browser, action: Callable[[], object], condition: str) -> float:
    """As ``milliseconds``, of an action that changes the list of videos."""
    browser.run("window.changes = 0")
    return milliseconds(browser, action, f"window.changes > 0 && ({condition})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=5_000)
    count = parser.parse_args().videos
    with tempfile.TemporaryDirectory() as name, opened() as browser:
        folder = Path(name)
        results = write_archive(folder, count)
        began = time.perf_counter()
        write_page(folder / "page.html", LastResults([results]), title="Archive")
        took, size = time.perf_counter() - began, (folder / "page.html").stat().st_size / 1e6
        print(f"{count:,} videos of {SEGMENTS} segments: made in {took:.1f} s, {size:.1f} MB")
        opening = milliseconds(browser, lambda: browser.open(folder / "page.html"), f"{NAMES}.length > 0")
        print(f"open: {opening:.0f} ms")
        browser.run(WATCH)
        last = f"tape {count - 1:05}"
        steps: dict[str, tuple[Callable[[], object], str]] = {
            "find one name": (lambda: browser.fill("#words", last), f"{NAMES}.length === 1"),
            "all again": (lambda: browser.fill("#words", ""), f"{NAMES}.length === 40"),
            "one label": (lambda: browser.fill("#label", "class 7"), f"{NAMES}.length < 41"),
            "a least score": (lambda: browser.fill("#score", "90"), f"{NAMES}.length > 0"),
            "clear": (lambda: browser.run("document.querySelector('#clear').click()"), f"{NAMES}.length === 40"),
            "sort by score": (lambda: browser.fill("#order", "score"), f"{NAMES}.length === 40"),
            "next page": (
                lambda: browser.point("#next", click=True),
                "document.querySelector('#page-shown').textContent.startsWith('Page 2')",
            ),
        }
        for what, (action, condition) in steps.items():
            print(f"{what}: {changing(browser, action, condition):.0f} ms")


if __name__ == "__main__":
    main()
