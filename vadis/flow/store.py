"""The flow of videos: in step with their frames; and the flow store, that of a data set (docs/flow-store.md).

It is computed once, and read from any frame on.

    STORE/settings.json        what the flow is and how it is kept; a store made otherwise is refused
    STORE/3f/3f0a….mp4         the flow of one video, named after its content

Frame i is the flow from grid frame i to i + 1; the last repeats the one before it. A component in pixels per frame,
truncated to ±20, is one of 255 levels: 128 is exactly 0. The two of a frame are a grey picture, dx above dy.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from vadis.device import BatchLimit, cpu_count, run_in_batches
from vadis.errors import UsageError, VadisError, VideoError
from vadis.files import os_errors_as, write_atomic, write_file
from vadis.flow import to_gray, tvl1
from vadis.flow.numba_cache import cache_directory
from vadis.parsing import parse_json
from vadis.results import Part, printable
from vadis.video.container import os_video_error, regular_file
from vadis.video.isolated.pool import ChildVideo, Decoders
from vadis.video.metadata import SHORT_SIDE, AnyPath, VideoFacts
from vadis.video.picture import GrayPlane
from vadis.video.readahead import CHUNK_FRAMES, Prefetcher, chunks, prefetch
from vadis.video.reader import Video, open_video
from vadis.video.timegrid import GRID_FPS

if TYPE_CHECKING:
    import torch

Frames = NDArray[np.uint8]  # (T, H, W, 3)
Levels = NDArray[np.uint8]

FLOW_BOUND = 20.0  # px per frame; larger motions are truncated, here and for the networks (paper, section 2.5)
ZERO = 128
STEPS = 127  # on either side of zero, of FLOW_BOUND / STEPS = 0.157 px each; rounding is off by half of that at most
_PIXELS: NDArray[np.float32] = ((np.maximum(np.arange(256), 1) - ZERO) * (FLOW_BOUND / STEPS)).astype(np.float32)
"""Pixels per frame of each level; level 0 counts as 1, which a lossy codec may turn into it."""

FLOW_SETTINGS: dict[str, Any] = {
    "format": 1,
    "frames_per_second": GRID_FPS,
    "short_side": SHORT_SIDE,
    "bound": FLOW_BOUND,
    "steps": STEPS,
    "layout": "dx above dy",
    "codec": "mjpeg, quantiser 1, in mp4",
    "flow": "TV-L1 as OpenCV 5 with its default parameters",
}
"""What must be the same for flow to mean the same; read by people and by ``FlowStore``."""

SETTINGS_NAME = "settings.json"
_ENCODER = {"qmin": "1", "qmax": "1", "b": "1G"}  # FFmpeg's best quality; the bit rate must not stand in its way
_FORMAT = "yuvj420p"  # the encoder knows no grey; a neutral colour costs 40 bytes per frame
_RECOMPUTE_HINT = "delete it and run vadis flow again"  # about what is damaged in a store
_END_BYTES = 1 << 16  # of a video, at either end, by which it is known

CUDA_CHUNK_FRAMES = 128  # the more pairs, the better a card shares them out
NUM_PROBED = 64  # videos whose headers are read for the estimate
NUM_TRIALS = 3  # of them, whose first flow is computed for it
READ_AHEAD = 2  # videos begun on the CPU: while one's flow is computed, another's frames are decoded and written


class FirstFlow:
    """The flow of the first chunk of ``path``, a listed input, or of a part, computed while the networks are loaded.

    That saves a quarter of the time until a short video has its labels. The video is opened and read once more by who
    labels it, and gets this flow only where its frames are the very ones.
    """

    def __init__(self, path: str, decoders: Decoders, part: Part | None = None) -> None:
        # A chunk has CHUNK_FRAMES flows: the last one leads to the first frame of the next chunk.
        self._opened = decoders.open(path, listed=True, max_frames=CHUNK_FRAMES + 1, part=part)
        self._check: Callable[[], None] = lambda: None
        self._ahead = Prefetcher(self._compute, 2, self._opened.cancel)

    def __enter__(self) -> "FirstFlow":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ahead.close()

    def of(self, gray: NDArray[np.uint8], check: Callable[[], None]) -> NDArray[np.float32] | None:
        """Wait for the flow (N - 1, 2, H, W) of these grey frames (N, H, W); None, and given up, if it is of others.

        To be called once. ``check`` is that of ``tvl1`` from now on: what it raises is raised here.
        """
        self._check = check
        results = self._ahead.items()
        with suppress(VadisError, MemoryError):  # who labels the video meets the same, and reports it
            own = next(results, None)
            if own is not None and np.array_equal(own, gray):
                return next(results, None)
            self._ahead.close()
        return None

    def _compute(self, ahead: Prefetcher[NDArray[Any]]) -> Generator[NDArray[Any], None, None]:
        def check() -> None:
            ahead.check()
            self._check()

        if not cache_directory().is_dir():  # compiling takes ten seconds, and cannot be stopped
            return
        with self._opened as video:
            frames = next(chunks((frame.pixels for frame in video), CHUNK_FRAMES + 1), None)  # (N, H, W, 3)
        if frames is not None and len(frames) > 1:
            gray = to_gray(frames)
            yield gray
            yield tvl1(gray, check=check)


def with_flow(
    chunks: Iterable[Frames],
    device: "torch.device",
    check: Callable[[], None] = lambda: None,
    first: FirstFlow | None = None,
) -> Iterator[tuple[Frames, NDArray[np.float32] | None]]:
    """Yield every chunk of frames (T, H, W, 3) with its flow (T, 2, H, W), pixels per frame, from frame i to i + 1.

    A chunk waits for the first frame of the next one; the last flow of the video repeats the one before it. A video of
    one frame has no flow: None. ``check`` is that of ``tvl1``; what ``first`` has is not computed again.
    """
    limit = BatchLimit(sys.maxsize, "pairs of frames", is_logged=True)  # less where memory is short

    def flow_of(frames: Frames) -> NDArray[np.float32]:
        nonlocal first
        gray, given, first = to_gray(frames), first, None
        ready = given.of(gray, check) if given is not None and device.type == "cpu" else None
        if ready is not None:
            return ready

        def part(start: int, stop: int) -> NDArray[np.float32]:
            return tvl1(gray[start : stop + 1], device=device, check=check)

        return np.concatenate(list(run_in_batches(part, len(gray) - 1, limit, device)))

    frames: Frames | None = None
    flow = None
    for following in chunks:
        if frames is not None:
            flow = flow_of(np.concatenate([frames, following[:1]]))  # (T, 2, H, W)
            yield frames, flow
        frames = following
    if frames is not None and len(frames) > 1:
        flow = flow_of(frames)  # (T - 1, 2, H, W)
        yield frames, np.concatenate([flow, flow[-1:]])  # (T, 2, H, W)
    elif frames is not None:
        yield frames, None if flow is None else flow[-1:]


def quantize(flow: NDArray[np.float32]) -> Levels:
    """Convert float32 flow (T, 2, H, W), in pixels per frame, to levels, uint8 (T, 2 H, W)."""
    length, _, height, width = flow.shape
    rounded = np.rint(np.clip(flow, -FLOW_BOUND, FLOW_BOUND) * np.float32(STEPS / FLOW_BOUND)) + np.float32(ZERO)
    return np.reshape(rounded.astype(np.uint8), (length, 2 * height, width))


def dequantize(levels: Levels) -> NDArray[np.float32]:
    """Convert levels of any shape to float32 flow in pixels per frame."""
    return _PIXELS[levels]


def write_mjpeg(path: Path, chunks: Iterable[Levels]) -> Iterator[int]:
    """Write pictures uint8 (T, H, W) as a video of 25 fps; yield their number after every chunk. Raise OSError."""
    num_frames = 0
    try:
        with av.open(f"file:{path.absolute()}", "w", format="mp4") as container:
            stream = container.add_stream("mjpeg", rate=GRID_FPS, options=dict(_ENCODER))
            stream.pix_fmt, stream.codec_context.thread_count = _FORMAT, 1
            for chunk in chunks:
                if num_frames == 0:
                    stream.height, stream.width = chunk.shape[1:]
                for picture in chunk:
                    frame = av.VideoFrame.from_ndarray(picture, format="gray")
                    frame.pts, frame.time_base = num_frames, Fraction(1, GRID_FPS)
                    container.mux(stream.encode(frame))
                    num_frames += 1
                yield num_frames
            container.mux(stream.encode(None))
    except av.FFmpegError as error:  # not all of them are of the operating system
        raise OSError(error.errno, error.strerror) from error


class FlowStore:
    """The store in the folder ``root``, made with ``create`` where that does not exist, or is empty.

    Raise UsageError where there is no store and ``create`` is False, the folder holds something else, or the store was
    made with other settings.
    """

    def __init__(self, root: AnyPath, *, create: bool = False) -> None:
        self.root = Path(root)
        name, path = printable(str(self.root)), self.root / SETTINGS_NAME
        settings = _read_settings(path)
        if settings is None:
            if not create:
                raise UsageError(f"there is no flow store in {name}", hint=f"make one: vadis flow VIDEOS -o {name}")
            with os_errors_as(UsageError, f"{name} cannot become a flow store"):
                self.root.mkdir(parents=True, exist_ok=True)
                others = [entry for entry in self.root.iterdir() if not entry.name.startswith(SETTINGS_NAME)]
                if others and not path.exists():  # else another process was faster
                    raise UsageError(f"{name} is not a flow store, and not empty", hint="name a new folder")
                write_file(path, json.dumps(FLOW_SETTINGS, indent=2) + "\n")
        elif settings != FLOW_SETTINGS:
            names = [name for name in {**FLOW_SETTINGS, **settings} if settings.get(name) != FLOW_SETTINGS.get(name)]
            changed = "; ".join(f"{name}: {settings.get(name)!r}, now {FLOW_SETTINGS.get(name)!r}" for name in names)
            message = f"the flow store {name} was made with other settings ({changed})"
            raise UsageError(message, hint="compute the flow again into a new folder")

    def path(self, video: AnyPath) -> Path:
        """Return the path of a video's flow, present or not; raise VideoError where the video cannot be read."""
        digest = _fingerprint(os.fspath(video))
        return self.root / digest[:2] / f"{digest}.mp4"

    def has(self, video: AnyPath) -> bool:
        """Return whether the flow of this video is there; not that of one that cannot be read."""
        with suppress(VideoError):
            return self.path(video).is_file()
        return False

    def num_frames(self, video: AnyPath) -> int:
        """Return how many frames of flow there are, one for each grid frame; raise VideoError as ``read_levels``."""
        with self._open(video, 0) as flow:
            if flow.expected_num_frames is None:
                raise VideoError("truncated_or_incomplete", "its flow states no length", _RECOMPUTE_HINT)
            return flow.expected_num_frames

    def read_levels(self, video: AnyPath, start_frame: int = 0, num_frames: int | None = None) -> Levels:
        """Return the levels of some frames, uint8 (T, 2, H, W), axis 1 = (dx, dy); no others are decoded.

        Fewer than ``num_frames`` (None: all) come back where the video ends before. Raise VideoError: ``not_found``
        where there is none, and whatever can be wrong with a file.
        """
        with self._open(video, start_frame) as flow:
            pictures = [frame.pixels for frame in islice(flow, num_frames)]
            width, height = flow.size
        levels = np.stack(pictures) if pictures else np.empty((0, height, width), np.uint8)  # (T, 2 H, W)
        return levels.reshape(len(levels), 2, height // 2, width)  # (T, 2, H, W)

    @contextmanager
    def _open(self, video: AnyPath, start_frame: int) -> Iterator[Video]:
        path = self.path(video)
        try:
            with open_video(path, start_frame=start_frame, scaler=GrayPlane) as flow:
                yield flow
        except VideoError as error:
            if error.code == "not_found":
                raise VideoError("not_found", "its flow is not in the store", "run vadis flow on it") from error
            hint = error.own_hint or _RECOMPUTE_HINT
            raise VideoError(error.code, f"its flow ({path.name}): {error.message}", hint) from error


def _read_settings(path: Path) -> dict[str, Any] | None:
    name = printable(str(path))
    try:
        with os_errors_as(UsageError, f"{name} cannot be read"):
            return dict(parse_json(path.read_bytes())) if path.exists() else None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{name} is damaged", hint="compute the flow into a new folder") from error


def _fingerprint(path: str) -> str:
    """Return 32 hexadecimal digits by which the content of a video is known."""
    size = regular_file(path, listed=False).st_size
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    except OSError as error:
        raise os_video_error(error) from error
    return digest.hexdigest()[:32]


Written = tuple[int, VideoFacts | None]  # number of frames written; after a partial video's last one, its facts


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


def videos_without_flow(videos: Iterable[str], store: FlowStore) -> list[str]:
    """Return those of ``videos`` that are not in the store yet, with those that cannot be read."""
    return [video for video in videos if not store.has(video)]


def estimate_flow(videos: Sequence[str], store: FlowStore, device: "torch.device") -> FlowEstimate:
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
    video: str, store: FlowStore, device: "torch.device", decoders: Decoders, *, is_first: bool
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
    device: "torch.device",
    progress: Callable[[str, int, VideoFacts | None], None] = lambda video, num_frames, facts: None,
) -> Iterator[tuple[str, VideoError | None]]:
    """Compute what is missing, and yield each video when its flow is there, with the error where it cannot be had.

    ``progress`` gets the video, how many frames of it are written, and its facts when it ends and is partial. Raise
    VadisError where the disk does not take it.
    """
    # A GPU computes flow faster than one processor decodes and writes it, so there all processors do.
    at_once = READ_AHEAD if device.type == "cpu" else max(READ_AHEAD, cpu_count())
    with Decoders() as decoders:

        def begin(video: str) -> Prefetcher[Written]:
            opened = decoders.open(video)
            return Prefetcher(partial(_fill, video, opened, store, device), sys.maxsize, opened.cancel)

        for video, ahead in prefetch(begin, videos, lambda: at_once):
            try:
                for num_frames, facts in ahead.items():
                    progress(video, num_frames, facts)
                yield video, None
            except VideoError as error:
                yield video, error


