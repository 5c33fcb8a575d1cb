"""Frames → chunks → looped, padded, cut into windows. Frames are numbered, so that every policy can be read off."""

from collections.abc import Iterator

import numpy as np
import pytest

from vadis.preprocessing import Clip, loop_clip, num_frames, pad_clip, sliding_windows, spread_windows
from vadis.video.readahead import chunks


def numbered(start: int, stop: int) -> Clip:
    frames = np.arange(start, stop)
    return {"rgb": frames.reshape(-1, 1, 1, 1), "flow": frames.reshape(-1, 1, 1, 1) + 0.5}


def in_chunks(frames: int, size: int) -> Iterator[Clip]:
    for start in range(0, frames, size):
        yield numbered(start, min(start + size, frames))


def numbers(clip: Clip) -> list[int]:
    assert (clip["flow"] == clip["rgb"] + 0.5).all(), "the streams must stay in step"
    return [int(number) for number in clip["rgb"].flatten()]


def test_looped_and_completed() -> None:
    assert numbers(loop_clip(numbered(0, 3), 8)) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert numbers(pad_clip(numbered(0, 3), 2)) == [0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("frames", "window", "stride", "starts"),
    [
        (10, 4, 4, [0, 4, 6]),
        (12, 4, 4, [0, 4, 8]),
        (10, 4, 2, [0, 2, 4, 6]),
        (11, 4, 2, [0, 2, 4, 6, 7]),
        (10, 3, 5, [0, 5, 7]),
        (4, 4, 1, [0]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 32])
def test_windows_reach_every_end(frames: int, window: int, stride: int, starts: list[int], size: int) -> None:
    given = list(sliding_windows(in_chunks(frames, size), window, stride))
    assert [start for start, _ in given] == starts
    for start, clip in given:
        assert numbers(clip) == list(range(start, start + window))


@pytest.mark.parametrize(
    ("frames", "starts"), [(10, [0, 2, 4, 6]), (4, [0, 0, 0, 0]), (16, [0, 4, 8, 12]), (18, [0, 4, 8, 12, 14])]
)
@pytest.mark.parametrize("size", [1, 3, 32])
def test_windows_are_spread_where_too_few_fit(frames: int, starts: list[int], size: int) -> None:
    given = list(spread_windows(in_chunks(frames, size), 4, 4))
    assert [start for start, _ in given] == starts
    assert all(numbers(clip) == list(range(start, start + 4)) for start, clip in given)


def test_windows_of_a_looped_video_are_spread() -> None:
    assert [numbers(clip) for _, clip in spread_windows(in_chunks(3, 2), 7, 2)] == [[0, 1, 2, 0, 1, 2, 0]] * 2


def test_a_video_shorter_than_a_window_is_looped() -> None:
    ((start, clip),) = sliding_windows(in_chunks(3, 2), 7, 7)
    assert (start, numbers(clip)) == (0, [0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize(("count", "lengths"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_chunks_are_consecutive(count: int, lengths: list[int]) -> None:
    frames = [np.full((2, 3, 3), number, dtype=np.uint8) for number in range(count)]
    cut_up = list(chunks(frames, 4))
    assert [len(chunk) for chunk in cut_up] == lengths
    assert [int(frame[0, 0, 0]) for chunk in cut_up for frame in chunk] == list(range(count))


def test_no_frame_is_taken_before_it_is_needed() -> None:
    taken: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(100):
            taken.append(number)
            yield np.zeros((2, 3, 3), dtype=np.uint8)

    next(chunks(frames(), 8))
    assert len(taken) == 8


def test_windows_hold_a_bounded_number_of_frames() -> None:
    alive: list[int] = []
    for _, clip in sliding_windows(in_chunks(2000, 16), 32, 8):
        alive.append(clip["rgb"].base.shape[0] if clip["rgb"].base is not None else num_frames(clip))
    assert max(alive) <= 32 + 8 + 2 * 16
