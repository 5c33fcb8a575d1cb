"""Prepare videos ahead of the networks: file → frames (in a child process) → chunks → with their flow → cropped clips.

One thread per video reads, computes flow and crops, and stops when a clip waits; so the next clip, and the beginnings
of the next videos, are prepared while the network works. No more than ``jobs`` videos are in memory, each in part.

On processors several videos go through the networks at once (``map_videos``), each on a core of its own: the networks'
small layers do not fill many. Their weights are in memory once. What comes out does not depend on the number of cores.
"""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.device import Cores, NoMemoryError, cpu_count, memory_bytes
from vadis.errors import UsageError, VideoError
from vadis.flow.store import FirstFlow, Frames, with_flow
from vadis.models import BOTH, Model
from vadis.preprocessing import CROPS, Clip, centre_crop
from vadis.results import Part
from vadis.video.isolated.pool import Decoders, SourceVideo
from vadis.video.isolated.process import DecoderKilled
from vadis.video.metadata import SHORT_SIDE, VideoFacts
from vadis.video.readahead import CHUNK_FRAMES, Prefetcher, chunks, prefetch
from vadis.video.sources import Stamp
from vadis.video.timegrid import GRID_FPS, frames_in_part, grid_length, resample_frames

RETRY_SECONDS = (0.1, 0.5, 2.0)  # before a video is tried again whose disk failed: network disks come back


def chunk_frames(device: torch.device) -> int:
    """Return how many frames a clip has."""
    return 128 if device.type == "cuda" else CHUNK_FRAMES


_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Video = TypeVar("Video", bound=Any)  # with ``close``


class PendingVideo(Protocol):
    """What ``LocalVideo`` has: a video whose clips are prepared ahead of the network, in this process or elsewhere."""

    path: str
    stamp: Stamp
    streams: tuple[str, ...]

    @property
    def facts(self) -> VideoFacts: ...
    @property
    def expected_num_frames(self) -> int | None: ...
    def clips(self, report: Callable[[str], None]) -> Iterator[Clip]: ...
    def close(self) -> None: ...


