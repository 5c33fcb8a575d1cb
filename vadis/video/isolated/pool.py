"""The reader in a child process, with limits and a watchdog: whatever a file does to FFmpeg, it costs one record.

``Decoders`` keeps children (``child.py``), each of which decodes one file after another; a file that crashes its child,
hangs it or fills its memory is refused, and the next file gets a new child. Frames come through a pipe, which the
child fills only as fast as it is emptied. They are the very frames that ``open_video`` gives.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from math import ceil
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VadisError, VideoError
from vadis.video.isolated import process, protocol
from vadis.video.isolated.process import Child, Gone, Patience, TooSlow
from vadis.video.isolated.protocol import Nonsense
from vadis.video.isolated.sandbox import too_much_memory
from vadis.video.metadata import GridFrame, Limits, VideoFacts, more
from vadis.video.sources import Stamp, stamp
from vadis.video.timegrid import GRID_FPS

_FAREWELL_SECONDS = 0.5  # for a child to say that it has told all


class DecoderKilled(VideoError):
    """Somebody else killed the child (SIGKILL): on a machine whose memory is full, the system does."""


class ChildVideo:
    """A video decoded in a child: a context manager, and within it what ``frames.OpenVideo`` promises.

    Only ``Decoders.open`` makes one. Nothing happens before the context is entered. ``cancel`` may be called at any
    time and from any thread; all else belongs to one thread.
    """

    size: tuple[int, int]
    expected_num_frames: int | None
    facts: VideoFacts

    def __init__(self, decoders: "Decoders", request: dict[str, Any], limits: Limits) -> None:
        self._decoders, self._request, self._limits = decoders, request, limits
        self._patience = Patience(limits.max_wait_seconds)
        self._child: Child | None = None
        self._turn = threading.Lock()  # between ``cancel`` and the change of what it cancels
        self._cancelled = self._done = self._worn = False
        self._next = int(request["start_frame"])  # index on the grid
        self._most = self._next + 1 + ceil(limits.max_seconds * GRID_FPS)

    def __enter__(self) -> "ChildVideo":
        """Open the file.

        Raises:
            VideoError: with any code of ``VIDEO_ERROR_CODES`` that concerns files and decoding.
            VadisError: where no process can be had that decodes it.
        """
        child = self._decoders.take()
        with self._turn:
            self._child = child
            if self._cancelled:
                child.kill()
        try:
            self._begin(child)
            self._open()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()

    def _begin(self, child: Child) -> None:
        if child.is_ready:
            return
        try:
            child.begin()
        except VadisError as error:
            if not self._cancelled:
                raise
            raise VideoError("decoder_crash", "the video was given up before it was opened") from error

    def cancel(self) -> None:
        """End the child, if it is at this video: who waits for its frames gets a VideoError instead."""
        with self._turn:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()

    def __iter__(self) -> Iterator[GridFrame]:
        """The frames of the grid, once.

        Raises:
            VideoError: as the reader's, and ``decoder_crash``, ``timeout``.
        """
        while (chunk := self._chunk()) is not None:
            at, counts, pictures = chunk
            for picture, times in zip(pictures, counts, strict=True):
                for i in range(at, at + times):
                    yield GridFrame(picture, i / GRID_FPS)
                at += times

    def _open(self) -> None:
        with self._watched() as child:
            child.ask(self._request)
            about = protocol.field(self._hear(child), "video")
            self.size = protocol.picture_size(about)
            self.expected_num_frames = protocol.maybe_count(about, "expected")
            self.facts = protocol.facts_from_json(protocol.field(about, "facts"))
            self._patience.video_seconds = self.facts.duration_seconds or 0.0

    def _chunk(self) -> tuple[int, list[int], NDArray[np.uint8]] | None:
        """The index of the first frame, how often each picture is shown, pictures (N, H, W, 3); None at the end."""
        if self._done:
            return None
        width, height = self.size
        with self._watched() as child:
            told = self._hear(child)
            if "end" in told:
                self.facts, self._done = self._final(told["end"]), True
                return None
            counts = protocol.repeats(protocol.field(told, "frames"), width * height * 3)
            at, self._next = self._next, self._next + sum(counts)
            if protocol.count(told, "first") != at or self._next > self._most:
                raise Nonsense("frames that cannot be next")
            pictures = np.empty((len(counts), height, width, 3), np.uint8)
            child.read_into(pictures.data.cast("B"), self._patience)
        self._patience.video_seconds = max(self._patience.video_seconds, self._next / GRID_FPS)
        return at, counts, pictures

    def _final(self, told: Any) -> VideoFacts:
        """The facts at the end of a video, whose length must be that of the frames that came."""
        facts, start = protocol.facts_from_json(told), self._request["start_frame"]
        if facts.num_frames is None:
            if self._request["max_frames"] is None:
                raise Nonsense("no length")
        elif facts.num_frames != self._next and not (facts.num_frames < self._next == start):
            raise Nonsense("length")
        return facts

    def _hear(self, child: Child) -> dict[str, Any]:
        """The next message; raises the error that it tells."""
        told = child.hear(self._patience)
        self._worn |= bool(told.get("worn"))
        if "error" in told:
            error = protocol.error_from_json(told["error"])
            self._done = True
            raise error
        return told

    @contextmanager
    def _watched(self) -> Iterator[Child]:
        """The child, to talk with; a failure of it ends it and becomes what the failure means for this file."""
        child = self._child
        assert child is not None, "a ChildVideo is read within its context"
        try:
            yield child
        except (TooSlow, Gone, Nonsense) as failure:
            self._worn = True
            raise self._meaning(failure, child) from failure

    def _meaning(self, failure: Exception, child: Child) -> VideoError:
        """What a failure of the child means for this file."""
        if isinstance(failure, Nonsense):
            return VideoError("decoder_crash", f"the process that decodes it told nonsense ({failure})")
        if isinstance(failure, Gone):
            child.wait_briefly()
            child.end()
            if child.ran_out_of_memory():
                return too_much_memory(self._limits.max_memory_mb)
            kind = DecoderKilled if child.was_killed_by_others() else VideoError
            return kind("decoder_crash", f"the process that decodes it ended{child.reason()}")
        waited = f"the decoder gave nothing for {self._patience.quiet_seconds:g} s"
        if self._patience.left() <= 0:
            waited = f"the decoder was waited for {self._patience.waited:.0f} s, more than the video may take"
        return VideoError("timeout", waited, more("max_wait_seconds"))

    def _leave(self) -> None:
        with self._turn:
            child, self._child = self._child, None
        if child is not None:
            is_whole = not self._worn and (self._done or self._ends_now(child))
            self._decoders.give_back(child, is_whole and not self._worn and not self._cancelled)

    def _ends_now(self, child: Child) -> bool:
        """Whether all frames that were asked for have come, so that the child is about to be free."""
        if self._request["max_frames"] is None:
            return False
        try:
            told = child.hear(Patience(_FAREWELL_SECONDS))
        except (Gone, TooSlow, Nonsense):
            return False
        self._worn = bool(told.get("worn"))
        return "end" in told or "error" in told


class Decoders:
    """The children of this process that decode videos; started as they are needed, ended with this context.

    Any number of videos may be open at once, each in a child of its own. Any thread may open them.

    Args:
        limits: for all videos; by default those of the environment.
        program: what a child runs, instead of ``decoder_process.PROGRAM``: for tests of how children fail.
    """

    def __init__(self, limits: Limits | None = None, *, program: str | None = None) -> None:
        self.limits = limits or Limits.of_environment()
        self._program = process.PROGRAM if program is None else program
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._turn = threading.Lock()
        self._is_closed = False
        # The kernel ends a child with the thread that started it (PR_SET_PDEATHSIG): one that stays.
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="decoders")

    def __enter__(self) -> "Decoders":
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
        """A video, to be opened by entering its context.

        Args:
            path: as for ``open_video``.
            listed: as for ``open_video``.
            start_frame: the first grid frame wanted.
            max_frames: how many at most. A child that can end a video goes on to the next; one whose video is left
                early is ended.
        """
        request = self.request(path, listed=listed, start_frame=start_frame, max_frames=max_frames)
        return ChildVideo(self, request, self.limits)

    def stamp(self, path: str) -> Stamp:
        """By what the file at ``path`` is known again, as it is now."""
        return stamp(path)

    def request(self, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        """What a child is asked, with ``open``'s ``options``."""
        return {"path": _absolute(os.fspath(path)), **options, "limits": asdict(self.limits)}

    def start_one(self) -> None:
        """Start a child, to be there when the first video is opened.

        Raises:
            VadisError: where none can be started.
        """
        self.give_back(self.take(), True)

    def lacks(self) -> list[str]:
        """What a child cannot give up here, in plain words; empty where it can give up all.

        Raises:
            VadisError: where no child can be started.
        """
        child = self._keeper.submit(self._start).result()
        try:
            return child.begin()
        finally:
            self.give_back(child, child.is_ready)

    def take(self) -> Child:
        """A child that serves nobody; a new one has yet to ``begin``.

        Raises:
            VadisError: where none can be started.
        """
        while child := self._take_idle():
            if child.is_alive():
                return child
            self.give_back(child, False)
        starting = self._keeper.submit(self._start)
        try:
            return starting.result()
        except BaseException:  # a signal; it may be about to be started
            starting.add_done_callback(lambda done: None if done.exception() else self.give_back(done.result(), False))
            raise

    def give_back(self, child: Child, is_usable: bool) -> None:
        """Take back a child that ``take`` gave."""
        with self._turn:
            if is_usable and not self._is_closed:
                self._idle.append(child)
                return
            self._all.discard(child)
        child.end()

    def close(self) -> None:
        """End all children, also those that are at a video: who waits for its frames gets a VideoError."""
        with self._turn:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for child in self._all:
                child.kill()
        self._keeper.shutdown(wait=True)
        for child in idle:
            self.give_back(child, False)

    def _take_idle(self) -> Child | None:
        with self._turn:
            return self._idle.pop() if self._idle else None

    def _start(self) -> Child:
        child = Child(self._program, self.limits)
        with self._turn:
            self._all.add(child)
            if self._is_closed:
                child.kill()
        return child


def _absolute(path: str) -> str:
    """``path`` from the root: the child was started in what was then the current folder. Never shortened."""
    if not path or os.path.isabs(path):  # noqa: PTH117
        return path
    with suppress(OSError):  # the current folder may be gone
        return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
    return path


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
