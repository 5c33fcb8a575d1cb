"""One row of I3D's logits per video, as the Fréchet video distance compares them, and the protocols that papers cite.

    file, folder of pictures or array → its own frames → 224×224 → I3D's logits, averaged over time → a record

No 25 fps grid, no looping, no completion: a clip is seen as it is. Records hold their rows, so that a run goes on.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.device import BatchLimit, cudnn_version, run_in_batches
from vadis.errors import UsageError, VideoError
from vadis.flow.numba_cache import compiled
from vadis.inference.classify import FACTS
from vadis.inference.predict import Progress
from vadis.inference.prefetch import NativeVideo, PendingVideo, map_videos
from vadis.models import Model
from vadis.models.i3d import MIN_FRAMES
from vadis.preprocessing import CROP, STREAMS, Clip, join_clips, num_frames
from vadis.results import VideoResult
from vadis.video.isolated.pool import Decoders, SourceVideo
from vadis.video.metadata import GridFrame, VideoFacts
from vadis.video.pictures import picture_names
from vadis.video.sources import ARRAY_EXTENSIONS, Source, Stamp, stamp

if TYPE_CHECKING:
    from typing_extensions import Self

Frames = NDArray[Any]  # (T, H, W, 3): uint8, or float in [-1, 1] of 224×224
Row = NDArray[np.float32]  # (classes,)
Axis = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # two pixels each, and the second one's weight

_WHOLE_VIDEO = "give uint8 frames of 0 to 255"


class Protocol(NamedTuple):
    """How a number that a paper cites came about, as far as it does not depend on the data set."""

    source: str  # of its code, a repository on GitHub
    resize: str  # a key of ``RESIZES``
    frames: int | None  # of each video; None: all
    random_start: bool  # of the real videos; the generated ones begin with their first frame
    covariance_over: str  # "n - 1" or "n"


PROTOCOLS = {
    "reference": Protocol("google-research/google-research", "tensorflow1", None, False, "n - 1"),
    "stylegan-v": Protocol("universome/stylegan-v", "half-pixel", 16, True, "n"),
    "tats": Protocol("songweige/TATS", "half-pixel", 16, False, "n - 1"),
    "common-metrics": Protocol("JunyaoHu/common_metrics_on_video_quality", "crop", None, False, "n - 1"),
}


# --- frames → what the network sees ----------------------------------------------------------------------------------


def _tensorflow1(height: int, width: int) -> tuple[Axis, Axis]:
    """Pixel ``i`` lies at ``i * H / 224``: no half-pixel centres; the aspect is not kept."""
    return _axis(height, height / CROP, 0.0), _axis(width, width / CROP, 0.0)


def _half_pixel(height: int, width: int) -> tuple[Axis, Axis]:
    """Pixel centres lie at halves, as PyTorch's ``interpolate`` has them; the aspect is not kept."""
    return _axis(height, height / CROP, 0.5), _axis(width, width / CROP, 0.5)


