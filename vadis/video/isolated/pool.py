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
from types import TracebackType
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
from vadis.video.metadata import LONGEST_SIDE, SHORT_SIDE, GridFrame, Limits, SourceFrame, VideoFacts, more
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
    """A video decoded in a child: a context manager, and within it a ``metadata.OpenVideo``.

    Only ``Decoders.open`` makes one. Nothing happens before the context is entered. ``cancel`` may be called at any
    time and from any thread; all else belongs to one thread.
    """

    size: tuple[int, int]
    expected_num_frames: int | None
    facts: VideoFacts

    def __init__(self, decoders: "Decoders", request: dict[str, Any]) -> None:
        self._decoders, self._request, self._limits = decoders, request, decoders.limits
        self._watchdog = Watchdog(self._limits.max_wait_seconds)
        self._child: Child | None = None
        self._lock = threading.Lock()  # between ``cancel`` and the change of what it cancels
        self._cancelled = self._done = self._worn = False
        self._next = int(request["start_frame"])  # index on the grid

    def __enter__(self) -> "Self":
        """Open the file.

        Raises:
            VideoError: with any code of ``VIDEO_ERROR_CODES`` that concerns files and decoding.
            VadisError: where no process can be had that decodes it.
        """
        child = self._decoders.take()
        with self._lock:
            self._child = child
            if self._cancelled:
                child.kill()
        try:
            self._wait_until_ready(child)
            with self._watched() as child:
                child.send(self._request)
                self._open(child, self._receive(child))
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()

    def cancel(self) -> None:
        """End the child, if it is at this video: who waits for its frames gets a VideoError instead."""
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()

    def __iter__(self) -> Iterator[GridFrame]:
        """Yield the frames of the grid, once.

        Raises:
            VideoError: as the reader's, and ``decoder_crash``, ``timeout``.
        """
        while (chunk := self._chunk()) is not None:
            at, repeats, pictures = chunk
            for picture, count in zip(pictures, repeats, strict=True):
                for i in range(at, at + count):
                    yield GridFrame(picture, i / GRID_FPS)
                at += count

    def _wait_until_ready(self, child: Child) -> None:
        try:
            if not child.is_ready:
                child.wait_until_ready()
        except VadisError as error:
            if not self._cancelled:
                raise
            raise VideoError("decoder_crash", "the video was given up before it was opened") from error

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        """Take the first message about the video."""
        about = field(message, "video")
        self.size = protocol.size(about)
        require(min(self.size) == SHORT_SIDE and max(self.size) <= LONGEST_SIDE, "size")
        self.expected_num_frames = protocol.optional_integer(about, "expected")
        self._take_facts(about)

    def _take_facts(self, about: Any) -> None:
        self.facts = protocol.facts_from_json(field(about, "facts"))
        self._watchdog.video_seconds = self.facts.duration_seconds or 0.0

    def _chunk(self) -> tuple[int, list[int], NDArray[np.uint8]] | None:
        """Return the first frame's index, how often each picture is shown, pictures (N, H, W, 3); None at the end."""
        if self._done:
            return None
        width, height = self.size
        with self._watched() as child:
            message = self._receive(child)
            if "end" in message:
                self.facts, self._done = self._final_facts(message["end"]), True
                return None
            repeats = protocol.integers(message, "frames", None, low=1)
            require(1 <= len(repeats) <= max(1, CHUNK_BYTES // (width * height * 3)), "frames")
            at, self._next = self._next, self._next + sum(repeats)
            most_frames = self._request["start_frame"] + 1 + ceil(self._limits.max_seconds * GRID_FPS)
            require(
                protocol.integer(message, "first") == at and self._next <= most_frames, "frames that cannot be next"
            )
            pictures = np.empty((len(repeats), height, width, 3), np.uint8)
            child.read_into(pictures.data.cast("B"), self._watchdog)
        self._watchdog.video_seconds = max(self._watchdog.video_seconds, self._next / GRID_FPS)
        return at, repeats, pictures

    def _final_facts(self, message: Any) -> VideoFacts:
        """Return the facts at the end of a video, whose length must be that of the frames received."""
        facts, start = protocol.facts_from_json(message), self._request["start_frame"]
        if facts.num_frames is None:
            require(self._request["max_frames"] is not None, "no length")
        else:
            require(facts.num_frames == self._next or facts.num_frames < self._next == start, "length")
        return facts

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

    def _open(self, child: Child, message: dict[str, Any]) -> None:
        about = field(message, "video")
        self.size = width, height = protocol.size(about)
        require(width * height <= self._limits.max_pixels, "size")
        self.start_seconds = protocol.optional_fraction(about, "start_seconds")
        self.first_seconds = protocol.fraction(about, "first_seconds")
        is_stated = field(about, "colours") is not None
        self.colours = Colours(*protocol.integers(about, "colours", 3, 0, 255)) if is_stated else None
        self.pixel_aspect = protocol.fraction(about, "pixel_aspect")
        require(self.pixel_aspect > 0, "pixel_aspect")
        self._take_facts(about)

    def source_frames(self) -> Iterator[SourceFrame]:
        """Yield the frames of the file, once; raises VideoError as iterating over a ``ChildVideo`` does."""
        (width, height), before = self.size, Fraction(0)
        while not self._done:
            with self._watched() as child:
                message = self._receive(child)
                if "end" in message:
                    self.facts, self._done = protocol.facts_from_json(message["end"]), True
                    return
                seconds, duration = (protocol.fraction(message, name) for name in ("seconds", "duration"))
                zero = protocol.optional_fraction(message, "zero")
                is_next = before <= seconds <= seconds + duration <= self._limits.max_seconds + 1
                require(is_next, "a frame that cannot be next")
                pixels = np.empty((height, width, 3), np.uint8)
                child.read_into(pixels.data.cast("B"), self._watchdog)
            before = seconds
            self._watchdog.video_seconds = max(self._watchdog.video_seconds, float(seconds + duration))
            yield SourceFrame(pixels, seconds, duration, zero)


class ChildSound(ChildVideo):
    """The sound of a file: ``streams``, as ``reader.Sound`` has them, and ``packets``."""

    streams: "tuple[av.AudioStream, ...]"

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
        while not self._done:
            with self._watched() as child:
                message = self._receive(child)
                if "end" in message:
                    self._done = True
                    return
                stream = protocol.integer(message, "stream", high=len(self.streams) - 1)
                num_bytes = protocol.integer(message, "num_bytes", high=MAX_PACKET_BYTES)
                packet: av.Packet[Any] = av.Packet(child.read(num_bytes, self._watchdog))
                packet.time_base = protocol.fraction(message, "time_base")
                for name in ("pts", "dts"):
                    setattr(packet, name, protocol.integer(message, name, -(1 << 63), (1 << 63) - 1))
                packet.duration = protocol.integer(message, "duration")
            packet.is_keyframe = True  # so is all sound that these containers hold
            packet.stream = self.streams[stream]
            yield packet


def open_source(decoders: "Decoders", path: str | os.PathLike[str]) -> SourceVideo:
    """Open a video as ``reader.open_source`` does, decoded in a child of ``decoders``; a context manager."""
    return SourceVideo(decoders, decoders.request(path, "source"))


@contextmanager
def open_sound(decoders: "Decoders", path: str | os.PathLike[str]) -> Iterator[Sound]:
    """Open the sound of a file as ``reader.open_sound`` does, read in a child of ``decoders``.

    Raises:
        UsageError: the sound is of a kind that cannot be copied.
    """
    with ChildSound(decoders, decoders.request(path, "sound")) as sound:
        yield Sound(sound.streams, sound.packets())


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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def open(
        self,
        path: str | os.PathLike[str],
        *,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
    ) -> ChildVideo:
        """Return a video, to be opened by entering its context.

        Args:
            path: as for ``open_video``.
            listed: as for ``open_video``.
            start_frame: the first grid frame wanted.
            max_frames: how many at most. A child that can end a video goes on to the next; one whose video is left
                early is ended.
        """
        return ChildVideo(self, self.request(path, "grid", listed, start_frame, max_frames))

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of the file at ``path`` as it is now."""
        return stamp(path)

    def request(
        self,
        path: str | os.PathLike[str],
        what: str,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
    ) -> dict[str, Any]:
        """Return what is sent to a child; the path absolute, as the child may be in another folder, never shortened."""
        name = os.fspath(path)
        if name and not os.path.isabs(name):  # noqa: PTH117
            with suppress(OSError):  # the current folder may be gone
                name = os.path.join(os.getcwd(), name)  # noqa: PTH109, PTH118
        part = {"listed": listed, "start_frame": start_frame, "max_frames": max_frames}
        return {"path": name, "what": what, **part, "limits": asdict(self.limits)}

    def start_one(self) -> None:
        """Start a child, to be there when the first video is opened; raise VadisError where none can be started."""
        self.give_back(self.take(), True)

    def lacks(self) -> list[str]:
        """Return what a child cannot give up here, in plain words; empty where it can give up all.

        Raises:
            VadisError: where no child can be started.
        """
        child = self._starter.submit(self._start).result()
        try:
            return child.wait_until_ready()
        finally:
            self.give_back(child, child.is_ready)

    def take(self) -> Child:
        """Return a child that serves nobody; a new one may not be ready yet.

        Raises:
            VadisError: where none can be started.
        """
        while child := self._take_idle():
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
        """Take back a child that ``take`` gave."""
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

    def _take_idle(self) -> Child | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _start(self) -> Child:
        child = Child(self._program, self.limits)
        with self._lock:
            self._all.add(child)
            if self._is_closed:
                child.kill()
        return child
