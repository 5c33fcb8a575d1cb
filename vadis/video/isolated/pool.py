"""The reader in child processes, with limits and a watchdog: whatever a file does to FFmpeg, it costs one record.

``Decoders`` keeps children (``child``), each of which decodes one file after another; a file that crashes its child,
hangs it or fills its memory is refused, and the next file gets a new child. Frames come through a pipe, which the
child fills only as fast as it is emptied. They are the very frames that ``vadis.video.reader`` gives.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VadisError, VideoError
from vadis.video.colour import Colours
from vadis.video.isolated import process, protocol
from vadis.video.isolated.process import Child, ChildExited, ChildTimeout, Watchdog
from vadis.video.isolated.protocol import CHUNK_BYTES, MAX_PACKET_BYTES, ProtocolError, field, require
from vadis.video.isolated.sandbox import too_much_memory
from vadis.video.metadata import LONGEST_SIDE, SHORT_SIDE, AnyPath, GridFrame, Limits, SourceFrame, VideoFacts, more
from vadis.video.reader import Sound, sample_streams
from vadis.video.sources import Stamp, stamp
from vadis.video.timegrid import GRID_FPS

if TYPE_CHECKING:
    from typing_extensions import Self

_LAST_MESSAGE_SECONDS = 0.5  # for a child to send its last message about a video
_MAX_SAMPLE_BYTES = protocol.SAMPLE_PACKETS * MAX_PACKET_BYTES + (1 << 20)


class DecoderKilled(VideoError):
    """Somebody else killed the child (SIGKILL): on a machine whose memory is full, the system does."""


class ChildVideo:
    """A video decoded in a child: a context manager, and within it like a ``reader.Video``.

    Only ``Decoders.open`` makes one. Nothing happens before the context is entered. ``cancel`` may be called at any
    time and from any thread; all else belongs to one thread.
    """

    size: tuple[int, int]
    expected_num_frames: int | None
    facts: VideoFacts
    _what = "grid"

    def __init__(self, decoders: "Decoders", path: AnyPath, **part: Any) -> None:
        self._decoders, self._limits = decoders, decoders.limits
        part = {"listed": False, "start_frame": 0, "max_frames": None} | part
        self._request = part | {"path": _absolute(path), "what": self._what, "limits": asdict(self._limits)}
        self._watchdog = Watchdog(self._limits.max_wait_seconds)
        self._child: Child | None = None
        self._lock = threading.Lock()  # between ``cancel`` and the change of what it cancels
        self._cancelled = self._done = self._worn = False
        self._next = self._request["start_frame"]  # index on the grid

    def __enter__(self) -> "Self":
        """Open the file; raise VideoError, and VadisError where no process can be had that decodes it."""
        child = self._decoders.take()
        with self._lock:
            self._child = child
            if self._cancelled:
                child.kill()
        try:
            if not child.is_ready:
                child.wait_until_ready()
            with self._watched():
                child.send(self._request)
                self._open(child, self._receive(child))
        except BaseException as error:
            self._leave()
            if self._cancelled and isinstance(error, VadisError) and not isinstance(error, VideoError):
                raise VideoError("decoder_crash", "the video was given up before it was opened") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def cancel(self) -> None:
        """End the child, if it is at this video: who waits for its frames gets a VideoError instead."""
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        """Take the first message about the video."""
        about = field(message, "video")
        self.size = protocol.size(about)
        require(min(self.size) == SHORT_SIDE and max(self.size) <= LONGEST_SIDE, "size")
        self.expected_num_frames = protocol.optional(protocol.integer, about, "expected")
        self._take_facts(about)

    def _take_facts(self, about: Any) -> None:
        self.facts = protocol.facts_from_json(field(about, "facts"))
        self._watchdog.video_seconds = self.facts.duration_seconds or 0.0

    def __iter__(self) -> Iterator[GridFrame]:
        """Yield the frames of the grid, once; raises VideoError as the reader, and ``decoder_crash``, ``timeout``."""
        for at, repeats, pictures in self._contents():
            for picture, count in zip(pictures, repeats, strict=True):
                yield from (GridFrame(picture, i / GRID_FPS) for i in range(at, at + count))
                at += count

    def _contents(self) -> Iterator[Any]:
        """Yield what is in each message up to the last, and in the bytes that follow it."""
        while not self._done:
            with self._watched() as child:
                message = self._receive(child)
                if "end" in message:
                    self._end(message["end"])
                    self._done = True
                    return
                content = self._read(child, message)
            yield content

    def _read(self, child: Child, message: dict[str, Any]) -> Any:
        """Return the first frame's index on the grid, how often each picture is shown, pictures (N, H, W, 3)."""
        (width, height), start = self.size, self._request["start_frame"]
        repeats = protocol.integers(message, "frames", None, low=1)
        require(1 <= len(repeats) <= max(1, CHUNK_BYTES // (width * height * 3)), "frames")
        at, self._next = self._next, self._next + sum(repeats)
        is_next = protocol.integer(message, "first") == at
        require(is_next and self._next <= start + 1 + ceil(self._limits.max_seconds * GRID_FPS), "not the next frames")
        pictures = np.empty((len(repeats), height, width, 3), np.uint8)
        child.read_into(pictures.data.cast("B"), self._watchdog)
        self._watchdog.video_seconds = max(self._watchdog.video_seconds, self._next / GRID_FPS)
        return at, repeats, pictures

    def _end(self, message: Any) -> None:
        """Take the facts after the last frame, whose number must be that of the frames received."""
        self.facts = protocol.facts_from_json(message)
        length, is_part = self.facts.num_frames, self._request["max_frames"] is not None
        is_behind_end = length is not None and length < self._next == self._request["start_frame"]
        require(is_part if length is None else length == self._next or is_behind_end, "length")

    def _receive(self, child: Child) -> dict[str, Any]:
        """Return the next message, or raise the error in it."""
        message = child.receive(self._watchdog)
        self._worn |= bool(message.get("worn"))
        if "error" in message:
            error = protocol.error_from_json(message["error"])
            self._done = True
            raise error
        return message

    @contextmanager
    def _watched(self) -> Iterator[Child]:
        """Give the child; its failures become what they mean for this file, and it serves no other."""
        child = self._child
        assert child is not None, "a ChildVideo is read within its context"
        try:
            yield child
        except (ChildTimeout, ChildExited, ProtocolError) as failure:
            self._worn = True
            raise self._error_of(failure, child) from failure

    def _error_of(self, failure: Exception, child: Child) -> VideoError:
        """Return what a failure of the child means for this file."""
        if isinstance(failure, ProtocolError):
            return VideoError("decoder_crash", f"the process that decodes it sent an invalid message ({failure})")
        if isinstance(failure, ChildExited):
            child.wait_briefly()
            child.end()
            if child.ran_out_of_memory():
                return too_much_memory(self._limits.max_memory_mb)
            kind = DecoderKilled if child.was_killed_by_others() else VideoError
            return kind("decoder_crash", f"the process that decodes it ended{child.exit_reason()}")
        waited = f"the decoder gave nothing for {self._watchdog.quiet_seconds:g} s"
        if self._watchdog.seconds_left() <= 0:
            seconds = self._watchdog.waited_seconds
            waited = f"the decoder was waited for {seconds:.0f} s, more than the video may take"
        return VideoError("timeout", waited, more("max_wait_seconds"))

    def _leave(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            is_free = not self._worn and (self._done or self._ends_now(child))
            self._decoders.give_back(child, is_free and not self._worn and not self._cancelled)

    def _ends_now(self, child: Child) -> bool:
        """Return whether all requested frames have come, so that the child is about to be free."""
        if self._request["max_frames"] is None:
            return False
        try:
            message = child.receive(Watchdog(_LAST_MESSAGE_SECONDS))
        except (ChildExited, ChildTimeout, ProtocolError):
            return False
        self._worn = bool(message.get("worn"))
        return "end" in message or "error" in message


class SourceVideo(ChildVideo):
    """A video whose frames are those of the file; see ``reader.Video`` for the attributes."""

    start_seconds: Fraction | None
    first_seconds: Fraction
    pixel_aspect: Fraction
    colours: Colours | None
    _what = "source"

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        about = field(message, "video")
        self.size = width, height = protocol.size(about)
        require(width * height <= self._limits.max_pixels, "size")
        self.start_seconds = protocol.optional(protocol.fraction, about, "start_seconds")
        self.first_seconds = protocol.fraction(about, "first_seconds")
        colours = protocol.optional(protocol.integers, about, "colours", 3, 0, 255)
        self.colours = None if colours is None else Colours(*colours)
        self.pixel_aspect = protocol.fraction(about, "pixel_aspect")
        require(self.pixel_aspect > 0, "pixel_aspect")
        self._take_facts(about)
        self._before = Fraction(0)

    def source_frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of the file, once; raises VideoError as iterating over a ``ChildVideo`` does."""
        return self._contents()

    def _read(self, child: Child, message: dict[str, Any]) -> SourceFrame:
        seconds, duration = (protocol.fraction(message, name) for name in ("seconds", "duration"))
        zero = protocol.optional(protocol.fraction, message, "zero")
        is_next = self._before <= seconds <= seconds + duration <= self._limits.max_seconds + 1
        require(is_next, "a frame that cannot be next")
        pixels = np.empty((*self.size[::-1], 3), np.uint8)
        child.read_into(pixels.data.cast("B"), self._watchdog)
        self._before = seconds
        self._watchdog.video_seconds = max(self._watchdog.video_seconds, float(seconds + duration))
        return SourceFrame(pixels, seconds, duration, zero)

    def _end(self, message: Any) -> None:
        self.facts = protocol.facts_from_json(message)


class ChildSound(ChildVideo):
    """The sound of a file: ``streams``, as ``reader.Sound`` has them, and ``packets``."""

    streams: "tuple[av.AudioStream, ...]"
    _what = "sound"

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        about = field(message, "sound")
        if names := field(about, "not_copied"):
            shown = ", ".join(name for name in names if isinstance(name, str) and name.isprintable())[:200]
            hint = "leave the sound out with `with_sound=False`: not even .mkv takes it"
            raise UsageError(f"sound of the kind {shown} cannot be copied", hint)
        sample = child.read(protocol.integer(about, "sample_bytes", high=_MAX_SAMPLE_BYTES), self._watchdog)
        self._watchdog.video_seconds = self._limits.max_seconds
        self.streams = sample_streams(sample) if sample else ()

    def packets(self) -> "Iterator[av.Packet[Any]]":
        """Yield the packets, once, in the order of the file."""
        return self._contents()

    def _read(self, child: Child, message: dict[str, Any]) -> "av.Packet[Any]":
        stream = protocol.integer(message, "stream", high=len(self.streams) - 1)
        num_bytes = protocol.integer(message, "num_bytes", high=MAX_PACKET_BYTES)
        packet: av.Packet[Any] = av.Packet(child.read(num_bytes, self._watchdog))
        packet.time_base = protocol.fraction(message, "time_base")
        packet.pts, packet.dts = (protocol.integer(message, name, -(1 << 63), (1 << 63) - 1) for name in ("pts", "dts"))
        packet.duration = protocol.integer(message, "duration")
        packet.is_keyframe = True  # so is all sound that these containers hold
        packet.stream = self.streams[stream]
        return packet

    def _end(self, message: Any) -> None:
        pass


def open_source(decoders: "Decoders", path: AnyPath) -> SourceVideo:
    """Open a video as ``reader.open_source`` does, decoded in a child of ``decoders``; a context manager."""
    return SourceVideo(decoders, path)


@contextmanager
def open_sound(decoders: "Decoders", path: AnyPath) -> Iterator[Sound]:
    """Open the sound of a file as ``reader.open_sound`` does; raise UsageError where it cannot be copied."""
    with ChildSound(decoders, path) as sound:
        yield Sound(sound.streams, sound.packets())


def _absolute(path: AnyPath) -> str:
    """Return ``path`` from the root, never shortened: the child may be in another folder."""
    name = os.fspath(path)
    with suppress(OSError):  # the current folder may be gone
        if name and not os.path.isabs(name):  # noqa: PTH117
            return os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
    return name


class Decoders:
    """The children of this process that decode videos; started as they are needed, ended with this context.

    Any number of videos may be open at once, each in a child of its own. Any thread may open them.

    Args:
        limits: for all videos; by default those of the environment.
        program: what a child runs, instead of ``process.PROGRAM``: for tests of how children fail.
    """

    def __init__(self, limits: Limits | None = None, *, program: str | None = None) -> None:
        self.limits = limits or Limits.of_environment()
        self._program = process.PROGRAM if program is None else program
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
        self, path: AnyPath, *, listed: bool = False, start_frame: int = 0, max_frames: int | None = None
    ) -> ChildVideo:
        """Return a video, to be opened by entering its context; see ``reader.open_video``.

        At most ``max_frames`` are decoded. A child that can end a video goes on to the next; one whose video is left
        early is ended.
        """
        return ChildVideo(self, path, listed=listed, start_frame=start_frame, max_frames=max_frames)

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of the file at ``path`` as it is now."""
        return stamp(path)

    def start_one(self) -> None:
        """Start a child, to be there when the first video is opened; raise VadisError where none can be started."""
        self.give_back(self.take(), True)

    def lacks(self) -> list[str]:
        """Return what a child cannot give up here, in plain words; raise VadisError where none can be started."""
        child = self._starter.submit(self._start).result()
        try:
            return child.wait_until_ready()
        finally:
            self.give_back(child, child.is_ready)

    def take(self) -> Child:
        """Return a child that serves nobody, perhaps not ready yet; raise VadisError where none can be started."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                break
            if child.is_alive():
                return child
            self.give_back(child, False)
        starting = self._starter.submit(self._start)
        try:
            return starting.result()
        except BaseException:  # a signal; it may be about to be started
            starting.add_done_callback(lambda done: None if done.exception() else self.give_back(done.result(), False))
            raise

    def give_back(self, child: Child, is_usable: bool) -> None:
        with self._lock:
            if is_usable and not self._is_closed:
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
