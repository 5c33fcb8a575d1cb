"""Fill a flow store: what that will take, then video after video; flow that is there is not computed again."""

import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vadis.device import cpu_count
from vadis.errors import VadisError, VideoError
from vadis.files import os_errors_as, write_atomic
from vadis.flow.store import FlowStore, Levels, quantize, write_mjpeg
from vadis.flow.video_flow import with_flow
from vadis.video.isolated.pool import ChildVideo, Decoders
from vadis.video.metadata import VideoFacts
from vadis.video.readahead import CHUNK_FRAMES, Prefetcher, chunks, prefetch
from vadis.video.reader import open_gray

CUDA_CHUNK_FRAMES = 128  # the more pairs, the better a card shares them out
NUM_PROBED = 64  # videos whose headers are read for the estimate
NUM_TRIALS = 3  # of them, whose first flow is computed for it
READ_AHEAD = 2  # videos begun on the CPU: while one's flow is computed, another's frames are decoded and written

Done = tuple[int, VideoFacts | None]  # frames that are written; at the end of a video that is partial, its facts


class FlowEstimate(NamedTuple):
    """What filling a store will take, by headers and by the first flow of a few videos."""

    num_videos: int
    num_frames: int
    seconds: float
    num_bytes: int

    def check_space(self, store: FlowStore) -> None:
        """Raise VadisError where the disk has too little room for it."""
        free_bytes = shutil.disk_usage(store.root).free
        if self.num_bytes > free_bytes:
            need, room = (f"{size / 1e6:,.1f} MB" for size in (self.num_bytes, free_bytes))
            message = f"the flow of {self.num_videos:,} videos takes about {need}, and {store.root} has room for {room}"
            raise VadisError(message, hint="free some space, or choose a folder on another disk")


def without_flow(videos: Iterable[str], store: FlowStore) -> list[str]:
    """Return those of ``videos`` that are not in the store yet, with those that cannot be read."""
    return [video for video in videos if not store.has(video)]


def estimate_flow(videos: Sequence[str], store: FlowStore, device: torch.device) -> FlowEstimate:
    """Return what the flow of ``videos`` will take; one that cannot be read counts as the mean of the others."""
    lengths: list[int] = []
    trials: list[tuple[float, ...]] = []
    with Decoders() as decoders:
        for video in videos[:: -(-len(videos) // NUM_PROBED) or 1]:
            with suppress(VideoError):
                with decoders.open(video, max_frames=0) as opened:
                    length = opened.expected_num_frames
                lengths += [] if length is None else [length]
                if len(trials) < NUM_TRIALS:
                    trials.append(_trial(video, store, device, decoders, is_first=not trials))
    num_frames = round(len(videos) * sum(lengths) / max(len(lengths), 1))
    frames, seconds, num_bytes = map(sum, zip(*trials, strict=True)) if trials else (1, 0, 0)
    scale = num_frames / frames
    return FlowEstimate(len(videos), num_frames, scale * seconds, round(scale * num_bytes))


def _trial(
    video: str, store: FlowStore, device: torch.device, decoders: Decoders, *, is_first: bool
) -> tuple[float, ...]:
    """Write the flow of the first frames, two for each processor or a GPU's chunk; return frames, seconds and bytes."""
    chunk = CUDA_CHUNK_FRAMES if device.type == "cuda" else 2 * cpu_count()

    def levels(limit: int) -> Iterator[Levels]:
        with decoders.open(video, max_frames=limit) as opened:
            yield from _levels(opened, chunk, device)

    if is_first:  # compiles, or loads what was compiled, which is not to be counted
        list(levels(limit=2))
    trial = write_atomic(store.root / "trial.mp4", place=lambda: None)  # which never gets that name
    with os_errors_as(VadisError, f"{store.root} cannot be written"), trial as file:
        start, temporary = time.perf_counter(), Path(file.name)
        *_, num_frames = write_mjpeg(temporary, levels(limit=chunk + 1))
        return num_frames, time.perf_counter() - start, temporary.stat().st_size


def compute_flow(
    videos: Iterable[str],
    store: FlowStore,
    *,
    device: torch.device,
    progress: Callable[[str, int, VideoFacts | None], None] = lambda video, num_frames, facts: None,
) -> Iterator[tuple[str, VideoError | None]]:
    """Compute what is missing, and yield each video when its flow is there, with the error where it cannot be had.

    ``progress`` gets the video, how many frames of it are written, and its facts when it ends and is partial. Raise
    VadisError where the disk does not take it.
    """
    # A GPU computes flow faster than one processor decodes and writes it, so there all processors do.
    at_once = READ_AHEAD if device.type == "cpu" else max(READ_AHEAD, cpu_count())
    with Decoders() as decoders:

        def begin(video: str) -> Prefetcher[Done]:
            opened = decoders.open(video)
            return Prefetcher(partial(_fill, video, opened, store, device), sys.maxsize, opened.cancel)

        for video, ahead in prefetch(begin, videos, lambda: at_once):
            try:
                for num_frames, facts in ahead.walk():
                    progress(video, num_frames, facts)
                yield video, None
            except VideoError as error:
                yield video, error


def _fill(
    video: str, opened: ChildVideo, store: FlowStore, device: torch.device, ahead: Prefetcher[Done]
) -> Generator[Done, None, None]:
    if store.has(video):
        return
    path, num_frames = store.path(video), 0
    with opened, os_errors_as(VadisError, f"{path} cannot be written"), write_atomic(path) as file:
        temporary, chunk = Path(file.name), CUDA_CHUNK_FRAMES if device.type == "cuda" else CHUNK_FRAMES
        for num_frames in write_mjpeg(temporary, _levels(opened, chunk, device, ahead.check)):
            yield num_frames, None
        with open_gray(temporary) as flow:
            if flow.expected_num_frames != num_frames:
                message = f"{store.root} gave back other flow than was written: the disk is in doubt"
                raise VadisError(message, hint="choose a folder on another disk")
    if opened.facts.status == "partial":
        yield num_frames, opened.facts


def _levels(
    opened: ChildVideo, chunk: int, device: torch.device, check: Callable[[], None] = lambda: None
) -> Iterator[Levels]:
    for _, flow in with_flow(chunks((frame.pixels for frame in opened), chunk), device, check):
        if flow is None:
            raise VideoError("too_short", "the video has one frame, and optical flow needs two")
        yield quantize(flow)
