from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadis.video.timegrid import GRID_FPS, Clock, Grid, grid_length


def walk(times, last_duration):
    """The frame shown at each grid point, by the rule in one pass."""
    grid, shown = Grid(), []
    for i, time in enumerate(times):
        shown += [i - 1] * grid.points_before(time)
    return shown + [len(times) - 1] * grid.points_at_end(times[-1] + last_duration)


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


def clock_times(pts, **options):
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000), **options)
    return [int(clock.time(each) * 1000) for each in pts], clock.synthetic


def test_time_counts_from_the_first_frame():
    assert clock_times([500, 540, 610]) == ([0, 40, 110], False)
    assert clock_times([-80, -40, 0]) == ([0, 40, 80], False)


@pytest.mark.parametrize(
    ("pts", "times"),
    [
        ([None, None, None], [0, 40, 80]),
        ([0, 30, None, 100], [0, 30, 70, 110]),  # nominal rate from there on
        ([0, 30, 30, 100], [0, 30, 70, 110]),
        ([0, 30, 10, 100], [0, 30, 70, 110]),
        ([1000, 0, 40], [0, 40, 80]),
    ],
)
def test_broken_timestamps_give_way_to_the_nominal_rate(pts, times):
    assert clock_times(pts) == (times, True)


def test_a_long_still_is_believed_unless_the_clock_may_have_restarted():
    pts = [0, 40, 60_040, 60_080]
    assert clock_times(pts) == (pts, False)
    assert clock_times(pts, largest_gap=Fraction(10)) == ([0, 40, 80, 120], True)


def test_a_sequential_container_goes_by_the_order_of_storage():
    clock = Clock(Fraction(1, 25), Fraction(1, 25), sequential=True)
    times = []
    for dts, pts in [(0, 2), (1, 1), (4, 5)]:  # packed B-frames put pts out of order; two frames were dropped after 1
        clock.stored(dts)
        times.append(clock.time(pts))
    assert times == [0, Fraction(1, 25), Fraction(4, 25)]
    assert clock.synthetic


def test_a_stored_frame_that_fails_takes_its_place_with_it():
    clock = Clock(Fraction(1, 25), Fraction(1, 25), sequential=True)
    clock.stored(0)
    assert clock.time(0) == 0
    clock.stored(1)
    clock.lost()
    clock.stored(2)
    assert clock.time(2) == Fraction(2, 25)
    assert not clock.synthetic


@pytest.mark.parametrize(
    ("pts", "last_duration", "end"),
    [
        ([0, 40], 30, 70),  # its own duration
        ([0, 40], None, 80),  # as long as the one before it
        ([0, 70], 0, 140),
        ([0], None, 40),  # the nominal interval
        ([0, 40, 40], 30, 120),  # by index: the nominal interval
        ([0, 40], 90_000_000, 80),  # longer than any frame can be
    ],
)
def test_the_last_frame_ends(pts, last_duration, end):
    clock = Clock(Fraction(1, 1000), Fraction(40, 1000), largest_gap=Fraction(10))
    for each in pts:
        clock.time(each)
    assert clock.end(last_duration) * 1000 == end
