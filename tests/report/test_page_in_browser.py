"""The page of an archive as a person uses it, in a real browser: filters, hover, keyboard, player, hostile names."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.report.conftest import labelled, write_results
from vadis.batch import LastResults
from vadis.report.page import write_page
from vadis.results import NO_CLEAR_LABEL, Part, Piece, VideoResult

pytestmark = [pytest.mark.slow, pytest.mark.integration("playwright")]
NAMES = "#videos h3"
TIMELINE = ".video:first-child .timeline"
TIP = "#tip:not([hidden])"


@pytest.fixture
def page(archive: Path, browser: Browser) -> Browser:
    """The archive's page, open."""
    path = archive / "report.html"
    if not path.exists():
        write_page(path, LastResults([archive / "results.jsonl"]), title="My archive", bases=[archive])
    browser.problems.clear()
    browser.requests.clear()
    browser.open(path)
    return browser


def filtered(page: Browser, selector: str, value: str, count: int) -> list[str]:
    """The names of the videos that are left, ``count`` of them, when a control has this value."""
    page.fill(selector, value)
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === {count}")
    return page.texts(NAMES)


def test_totals_cards_and_pictures_are_there_and_nothing_is_fetched(page: Browser) -> None:
    assert page.texts("h1") == ["My archive"]
    assert page.texts("#totals") == ["4 videos, 2 minutes, 3 labels, 1 partial, 1 not labelled"]
    assert page.texts(NAMES) == ["a b#1.webm", "party.webm", "gone/lost.mp4", "broken.mp4"]
    totals = page.texts("#label-totals button")
    assert totals == ["bowling1:22 · 2 videos", "archery0:04 · 2 videos", "dancing0:04 · 1 video"]
    assert page.texts("#reasons button") == ["zero bytes1 video"]
    assert page.run("[...document.images].map((i) => i.naturalHeight)") == [108] * page.run("document.images.length")
    assert page.run("document.querySelectorAll('.video:first-child img').length") == 4
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith(("data:", "file:"))] == []


def test_filters_by_words_label_score_duration_and_status(page: Browser) -> None:
    assert filtered(page, "#words", "PARTY", 1) == ["party.webm"]
    assert filtered(page, "#words", "", 4)[0] == "a b#1.webm"
    assert filtered(page, "#label", "archery", 2) == ["a b#1.webm", "party.webm"]
    assert page.run("document.querySelectorAll('.video:first-child rect.faint').length") == 1
    assert filtered(page, "#score", "60", 1) == ["a b#1.webm"]
    page.run("document.querySelector('#clear').click()")
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 4")
    assert filtered(page, "#shortest", "0:06", 2) == ["party.webm", "gone/lost.mp4"]
    assert filtered(page, "#longest", "1:00", 1) == ["party.webm"]
    page.run("document.querySelector('#clear').click()")
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 4")
    page.point("#statuses input[value='ok']", click=True)
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 2")
    assert page.texts(NAMES) == ["party.webm", "broken.mp4"]
    assert page.texts("#found") == ["2 of 4 videos, 6 seconds"]
    assert page.problems == []


def test_a_total_chosen_by_the_keyboard_filters_and_keeps_the_keyboard(page: Browser) -> None:
    page.run("document.querySelector('#label-totals li:nth-child(2) button').focus()")
    page.key("Enter")
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 2")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.key("Enter")
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 4")
    page.point("#reasons button", click=True)
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 1")
    assert page.texts(NAMES) == ["broken.mp4"]
    assert page.texts("#found")[0].endswith("; zero bytes. What to do: copy it again from its source, or remove it")


def test_a_total_finds_its_videos_whatever_was_asked_for_before(page: Browser) -> None:
    filtered(page, "#words", "lost", 1)
    filtered(page, "#score", "90", 0)
    page.point("#label-totals li:nth-child(2) button", click=True)
    page.wait_for(f"document.querySelectorAll('{NAMES}').length === 2")
    assert page.texts(NAMES) == ["a b#1.webm", "party.webm"]


