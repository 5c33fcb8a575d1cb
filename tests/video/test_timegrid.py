from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadis.video.metadata import SourceFrame
from vadis.video.timegrid import GRID_FPS, Clock, grid_length, grid_points, resample_frames


def walk(times, last_duration):
    """The frame shown at each grid point."""
    return [i for i, points in grid_points(enumerate(times), lambda last: times[last] + last_duration) for _ in points]


def nearest(times, point):
    """The same rule said backwards: the frame nearest to a grid point, the earlier of two."""
    at = Fraction(point, GRID_FPS)
    return min(range(len(times)), key=lambda i: (abs(times[i] - at), i))


def regular(count, fps):
    return [Fraction(i) / fps for i in range(count)]


@pytest.mark.parametrize(
    ("count", "fps", "length"),
    [
        (280, 28, 250),
        (300, 30, 250),
        (300, Fraction(30000, 1001), 250),
        (250, 25, 250),
        (240, 24, 250),
        (600, 60, 250),
        (150, 15, 250),
        (10, 1, 250),
        (2, 30, 2),
        (9, Fraction(119, 4), 8),
    ],
)
def test_the_grid_covers_the_last_frames_duration(count, fps, length):
    assert len(walk(regular(count, fps), 1 / Fraction(fps))) == length


@pytest.mark.parametrize("fps", [1, 10, 24, 25, 60])
def test_a_single_frame_is_a_still(fps):
    assert walk([Fraction(0)], 1 / Fraction(fps)) == [0]


def test_25_fps_is_taken_as_it_is():
    assert walk(regular(100, 25), Fraction(1, 25)) == list(range(100))


def test_50_fps_takes_every_second_frame_and_12_5_repeats():
    assert walk(regular(10, 50), Fraction(1, 50)) == [0, 2, 4, 6, 8]
    assert walk(regular(3, Fraction(25, 2)), Fraction(2, 25)) == [0, 0, 1, 1, 2, 2]  # ties go to the earlier


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=60), st.integers(1, 4000))
def test_every_grid_point_shows_the_nearest_frame(gaps, last):
    times = [Fraction(0)]
    for gap in gaps:
        times.append(times[-1] + Fraction(gap, 12800))
    shown = walk(times, Fraction(last, 12800))
    assert len(shown) == max(grid_length(times[-1] + Fraction(last, 12800)), covered(times))
    assert shown == [nearest(times, point) for point in range(len(shown))]


def covered(times):
    """Grid points up to the middle between the last two frames, which belong to the frame before the last."""
    return int((times[-2] + times[-1]) / 2 * GRID_FPS) + 1


def frames_with(pts):
    return [SimpleNamespace(pts=each) for each in pts]


def clock_times(pts, **options):
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000), **options)
    return [int(time * 1000) for _, time in clock.timed(frames_with(pts))], clock.synthetic


def test_time_counts_from_the_first_frame():
    assert clock_times([500, 540, 610]) == ([0, 40, 110], False)
    assert clock_times([-80, -40, 0]) == ([0, 40, 80], False)


@pytest.mark.parametrize(
    ("pts", "times"),
    [
        ([None, None, None], [0, 40, 80]),
        ([0, 30, None, 100], [0, 30, 60, 100]),
        ([0, None, None, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 40, 40, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 500, 1000, 1000, 2000, 2500], [0, 500, 1000, 1500, 2000, 2500]),
        ([0, 40, 10, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 40, 80, 9000, 160, 200, 240], [0, 40, 80, 120, 160, 200, 240]),
        ([0, 40, 80, 9000, 9040, 200, 240, 280], [0, 40, 80, 120, 160, 200, 240, 280]),
        ([0, 40, 80, 10, 50, 200, 240], [0, 40, 80, 120, 160, 200, 240]),
        ([0, 40, 10], [0, 40, 80]),
        ([0, 40, 9000, 120], [0, 40, 80, 120]),
    ],
)
def test_a_wrong_timestamp_costs_its_own_frame(pts, times):
    assert clock_times(pts) == (times, True)


@pytest.mark.parametrize(
    "pts",
    [
        [5000, 5040, 0, 40, 80, 120],  # restarts from 0
        [1000, 0, 40, 80, 120, 160],
        [0, 40, 9_000_000, 9_000_040, 9_000_080, 9_000_120],  # FFmpeg's reading of a restart from a lower time
    ],
)
def test_a_clock_that_starts_again_goes_on_behind_the_frame_before(pts):
    assert clock_times(pts) == ([0, 40, 80, 120, 160, 200], True)


def test_a_clock_may_start_again_often_and_at_another_rate():
    pts = [0, 40, 80, 10, 30, 50, 70, 5, 25]
    assert clock_times(pts) == ([0, 40, 80, 120, 140, 160, 180, 200, 220], True)


