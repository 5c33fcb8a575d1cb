"""``vadis export``: what it writes is what classify would have written."""

import pytest

from tests.fake_road import result
from vadis.formats import FORMATS

NAMES = ("a.mp4", "bad.mp4", "deep/b.mkv")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results.jsonl").write_text("".join(FORMATS["jsonl"].write(map(result, NAMES))))
    return tmp_path / "results.jsonl"


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.one_video])
def test_every_format_is_what_classify_would_write(results, run_vadis, name):
    ended = run_vadis("export", results, "-f", name)
    assert ended.out == "".join(FORMATS[name].write(map(result, NAMES)))
    assert ended.code == 3, "a video had failed"
    run_vadis("export", results, "-o", f"out.{name}")
    assert (results.parent / f"out.{name}").read_text() == ended.out


def test_one_document_per_video(results, run_vadis):
    assert run_vadis("export", results, "-f", "srt", "--output-dir", "subtitles").code == 3
    written = sorted(str(path.relative_to(results.parent)) for path in results.parent.rglob("*.srt"))
    assert written == ["subtitles/a.srt", "subtitles/deep/b.srt"]


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["gone.jsonl"], 2, "gone.jsonl"),
        (["results.jsonl", "-f", "srt"], 2, "--output-dir"),
        (["results.jsonl", "-o", "results.jsonl"], 2, "--overwrite"),
        (["results.jsonl", "-o", "x.csv", "--output-dir", "x"], 2, "--output and --output-dir"),
        (["results.jsonl", "-o", "x.xlsx"], 2, ".csv"),
        (["results.jsonl", "-f", "srt", "--output-dir", "x.srt"], 2, "x.srt"),
        (["empty.jsonl"], 4, "vadis classify"),
        (["letter.txt"], 2, "letter.txt"),
    ],
)
def test_wrong_use_is_said(results, run_vadis, arguments, code, fact):
    (results.parent / "empty.jsonl").write_text("")
    (results.parent / "letter.txt").write_text("Dear Sir\n")
    ended = run_vadis("export", *arguments)
    assert (ended.code, fact in ended.err, ended.out) == (code, True, "")


def test_a_table_of_results(results, run_vadis):
    assert "not labelled: no frame can be decoded" in run_vadis("export", results, "-f", "table").out
