"""The reader in child processes, with limits and a watchdog: whatever a file does to FFmpeg, it costs one record.

Each child (``child``) decodes one file after another; what crashes, hangs or fills it serves no other.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any, get_type_hints

import av
import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.results import Part
from vadis.video import metadata
from vadis.video.colour import Colours
from vadis.video.container import from_root
from vadis.video.isolated import process
from vadis.video.isolated.process import MAX_PACKET_BYTES, SAMPLE_PACKETS, Child, Watchdog, check_fields, require
from vadis.video.metadata import AnyPath, GridFrame, Limits, Picture, SourceFrame, VideoFacts
from vadis.video.reader import sample_streams
from vadis.video.sources import Stamp, stamp
from vadis.video.timegrid import GRID_FPS

if TYPE_CHECKING:
    from typing_extensions import Self


class ChildVideo:
    """A video decoded in a child: a context manager, and within it like a ``reader.Video``.

    Nothing happens before the context is entered. ``cancel`` may be called at any time and from any thread; all else
    belongs to one thread.
    """

    size: tuple[int, int]
    start_frame: int  # index on the grid, of the first frame that is wanted
    expected_num_frames: int | None
    start_seconds: Fraction | None
    first_seconds: Fraction
    pixel_aspect: Fraction
    colours: Colours | None
    facts: VideoFacts
    _what = "grid"

    def __init__(self, decoders: "Decoders", path: AnyPath, start_frame: int = 0, **more: Any) -> None:
        self._decoders, self._limits, self._path = decoders, decoders.limits, os.fspath(path)
        self._request = more | {"what": self._what, "start_frame": start_frame}
        self._watchdog = Watchdog(self._limits.max_wait_seconds)
        self._child: Child | None = None
        self._exit_stack = ExitStack()  # until the context is left
        self._is_between = False  # the messages of a child that has not failed
        self._cancelled = self._done = False

    def __enter__(self) -> "Self":
        """Open the file; raise VideoError, and VadisError where no process can be had that decodes it."""
        try:
            path = self._exit_stack.enter_context(self._decoders.local_path(self._path, lambda: self._cancelled))
            self._child = child = self._decoders.take()
            if self._cancelled:
                child.kill()
            child.wait_until_ready()
            child.watchdog = self._watchdog
            child.send(self._request | {"path": from_root(path)})
            self._open(child, self._receive(child))
            self._is_between = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._exit_stack:
            child, self._child = self._child, None
            if child is None:
                return
            if self._request.get("max_frames") is not None and self._is_between and not self._done:
                child.watchdog = Watchdog(0.5)
                with suppress(VideoError):  # all that was asked for may have come
                    self._done = "end" in self._receive(child)
            self._decoders.give_back(child, self._done and not self._cancelled)

    def cancel(self) -> None:
        """End the child, if it is at this video: who waits for its frames gets a VideoError instead."""
        self._cancelled = True  # before the look at the child, which others change before they look at this
        if (child := self._child) is not None:
            child.kill()

    def __iter__(self) -> Iterator[GridFrame]:
        """Yield the frames of the grid, once; raises VideoError as the reader, and ``decoder_crash``, ``timeout``."""
        for indices, picture in self._contents():
            yield from (GridFrame(picture, i / GRID_FPS) for i in indices)

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        vars(self).update(zip(_ATTRIBUTE_TYPES, check_fields(message, **_ATTRIBUTE_TYPES), strict=True))
        self._next = self.start_frame
        short, long = sorted(self.size)
        is_grid_size = short == metadata.SHORT_SIDE and long <= metadata.LONGEST_SIDE
        is_possible = is_grid_size if self._what == "grid" else short > 0 and short * long <= self._limits.max_pixels
        require(is_possible and self.pixel_aspect > 0, "size")
        require((self.expected_num_frames or 0) >= 0 and self.start_frame >= 0, "expected_num_frames")
        require(all(0 <= number < 256 for number in self.colours or ()), "colours")
        self._watchdog.video_seconds = self.facts.duration_seconds or 0.0

    def _contents(self) -> Iterator[Any]:
        """Yield what is in each message up to the last, and in the bytes that follow it."""
        while not self._done:
            child, self._is_between = self._child, False
            assert child is not None, "a ChildVideo is read within its context"
            message = self._receive(child)
            if "end" in message:
                self._end(message["end"])
                self._done = True
                return
            content = self._read(child, message)
            self._is_between = True
            yield content

    def _read(self, child: Child, message: dict[str, Any]) -> Any:
        first, count = check_fields(message, first=int, count=int)
        indices = range(first, first + count)
        most = self.start_frame + 1 + ceil(self._limits.max_seconds * GRID_FPS)
        require(count >= 1 and first == self._next and indices.stop <= most, "not the next frame")
        self._next = indices.stop
        return indices, self._read_picture(child, self._next / GRID_FPS)

    def _read_picture(self, child: Child, until: float) -> Picture:
        pixels = np.empty((*self.size[::-1], 3), np.uint8)
        child.read_into(pixels.data.cast("B"))
        self._watchdog.video_seconds = max(self._watchdog.video_seconds, until)
        return pixels

    def _end(self, message: Any) -> None:
        """Take the facts after the last frame, if any; those of the grid must have the number of frames received."""
        if message is not None or self._what == "grid":
            self.facts = process.facts_from_json(message)
        if self._what != "grid":
            return
        length = self.facts.num_frames
        is_behind_end = length is not None and length < self._next == self.start_frame
        is_part = self._request.get("max_frames") is not None or self._request.get("part") is not None
        require(is_part if length is None else length == self._next or is_behind_end, "length")

    def _receive(self, child: Child) -> dict[str, Any]:
        message = child.receive()
        if "error" in message:
            error, self._done = process.error_from_json(message["error"]), True
            raise error
        return message


_ATTRIBUTE_TYPES = get_type_hints(ChildVideo)  # types of the attributes that the first message carries


class SourceVideo(ChildVideo):
    """A video, or a folder of pictures, whose frames are those of the file."""

    _what = "source"
    _before = Fraction(0)

    def source_frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of the file, once; raises VideoError as iterating over a ``ChildVideo`` does."""
        return self._contents()

    __iter__ = source_frames  # type: ignore[assignment]

    def _read(self, child: Child, message: dict[str, Any]) -> SourceFrame:
        ((seconds, duration, zero),) = check_fields(message, times=tuple[Fraction, Fraction, Fraction | None])
        is_next = self._before <= seconds <= seconds + duration <= self._limits.max_seconds + 1
        require(is_next, "not the next frame")
        self._before = seconds
        return SourceFrame(self._read_picture(child, float(seconds + duration)), seconds, duration, zero)