LONG = [
    "playing bass guitar",
    "playing bass drum",
    "presenting weather forecast",
    "passing American football (in game)",
]


def test_names_are_never_cut_and_nothing_is_wider_than_a_phone(tmp_path: Path, browser: Browser) -> None:
    names = [*LONG, *(f"a rather long name of a label, number {number}" for number in range(60))]
    unclear = Piece(0.0, 9.0, NO_CLEAR_LABEL, 0.9)
    results = [
        labelled(f"{first}.mp4", [(name, 0.125) for name in names[first : first + 8]]) for first in range(0, 64, 8)
    ]
    path = write_results(tmp_path / "r.jsonl", *results, replace(results[0], path="c.mp4", timeline=(unclear,)))
    write_page(tmp_path / "report.html", LastResults([path]), title="names")
    for width in (320, 1280):
        browser.open(tmp_path / "report.html", width=width)
        browser.run("document.querySelector('#all-labels').click()")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("document.querySelector('#label-totals').scrollWidth") <= width
        cut = "[...document.querySelectorAll('.name')].filter((name) => name.scrollWidth > name.clientWidth + 1).length"
        assert browser.run(cut) == 0
    card = "document.querySelector('.video:nth-child({})').textContent"
    for name in names[:8]:
        assert name in browser.run(card.format(1)), "each label of a timeline is named"
    assert NO_CLEAR_LABEL in browser.run(card.format(9)) and "90 %" not in browser.run(card.format(9))
    assert "12 %" in browser.run(card.format(1)), "a half goes to the even neighbour, as in the terminal"


def test_hover_shows_time_and_scores(page: Browser) -> None:
    page.point(TIMELINE, 0.25)
    assert page.texts(f"{TIP} b") == ["0:00.0–0:02.0"]
    assert page.texts(f"{TIP} div") == [" archery 90 %"]
    page.point(TIMELINE, 0.75)
    assert page.texts(f"{TIP} b") == ["0:02.0–0:04.0"]
    page.point("h1")
    assert page.texts(TIP) == []


def test_arrows_walk_the_timeline_and_say_what_they_meet(page: Browser) -> None:
    page.run(f"document.querySelector('{TIMELINE}').focus({{focusVisible: true}})")
    page.key("ArrowRight")
    assert page.texts(f"{TIP} b") == ["0:02.0–0:04.0"]
    said = page.run(f"document.querySelector('{TIMELINE}').getAttribute('aria-valuetext')")
    assert said == "0:02.0–0:04.0: bowling 60 %"
    page.key("ArrowLeft")
    assert page.texts(f"{TIP} b") == ["0:00.0–0:02.0"]


def test_the_timeline_of_a_part_begins_where_the_part_does(tmp_path: Path, browser: Browser) -> None:
    hour = tuple(Piece(3600.0 + 2 * i, 3602.0 + 2 * i, name, 0.9) for i, name in enumerate(("archery", "bowling")))
    of_part = replace(labelled("a.mp4", [("archery", 0.9)]), part=Part(3600.0, 3604.0), timeline=hour, segments=())
    failed = VideoResult("b.mp4", "error", part=Part(3600.0), error_code="outside", error_message="it ends before")
    path = write_results(tmp_path / "results.jsonl", of_part, failed)
    write_page(tmp_path / "report.html", LastResults([path]), title="parts")
    browser.problems.clear()
    browser.open(tmp_path / "report.html")
    assert browser.texts(".ticks span")[:2] == ["1:00:00", "1:00:01"]
    first, second = browser.texts(".facts")
    assert "1:00:00–1:00:04" in first and "1:00" not in second
    browser.point(TIMELINE, 0.75)
    assert browser.texts(f"{TIP} b") == ["1:00:02.0–1:00:04.0"]
    assert browser.problems == []