@pytest.mark.parametrize("pts", [[0, 40, 60_040, 60_080], [0, 60_000, 120_000, 180_000], [0, 3_000_000]])
def test_time_without_pictures_is_believed(pts):
    assert clock_times(pts) == (pts, False)


def test_a_step_beyond_the_length_of_the_file_is_not():
    pts = [0, 40, 15_000, 15_040, 15_080]
    assert clock_times(pts, latest=Fraction(16)) == (pts, False)
    assert clock_times(pts, latest=Fraction(10)) == ([0, 40, 80, 120, 160], True)
    assert clock_times([0, 40, 15_000], latest=Fraction(10)) == ([0, 40, 80], True)
    assert clock_times([0, 40, 80, 120], latest=Fraction(1, 10)) == ([0, 40, 80, 120], False), "only a long one"


def test_a_length_that_frames_have_shown_to_be_wrong_says_nothing():
    pts = [*range(0, 2000, 40), 9000, 9040, 9080, 9120]
    assert clock_times(pts, latest=Fraction(1)) == (pts, False)


def test_a_restart_that_was_foretold():
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000))
    clock.restarts.add(9000)
    times = [int(time * 1000) for _, time in clock.timed(frames_with([0, 40, 9000, 9040, 9080]))]
    assert times == [0, 40, 80, 120, 160]


@given(st.lists(st.none() | st.integers(-5000, 5000), min_size=1, max_size=30))
def test_times_increase_whatever_the_timestamps(pts):
    times = [time for _, time in Clock(Fraction(1, 1000), Fraction(40, 1000)).timed(frames_with(pts))]
    assert len(times) == len(pts) and times[0] == 0
    assert all(one < other for one, other in pairwise(times))


def test_frames_are_taken_ahead_only_where_a_timestamp_is_in_doubt():
    taken = []
    frames = (taken.append(frame) or frame for frame in frames_with([0, 40, 80, 60, 160, 200, 240, 280]))
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000)).timed(frames)
    ahead = []
    for given_so_far, _ in enumerate(clock, 1):
        ahead.append(len(taken) - given_so_far)
    assert ahead == [0, 0, 0, 3, 2, 1, 0, 0]


def test_a_sequential_container_goes_by_the_order_of_storage():
    clock = Clock(Fraction(1, 25), Fraction(1, 25), sequential=True)

    def frames():
        for dts, pts in [(0, 2), (1, 1), (4, 5)]:  # packed B-frames put pts out of order; two frames dropped after 1
            clock.stored.append(dts)
            yield SimpleNamespace(pts=pts)

    assert [time for _, time in clock.timed(frames())] == [0, Fraction(1, 25), Fraction(4, 25)]
    assert clock.synthetic


def test_a_stored_frame_that_fails_takes_its_place_with_it():
    clock = Clock(Fraction(1, 25), Fraction(1, 25), sequential=True)

    def frames():
        clock.stored.append(0)
        yield SimpleNamespace(pts=0)
        clock.stored.append(1)
        clock.stored.pop()
        clock.stored.append(2)
        yield SimpleNamespace(pts=2)

    assert [time for _, time in clock.timed(frames())] == [0, Fraction(2, 25)]
    assert not clock.synthetic


@pytest.mark.parametrize(
    ("pts", "last_duration", "end"),
    [
        ([0, 40], 30, 70),  # its own duration
        ([0, 40], None, 80),  # as long as the one before it
        ([0, 70], 0, 140),
        ([0], None, 40),  # the nominal interval
        ([0, 40, 40], 30, 120),  # its own timestamp is wrong: as long as the one before it
        ([0, 40], 90_000_000, 80),  # longer than any frame can be
    ],
)
def test_the_last_frame_ends(pts, last_duration, end):
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000), latest=Fraction(10))
    list(clock.timed(frames_with(pts)))
    assert clock.end(last_duration) * 1000 == end


@pytest.mark.parametrize("times", [[0], regular(7, 10), regular(40, Fraction(30000, 1001)), [Fraction(0), Fraction(2)]])
def test_at_25_per_second_frames_of_a_file_are_those_of_the_grid(times):
    frames = [SourceFrame(number, Fraction(time), Fraction(1, 10), None) for number, time in enumerate(times)]
    found = list(resample_frames(frames, GRID_FPS))
    assert [number for number, _, _ in found] == walk(times, Fraction(1, 10))
    assert [start for _, start, _ in found] == [Fraction(i, GRID_FPS) for i in range(len(found))]
    assert [(pixels, start) for pixels, start, _ in resample_frames(frames, None)] == list(enumerate(times))
    assert len(list(resample_frames(frames, 5))) == (grid_length(times[-1] + Fraction(1, 10), 5) if times[-1] else 1)
