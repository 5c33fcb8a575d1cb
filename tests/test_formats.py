"""Every output format: what it writes, that it streams, and that nothing in a name can break out of it."""

import csv
import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadis.formats import CSV_COLUMNS, FORMATS, above, csv_of_videos, only, percent, visible
from vadis.results import NO_CLEAR_LABEL, Label, Piece, Segment, VideoResult

HOSTILE = "a\x1b]0;owned\x07\x9b2J\u202egpj.\n<b>&-->,\"'\t\r\x7f\u200b\udcff.mp4"


def segment(start, end, label, score=0.5):
    return Segment(start, end, (Label(label, score), Label("waving", 0.01)))


def video(path="clips/a.mp4", **changes):
    segments = (
        segment(0.0, 2.56, "arm wrestling", 0.9),
        segment(2.56, 5.0, "arm wrestling", 0.7),
        segment(5.0, 6.0, "hurling"),
    )
    labels = (Label("arm wrestling", 0.8, 0.9, 5.0),)
    timeline = (Piece(0.0, 5.0, "arm wrestling", 0.8), Piece(5.0, 6.0, "hurling", 0.5))
    values = {"status": "ok", "labels": labels, "clip_score": labels, "timeline": timeline, "segments": segments}
    return VideoResult(path, **{**values, **changes})


def failed(path="clips/b.mp4"):
    return VideoResult(path, "error", error_code="no_video_stream", error_message="there is no picture in it")


def written(name, *results):
    return "".join(FORMATS[name].write(results))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_each_result_before_it_asks_for_the_next(name):
    asked = []

    def results():
        for path in ("a.mp4", "b.mp4", "c.mp4"):
            asked.append(path)
            yield video(path)

    pieces = FORMATS[name].write(results())
    while len(asked) < 2:
        assert next(pieces)
    assert asked == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("name", FORMATS)
