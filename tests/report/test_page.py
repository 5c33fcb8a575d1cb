"""The page as a file: whole, small, and without anything in it that a record could turn into markup."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import labelled, write_results
from vadis.batch import LastResults
from vadis.errors import advice
from vadis.report.page import PageSummary, place_of, safe_json, url_of, write_page
from vadis.results import PALETTE, VideoResult


def page_of(folder: Path, *results: VideoResult, **options: Any) -> tuple[str, PageSummary]:
    found = LastResults([write_results(folder / "results.jsonl", *results)])
    made = write_page(folder / "report.html", found, title="t", **options)
    return (folder / "report.html").read_text(), made


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&") & set(text)
    return json.loads(text)


def test_the_data_says_what_the_records_say(tmp_path: Path) -> None:
    result = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.6)])
    broken = VideoResult("b.mp4", "error", error_code="empty_file", error_message="nothing in it")
    page, made = page_of(tmp_path, result, broken)
    data = data_of(page)
    assert data["labels"] == ["archery", "bowling"]
    first, second = data["videos"]
    assert first["pieces"] == [[0.0, 2.0, 0, 0.9], [2.0, 4.0, 1, 0.6]]
    assert first["labels"] == [[0, 0.45, 2.0], [1, 0.3, 2.0]]
    assert second == {"path": "b.mp4", "status": "error", "error": ["empty_file", "nothing in it"]}
    assert data["next"]["empty_file"] == advice("empty_file")
    assert data["reasons"]["empty_file"] == "zero bytes" and "looped" in data["flags"] and "ends_early" in data["flags"]
    assert (made.num_videos, made.not_found, made.num_bytes) == (2, 2, len(page.encode()))


def test_a_page_of_nothing_is_a_page(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    write_page(tmp_path / "report.html", LastResults([tmp_path / "empty.jsonl"]), title="t")
    assert data_of((tmp_path / "report.html").read_text())["videos"] == []


def test_labels_have_the_colours_that_they_have_elsewhere(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, labelled("a.mp4", [("archery", 0.9)]))
    assert json.dumps(PALETTE) in page


def test_only_the_pages_own_script_and_style_may_run(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, labelled("</script><script>alert(1)</script>", [("<b>", 0.9)]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for kind, content in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert not re.search(r"(src|href)=[\"']?(https?:|//)", page), "nothing is fetched"
    assert not re.search(r"\son\w+=", page.split('id="data"')[0]), "no handlers in markup"


@pytest.mark.parametrize("text", ["</script>", "<!--", "]]>", "&lt;", "\u2028", "\ud800", "é"])
def test_json_in_a_page_is_ascii_without_markup(text: str) -> None:
    written = safe_json({text: [text]})
    assert written.isascii() and not set("<>&") & set(written)
    assert json.loads(written) == {text: [text]}


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("videos/a b#1?.mp4", "./videos/a%20b%231%3F.mp4"),
        ("javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("a\udcff.mp4", "./a%FF.mp4"),
        ("../é.mp4", "./../%C3%A9.mp4"),
    ],
)
def test_addresses_are_relative_and_can_mean_nothing_but_a_file(tmp_path: Path, name: str, url: str) -> None:
    assert url_of(f"{tmp_path}/pages/{name}", tmp_path / "pages" / "report.html") == url


@pytest.mark.parametrize(("most", "each"), [(3, 0), (4, 1), (11, 2), (100, 3)])
def test_a_page_of_four_videos_has_so_many_pictures_of_each(archive: Path, tmp_path: Path, monkeypatch, most, each):
    monkeypatch.setattr("vadis.report.page.MAX_PICTURES", most)
    found = LastResults([archive / "results.jsonl"])
    made = write_page(tmp_path / "report.html", found, title="t", bases=[archive], num_thumbnails=3)
    first = data_of((tmp_path / "report.html").read_text())["videos"][0]
    assert (made.num_videos, made.num_thumbnails, len(first.get("pictures", ()))) == (4, each, each)


def test_a_relative_path_begins_in_the_first_folder_where_it_leads_to_a_file(tmp_path: Path) -> None:
    bases = [tmp_path / "here", tmp_path / "there"]
    for base in bases:
        base.mkdir()
    assert place_of("a.mp4", bases) is None
    (tmp_path / "there" / "a.mp4").touch()
    assert place_of("a.mp4", bases) == str(tmp_path / "there" / "a.mp4")
    (tmp_path / "here" / "a.mp4").touch()
    assert place_of("a.mp4", bases) == str(tmp_path / "here" / "a.mp4")
    assert place_of(str(tmp_path / "there" / "a.mp4"), bases) == str(tmp_path / "there" / "a.mp4")
    assert place_of("../here", bases) is None, "a folder is no video"