def source_crop_size(model: Model) -> int:
    """Return how many pixels of a frame's height and width a network sees, before they are shrunk for it."""
    return model.card.crop * (SHORT_SIDE // model.card.short_side)


RESIZES = ("short256", "square224")


class Sampling(NamedTuple):
    """Which frames of a video are seen, and in which size: by default those of the 25 fps grid, 256 pixels high."""

    fps: int | None = GRID_FPS  # None: every frame of the file, at its own time
    resize: str = "short256"  # or "square224", the whole picture
    crops: int = 1  # of ``preprocessing.CROPS``

    @property
    def is_grid(self) -> bool:
        """Whether the grid of the reader has these frames."""
        return self.fps == GRID_FPS and self.resize == "short256"

    def check(self) -> None:
        """Raise UsageError for what cannot be."""
        if self.fps is not None and self.fps < 1:
            raise UsageError(f"there is no rate of {self.fps} frames per second", "such as 25, or None for the file's")
        if self.resize not in RESIZES or self.crops not in CROPS:
            message = f"frames are resized to {' or '.join(RESIZES)}, and have 1, 3 or 10 crops"
            raise UsageError(f"{message}, not {self.resize} and {self.crops}", "leave them out for short256 and 1")
        if self.crops > 1 and self.resize == "square224":
            raise UsageError("square224 leaves nothing to crop", "take short256 with several crops")


GRID = Sampling()


class LocalVideo:
    """One video, or ``max_frames`` from ``start_frame`` on (25 per second), read in a thread until ``close``.

    With a ``part``, ``facts`` describe it as if it were a file of its own; only ``first_seconds`` is later. ``listed``
    is that of ``open_video``; ``first`` may have computed the video's first flow already. With a ``sampling`` other
    than ``GRID`` all frames are seen; ``times`` are then when each begins, and when the last ends, in seconds after the
    first.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: Model,
        decoders: Decoders,
        *,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
        first: FirstFlow | None = None,
        sampling: Sampling = GRID,
        part: Part | None = None,
    ) -> None:
        self.times: list[float] = []
        self.path, self.stamp = os.fspath(path), decoders.stamp(os.fspath(path))
        self.streams: tuple[str, ...] = ()  # of its clips, once the first is there
        self._model, self._first, self._sampling, self._part = model, first, sampling, part
        self._length: int | None = None  # of a part, or of another sampling than the grid's, known at the end
        self._part_offset = Fraction(0)  # when the part begins, in seconds after the first frame of the file
        self._frame_range = (start_frame, max_frames)
        opened = decoders.open if sampling.is_grid else partial(decoders.open_source, size=sampling.resize)
        self._opened = opened(path, listed=listed, start_frame=start_frame, max_frames=max_frames, part=part)
        waiting = 2 if model.device.type == "cuda" else 1  # clips beside the one in work; a card outpaces decoding
        self._ahead = Prefetcher(self._prepare, waiting, self._opened.cancel)

    @property
    def facts(self) -> VideoFacts:
        """What is known of the video; final after its last clip. Frames are counted at the rate of the sampling."""
        facts = self._opened.facts
        if self._length is None:
            return facts
        if self._part is None:
            return replace(facts, num_frames=self._length)
        seconds = self.times[-1]
        if facts.num_frames is not None and facts.duration_seconds is not None:  # the part ends where the file does
            seconds = round(facts.duration_seconds - float(self._part_offset), 6)
        known: dict[str, Any] = {"num_frames": self._length, "frames_declared": None, "duration_seconds": seconds}
        return replace(facts, **known, first_seconds=float(self._opened.first_seconds + self._part_offset))

    @property
    def expected_num_frames(self) -> int | None:
        """How many frames of the part the header promises; None where it promises none."""
        (start, most), promised, fps = self._frame_range, self._opened.expected_num_frames, self._sampling.fps
        facts = self._opened.facts
        if fps is None:
            promised = facts.frames_declared
        elif fps != GRID_FPS and facts.duration_seconds is not None:
            promised = grid_length(Fraction(facts.duration_seconds), fps)
        promised = frames_in_part(self._part, self._opened.first_seconds, fps or facts.source_fps, promised)
        if promised is None or promised <= start:
            return None
        return promised - start if most is None else min(promised - start, most)

    def clips(self, report: Callable[[str], None] = lambda stage: None) -> Iterator[Clip]:
        """Wait for the first clip, and return all: chunks of frames (T, 224, 224, 3) and flow (T, 2, 224, 224).

        ``report`` gets the stages that begin. One frame has no flow: RGB alone, or VideoError ``too_short``.
        """
        prepared = self._ahead.items(report)
        first, wanted = next(prepared, None), self._model.card.streams
        self.streams = tuple(stream for stream in wanted if first and stream in first)
        if first is None or not self.streams or (self.streams != wanted and BOTH in self._model.networks):
            raise VideoError("too_short", "there is one frame, and optical flow needs two")
        return chain([first], prepared)

    def seconds_of(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when these frames begin, also between two, in seconds after the first; once all have been seen."""
        if self._sampling.is_grid:
            return frames / GRID_FPS
        return np.interp(frames, np.arange(len(self.times)), self.times)

    def close(self) -> None:
        self._ahead.close()

    def _pixels(self) -> Iterator[Frames]:
        """Yield the frames that are seen (H, W, 3); of a part or another sampling than the grid's, keep their times."""
        opened, part = self._opened, self._part
        if self._sampling.is_grid and part is None:
            yield from (frame.pixels for frame in opened)
            return
        start, end = (part or Part()).exact
        timed: Iterable[tuple[Frames, Fraction, Fraction]]
        if isinstance(opened, SourceVideo):
            timed = resample_frames(opened.source_frames(), self._sampling.fps)
        else:
            numbered = enumerate(opened, opened.start_frame)
            timed = ((frame.pixels, Fraction(i, GRID_FPS), Fraction(i + 1, GRID_FPS)) for i, frame in numbered)
        for pixels, *times in timed:
            seconds = opened.first_seconds + times[0]
            if seconds < start or (end is not None and seconds >= end):
                continue
            if not self.times:
                self._part_offset, self.times = times[0], [0.0]
            self.times[-1:] = [float(each - self._part_offset) for each in times]
            yield pixels
        self._length = max(0, len(self.times) - 1)
        if part is not None and not self._length:
            until = "the end" if part.end is None else f"{part.end:g} s"
            raise VideoError("outside", f"no frame begins from {part.start:g} s to {until}")

    def _prepare(self, ahead: Prefetcher[Clip]) -> Generator[Clip, None, None]:
        card, device = self._model.card, self._model.device
        is_whole, size, has_flow = self._sampling.crops > 1, source_crop_size(self._model), "flow" in card.streams

        def cropped(array: NDArray[Any], stream: str) -> NDArray[Any]:
            return array if is_whole else centre_crop(array, stream, size)

        def frames() -> Iterator[Frames]:
            ahead.report_stage("decoding")
            for chunk in chunks(self._pixels(), chunk_frames(device)):
                if has_flow:
                    ahead.report_stage("flow")
                yield cropped(chunk, "rgb").astype(np.uint8, copy=False) if card.crop_first else chunk
                ahead.report_stage("decoding")

        alone = ((chunk, None) for chunk in frames())
        with self._opened:
            for chunk, flow in with_flow(frames(), device, ahead.check, self._first) if has_flow else alone:
                clip: Clip = {"rgb": cropped(chunk, "rgb")} if "rgb" in card.streams else {}
                if flow is not None:
                    clip["flow"] = cropped(flow, "flow")
                yield clip


def map_videos(
    items: Iterable[Item],
    begin: Callable[[Item], Video],
    work: Callable[[Video], Result],
    model: Model,
    *,
    jobs: int | None = None,
) -> Iterator[tuple[Item, Video, Result | VideoError]]:
    """Yield (item, video, result) in the order of the items; the result is a VideoError where ``work`` failed.

    At most ``num_jobs`` videos are open at once, half as many whenever the system has killed a process that decoded
    one. On processors each core takes a video, in a thread; while there are fewer videos than cores, they share them. A
    video is opened again on the CPU where memory runs out on a device that nobody asked for, or if its disk failed.
    """
    max_open, num_cores = num_jobs(jobs, model.device), torch.get_num_threads()
    threads, cores = min(num_cores, max_open) if model.device.type == "cpu" else 1, Cores(num_cores)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="network") if threads > 1 else None

    def start(item: Item) -> _Job[Video, Result]:
        job = _Job(partial(begin, item), work, model)
        if pool is not None:
            job.result = pool.submit(cores.shared()(job.result)).result  # runs in the pool: waits for that
        return job

    has_warned = False
    try:
        with closing(prefetch(start, items, lambda: max_open)) as started:
            for item, job in started:
                video, outcome = job.result()
                if isinstance(outcome, DecoderKilled) and max_open > 1:
                    max_open = (max_open + 1) // 2
                    if not has_warned:
                        short = "a decoder process was killed, probably for lack of memory"
                        _log.warning("%s: fewer videos are read at once", short)
                    has_warned = True
                yield item, video, outcome
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(num_cores)  # for threads that begin later, too