def test_no_control_character_of_a_name_reaches_a_document(name):
    labels = (Label(HOSTILE, 0.9),)
    segments, timeline = (Segment(0.0, 1.0, labels),), (Piece(0.0, 1.0, HOSTILE, 0.9),)
    hostile = video(HOSTILE, labels=labels, timeline=timeline, segments=segments)
    document = written(name, hostile, VideoResult(HOSTILE, "error", error_code="io_error", error_message=HOSTILE))
    assert [c for c in document if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")] == []


def test_jsonl_is_one_record_per_line():
    lines = written("jsonl", video(HOSTILE), failed()).splitlines()
    assert [json.loads(line) for line in lines] == [video(HOSTILE).to_json(), failed().to_json()]


@pytest.mark.parametrize("results", [(), (video(),), (video(), failed(), video("c.mp4"))])
def test_json_is_an_array_of_records(results):
    assert json.loads(written("json", *results)) == [result.to_json() for result in results]


def test_csv_has_a_row_per_segment_and_label():
    rows = list(csv.DictReader(io.StringIO(written("csv", video()))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0] == {
        "path": "clips/a.mp4",
        "start": "0.000",
        "end": "2.560",
        "rank": "1",
        "label": "arm wrestling",
        "score": "0.900000",
        "status": "ok",
        "error": "",
    }
    assert [(row["rank"], row["label"]) for row in rows[:2]] == [("1", "arm wrestling"), ("2", "waving")]
    assert len(rows) == 6


def test_csv_has_one_row_for_a_video_without_labels():
    rows = list(csv.DictReader(io.StringIO(written("csv", failed(), above(video(), 0.99)))))
    assert [(row["path"], row["status"], row["error"]) for row in rows] == [
        ("clips/b.mp4", "error", "no_video_stream: there is no picture in it"),
        ("clips/a.mp4", "ok", ""),
    ]
    assert {row["label"] for row in rows} == {""}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_disarms_formulas(start):
    text = f"{start}cmd|' /C calc'!A0"
    labels = (Label(text, 0.5),)
    for row in csv.DictReader(
        io.StringIO(written("csv", video(text, labels=labels, segments=(Segment(0, 1, labels),))))
    ):
        assert row["path"][0] == row["label"][0] == "'"


def test_subtitles_are_the_timeline():
    timeline = (*video().timeline, Piece(6.0, 7.0, NO_CLEAR_LABEL, 0.7))
    assert written("srt", video(timeline=timeline)) == (
        "1\n00:00:00,000 --> 00:00:05,000\narm wrestling (80%)\n\n"
        "2\n00:00:05,000 --> 00:00:06,000\nhurling (50%)\n\n"
        "3\n00:00:06,000 --> 00:00:07,000\nno clear label\n\n"
    )


def test_web_subtitles_escape_markup():
    document = written("vtt", video(timeline=(Piece(3599.9996, 3723.5, "a <b> & c --> d", 0.5),)))
    assert document == "WEBVTT\n\n01:00:00.000 --> 01:02:03.500\na &lt;b&gt; &amp; c --&gt; d (50%)\n\n"


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_of_a_failed_video_are_empty_but_valid(name):
    assert written(name, failed()) in ("", "WEBVTT\n\n")


def test_threshold_leaves_out_labels_but_no_segment_and_no_time():
    result = above(video(), 0.6)
    assert [label.label for label in result.labels] == [label.label for label in result.clip_score] == ["arm wrestling"]
    assert [len(piece.labels) for piece in result.segments] == [1, 1, 0]
    assert result.timeline == (video().timeline[0], Piece(5.0, 6.0, NO_CLEAR_LABEL, 0.5))
    unclear = Piece(6.0, 9.0, NO_CLEAR_LABEL, 0.9)
    assert above(video(timeline=(*video().timeline, unclear)), 0.9).timeline == (
        Piece(0.0, 9.0, NO_CLEAR_LABEL, pytest.approx((5 * 0.2 + 0.5 + 3 * 0.9) / 9)),
    )
    assert above(video(), 0.0) == video()
    assert above(failed(), 0.5) == failed()


@pytest.mark.slow
@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_visible_text_is_printable_and_plain_text_is_untouched(text):
    shown = visible(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text


def test_visible_shows_what_it_replaces():
    assert visible("a\nb\x1b\x9b\u202e\udcff é 　東京") == "a\\nb\\x1b\\x9b\\u202e\\xff é 　東京"


def test_a_listed_label_never_has_nothing():
    told = [percent(score) for score in (1.0, 0.996, 0.5, 0.0051, 0.0049, 1e-9)]
    assert told == ["100", "100", "50", "1", "<1", "<1"]
    faint = VideoResult("a.mp4", "ok", timeline=(Piece(0.0, 1.0, "waving", 0.003),))
    assert "waving (<1%)" in "".join(FORMATS["srt"].write([faint]))


def test_chapters_of_ffmpeg_have_their_times_in_milliseconds():
    lines = written("ffmetadata", video(timeline=(Piece(0.0, 5.0, "a=b;#\\", 0.8), Piece(5.0, 6.08, "hurling", 0.5))))
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    title = "a\\=b\\;\\#\\\\"
    assert lines == ";FFMETADATA1\n" + chapter.format(0, 5000, title) + chapter.format(5000, 6080, "hurling")


def test_a_row_per_video_has_its_first_label():
    rows = list(csv.DictReader(io.StringIO("".join(csv_of_videos([video(), failed(), video(labels=())])))))
    assert [row["label"] for row in rows] == ["arm wrestling", "", ""]
    assert rows[0]["seconds"] == "5.000" and rows[1]["error"].startswith("no_video_stream: ")


def test_only_labels_like_a_pattern_are_kept():
    kept = only(video(), "ARM *")
    assert [piece.label for piece in kept.timeline] == ["arm wrestling"]
    assert {label.label for segment in kept.segments for label in segment.labels} == {"arm wrestling"}
