"""Pictures of a video's moments: which, what they show, and that they keep to their budget."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.report.conftest import labelled
from tests.synthetic import numbered_frames, read_number, write_video
from vadis.report.page import HEIGHT, WIDTHS, jpeg, moments, thumbnails
from vadis.results import NO_CLEAR_LABEL, Piece
from vadis.video.isolated.pool import Decoders


def test_moments_are_the_middles_of_the_longest_stretches_then_of_the_widest_gaps() -> None:
    result = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.9)])
    result = replace(result, timeline=(Piece(0, 6, "archery", 0.9), Piece(6, 8, "bowling", 0.9)))
    assert moments(result, 1) == [3.0]
    assert moments(result, 2) == [3.0, 7.0]
    assert moments(result, 3) == [3.0, 7.0, 5.0]
    assert moments(result, 0) == []


def test_a_short_video_has_no_more_pictures_than_seconds() -> None:
    assert moments(labelled("a.mp4", [("archery", 0.9)]), 20) == [1.0, 1.5, 0.5]
    assert moments(labelled("a.mp4", []), 4) == []


def test_where_no_label_is_clear_there_is_no_more_telling_moment() -> None:
    unclear = (Piece(0, 6, NO_CLEAR_LABEL, 0.9), Piece(6, 8, "bowling", 0.4))
    assert moments(replace(labelled("a.mp4", []), timeline=unclear), 2) == [7.0, 3.5]


def test_pictures_show_their_moments(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(100)))
    result = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.8)])
    with Decoders() as decoders:
        taken = thumbnails(decoders, str(path), result, 3)
    assert [seconds for seconds, _ in taken] == sorted(moments(result, 3))
    for seconds, picture in taken:
        shown = imread(io.BytesIO(base64.b64decode(picture)), "jpeg")
        assert shown.shape == (HEIGHT, 180, 3)
        assert read_number(shown) == int(seconds * 25)


@pytest.mark.parametrize(
    ("size", "width"), [((64, 1000), WIDTHS[1]), ((1000, 64), WIDTHS[0]), ((2, 2), HEIGHT), ((99, 98), 107)]
)
def test_pictures_of_any_proportions_are_of_one_height(size: tuple[int, int], width: int) -> None:
    shown = imread(io.BytesIO(jpeg(np.full((*size, 3), 200, np.uint8))), "jpeg")
    assert shown.shape == (HEIGHT, width, 3)
    assert abs(int(shown.mean()) - 200) < 4


def test_a_file_that_cannot_be_read_has_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with Decoders() as decoders:
        result = labelled("a.mp4", [("archery", 0.9)])
        assert thumbnails(decoders, str(tmp_path / "a.mp4"), result, 3) == []


def test_moments_of_a_picture_that_begins_late_are_those_of_the_player(tmp_path: Path) -> None:
    times = [5 + i / 25 for i in range(100)]
    path = write_video(tmp_path / "a.mp4", frames=numbered_frames(range(100)), pts_seconds=times, audio=True)
    result = labelled("a.mp4", [("archery", 0.9), ("bowling", 0.8)])
    segments = tuple(replace(each, start=each.start + 5, end=each.end + 5) for each in result.segments)
    timeline = tuple(replace(each, start=each.start + 5, end=each.end + 5) for each in result.timeline)
    with Decoders() as decoders:
        moved = replace(result, segments=segments, timeline=timeline)
        taken = thumbnails(decoders, str(path), moved, 3)
    assert [seconds for seconds, _ in taken] == sorted(5 + seconds for seconds in moments(result, 3))
    for seconds, picture in taken:
        assert read_number(imread(io.BytesIO(base64.b64decode(picture)), "jpeg")) == int((seconds - 5) * 25)
