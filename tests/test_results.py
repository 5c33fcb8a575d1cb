"""The record: its fields, its refusals, and names of any bytes coming back exactly."""

import base64
import json
import os
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from tests.conftest import RECORD_SCHEMA
from tests.fake_road import result as labelled
from tests.matching import containing
from vadis.errors import VIDEO_ERROR_CODES, UsageError, VideoError
from vadis.formats import FORMATS, csv_of_videos
from vadis.results import SCHEMA, STATUSES, Label, Part, Piece, Segment, VideoResult, is_like, part_of, printable


def test_a_labelled_video_has_the_documented_fields():
    result = VideoResult(
        path="clips/a.mp4",
        status="ok",
        duration_seconds=10.00004,
        source_fps=Fraction(28),
        source_size=(340, 256),
        num_frames=250,
        frames_decoded=280,
        frames_declared=280,
        model="i3d-kinetics400",
        model_sha256="ab" * 32,
        streams=("rgb", "flow"),
        sliding={"mode": "whole", "segment_seconds": 2.56},
        labels=(Label("arm wrestling", 0.97, 0.99, 7.68),),
        clip_score=(Label("arm wrestling", 0.96),),
        timeline=(Piece(0.0, 2.5600001, "arm wrestling", 0.94),),
        segments=(Segment(0.0, 2.56, (Label("arm wrestling", 0.95),)),),
    )
    assert (
        VideoResult.from_json(result.to_json()).to_json()
        == result.to_json()
        == {
            "schema": SCHEMA,
            "path": "clips/a.mp4",
            "status": "ok",
            "duration_seconds": 10.0,
            "source_fps": "28/1",
            "source_size": [340, 256],
            "num_frames": 250,
            "frames_decoded": 280,
            "frames_declared": 280,
            "flags": [],
            "model": "i3d-kinetics400",
            "model_sha256": "ab" * 32,
            "streams": ["rgb", "flow"],
            "sliding": {"mode": "whole", "segment_seconds": 2.56},
            "labels": [{"label": "arm wrestling", "score": 0.97, "peak": 0.99, "seconds": 7.68}],
            "clip_score": [{"label": "arm wrestling", "score": 0.96}],
            "timeline": [{"start": 0.0, "end": 2.56, "label": "arm wrestling", "score": 0.94}],
            "segments": [{"start": 0.0, "end": 2.56, "labels": [{"label": "arm wrestling", "score": 0.95}]}],
        }
    )


@pytest.mark.parametrize("record", [{"path": "a.mp4", "status": "ok"}, {"schema": 1, "path": "a.mp4", "status": "ok"}])
def test_a_record_of_another_schema_is_refused(record):
    with pytest.raises(ValueError):
        VideoResult.from_json(record)


def test_a_failed_video_has_its_error_and_only_what_was_found_out():
    result = VideoResult(
        "b.mp4", "error", frames_declared=30, error_code="no_frames", error_message="none could be decoded"
    )
    assert result.to_json() == {
        "schema": SCHEMA,
        "path": "b.mp4",
        "status": "error",
        "error": {"code": "no_frames", "message": "none could be decoded"},
        "frames_declared": 30,
    }


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_any_name_comes_back_byte_for_byte_from_one_line_of_ascii(raw):
    line = VideoResult(os.fsdecode(raw), "error", error_code="io_error", error_message=os.fsdecode(raw)).to_json_line()
    assert line.isascii() and line.isprintable()
    record = json.loads(line)
    recovered = base64.b64decode(record["path_b64"]) if "path_b64" in record else record["path"].encode()
    assert recovered == raw


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_never_written(score):
    with pytest.raises(ValueError, match=containing(score)):
        VideoResult("a.mp4", "ok", labels=(Label("a", score),)).to_json_line()


def test_status_and_error_go_together():
    assert STATUSES == ("ok", "partial", "error", "skipped")
    for status, code in (("good", None), ("ok", "io_error"), ("error", None)):
        with pytest.raises(ValueError, match=containing(repr(status))):
            VideoResult("a.mp4", status, error_code=code)


def test_error_codes_are_a_closed_list_of_words():
    assert all(code.isidentifier() and code.islower() for code in VIDEO_ERROR_CODES)
    with pytest.raises(ValueError, match=containing("'no_such_code'")):
        VideoError("no_such_code", "a sentence")


def test_printable_shows_bytes_that_are_not_utf8():
    assert printable(os.fsdecode(b"caf\xe9 \xc3\xa9")) == "caf\\xe9 é"


