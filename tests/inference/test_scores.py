"""Logits → labels: means, segments, peaks, leads, and where no label is clear."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from vadis.errors import VideoError
from vadis.inference.scores import Scoreboard, best, softmax
from vadis.results import NO_CLEAR_LABEL

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


def test_the_papers_score_is_the_softmax_of_the_mean_logits() -> None:
    board = board_of([(8, logits(4, 0, 0)), (16, logits(0, 2, 0))])
    labels = board.finish(seconds(64))["clip_score"]
    expected = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    assert [label.label for label in labels] == ["run", "jump", "sit"]
    np.testing.assert_allclose([label.score for label in labels], expected, rtol=1e-12)


def test_labels_rank_by_the_mean_of_their_probabilities_over_time() -> None:
    # Midway between frames 8 and 24 lies frame 16: the first prediction stands for a quarter of the time.
    labels = board_of([(8, logits(9, 0, 0)), (24, logits(0, 1, 0))]).finish(seconds(64))["labels"]
    first, second = softmax(logits(9, 0, 0)), softmax(logits(0, 1, 0))
    found = {label.label: label.score for label in labels}
    assert [found[name] for name in LABELS] == pytest.approx(list(first / 4 + second * 3 / 4))
    assert [label.label for label in labels] == ["jump", "run", "sit"]


def test_a_segment_averages_the_predictions_centred_in_it() -> None:
    # Frame 64 lies at 2.56 s: it opens the second segment, half-open as all intervals are.
    board = board_of([(56, logits(1, 0, 0)), (64, logits(0, 3, 0)), (72, logits(0, 1, 0))])
    segments = board.finish(seconds(80))["segments"]
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 2.56), (2.56, 3.2)]
    assert segments[0].labels[0].score == pytest.approx(softmax(logits(1, 0, 0))[0])
    assert segments[1].labels[0].label == "jump"
    assert segments[1].labels[0].score == pytest.approx(softmax(logits(0, 2, 0))[1])


def test_peak_and_seconds_of_a_label() -> None:
    board = board_of([(32, logits(9, 0, 0)), (96, logits(0, 9, 0)), (160, logits(0, 8, 0))])
    labels = board.finish(seconds(192))["labels"]
    jump = next(label for label in labels if label.label == "jump")
    assert jump.peak == pytest.approx(softmax(logits(0, 9, 0))[1])
    assert jump.seconds == pytest.approx(5.12)
    assert sum(label.seconds or 0 for label in labels) == pytest.approx(7.68)


def test_the_finest_segments_without_a_centre_take_the_nearest_prediction() -> None:
    board = board_of([(8, logits(5, 0, 0)), (16, logits(0, 5, 0))], segment=0.32)
    segments = board.finish(seconds(24))["segments"]
    assert [segment.labels[0].label for segment in segments] == ["run", "run", "jump"]


def test_every_gap_between_wide_windows_takes_the_nearer_side() -> None:
    board = board_of([(32, logits(5, 0, 0)), (160, logits(0, 5, 0))], segment=0.64)  # segments of 16 frames
    segments = board.finish(seconds(192))["segments"]
    assert [segment.labels[0].label for segment in segments] == ["run"] * 6 + ["jump"] * 6


def test_segments_tile_the_video_exactly() -> None:
    board = board_of([(8 * (step + 1), logits(1, 0, 0)) for step in range(39)], segment=0.7)
    segments = board.finish(seconds(313))["segments"]
    assert segments[0].start == 0
    assert segments[-1].end == pytest.approx(12.52)
    assert len(segments) == math.ceil(12.52 / 0.7)
    assert all(a.end == b.start for a, b in pairwise(segments))


def test_top_k_and_ties() -> None:
    assert best(np.array([0.3, 0.3, 0.4]), 2) == [2, 0]
    said = board_of([(8, logits(0, 0, 1))], top_k=1).finish(seconds(64))
    assert [label.label for label in said["labels"]] == [label.label for label in said["clip_score"]] == ["sit"]
    assert len(said["segments"][0].labels) == 1
    assert len(board_of([(8, logits(0, 0, 1))], top_k=9).finish(seconds(64))["labels"]) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_number_is_an_error_of_the_video(bad: float) -> None:
    with pytest.raises(VideoError) as caught:
        board_of([(8, logits(0, bad, 0))])
    assert caught.value.code == "not_finite"


def test_softmax_survives_large_logits() -> None:
    np.testing.assert_allclose(softmax(logits(1000, 999, -1000)), [0.7310586, 0.2689414, 0], atol=1e-7)


def test_a_video_without_a_clear_label_says_so_first() -> None:
    board = Scoreboard(LABELS, 2.56, 2, clear=0.5)
    board.add(seconds(32), logits(0, 0, 0))
    said = board.finish(seconds(64), first=3.0)
    first, second = said["labels"]
    assert (first.label, first.score, first.seconds) == (NO_CLEAR_LABEL, 1.0, pytest.approx(2.56))
    assert (second.label, second.score) == ("run", pytest.approx(1 / 3))
    (piece,) = said["timeline"]
    assert (piece.start, piece.end) == (3.0, pytest.approx(5.56))
    assert (piece.label, piece.score) == (NO_CLEAR_LABEL, pytest.approx(2 / 3))
    assert [label.label for label in said["clip_score"]] == [label.label for label in said["segments"][0].labels]
    assert NO_CLEAR_LABEL not in {label.label for label in said["clip_score"]}


def test_no_clear_label_is_no_headline_where_it_holds_for_less_than_half_of_the_time() -> None:
    predictions = [(128, logits(0, 0, 0)), (384, logits(9, 0, 0)), (640, logits(9, 0, 0))]
    board = Scoreboard(LABELS, 2.56, 5, clear=0.5)
    for frame, values in predictions:
        board.add(seconds(frame), values)
    said = board.finish(seconds(768))
    assert [piece.label for piece in said["timeline"]] == [NO_CLEAR_LABEL, "run"]
    assert [label.label for label in said["labels"]] == ["run", "jump", "sit"]


def test_only_the_labels_that_may_be_told_are() -> None:
    board = Scoreboard(LABELS, 2.56, 2, label_mask=[name == "jump" for name in LABELS])
    board.add(seconds(32), logits(9, 0, 0))
    board.add(seconds(96), logits(0, 9, 0))
    said = board.finish(seconds(128))
    for labels in (said["labels"], said["clip_score"], *(segment.labels for segment in said["segments"])):
        assert [label.label for label in labels] == ["jump"]
    assert {piece.label for piece in said["timeline"]} == {"jump"}
