"""``vadis find`` and ``vadis labels``: where something happens, out of results alone; what a model can name."""

import csv
import io
import json
from dataclasses import replace

import pytest

from tests.fake_road import result
from vadis.formats import FORMATS
from vadis.results import NO_CLEAR_LABEL, Piece
from vadis.weights.catalog import published_labels

PIECES = (
    Piece(0.0, 4.0, "playing piano", 0.9),
    Piece(4.0, 5.0, "playing drums", 0.5),
    Piece(5.0, 9.04, NO_CLEAR_LABEL, 0.8),
    Piece(9.04, 12.0, "yoga", 0.7),
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [replace(result(name), timeline=PIECES) for name in ("gone/a.mp4", "=b\udcff.mp4")] + [result("bad.mp4")]
    (tmp_path / "results.jsonl").write_text("".join(FORMATS["jsonl"].write(records)))
    return tmp_path / "results.jsonl"


def found(ended):
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_pieces_like_a_label_are_found_in_every_video_without_opening_it(results, run_vadis):
    places = found(run_vadis("find", results, "Playing *", "-f", "jsonl"))
    assert [(each["start"], each["end"], each["label"]) for each in places[:2]] == [
        (0.0, 4.0, "playing piano"),
        (4.0, 5.0, "playing drums"),
    ]
    assert [each["path"] for each in places] == ["gone/a.mp4"] * 2 + ["=b\\xff.mp4"] * 2
    assert "path_b64" in places[2]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (("*",), ["playing piano", "playing drums", "yoga"]),
        (("*", "--min-score", 0.7), ["playing piano", "yoga"]),
        (("*", "--min-seconds", 3), ["playing piano"]),
        ((NO_CLEAR_LABEL,), [NO_CLEAR_LABEL]),
        (("play",), []),
    ],
)
def test_what_is_weak_or_short_can_be_left_out(results, run_vadis, words, labels):
    places = found(run_vadis("find", results.parent, *words, "-f", "jsonl"))
    assert [each["label"] for each in places if each["path"] == "gone/a.mp4"] == labels


def test_the_formats_are_for_people_spreadsheets_and_players(results, run_vadis):
    ended = run_vadis("find", results, "yoga")
    assert ended.out.splitlines()[0].split() == ["gone/a.mp4", "0:09.0", "0:12.0", "70", "%", "yoga"]
    assert "2 places" in ended.err and "in 2 of 3 videos" in ended.err
    rows = list(csv.DictReader(io.StringIO(run_vadis("find", results, "yoga", "-f", "csv").out)))
    assert [rows[0]["start"], rows[0]["score"], rows[1]["path"][:2]] == ["9.040", "0.700000", "'="]
    lines = run_vadis("find", results, "yoga", "-f", "m3u").out.splitlines()
    assert lines[0] == "#EXTM3U" and str(results.parent / "gone/a.mp4") in lines
    assert {"#EXTVLCOPT:start-time=9.0", "#EXTVLCOPT:stop-time=12.0"} <= set(lines)
    results.write_text("".join(FORMATS["jsonl"].write([replace(result("https://host/a.mp4"), timeline=PIECES)])))
    assert "https://host/a.mp4" in run_vadis("find", results, "yoga", "-f", "m3u").out.splitlines()


def test_labels_are_shown_one_in_a_line(run_vadis):
    assert run_vadis("labels").out.splitlines() == list(published_labels("kinetics400"))
    playing = run_vadis("labels", "i3d-kinetics600", "playing *").out.splitlines()
    assert "playing drums" in run_vadis("labels", "playing *").out
    assert "playing piano" in playing and all(name.startswith("playing ") for name in playing)
    assert "pan left" in run_vadis("labels", "camera-motion").out
    assert run_vadis("labels", "camera-motion", "yoga").code == run_vadis("labels", "nowhere").code == 2


def test_a_label_with_brackets_is_found_by_its_name_and_a_url_stays_one(results, run_vadis):
    piece = Piece(0.0, 4.0, "boxing, [slow] – “two”", 0.9)
    record = replace(result("https://example.org/a.mp4"), timeline=(piece,))
    results.write_text("".join(FORMATS["jsonl"].write([record])))
    assert found(run_vadis("find", results, piece.label.upper(), "-f", "jsonl"))[0]["label"] == piece.label
    (row,) = csv.DictReader(io.StringIO(run_vadis("find", results, "boxing, [slow]*", "-f", "csv").out))
    assert row["label"] == piece.label
    assert "https://example.org/a.mp4" in run_vadis("find", results, "*", "-f", "m3u").out.splitlines()