class ChildSound(ChildVideo):
    """The sound of a file, as ``reader.open_packets`` has it; entering raises UsageError where it cannot be copied."""

    streams: "tuple[av.AudioStream, ...]"
    packets: "Iterator[av.Packet[Any]]"
    _what = "sound"

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        names, num_bytes = check_fields(message, not_copied=tuple[str, ...], sample_bytes=int)
        if names:
            hint = "leave the sound out with `with_sound=False`: not even .mkv takes it"
            raise UsageError(f"sound of the kind {', '.join(names)[:200]} cannot be copied", hint)
        most = SAMPLE_PACKETS * MAX_PACKET_BYTES + (1 << 20)
        require(0 <= num_bytes <= most, "sample_bytes")
        self.streams = sample_streams(child.read(num_bytes)) if num_bytes else ()
        self.packets = self._contents()
        self._watchdog.video_seconds = self._limits.max_seconds

    def _read(self, child: Child, message: dict[str, Any]) -> "av.Packet[Any]":
        (pts, dts, duration), time_base, stream, num_bytes = check_fields(
            message, times=tuple[int, int, int], time_base=Fraction, stream=int, num_bytes=int
        )
        require(0 <= stream < len(self.streams) and duration >= 0 and time_base > 0, "packet")
        require(0 <= num_bytes <= MAX_PACKET_BYTES, "num_bytes")
        packet: av.Packet[Any] = av.Packet(child.read(num_bytes))
        packet.time_base, packet.pts, packet.dts, packet.duration = time_base, pts, dts, duration
        packet.is_keyframe = True  # so is all sound that these containers hold
        packet.stream = self.streams[stream]
        return packet