class _Job(Generic[Video, Result]):
    """A video and the work on it: ``result`` gives what that makes of it, and the video of the last attempt."""

    def __init__(self, begin: Callable[[], Video], work: Callable[[Video], Result], model: Model) -> None:
        self._begin, self._work, self._model = begin, work, model
        self._video, self._is_closed = begin(), False
        self.result = self._run

    def close(self) -> None:
        """End the work as soon as that can be; its result is not wanted any more, or is there."""
        self._is_closed = True
        self._video.close()

    def _run(self) -> tuple[Video, Result | VideoError]:
        waits, model = list(RETRY_SECONDS), self._model
        while True:
            wait = 0.0
            with closing(self._video):
                try:
                    return self._video, self._work(self._video)
                except NoMemoryError as shortage:
                    if not model.may_leave_device or model.device.type == "cpu":
                        raise
                    _log.warning("%s: on the CPU from now on", shortage.message)
                    model.to_cpu()
                except VideoError as error:
                    if error.code != "io_error" or not waits or self._is_closed:
                        return self._video, error
                    wait = waits.pop(0)
            time.sleep(wait)
            self._video = self._begin()
            if self._is_closed:
                self._video.close()


VIDEO_BYTES = 500e6  # of memory that a video takes on a processor, on its way through both networks


def num_jobs(jobs: int | None, device: torch.device) -> int:
    """Return ``jobs`` if positive, else how many videos are open at once: two for each core, as far as memory allows.

    While one is in the network the other is read. With a GPU it is one for each core, 16 at most.
    """
    if (jobs or 0) < 0:
        raise UsageError(f"jobs is 0 or more, got {jobs}", hint="0 chooses automatically")
    if device.type == "cuda":
        return jobs or min(16, cpu_count())
    return jobs or max(1, min(2 * cpu_count(), int(min(memory_bytes() / VIDEO_BYTES, 1e6))))
