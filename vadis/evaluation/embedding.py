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
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from math import ceil
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.device import BatchLimit, cudnn_version, memory_bytes, run_in_batches
from vadis.errors import UsageError, VideoError
from vadis.flow.numba_cache import compiled
from vadis.flow.store import with_flow
from vadis.inference.classify import FACTS, record_of
from vadis.inference.predict import Progress
from vadis.inference.prefetch import map_videos
from vadis.models import Model
from vadis.models.i3d import MIN_FRAMES
from vadis.preprocessing import CROP, STREAMS, Clip, num_frames
from vadis.results import VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import VideoFacts
from vadis.video.readahead import Prefetcher
from vadis.video.sources import ARRAY_EXTENSIONS, Source, Stamp, picture_names, stamp

Frames = NDArray[Any]  # (T, H, W, 3): uint8, or float in [-1, 1] of 224×224
Row = NDArray[np.float32]  # (classes,)
Axis = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # two pixels each, and the second one's weight

FRAME_BYTES = 8e6  # of memory that a frame takes in one pass of the whole network
_WHOLE_VIDEO = "give uint8 frames of 0 to 255"


class Protocol(NamedTuple):
    """How a number that a paper cites came about, as far as it does not depend on the data set."""

    source: str  # of its code, a repository on GitHub
    resize: str  # see ``_axes``
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


def _axes(height: int, width: int, resize: str) -> Iterator[Axis]:
    """Yield where the 224 rows, then the 224 columns lie in a picture (H, W), bilinearly and without antialiasing.

    "tensorflow1": pixel ``i`` at ``i * H / 224``; "half-pixel": between centres, as PyTorch's ``interpolate`` has it;
    "crop": likewise, but the shorter side becomes 224, the longer one is rounded up, and cut around its centre.
    """
    centre, shorter = np.float32(0 if resize == "tensorflow1" else 0.5), min(height, width)
    for length in (height, width):
        resized = ceil(length * (CROP / shorter)) if resize == "crop" and length != shorter else CROP
        index = np.arange(CROP, dtype=np.float32) + (resized - CROP) // 2
        position = ((index + centre) * np.float32(length / resized) - centre).clip(0)
        low = np.minimum(position.astype(np.int64), length - 1)
        yield low, np.minimum(low + 1, length - 1), position - low.astype(np.float32)