def test_a_record_says_in_which_precision_it_was_computed():
    rounded = VideoResult("a.mp4", "ok", model="m", precision="bf16")
    assert rounded.to_json()["precision"] == "bf16" and VideoResult.from_json(rounded.to_json()) == rounded
    assert "precision" not in VideoResult("a.mp4", "ok", model="m").to_json()


def test_a_record_of_a_gpu_names_its_cudnn():
    of_gpu = VideoResult("a.mp4", "ok", model="m", cudnn="9.16.0")
    assert of_gpu.to_json()["cudnn"] == "9.16.0" and VideoResult.from_json(of_gpu.to_json()) == of_gpu
    assert "cudnn" not in VideoResult("a.mp4", "ok", model="m").to_json()


def test_a_record_says_of_which_part_it_is():
    for part in (Part(0.28, 2.5), Part(3.0), Part(0.0, 1 / 3)):
        of_part = VideoResult("a.mp4", "ok", part=part)
        assert VideoResult.from_json(json.loads(of_part.to_json_line())) == of_part
        failed = VideoResult("a.mp4", "error", part=part, error_code="outside", error_message="")
        assert VideoResult.from_json(json.loads(failed.to_json_line())) == failed
    assert "part" not in VideoResult("a.mp4", "ok").to_json()


@pytest.mark.parametrize("times", [(-1, None), (2, 2), (2, 1), (None, 0), (float("nan"), None), (float("inf"), None)])
def test_a_part_begins_in_time_and_before_it_ends(times):
    with pytest.raises(UsageError):
        part_of(*times)


def test_all_of_a_video_is_no_part():
    assert part_of(None, None) is part_of(0, None) is part_of(None, float("inf")) is None
    assert part_of(None, 2) == (0.0, 2.0) and part_of(1, None) == (1.0, None)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"path": None},
        {"status": "good"},
        {"status": "error"},
        {"error": {"code": "no_frames", "message": ""}},
        {"source_fps": "25"},
        {"source_size": [340]},
        {"num_frames": -1},
        {"model": 1},
        {"labels": [{"label": "hurling", "score": 1.5}]},
        {"timeline": [{"start": 0.0, "end": 1.0, "label": "hurling"}]},
        {"segments": [{"start": 0.0, "labels": []}]},
        {"sliding": {"mode": "all"}},
        {"part": {"start": 1.0}},
        {"surprise": 1},
    ],
)
def test_the_schema_refuses_what_is_no_record(change):
    """That it takes every record is seen wherever a test makes one (tests/conftest.py)."""
    record = VideoResult("a.mp4", "ok", sliding={"mode": "whole"}).to_json()
    validator = Draft202012Validator(json.loads(RECORD_SCHEMA.read_text()))
    assert validator.is_valid(record)
    assert not validator.is_valid(record | change)


@pytest.mark.parametrize(
    ("label", "pattern", "expected"),
    [
        ("tai chi [slow]", "tai chi [slow]", True),
        ("tai chi s", "tai chi [slow]", False),
        ("what?", "what?", True),
        ("whats", "what?", False),
        ("Straße überqueren", "STRASSE Ü*", True),
        ("cafe\u0301", "CAF\u00c9", True),
        ("a*b", "a*b", True),
        ("line\nfeed", "line*", True),
    ],
)
def test_only_the_asterisk_of_a_pattern_stands_for_others(label, pattern, expected):
    assert is_like(label, pattern) is expected


_WRONG = (None, "x", "", -1, 1.5, True, float("nan"), float("inf"), 10**400, [], [None], {}, {"a": 1}, "1/0", "\0")


def wrong_at_each_place(value):
    """Yield copies of a JSON value in which one place holds something else, or is missing."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in places:
        for other in (*_WRONG, *wrong_at_each_place(inner)):
            copy = value.copy()
            copy[key] = other
            yield copy
        copy = value.copy()
        del copy[key]
        yield copy


def test_a_record_that_is_damaged_anywhere_is_refused_or_can_be_written_in_every_format():
    record = labelled("a.mp4").to_json()
    writers = [csv_of_videos, *(form.write for form in FORMATS.values())]
    refused = 0
    for damaged in wrong_at_each_place(record):
        try:
            read = VideoResult.from_json(damaged)
        except ValueError:
            refused += 1
            continue
        with suppress(ValidationError):  # what the tests hold every record against knows a model's hash, and more
            assert all(isinstance("".join(write([read])), str) for write in writers)
        assert read._repr_html_()
    assert refused > 100
