"""From the display times of decoded frames to the 25 fps grid, in exact arithmetic.

Grid point ``i`` lies ``i / 25`` s after the first frame and shows the frame whose time is nearest (of two the earlier).
A video that lasts ``D`` seconds has ``25 D`` points, rounded half up and at least one (above 75 frames per second maybe
one more: the frames before the last can reach into the last half of an interval); one of a single frame has one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil, floor
from typing import TYPE_CHECKING, TypeVar

from vadis.results import Part

if TYPE_CHECKING:
    import av

    from vadis.video.metadata import Picture, SourceFrame

Frame = TypeVar("Frame")

GRID_FPS = 25
"""The frame rate of the paper's videos (section 2.4: "the videos were sampled at 25 frames per second")."""

LARGEST_GAP_SECONDS = Fraction(3600)  # a step forward that is believed where nothing else is known: loss, or a still
_MAX_DELAY = 32  # frames a decoder may hold back; H.264 and HEVC reorder at most 16
_LOOK_AHEAD = 3  # frames that judge a timestamp in doubt, so that two wrong ones in a row are told from a new clock
_EXPECTED_STEPS = Fraction(5, 2)  # of the usual distance between frames; a longer one is in doubt


def grid_length(duration: Fraction, fps: int = GRID_FPS) -> int:
    """Return how many grid points a video of several frames has that lasts ``duration`` seconds."""
    return max(1, floor(duration * fps + Fraction(1, 2)))


def grid_points(
    frames: Iterable[tuple[Frame, Fraction]], end: Callable[[Frame], Fraction], fps: int = GRID_FPS
) -> Iterator[tuple[Frame, range]]:
    """Yield each frame, which has its time, with the points of a grid of ``fps`` that show it.

    ``end`` gives the end of the last frame. Each is held until the next shows where the middle between them lies.
    """
    coming = iter(frames)
    held, seconds, first = *next(coming), 0  # the first grid point that is still to come
    for frame, time in coming:
        stop = max(first, floor((seconds + time) / 2 * fps) + 1)
        yield held, range(first, stop)
        held, seconds, first = frame, time, stop
    length = grid_length(end(held), fps)
    yield held, range(first, max(first, length if seconds else 1))


def frame_range(part: Part, first: Fraction, rate: int | Fraction = GRID_FPS) -> tuple[int, int | None]:
    """Return the first frame of a part, and how many it has (None: all that follow), of ``rate`` per second.

    ``first`` is when the first frame of the video is shown, in seconds from the start of the file.
    """
    start, end = (None if seconds is None else max(0, ceil((seconds - first) * rate)) for seconds in part.exact)
    assert start is not None
    return start, None if end is None else end - start


def frames_in_part(part: Part | None, first: Fraction, rate: int | Fraction | None, total: int | None) -> int | None:
    """Return how many frames of a video with ``total`` frames lie in ``part``; None if that is unknown."""
    if part is None or rate is None:
        return total
    start, count = frame_range(part, first, rate)
    left = None if total is None else max(0, total - start)
    return left if count is None or (left is not None and left < count) else count


def select_part(frames: "Iterable[SourceFrame]", part: Part, first: Fraction) -> "Iterator[SourceFrame]":
    """Yield the frames shown in a part and the one after them; for ``first`` see ``frame_range``."""
    start, end = part.exact
    for frame in frames:
        if first + frame.seconds + frame.duration_seconds > start:
            yield frame
        if end is not None and first + frame.seconds >= end:
            return


def resample_frames(frames: "Iterable[SourceFrame]", fps: int | None) -> "Iterator[tuple[Picture, Fraction, Fraction]]":
    """Yield (picture, start, end), in seconds, on a grid of ``fps``; if that is None, yield the file's own frames."""
    if fps is None:
        yield from ((frame.pixels, frame.seconds, frame.seconds + frame.duration_seconds) for frame in frames)
        return
    timed = ((frame, frame.seconds) for frame in frames)
    for frame, points in grid_points(timed, lambda last: last.seconds + last.duration_seconds, fps):
        yield from ((frame.pixels, Fraction(i, fps), Fraction(i + 1, fps)) for i in points)


