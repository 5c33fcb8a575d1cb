"""Filling a flow store: what it will take, then video after video.

A video whose flow is there is passed over, so a run that was killed goes on where it was.
"""

import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.device import cpu_count
from vadis.errors import VadisError, VideoError, what_next
from vadis.files import write_atomic
from vadis.flow.store import FlowStore, encoded, record
from vadis.flow.video_flow import Frames, with_flow
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import VideoFacts
from vadis.video.readahead import Prefetcher, prefetch
from vadis.video.reader import open_gray
from vadis.video.windows import chunks

CHUNK_FRAMES = {"cpu": 32, "cuda": 128}  # the more pairs, the better a card shares them out
LOOKED_AT = 64  # videos whose headers are read for the estimate
TRIED = 3  # of them, whose first flow is computed for it

READ_AHEAD = 2  # videos begun on the CPU: while one's flow is computed, another's frames are decoded and written

Codes = NDArray[np.uint8]  # (T, 2 H, W)
Flowing = Iterator[tuple[Frames, NDArray[np.float32] | None]]


@dataclass(frozen=True)
class Estimate:
    """What filling a store will take, by headers and by the first flow of a few videos."""

    num_videos: int
    num_frames: int
    seconds: float
    num_bytes: int
    free_bytes: int

    def check_space(self, store: FlowStore) -> None:
        """Raise VadisError where the disk has too little room for it."""
        if self.num_bytes > self.free_bytes:
            raise VadisError(
                f"the flow of {self.num_videos:,} videos takes about {self.num_bytes / 1e6:,.1f} MB, "
                f"and {store.root} has room for {self.free_bytes / 1e6:,.1f} MB",
                hint="free some space, or choose a folder on another disk",
            )


@dataclass(frozen=True)
class FlowProgress:
    """``frames_done`` of the video ``path``, all of them by now written.

    ``partial``: at its end, what is known of a video that could be read only in part.
    """

    path: str
    frames_done: int
    partial: VideoFacts | None = None


def without_flow(videos: Iterable[str], store: FlowStore) -> list[str]:
    """Those of ``videos`` that are not in the store yet; with those that cannot be read, for they have to be told."""

    def is_there(video: str) -> bool:
        try:
            return store.has(video)
        except VideoError:
            return False

    return [video for video in videos if not is_there(video)]