def test_a_click_plays_the_file_from_there(page: Browser) -> None:
    page.point(TIMELINE, 0.75, click=True)
    page.wait_for("document.querySelector('#player-video').currentTime >= 2.9")
    page.wait_for("document.querySelector('#player-video').readyState >= 2")
    assert page.run("document.querySelector('#player-video').error") is None
    assert page.run("document.querySelector('#player-video').videoWidth") == 96
    assert page.texts("#player-now") == ["0:02.0–0:04.0: bowling 60 %"]
    page.point("#player .timeline", 0.1, click=True)
    page.wait_for("document.querySelector('#player-now').textContent.includes('archery 90 %')")
    page.key("Escape")
    page.wait_for("!document.querySelector('#player').open")
    assert page.problems == []


def test_what_cannot_be_played_is_said_with_the_moment(page: Browser) -> None:
    page.point(".video:nth-child(3) .timeline", 0.5, click=True)
    page.wait_for("document.querySelector('#player').open")
    (said,) = page.texts("#player-problem:not([hidden])")
    assert "0:40.0" in said
    assert page.run("document.querySelector('#player-path').value") == "gone/lost.mp4"
    page.point("#player-copy", click=True)
    page.page.set_content("<textarea></textarea>")
    page.page.locator("textarea").focus()
    page.key("Control+v")
    assert page.run("document.querySelector('textarea').value") == "gone/lost.mp4"


HOSTILE = (
    "<img src=x onerror=document.title='owned'>.mp4",
    "</script><script>document.title='owned'</script>.mp4",
    "javascript:document.title='owned'",
    '" onmouseover="document.title=1" x=".mp4',
    "a\u202egnp.4pm\nline\x1b[2J.mp4",
    "\udcff\udcfe.mp4",
)


def test_hostile_names_and_labels_are_text(tmp_path: Path, browser: Browser) -> None:
    results = [labelled(name, [(name.encode("utf-8", "replace").decode(), 0.9)]) for name in HOSTILE]
    (tmp_path / HOSTILE[2]).write_bytes(b"no video")
    path = write_results(tmp_path / "results.jsonl", *results)
    write_page(
        tmp_path / "report.html", LastResults([path]), title="<script>document.title='owned'</script>", bases=[tmp_path]
    )
    browser.problems.clear()
    browser.open(tmp_path / "report.html")
    assert browser.texts("title") == ["<script>document.title='owned'</script>"]
    shown = browser.texts(NAMES)
    assert shown[:4] == list(HOSTILE[:4])
    assert shown[4] == r"a\u202egnp.4pm\nline\x1b[2J.mp4"
    browser.point(TIMELINE)
    assert browser.texts(f"{TIP} bdi")[0] == HOSTILE[0]
    browser.point(".video:nth-child(3) .timeline", click=True)
    browser.wait_for("!document.querySelector('#player-problem').hidden")
    assert browser.run("document.querySelector('#player-video').src").startswith("file://")
    browser.key("Escape")
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.title") == "<script>document.title='owned'</script>"
    assert not any("exception" in problem.lower() or "dialog" in problem.lower() for problem in browser.problems)


def test_many_videos_are_shown_a_page_at_a_time(tmp_path: Path, browser: Browser) -> None:
    results = [labelled(f"{number}.mp4", [("archery", number / 100)]) for number in range(90)]
    path = write_results(tmp_path / "results.jsonl", *results)
    write_page(tmp_path / "report.html", LastResults([path]), title="many")
    browser.open(tmp_path / "report.html", color_scheme="dark")
    assert len(browser.texts(NAMES)) == 40
    browser.point("#next", click=True)
    browser.wait_for(f"document.querySelector('{NAMES}').textContent === '40.mp4'")
    browser.fill("#order", "score")
    browser.wait_for(f"document.querySelector('{NAMES}').textContent === '89.mp4'")
    assert browser.texts("#page-shown") == ["Page 1 of 3"]
    dark = browser.run("getComputedStyle(document.documentElement).backgroundColor")
    browser.open(tmp_path / "report.html", color_scheme="light")
    assert browser.run("getComputedStyle(document.documentElement).backgroundColor") != dark