class Clock:
    """Gives each decoded frame its display time in seconds after the first frame.

    A timestamp that is missing, not later than the one before, or far ahead of it is judged by the frames that follow.
    Where these continue as before, only it is wrong, and its frame is shown between its neighbours. Where they stay
    with it, time has passed without pictures, or the clock has started again: if it went back, forward by more than
    ``LARGEST_GAP_SECONDS`` or beyond ``latest``, or at one of ``restarts``. It then goes on at the usual distance.
    Without timestamps, frames follow at the nominal rate. But for a gap without pictures, ``synthetic`` is then True.

    Args:
        time_base: seconds per tick of the stream's timestamps.
        interval: nominal seconds between two frames.
        sequential: the n-th frame shown belongs to the n-th of ``stored``, as in AVI, which has no timestamps: where
            B-frames are packed, those that FFmpeg makes are out of order.
        latest: seconds that the file is said to last; a longer step beyond it is not believed until frames lie there.
    """

    def __init__(
        self, time_base: Fraction, interval: Fraction, *, sequential: bool = False, latest: Fraction | None = None
    ) -> None:
        self.start_seconds: Fraction | None = None  # of the first frame, by the file's own clock, as that of its sound
        self.synthetic = False  # a timestamp was missing or out of order, or a time was guessed
        # Timestamps of frames that were stored and not yet shown.
        self.stored: deque[int | None] = deque(maxlen=_MAX_DELAY)
        self.restarts: set[int] = set()  # timestamps with which another recording begins
        self._time_base, self._interval, self._latest = time_base, interval, latest
        self._is_sequential = sequential
        self._zero: Fraction | None = None  # ticks that now stand for time 0
        self._last_is_guessed = False
        self.jump()

    def jump(self) -> None:
        """Go on elsewhere in the file: the next frame's time follows from its timestamp alone."""
        self._last_pts: int | None = None
        self._last: Fraction | None = None
        self._step = self._interval  # from the last frame but one to the last
        self.has_guessed = False  # a time was not taken from a timestamp alone
        self.stored.clear()

    def ticks(self, seconds: Fraction) -> int | None:
        """Return the timestamp that stands for a time in seconds; None where timestamps say nothing."""
        return None if self._zero is None or self.has_guessed else floor(self._zero + seconds / self._time_base)

    @property
    def zero_seconds(self) -> Fraction | None:
        """What stands for time 0 by the file's own clock, as it runs now; None if it has none."""
        return None if self._zero is None else self._zero * self._time_base

    def timed(self, frames: "Iterable[av.VideoFrame]") -> "Iterator[tuple[av.VideoFrame, Fraction]]":
        """Yield each frame with its time; where that is in doubt, up to ``_LOOK_AHEAD`` frames are taken ahead."""
        coming, waiting = self._with_ticks(frames), deque["tuple[av.VideoFrame, int | None]"]()
        while waiting or (waiting := deque(islice(coming, 1))):
            frame, ticks = waiting.popleft()
            seconds = None if ticks is None else self._seconds(ticks)
            self._last_is_guessed, longest = False, _EXPECTED_STEPS * max(self._step, self._interval)
            if seconds is None or (self._last is not None and not 0 < seconds - self._last <= longest):
                waiting.extend(islice(coming, _LOOK_AHEAD - len(waiting)))
                following = [None if each is None else self._seconds(each) for _, each in waiting]
                seconds = self._judge(ticks, seconds, following)
            if self._last is not None and not self._last_is_guessed:
                self._step = seconds - self._last
            self._last = seconds
            yield frame, seconds

    def end(self, last_duration: int | None) -> Fraction:
        """Return when the last frame ends, by its own duration in ticks, or by the distance from the one before it."""
        shown = (last_duration or 0) * self._time_base
        last = self._last or Fraction(0)
        if shown <= 0 or self._last_is_guessed or not self._is_gap(last, last + shown):
            shown = self._step
        return last + shown

    def _is_gap(self, last: Fraction, seconds: Fraction) -> bool:
        """Return whether it can be that nothing new was shown for so long."""
        if self._latest is not None and last <= self._latest:
            return seconds <= self._latest or seconds - last <= _EXPECTED_STEPS * max(self._step, self._interval)
        return seconds - last <= LARGEST_GAP_SECONDS

    def _with_ticks(self, frames: "Iterable[av.VideoFrame]") -> "Iterator[tuple[av.VideoFrame, int | None]]":
        for frame in frames:
            pts = frame.pts
            self.synthetic |= pts is None or (self._last_pts is not None and pts <= self._last_pts)
            self._last_pts = self._last_pts if pts is None else pts
            if self._is_sequential:
                pts = self.stored.popleft() if self.stored else None
            yield frame, pts

    def _seconds(self, ticks: int) -> Fraction:
        if self._zero is None:
            self.start_seconds, self._zero = ticks * self._time_base, Fraction(ticks)
        return (ticks - self._zero) * self._time_base

    def _judge(self, ticks: int | None, seconds: Fraction | None, following: Sequence[Fraction | None]) -> Fraction:
        """Return the time of a frame whose timestamp, which stands for ``seconds``, is in doubt."""
        last = self._last
        if last is None:  # the first frame, without a timestamp
            return self._guess(Fraction(0))
        known = [each for each in following if each is not None]
        if seconds is not None and seconds > last:
            on, back = sum(each > seconds for each in known), sum(last < each <= seconds for each in known)
            is_right = on > back or not back
            has_restarted = not self._is_gap(last, seconds) or ticks in self.restarts
        else:
            has_restarted = seconds is not None and 2 * sum(each <= last for each in known) > len(known)
            is_right = has_restarted
        if ticks is not None and is_right and has_restarted:
            restart = self._guess(last + self._step)
            self._last_is_guessed = False
            self._zero = ticks - restart / self._time_base
            return restart
        if seconds is not None and is_right:
            return seconds
        spread = ((each - last) / n for n, each in enumerate(following, 2) if each is not None and each > last)
        return self._guess(last + min(next(spread, self._step), self._step))

    def _guess(self, seconds: Fraction) -> Fraction:
        self.synthetic = self.has_guessed = self._last_is_guessed = True
        return seconds