def _crop(height: int, width: int) -> tuple[Axis, Axis]:
    """The shorter side becomes 224, by half-pixel centres, the longer one is rounded up, and cut around its centre."""
    scale, axes = CROP / min(height, width), []
    for length in (height, width):
        resized = CROP if length == min(height, width) else ceil(length * scale)
        axes.append(_axis(length, length / resized, 0.5, first=(resized - CROP) // 2))
    return axes[0], axes[1]


def _axis(length: int, step: float, centre: float, first: int = 0) -> Axis:
    index = np.arange(first, first + CROP, dtype=np.float32)
    position = ((index + np.float32(centre)) * np.float32(step) - np.float32(centre)).clip(0)
    low = np.minimum(position.astype(np.int64), length - 1)
    return low, np.minimum(low + 1, length - 1), position - low.astype(np.float32)


RESIZES: dict[str, Callable[[int, int], tuple[Axis, Axis]]] = {
    "tensorflow1": _tensorflow1,
    "half-pixel": _half_pixel,
    "crop": _crop,
}
"""Where the 224 rows and 224 columns lie in a picture (H, W), all bilinear and without antialiasing."""


def network_frames(frames: Frames, resize: str = "tensorflow1") -> NDArray[np.float32]:
    """Return frames (T, H, W, 3) as the network takes them, (T, 224, 224, 3) in [-1, 1]; float ones are that already.

    Raises VideoError for another shape or type, and for numbers that are not finite or beyond [-1, 1].
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        message = f"a video has the shape (T, H, W, 3), got {frames.shape}"
        raise VideoError("not_a_video", message, "the channels stand last")
    if frames.dtype == np.uint8:
        out = np.empty((len(frames), CROP, CROP, 3), np.float32)
        rows, columns = RESIZES[resize](*frames.shape[1:3])
        _interpolate(np.ascontiguousarray(frames), *rows, *columns, out)
        return out
    if frames.dtype.kind != "f" or frames.shape[1:3] != (CROP, CROP):
        message = f"frames are uint8 of any size, or float of {CROP}×{CROP}, got {frames.dtype} {frames.shape}"
        raise VideoError("not_a_video", message, _WHOLE_VIDEO)
    found = np.ascontiguousarray(frames, np.float32)
    if not np.abs(found).max() <= 1.001:  # so much TensorFlow's code lets pass
        raise VideoError("not_finite", "a video has numbers that are not finite, or beyond [-1, 1]", _WHOLE_VIDEO)
    return found


@compiled
def _interpolate(
    x: NDArray[np.uint8],
    top: NDArray[np.int64], bottom: NDArray[np.int64], down: NDArray[np.float32],
    left: NDArray[np.int64], right: NDArray[np.int64], across: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``out`` with 2 x / 255 - 1 between the pixels given, along rows first, as TensorFlow does."""
    scale, one = np.float32(2 / 255), np.float32(1)
    for t in range(len(x)):
        for i in range(len(top)):
            above, below = x[t, top[i]], x[t, bottom[i]]
            for j in range(len(left)):
                for c in range(3):
                    first, second = np.float32(above[left[j], c]), np.float32(below[left[j], c])
                    first += (np.float32(above[right[j], c]) - first) * across[j]
                    second += (np.float32(below[right[j], c]) - second) * across[j]
                    out[t, i, j, c] = (first + (second - first) * down[i]) * scale - one


# --- the network -----------------------------------------------------------------------------------------------------


def check_model(model: Model) -> Model:
    """Return ``model``; raise UsageError unless it is an I3D."""
    if model.card.architecture != "i3d":
        raise UsageError(f"{model.card.name} is no I3D", "leave `model` out, or give an I3D")
    return model


def row_of(clips: Iterable[Clip], model: Model, least: int = MIN_FRAMES) -> tuple[Row, int]:
    """Return the logits of a clip, averaged over time and added over the streams, and the number of its frames.

    ``clips`` are its parts. Raise VideoError where there are fewer than ``least`` frames.
    """
    clip = join_clips(list(clips))
    if (count := num_frames(clip)) < least:
        hint = "leave it out; a clip is neither looped nor completed"
        raise VideoError("too_short", f"the video has {count} frames, and {least} are needed", hint)

    @torch.inference_mode()
    def run(start: int, stop: int) -> Tensor:
        # The training form, in one pass, as TensorFlow's graph: folding batch norm rounds every weight once more, and
        # that changes all logits alike, by 1e-6 of what lies between two videos.
        logits = [network(_as_input(clip[name], name).to(model.device)) for name, network in model.networks.items()]
        return torch.stack(logits).sum(dim=0).mean(dim=2).cpu()  # (1, classes, steps) → (1, classes)

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # 1e-4 of the logits
    try:
        (row,) = run_in_batches(run, 1, BatchLimit(1, "clips"), model.device)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    if not row.isfinite().all():
        raise VideoError("not_finite", "the network gave a number that is not finite")
    return np.asarray(row[0], np.float32), count


def _as_input(clip: NDArray[Any], stream: str) -> Tensor:
    if stream == "rgb":
        return torch.from_numpy(clip).permute(3, 0, 1, 2)[None]  # (T, 224, 224, 3) → (1, 3, T, 224, 224)
    return STREAMS[stream].to_input(clip)


# --- arrays as videos ------------------------------------------------------------------------------------------------

_ARRAY_ROW = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)  # "clips.npy[12]": a video of an array


def expand_array(source: Source) -> Iterator[Source]:
    """Yield the videos that a source stands for: those of an array (N, T, H, W, 3), or itself."""
    if source.error is None and source.path.lower().endswith(ARRAY_EXTENSIONS):
        try:
            array = _load(source.path)
            if array.ndim == 5:
                yield from (Source(f"{source.path}[{index}]") for index in range(len(array)))
                return
        except VideoError as error:
            source = Source(source.path, error)
    yield source


def _load(path: str) -> Frames:
    """Return the array of a file, mapped from the disk unless it is in an .npz; raise VideoError for anything else."""
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) != 1:
                message = f"the file holds {len(loaded.files)} arrays, and one is wanted"
                raise VideoError("not_a_video", message, "save one array (N, T, H, W, 3) of uint8")
            return np.asarray(loaded[loaded.files[0]])
    except VideoError:
        raise
    except Exception as error:  # of damaged files: OSError, EOFError, BadZipFile, zlib.error, …
        raise VideoError("not_a_video", "the file is no array of NumPy, or damaged", "save it by numpy.save") from error