def _fill(
    video: str, opened: ChildVideo, store: FlowStore, device: "torch.device", ahead: Prefetcher[Written]
) -> Generator[Written, None, None]:
    if store.has(video):
        return
    path, num_frames = store.path(video), 0
    with opened, os_errors_as(VadisError, f"{path} cannot be written"), write_atomic(path) as file:
        temporary, chunk = Path(file.name), CUDA_CHUNK_FRAMES if device.type == "cuda" else CHUNK_FRAMES
        for num_frames in write_mjpeg(temporary, _levels(opened, chunk, device, ahead.check)):
            yield num_frames, None
        with open_video(temporary, scaler=GrayPlane) as flow:
            if flow.expected_num_frames != num_frames:
                message = f"{store.root} gave back other flow than was written: the disk is in doubt"
                raise VadisError(message, hint="choose a folder on another disk")
    if opened.facts.status == "partial":
        yield num_frames, opened.facts


def _levels(
    opened: ChildVideo, chunk: int, device: "torch.device", check: Callable[[], None] = lambda: None
) -> Iterator[Levels]:
    for _, flow in with_flow(chunks((frame.pixels for frame in opened), chunk), device, check):
        if flow is None:
            raise VideoError("too_short", "the video has one frame, and optical flow needs two")
        yield quantize(flow)
