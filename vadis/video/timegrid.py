"""From the display times of decoded frames to the 25 fps grid, in exact arithmetic.

Grid point ``i`` lies ``i / 25`` s after the first frame; its frame is the decoded frame whose display time is nearest
(of two equally near ones the earlier). The grid of a video that lasts ``D`` seconds, from its first frame to the end
of its last, has ``25 D`` points, rounded half up and at least one. (Above 75 frames per second it may have one more:
the frames before the last can reach into the last half of an interval.) A file of a single frame is a still: one point.
"""

from collections import deque
from fractions import Fraction
from math import floor

GRID_FPS = 25
"""The frame rate of the paper's videos (section 2.4: "the videos were sampled at 25 frames per second")."""

_MAX_DELAY = 32  # frames a decoder may hold back; H.264 and HEVC reorder at most 16


def grid_length(duration: Fraction) -> int:
    """How many grid points a video of several frames has that lasts ``duration`` seconds."""
    return max(1, floor(duration * GRID_FPS + Fraction(1, 2)))


class Clock:
    """Gives each decoded frame its display time in seconds after the first frame.

    A frame's time is its timestamp, as long as timestamps are there and increase. From the first broken one on, frames
    follow one another at the nominal rate, and ``synthetic`` is True. Where the container stores no timestamps but a
    sequence of frames (``sequential``, that is AVI), the n-th frame shown belongs to the n-th frame stored, which is
    right even where packed B-frames put the timestamps out of order.

    Args:
        time_base: seconds per tick of the stream's timestamps.
        interval: nominal seconds between two frames.
        sequential: timestamps come from ``stored``, not from the frames.
        largest_gap: seconds; a longer step forward is broken too. None: any step is believed.
    """

    def __init__(
        self, time_base: Fraction, interval: Fraction, *, sequential: bool = False, largest_gap: Fraction | None = None
    ) -> None:
        self.synthetic = False
        self._time_base = time_base
        self._interval = interval
        self._largest_gap = largest_gap
        self._stored: deque[int | None] | None = deque(maxlen=_MAX_DELAY) if sequential else None
        self._first: int | None = None
        self._last_pts: int | None = None
        self._last: Fraction | None = None
        self._step = interval
        self._by_index = False

    def stored(self, dts: int | None) -> None:
        """Note the place of a stored frame in a sequential container, before it is decoded."""
        if self._stored is not None:
            self._stored.append(dts)

    def lost(self) -> None:
        """Take back the newest stored frame: it could not be decoded."""
        if self._stored:
            self._stored.pop()

    def jump(self) -> None:
        """Reading goes on elsewhere in the file: the next frame's time follows from its timestamp alone."""
        self._last = self._last_pts = None
        if self._stored is not None:
            self._stored.clear()

    def ticks(self, seconds: Fraction) -> int | None:
        """The timestamp that stands for a time in seconds; None where timestamps say nothing."""
        return None if self._first is None or self.is_broken else self._first + floor(seconds / self._time_base)

    @property
    def start_seconds(self) -> Fraction | None:
        """When the first frame is shown, by the file's own clock, which its sound follows too; None if it has none."""
        return None if self._first is None else self._first * self._time_base

    @property
    def is_broken(self) -> bool:
        """Whether frames now follow one another at the nominal rate, because a timestamp was missing or wrong."""
        return self._by_index

    def time(self, pts: int | None) -> Fraction:
        """The time of the next frame in display order; later than that of the one before."""
        self.synthetic |= pts is None or (self._last_pts is not None and pts <= self._last_pts)
        self._last_pts = pts if pts is not None else self._last_pts
        ticks = (self._stored.popleft() if self._stored else None) if self._stored is not None else pts
        seconds = self._from_ticks(ticks)
        self._by_index |= seconds is None
        self.synthetic |= self._by_index
        if seconds is None:
            seconds = Fraction(0) if self._last is None else self._last + self._interval
        self._step = self._interval if self._last is None else seconds - self._last
        self._last = seconds
        return seconds

    def end(self, last_duration: int | None) -> Fraction:
        """When the last frame ends, by its own duration in ticks, or else by the distance from the one before it."""
        shown = (last_duration or 0) * self._time_base
        if shown <= 0 or self.synthetic or self._is_gap(shown):
            shown = self._step
        return (self._last or Fraction(0)) + shown

    def _is_gap(self, seconds: Fraction) -> bool:
        return self._largest_gap is not None and seconds > self._largest_gap

    def _from_ticks(self, ticks: int | None) -> Fraction | None:
        """The time by a timestamp, None where that is broken or one before it was."""
        if ticks is None or self._by_index:
            return None
        if self._first is None:
            self._first = ticks
        seconds = (ticks - self._first) * self._time_base
        if self._last is None:  # the first frame of all, or after a jump
            return seconds
        return None if seconds <= self._last or self._is_gap(seconds - self._last) else seconds


class Grid:
    """Tells how many grid points each frame takes; frames come in display order.

    Frames are looked at two by two: a frame's last grid point lies at or before the middle between it and the next.
    """

    def __init__(self) -> None:
        self.length = 0
        self._previous: Fraction | None = None

    def points_before(self, time: Fraction) -> int:
        """How many further grid points belong to the frame before the one shown at ``time`` seconds."""
        if self._previous is None:
            self._previous = time
            return 0
        last = floor((self._previous + time) / 2 * GRID_FPS)
        self._previous = time
        return self._take(last + 1)

    def points_at_end(self, duration: Fraction) -> int:
        """How many further grid points belong to the last frame of a video that lasts ``duration`` seconds."""
        return self._take(1 if self._previous == 0 else grid_length(duration))

    def _take(self, length: int) -> int:
        count = max(0, length - self.length)
        self.length += count
        return count