class ChildClip(ChildVideo):
    """A stretch of a file as a file of its own, whose packets are copies; ``begins`` is None where there is none."""

    begins: float | None
    _what = "clip"

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        (self.begins,) = check_fields(message, begins=float | None)
        self._left = os.stat(self._path).st_size + (1 << 20)  # what it may have at most  # noqa: PTH116

    def pieces(self) -> Iterator[bytes]:
        """Yield the content, once; raises VideoError as iterating over a ``ChildVideo`` does."""
        return self._contents()

    def _read(self, child: Child, message: dict[str, Any]) -> bytes:
        (num_bytes,) = check_fields(message, num_bytes=int)
        require(0 <= num_bytes <= min(MAX_PACKET_BYTES, self._left), "num_bytes")
        self._left -= num_bytes
        return bytes(child.read(num_bytes))


class Decoders:
    """The children of this process that decode videos; started as they are needed, ended with this context.

    Any number of videos may be open at once, by any thread, each in a child of its own, which runs ``program``.
    """

    def __init__(self, limits: Limits | None = None, *, program: str | None = None) -> None:
        self.limits, self._program = limits or Limits.of_environment(), program or process.PROGRAM
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        # The kernel ends a child with the thread that started it (PR_SET_PDEATHSIG): one that stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(
        self,
        path: AnyPath,
        *,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
        part: Part | None = None,
    ) -> ChildVideo:
        """Return a video of at most ``max_frames``, opened by entering its context; see ``reader.open_video``.

        Of a ``part`` it has only the frames on the grid there.
        """
        return ChildVideo(self, path, start_frame, listed=listed, max_frames=max_frames, part=part)

    def open_source(self, path: AnyPath, **part: Any) -> SourceVideo:
        """Return the same for a video's own frames, counted so; ``size`` is one of ``picture.SCALERS``.

        Of a ``part`` it has those that are shown there, from the one that has begun before, and the next one.
        """
        return SourceVideo(self, path, **part)

    def local_path(self, path: str, is_cancelled: Callable[[], bool]) -> AbstractContextManager[str]:
        """Return the local file that ``path`` stands for, as a context."""
        return nullcontext(path)

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of the file at ``path`` as it is now."""
        return stamp(path)

    def start_one(self) -> None:
        """Start a child, to be there when the first video is opened; raise VadisError where none can be started."""
        self.give_back(self.take(), True)

    def missing_restrictions(self) -> tuple[str, ...]:
        """Return, in words, which privileges a child cannot drop here; raise VadisError if none can be started."""
        child = self.take()
        try:
            return child.wait_until_ready()
        finally:
            self.give_back(child, child.lacking is not None)

    def take(self) -> Child:
        """Return a child that serves nobody, perhaps not ready yet; raise VadisError where none can be started."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                return self._starter.submit(self._start).result()
            if child.is_alive():
                return child
            self.give_back(child, False)

    def give_back(self, child: Child, is_usable: bool) -> None:
        """Keep a child for the next video, or end it."""
        with self._lock:
            if is_usable and not child.is_worn and not self._is_closed:
                self._idle.append(child)
                return
            self._all.discard(child)
        child.end()

    def close(self) -> None:
        """End all children, also those that are at a video: who waits for its frames gets a VideoError."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for child in self._all:
                child.kill()
        self._starter.shutdown(wait=True)
        for child in idle:
            self.give_back(child, False)

    def _start(self) -> Child:
        child = Child(self._program, self.limits)
        with self._lock:
            self._all.add(child)
            if self._is_closed:
                child.kill()
        return child


def read_frames(
    path: str | os.PathLike[str], *, start_frame: int = 0, max_frames: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the frames of a video as the networks' preprocessing takes them, and their times.

    Args:
        path: a local file, of which all frames that are returned have to fit into memory.
        start_frame: on the grid of 25 frames per second.
        max_frames: how many at most; None for all to the end.

    Returns:
        uint8 RGB (T, H, W, 3), upright, 25 per second, the shorter side 256 px; and float64 (T,), in seconds from the
        start of the file as players count.

    Raises:
        VideoError: the file cannot be read; ``code`` says why.
    """
    with Decoders() as decoders, decoders.open(path, start_frame=start_frame, max_frames=max_frames) as video:
        frames = list(video)
        seconds = video.facts.first_seconds + np.array([frame.seconds for frame in frames])
    return np.stack([frame.pixels for frame in frames]), seconds
