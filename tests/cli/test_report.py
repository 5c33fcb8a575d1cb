"""``vadis report``: the page, what is said beside it, and what is refused."""

import re
from pathlib import Path

import pytest

from tests.matching import containing
from tests.report.conftest import labelled, write_results
from vadis.results import VideoResult


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    broken = VideoResult("b.mp4", "error", error_code="empty_file", error_message="nothing in it")
    return write_results(Path("results.jsonl"), labelled("a.mp4", [("archery", 0.9)]), broken)


def test_the_page_is_named_on_stdout_and_the_rest_said_on_stderr(run_vadis, results):
    ended = run_vadis("report", results, "-o", "page.html")
    assert (ended.code, ended.out) == (0, "page.html\n")
    assert re.search(containing(2, "--root DIR"), ended.err)
    assert "<title>results</title>" in Path("page.html").read_text()


def test_the_page_has_a_name_and_a_title_by_default_or_as_told(run_vadis, results):
    assert run_vadis("-q", "report", results, "--title", "My <tapes>").err == ""
    assert "<title>My &lt;tapes&gt;</title>" in Path("report.html").read_text()


def test_a_page_that_is_there_is_not_replaced_unless_asked(run_vadis, results):
    Path("report.html").write_text("mine")
    refused = run_vadis("report", results)
    assert (refused.code, Path("report.html").read_text()) == (2, "mine")
    assert "--overwrite" in refused.err
    assert run_vadis("report", results, "--overwrite").code == 0


def test_a_file_that_is_still_being_written_is_taken_as_far_as_it_goes(run_vadis, results):
    results.write_text(results.read_text()[:-9])
    ended = run_vadis("report", results)
    assert ended.code == 0
    assert "results.jsonl" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.jsonl"], 2, "cannot be read"),
        (["empty.jsonl"], 4, "no record"),
        (["results.jsonl", "-o", "no/page.html"], 2, "does not exist"),
        (["results.jsonl", "-o", "page.pdf"], 2, ".html"),
        (["results.jsonl", "--root", "nowhere"], 2, "nowhere is not a folder"),
        (["results.jsonl", "--thumbnails", "-1"], 2, "thumbnails"),
        (["text.jsonl"], 2, "text.jsonl, line 1"),
    ],
)
def test_what_cannot_be_is_said_with_what_to_do(run_vadis, results, arguments, code, said):
    Path("empty.jsonl").touch()
    Path("text.jsonl").write_text("hello\n")
    ended = run_vadis("report", *arguments)
    assert (ended.code, "Traceback" in ended.err) == (code, False)
    assert said in ended.err
    assert not Path("report.html").exists()