class ArrayVideo:
    """A video of an array, as a ``SourceVideo`` is one of a file."""

    expected_num_frames: int | None = None

    def __init__(self, load: Callable[[], Frames], start: int, most: int | None) -> None:
        self._load, self._start, self._most = load, start, most
        self.facts = VideoFacts(None, (1, 1), 0, None, None, 0, None, "ok", ())

    def __enter__(self) -> "Self":
        video = self._load()
        if video.ndim != 4 or 0 in video.shape:
            message = f"a video has the shape (T, H, W, 3), got {video.shape}"
            raise VideoError("not_a_video", message, "save one array (N, T, H, W, 3) of uint8")
        height, width = video.shape[1:3]
        self.facts = VideoFacts(None, (width, height), 0, None, len(video), len(video), None, "ok", ())
        self._frames = video[self._start :][: self._most]
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""

    def cancel(self) -> None:
        """There is nothing to wait for."""

    def __iter__(self) -> Iterator[GridFrame]:
        return (GridFrame(np.array(frame), 0.0) for frame in self._frames)


class ArrayDecoders(Decoders):
    """Decoders that also open the videos of arrays."""

    def __init__(self) -> None:
        super().__init__()
        self._loaded = ("", np.zeros(0))  # the last file: its rows follow one another
        self._loading = Lock()  # several videos are begun at once, and what an .npz unfolds into may be large

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of a file; of a folder of pictures their sizes together, and the latest change of any."""
        found = stamp(_file_of(path)[0])
        with suppress(OSError):
            pictures = [stamp(os.path.join(path, name)) for name in picture_names(path)]  # noqa: PTH118
            changes = [each.mtime for each in (found, *pictures) if each.mtime is not None]
            return Stamp(sum(each.num_bytes or 0 for each in pictures), max(changes, key=float))
        return found

    def open_source(self, path: Any, **how: Any) -> SourceVideo:
        """Return a video; see ``Decoders.open_source``."""
        name, index = _file_of(os.fspath(path))
        if not name.lower().endswith(ARRAY_EXTENSIONS) or os.path.isdir(name):  # noqa: PTH112
            return super().open_source(path, **how)

        def load() -> Frames:
            with self._loading:
                loaded, array = self._loaded
                if loaded != name:
                    array = _load(name)
                    self._loaded = (name, array)
            if index is not None and not (array.ndim == 5 and index < len(array)):
                raise VideoError("changed_while_reading", "the array has become another while it was read")
            return array if index is None else array[index]

        return ArrayVideo(load, how.get("start_frame", 0), how.get("max_frames"))  # type: ignore[return-value]


def _file_of(path: str) -> tuple[str, int | None]:
    """Return the file that holds a video, and which of its videos that is; None: all of it."""
    match = None if os.path.lexists(path) else _ARRAY_ROW.fullmatch(path)
    return (match[1], int(match[2])) if match else (path, None)


# --- videos → records ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedVideo(VideoResult):
    """A record with the row of a video, and the SHA-256 of the frames that it was computed of."""

    row: str = ""  # float32, little-endian, in base64
    frames_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        own = {"frames_sha256": self.frames_sha256, "row": self.row} if self.status == "ok" else {}
        return super().to_json() | own

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "EmbeddedVideo":
        found = super().from_json(record)
        assert isinstance(found, cls)
        found = replace(found, row=str(record.get("row", "")), frames_sha256=str(record.get("frames_sha256", "")))
        is_whole = len(bytes.fromhex(found.frames_sha256)) == 32 and np.isfinite(found.numbers).all()
        if found.status == "ok" and not (is_whole and len(found.numbers)):
            raise ValueError("the row of a video is damaged")
        return found

    @property
    def numbers(self) -> Row:
        """The row; raises ValueError where it is damaged."""
        return np.frombuffer(base64.b64decode(self.row, validate=True), "<f4")


@dataclass(frozen=True)
class Embedding:
    """How a set of videos is embedded: a protocol, with what was chosen otherwise, by a model."""

    model: Model
    protocol: str = "reference"
    frames: int | None = None
    random_start: bool = False
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the rows, apart from the videos, as JSON values."""
        chosen = {"protocol": self.protocol, "frames": self.frames or "all", "resize": PROTOCOLS[self.protocol].resize}
        start = f"random, seed {self.seed}" if self.random_start else "first frame"
        return {**self.model.settings, **chosen, "start": start}

    def embed(
        self,
        paths: Iterable[str],
        decoders: Decoders,
        *,
        jobs: int | None = None,
        progress: Callable[[Progress], None] = lambda now: None,
    ) -> Generator[VideoResult, None, None]:
        """Yield a record per path, in order: its row, or why there is none."""
        begin = partial(_ClipOfSet, embedding=self, decoders=decoders)
        for _, video, found in map_videos(paths, begin, partial(self._record, progress), self.model, jobs=jobs):
            if isinstance(found, VideoError):
                found = VideoResult(
                    video.path, "error", *video.stamp, error_code=found.code, error_message=found.in_full
                )
            yield found

    def _record(self, progress: Callable[[Progress], None], video: PendingVideo) -> VideoResult:
        assert isinstance(video, _ClipOfSet)

        def report(stage: str) -> None:
            progress(Progress(video.path, stage, 0, video.expected_num_frames))

        clips = list(video.clips(report))
        report("network")
        row, count = row_of(clips, self.model, max(self.frames or 0, MIN_FRAMES))
        if video.facts.status == "partial":  # a clip with a hole in it is no sample of its set
            raise VideoError("truncated_or_incomplete", f"a part of it is missing: {', '.join(video.facts.flags)}")
        facts = {name: getattr(video.facts, name) for name in FACTS}
        return EmbeddedVideo(
            video.path,
            source_bytes=video.stamp.num_bytes,
            source_mtime=video.stamp.mtime,
            flags=video.facts.flags,
            model=self.model.card.name,
            model_sha256=self.model.sha256,
            cudnn=cudnn_version(self.model.device),
            streams=video.streams,
            sliding={"mode": "clip", "first_frame": video.start_frame, "frames": count},
            row=base64.b64encode(row.astype("<f4").tobytes()).decode("ascii"),
            frames_sha256=video.digest.hexdigest(),
            **facts,
        )


class _ClipOfSet(NativeVideo):
    """A video of a set, with the SHA-256 of the frames that were taken, and of their shape."""

    def __init__(self, path: str, embedding: Embedding, decoders: Decoders) -> None:
        self.digest, self._has_begun = hashlib.sha256(), False
        self._resize = PROTOCOLS[embedding.protocol].resize
        place = 0.0
        if embedding.random_start:  # by the name, so that neither the order nor the folder matters
            name = f"{embedding.seed}:{os.path.basename(path)}"  # noqa: PTH119
            place = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6], "big") / 2**48
        take = {"count": embedding.frames, "place": place}
        super().__init__(path, embedding.model, decoders, self._see, listed=True, **take)  # type: ignore[arg-type]

    def _see(self, frames: Frames) -> NDArray[np.float32]:
        if not self._has_begun:
            self.digest.update(repr((frames.shape[1:], frames.dtype.str)).encode())
            self._has_begun = True
        self.digest.update(np.ascontiguousarray(frames).data)
        return network_frames(frames, self._resize)