def estimate(videos: Sequence[str], store: FlowStore, device: torch.device) -> Estimate:
    """What it will take to compute the flow of ``videos``; videos that cannot be read count nothing.

    Raises:
        VadisError: where the store cannot be written.
    """
    lengths: list[int] = []
    trials: list[_Trial] = []
    with Decoders() as decoders:
        for video in videos[:: -(-len(videos) // LOOKED_AT) or 1]:
            try:
                with decoders.open(video, max_frames=0) as opened:
                    length = opened.expected_num_frames
                lengths += [] if length is None else [length]
                if len(trials) < TRIED:
                    trials.append(_trial(video, store, device, decoders, is_first=not trials))
            except VideoError:
                continue
    num_frames = round(len(videos) * sum(lengths) / max(len(lengths), 1))
    scale = num_frames / max(sum(trial.num_frames for trial in trials), 1)
    return Estimate(
        num_videos=len(videos),
        num_frames=num_frames,
        seconds=scale * sum(trial.seconds for trial in trials),
        num_bytes=round(scale * sum(trial.num_bytes for trial in trials)),
        free_bytes=shutil.disk_usage(store.root).free,
    )


def compute_flow(
    videos: Iterable[str],
    store: FlowStore,
    *,
    device: torch.device,
    progress: Callable[[FlowProgress], None] = lambda progress: None,
) -> Iterator[tuple[str, VideoError | None]]:
    """Compute what is missing, and give each video when its flow is there, with the error where it cannot be had.

    Raises:
        VadisError: where the disk does not take it.
    """
    with Decoders() as decoders:
        begin = partial(_Filling, store, decoders, device)
        for video, filling in prefetch(begin, videos, lambda: _at_once(device)):
            try:
                for step in filling.walk():
                    progress(step)
                yield video, None
            except VideoError as error:
                yield video, error


def _at_once(device: torch.device) -> int:
    """Videos in work. A GPU computes flow faster than one processor decodes and writes it, so all of them do."""
    return READ_AHEAD if device.type == "cpu" else max(READ_AHEAD, cpu_count())


def _chunk_frames(device: torch.device) -> int:
    return CHUNK_FRAMES.get(device.type, CHUNK_FRAMES["cpu"])


class _Filling:
    """One video's way into the store, in a thread of its own: decoded, its flow computed, and written."""

    def __init__(self, store: FlowStore, decoders: Decoders, device: torch.device, video: str) -> None:
        self._store, self._device, self._video, self._opened = store, device, video, decoders.open(video)
        self._ahead = Prefetcher(self._fill, sys.maxsize, self._opened.cancel)

    def walk(self) -> Iterator[FlowProgress]:
        """What has been written so far, again and again; raises VideoError where the video cannot be read."""
        return self._ahead.walk()

    def close(self) -> None:
        """End what is still going on."""
        self._ahead.close()

    def _fill(self, ahead: Prefetcher[FlowProgress]) -> Generator[FlowProgress, None, None]:
        if self._store.has(self._video):
            return
        with self._opened as video:
            frames = chunks((frame.pixels for frame in video), _chunk_frames(self._device))
            num_frames = 0
            for num_frames in _write(self._video, self._store, with_flow(frames, self._device, ahead.check)):
                yield FlowProgress(self._video, num_frames)
            if video.facts.status == "partial":
                yield FlowProgress(self._video, num_frames, video.facts)


def _write(video: str, store: FlowStore, flowing: Flowing) -> Iterator[int]:
    """Put the flow of a whole video into the store; gives the number of frames written so far."""
    path, num_frames = store.path(video), 0
    try:
        with write_atomic(path) as file:
            temporary = Path(file.name)
            for num_frames in record(temporary, _codes(flowing)):
                yield num_frames
            with open_gray(temporary) as flow:
                if flow.expected_num_frames != num_frames:
                    message = f"{store.root} gave back other flow than was written: the disk is in doubt"
                    raise VadisError(message, hint="choose a folder on another disk")
    except OSError as error:
        raise VadisError(f"{path} cannot be written: {error.strerror}", what_next(error.errno)) from error


def _codes(flowing: Flowing) -> Iterator[Codes]:
    """The flow of a video in chunks (T, 2 H, W)."""
    for _, flow in flowing:
        if flow is None:
            raise VideoError("too_short", "the video has one frame, and optical flow needs two")
        yield encoded(flow)


class _Trial(NamedTuple):
    """What the beginning of one video took."""

    num_frames: int
    seconds: float
    num_bytes: int


def _trial(video: str, store: FlowStore, device: torch.device, decoders: Decoders, *, is_first: bool) -> _Trial:
    """Compute and write the first flow of a video, as often as there are processors for it, or a chunk on a GPU."""
    chunk = _chunk_frames(device) if device.type == "cuda" else 2 * cpu_count()

    def codes(limit: int) -> Iterator[Codes]:
        with decoders.open(video, max_frames=limit) as opened:
            yield from _codes(with_flow(chunks((frame.pixels for frame in opened), chunk), device))

    if is_first:  # compiles, or loads what was compiled, which is not to be counted
        list(codes(limit=2))
    try:
        with write_atomic(store.root / "trial.mp4", place=lambda: None) as file:
            began, temporary = time.perf_counter(), Path(file.name)
            *_, num_frames = record(temporary, codes(limit=chunk + 1))
            return _Trial(num_frames, time.perf_counter() - began, temporary.stat().st_size)
    except OSError as error:
        raise VadisError(f"{store.root} cannot be written: {error.strerror}", what_next(error.errno)) from error