def network_frames(frames: Frames, resize: str = "tensorflow1") -> NDArray[np.float32]:
    """Return frames (T, H, W, 3) as the network takes them, (T, 224, 224, 3) in [-1, 1]; float ones are that already.

    Raises VideoError for another shape or type, and for numbers that are not finite or beyond [-1, 1].
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        message = f"a video has the shape (T, H, W, 3), got {frames.shape}"
        raise VideoError("not_a_video", message, "the channels stand last")
    if frames.dtype == np.uint8:
        out = np.empty((len(frames), CROP, CROP, 3), np.float32)
        _, height, width, _ = frames.shape
        rows, columns = _axes(height, width, resize)
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


def check_length(count: int, least: int = MIN_FRAMES) -> None:
    """Raise VideoError for a clip of fewer frames than ``least``."""
    if count < least:
        hint = "leave it out; a clip is neither looped nor completed"
        raise VideoError("too_short", f"the video has {count} frames, and {least} are needed", hint)


def embed_clip(clip: Clip, model: Model) -> Row:
    """Return the logits of a clip, averaged over time and added over the streams; raise VideoError if not finite."""

    @torch.inference_mode()
    def run(start: int, stop: int) -> Tensor:
        # The training form, in one pass, as TensorFlow's graph: folding batch norm rounds every weight once more, and
        # that changes all logits alike, by 1e-6 of what lies between two videos.
        logits = []
        for name, network in model.networks.items():
            seen = clip[name]  # of RGB (T, 224, 224, 3), and scaled already
            x = torch.from_numpy(seen).permute(3, 0, 1, 2)[None] if name == "rgb" else STREAMS[name].to_input(seen)
            logits.append(network(x.to(model.device)))
        return torch.stack(logits).sum(dim=0).mean(dim=2).cpu()  # (1, classes, steps) → (1, classes)

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # 1e-4 of the logits
    try:
        (row,) = run_in_batches(run, 1, BatchLimit(1, "clips"), model.device)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    if not row.isfinite().all():
        raise VideoError("not_finite", "the network gave a number that is not finite")
    return np.asarray(row[0], np.float32)


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
    """Return a video or videos, mapped from the disk unless they are in an .npz; raise VideoError for anything else."""
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            with array as arrays:
                (array,) = arrays.values()
    except Exception as error:  # of damaged files, or of several arrays: OSError, BadZipFile, zlib.error, ValueError, …
        message = "the file is damaged, or not one array of NumPy"
        raise VideoError("not_a_video", message, "save it by numpy.save") from error
    if array.ndim not in (4, 5):
        message = f"videos have the shape (N, T, H, W, 3), got {array.shape}"
        raise VideoError("not_a_video", message, "the channels stand last")
    return np.asarray(array)


def stamp_of(path: str) -> Stamp:
    """Return the stamp of the file that holds a video, or of the pictures that are one: they are written in place."""
    name, _ = _file_of(path)
    with suppress(OSError):
        if os.path.isdir(name):  # noqa: PTH112
            return stamp(name, *(os.path.join(name, each) for each in picture_names(name)))  # noqa: PTH118
    return stamp(name)


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
        own = {name: str(record.get(name, "")) for name in ("row", "frames_sha256")}
        found = cls(**vars(super().from_json(record)) | own)
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
        self, paths: Iterable[str], *, jobs: int | None = None, progress: Callable[[Progress], None] = lambda now: None
    ) -> Generator[VideoResult, None, None]:
        """Yield a record per path, in order: its row, or why there is none."""
        one_at_a_time, last = Lock(), lru_cache(maxsize=1)(_load)  # videos of an array follow one another

        def load(path: str) -> Frames:
            with one_at_a_time:
                return last(path)

        with Decoders() as decoders:
            begin = partial(_VideoOfSet, embedding=self, decoders=decoders, load=load)
            for _, video, found in map_videos(paths, begin, partial(self._record, progress), self.model, jobs=jobs):
                yield record_of(video.path, video.stamp, found)

    def _record(self, progress: Callable[[Progress], None], video: "_VideoOfSet") -> VideoResult:
        def report(stage: str) -> None:
            progress(Progress(video.path, stage, 0, None))

        (clip,) = video.ahead.items(report)
        report("network")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a core for each video, and the last digits do not depend on how many there are
        try:
            row = embed_clip(clip, self.model)
        finally:
            torch.set_num_threads(threads)
        return EmbeddedVideo(
            video.path,
            source_bytes=video.stamp.num_bytes,
            source_mtime=video.stamp.mtime,
            flags=video.facts.flags,
            model=self.model.card.name,
            model_sha256=self.model.sha256,
            cudnn=cudnn_version(self.model.device),
            streams=self.model.card.streams,
            sliding={"mode": "clip", "first_frame": video.start_frame, "frames": num_frames(clip)},
            row=base64.b64encode(row.astype("<f4").tobytes()).decode("ascii"),
            frames_sha256=video.frames_sha256,
            **{name: getattr(video.facts, name) for name in FACTS},
        )


class _VideoOfSet:
    """A video of a set, from when it is begun until ``close``: its one clip is read ahead, and all is known with it.

    ``frames_sha256`` is of the frames that were taken, from ``start_frame`` on, after their shape and type.
    """

    facts: VideoFacts
    frames_sha256: str

    def __init__(self, path: str, embedding: Embedding, decoders: Decoders, load: Callable[[str], Frames]) -> None:
        self.path, self.stamp, self.start_frame = path, stamp_of(path), 0
        self._embedding, self._decoders, self._load = embedding, decoders, load
        self._opened = decoders.open_source(path)  # by when it is cancelled it may be opened anew
        self.ahead = Prefetcher(self._prepare, 1, lambda: self._opened.cancel())

    def close(self) -> None:
        self.ahead.close()

    def _prepare(self, ahead: Prefetcher[Clip]) -> Generator[Clip, None, None]:
        embedding, model, most = self._embedding, self._embedding.model, self._embedding.frames
        if most and embedding.random_start:  # by the name, so that neither the order nor the folder matters
            next(self._pictures(ahead, 0, 0), None)
            declared = self.facts.frames_declared  # by the header, or else they are decoded
            count = sum(1 for _ in self._pictures(ahead, 0, None)) if declared is None else declared
            name = os.fsencode(f"{embedding.seed}:{os.path.basename(self.path)}")  # noqa: PTH119
            place = int.from_bytes(hashlib.sha256(name).digest()[:6], "big") / 2**48
            self.start_frame = max(0, int(place * (count - most + 1)))
        ahead.report_stage("decoding")
        room = int(min(memory_bytes(), 1e15) / (FRAME_BYTES * model.card.width))
        digest, frames = hashlib.sha256(), list[NDArray[np.float32]]()
        for picture in islice(self._pictures(ahead, self.start_frame, most), room + 1):
            if not frames:
                digest.update(repr((picture.shape, picture.dtype.str)).encode())
            digest.update(np.ascontiguousarray(picture).data)
            frames.extend(network_frames(picture[None], PROTOCOLS[embedding.protocol].resize))
        if len(frames) > room:
            message = f"there is not enough memory for {len(frames):,} frames and more in one pass"
            raise VideoError("too_large", message, "take a part of each video, such as `clip_length=16`")
        if self.facts.status == "partial":  # a clip with a hole in it is no sample of its set
            raise VideoError("truncated_or_incomplete", f"a part of it is missing: {', '.join(self.facts.flags)}")
        check_length(len(frames), max(most or 0, MIN_FRAMES))
        self.frames_sha256 = digest.hexdigest()
        clip: Clip = {"rgb": np.stack(frames)}
        if "flow" in model.card.streams:
            shown = np.rint((clip["rgb"] + 1) * 127.5).astype(np.uint8)
            ((_, flow),) = with_flow([shown], model.device, ahead.check)
            assert flow is not None
            clip["flow"] = flow
        yield clip

    def _pictures(self, ahead: Prefetcher[Clip], start: int, most: int | None) -> Iterator[Frames]:
        """Yield frames (H, W, 3) of the file: ``most`` from number ``start`` on."""
        name, index = _file_of(self.path)
        if name.lower().endswith(ARRAY_EXTENSIONS) and not os.path.isdir(name):  # noqa: PTH112
            array = self._load(name)
            if index is not None and not (array.ndim == 5 and index < len(array)):
                raise VideoError("changed_while_reading", "the array has become another while it was read")
            video = array if index is None else array[index]
            height, width = video.shape[1:3]
            self.facts = VideoFacts(None, (width, height), 0, None, len(video), len(video), None, "ok", ())
            yield from map(np.array, video[start:][:most])
            return
        self._opened = self._decoders.open_source(self.path, listed=True, start_frame=start, max_frames=most)
        with self._opened as opened:
            self.facts = opened.facts
            for frame in opened.source_frames():
                ahead.check()
                yield frame.pixels
        self.facts = opened.facts
