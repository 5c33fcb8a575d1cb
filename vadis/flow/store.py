"""The flow store: the optical flow of a data set's videos, computed once, read from any frame on (docs/flow-store.md).

    STORE/settings.json        what the flow is and how it is kept; a store made otherwise is refused
    STORE/3f/3f0a….mp4         the flow of one video, named after its content

Frame i is the flow from grid frame i to i + 1; the last repeats the one before it. A component in pixels per frame,
truncated to ±20, is one of 255 levels: 128 is exactly 0. The two of a frame are a grey picture, dx above dy.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.files import os_errors_as, write_file
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.container import os_refusal, regular_file
from vadis.video.metadata import SHORT_SIDE, AnyPath
from vadis.video.reader import Video, open_gray
from vadis.video.timegrid import GRID_FPS

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
_NEUTRAL = 128
_RECOMPUTE_HINT = "delete it and run vadis flow again"  # about what is damaged in a store
_END_BYTES = 1 << 16  # of a video, at either end, by which it is known


def quantize(flow: NDArray[np.float32]) -> Levels:
    """Float32 (T, 2, H, W) in pixels per frame → levels, uint8 (T, 2 H, W)."""
    length, _, height, width = flow.shape
    rounded = np.rint(np.clip(flow, -FLOW_BOUND, FLOW_BOUND) * np.float32(STEPS / FLOW_BOUND)) + np.float32(ZERO)
    return np.reshape(rounded.astype(np.uint8), (length, 2 * height, width))


def dequantize(levels: Levels) -> NDArray[np.float32]:
    """Levels of any shape → float32 in pixels per frame."""
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
                    container.mux(stream.encode(_frame(picture, num_frames)))
                    num_frames += 1
                yield num_frames
            container.mux(stream.encode(None))
    except av.FFmpegError as error:  # not all of them are of the operating system
        raise OSError(error.errno, error.strerror) from error


def _frame(picture: Levels, index: int) -> av.VideoFrame:
    frame = av.VideoFrame(picture.shape[1], picture.shape[0], _FORMAT)
    for number, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size), _NEUTRAL, np.uint8)
        if number == 0:
            rows[:, : plane.width] = picture
        plane.update(rows.tobytes())
    frame.pts, frame.time_base = index, Fraction(1, GRID_FPS)
    return frame


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
            with open_gray(path, start_frame=start_frame) as flow:
                yield flow
        except VideoError as error:
            if error.code == "not_found":
                raise VideoError("not_found", "its flow is not in the store", "run vadis flow on it") from error
            hint = error.own_hint or _RECOMPUTE_HINT
            raise VideoError(error.code, f"its flow ({path.name}): {error.message}", hint) from error


def _read_settings(path: Path) -> dict[str, Any] | None:
    name = printable(str(path))
    with os_errors_as(UsageError, f"{name} cannot be read"):
        if not path.exists():
            return None
        content = path.read_bytes()
    try:
        settings = parse_json(content)
    except ValueError as error:
        raise UsageError(f"{name} is damaged", hint="compute the flow into a new folder") from error
    return settings if isinstance(settings, dict) else {}


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
        raise os_refusal(error) from error
    return digest.hexdigest()[:32]
