"""Logits → labels: means, segments, peaks, leads."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from vadis.errors import VideoError
from vadis.inference.scores import Scoreboard, best, softmax

LABELS = ("run", "jump", "sit")


def logits(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def seconds(frame: int) -> Fraction:
    return Fraction(frame, 25)


def board_of(frames_and_logits: list[tuple[int, np.ndarray]], segment: float = 2.56, top_k: int = 3) -> Scoreboard:
    board = Scoreboard(LABELS, segment, top_k)
    for frame, values in frames_and_logits:
        board.add(seconds(frame), values)
    return board


def test_the_videos_score_is_the_softmax_of_the_mean_logits() -> None:
    board = board_of([(8, logits(4, 0, 0)), (16, logits(0, 2, 0))])
    labels, _ = board.finish(seconds(64))
    expected = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert [label.label for label in labels] == ["run", "jump", "sit"]
    np.testing.assert_allclose([label.score for label in labels], expected, rtol=1e-12)


def test_a_segment_averages_the_predictions_centred_in_it() -> None:
    # Frame 64 lies at 2.56 s: it opens the second segment, half-open as all intervals are.
    board = board_of([(56, logits(1, 0, 0)), (64, logits(0, 3, 0)), (72, logits(0, 1, 0))])
    _, segments = board.finish(seconds(80))
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 2.56), (2.56, 3.2)]
    assert segments[0].labels[0].score == pytest.approx(softmax(logits(1, 0, 0))[0])
    assert segments[1].labels[0].label == "jump"
    assert segments[1].labels[0].score == pytest.approx(softmax(logits(0, 2, 0))[1])


def test_peak_and_seconds_of_a_label() -> None:
    board = board_of([(8, logits(5, 0, 0)), (72, logits(0, 9, 0)), (136, logits(0, 1, 0))])
    labels, _ = board.finish(seconds(160))
    jump = next(label for label in labels if label.label == "jump")
    assert jump.peak == pytest.approx(softmax(logits(0, 9, 0))[1])
    assert jump.seconds == pytest.approx(2.56 + 1.28)
    assert sum(label.seconds or 0 for label in labels) == pytest.approx(6.4)


def test_the_finest_segments_without_a_centre_take_the_nearest_prediction() -> None:
    board = board_of([(8, logits(5, 0, 0)), (16, logits(0, 5, 0))], segment=0.32)
    _, segments = board.finish(seconds(24))
    assert [segment.labels[0].label for segment in segments] == ["run", "run", "jump"]


def test_every_gap_between_wide_windows_takes_the_nearer_side() -> None:
    board = board_of([(32, logits(5, 0, 0)), (160, logits(0, 5, 0))], segment=0.64)  # segments of 16 frames
    _, segments = board.finish(seconds(192))
    assert [segment.labels[0].label for segment in segments] == ["run"] * 6 + ["jump"] * 6


def test_segments_tile_the_video_exactly() -> None:
    board = board_of([(8 * (step + 1), logits(1, 0, 0)) for step in range(39)], segment=0.7)
    _, segments = board.finish(seconds(313))
    assert segments[0].start == 0
    assert segments[-1].end == pytest.approx(12.52)
    assert len(segments) == math.ceil(12.52 / 0.7)
    assert all(a.end == b.start for a, b in pairwise(segments))


def test_top_k_and_ties() -> None:
    assert best(LABELS, np.array([0.3, 0.3, 0.4]), 2) == [2, 0]
    labels, segments = board_of([(8, logits(0, 0, 1))], top_k=1).finish(seconds(64))
    assert [label.label for label in labels] == ["sit"]
    assert len(segments[0].labels) == 1
    assert len(board_of([(8, logits(0, 0, 1))], top_k=9).finish(seconds(64))[0]) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_number_is_an_error_of_the_video(bad: float) -> None:
    with pytest.raises(VideoError) as caught:
        board_of([(8, logits(0, bad, 0))])
    assert caught.value.code == "not_finite"


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(softmax(logits(1000, 999, -1000)), [0.7310586, 0.2689414, 0], atol=1e-7)


def test_where_no_label_reaches_the_threshold_that_is_said() -> None:
    board = Scoreboard(LABELS, 2.56, 2, threshold=0.5, otherwise="unclear")
    board.add(seconds(32), logits(5, 0, 0))
    board.add(seconds(96), logits(0.5, 0.4, 0.3))
    labels, segments = board.finish(seconds(128))
    assert [label.label for label in labels] == ["run", "jump"]
    assert [segment.labels[0].label for segment in segments] == ["run", "unclear"]
    best_score = softmax(logits(0.5, 0.4, 0.3))[0]
    assert [label.score for label in segments[1].labels] == pytest.approx([1 - best_score, best_score])
    assert labels[0].seconds == pytest.approx(2.56)
    unclear = Scoreboard(LABELS, 2.56, 1, threshold=0.5, otherwise="unclear")
    unclear.add(seconds(32), logits(0, 0, 0))
    ((label,), _) = unclear.finish(seconds(64))
    assert (label.label, label.seconds) == ("unclear", pytest.approx(2.56))
    assert label.score == label.peak == pytest.approx(2 / 3)
