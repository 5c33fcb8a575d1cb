"""The pipeline: file → frames → clips (``prefetch``) → networks (``predict``) → scores (``scores``) → record."""

from collections.abc import Callable, Generator, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

from vadis.device import cudnn_version
from vadis.errors import UsageError, VideoError
from vadis.flow.store import FirstFlow
from vadis.inference.predict import (
    WHOLE_VIDEO,
    Progress,
    Sliding,
    min_clip_frames,
    num_padding_frames,
    predict,
    window_of,
)
from vadis.inference.prefetch import LocalVideo, PendingVideo, map_videos
from vadis.inference.scores import CLEAR, Scoreboard, fuse_streams
from vadis.models import MODELS, Model
from vadis.results import Part, VideoResult, is_like, part_of
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import AnyPath, VideoFacts
from vadis.video.sources import Stamp
from vadis.weights.load import ensure_model

INFERENCE_FLAGS = {
    "rotated": "the frames were turned upright, as the file's metadata asks",
    "looped": "shorter than a clip: repeated from its start until it was long enough",
    "completed": "long, and of another length than its header promises: its last frame is repeated up to three times",
    "no_flow": "a single frame: labelled by RGB alone",
}
"""Every flag that is added here to those of ``vadis.video.metadata.FLAGS``, with its meaning."""

FACTS = ("status", "duration_seconds", "source_fps", "source_size", "num_frames", "frames_decoded", "frames_declared")


def classify(
    path: AnyPath,
    model: Model | AnyPath,
    *,
    segment: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    top_k: int = 5,
    flip: bool = False,
    start: float | None = None,
    end: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> VideoResult:
    """Return what happens in one video, a local file.

    Args:
        path: of the file.
        model: from ``load_model``; or what that takes, a name or a path: then it is loaded for this call.
        segment: the step of ``segments`` in seconds, 0.32 at least; by default that of the model, 2.56 mostly.
        window: frames (25 per second) of separate windows; by default as the model was made for.
        stride: frames between the starts of two windows; by default they follow one another.
        top_k: how many labels to give, for the video and for each segment.
        flip: average every prediction with that of the mirror image (costs twice the network).
        start: in seconds as players count; from there the video is read, and nothing before it is seen.
        end: in the same; up to there. The part is the clip, as if the file had only its frames.
        progress: called whenever the stage changes.

    Raise VideoError if the file cannot be labelled (``code`` says why), UsageError for a segment, window, stride,
    top_k or part that cannot be, DeviceError if memory does not suffice.
    """
    part, model = part_of(start, end), ensure_model(model)
    options = ClassifyOptions.of(model, segment, window, stride, top_k=top_k, flip=flip, progress=progress, part=part)
    with Decoders() as decoders:
        begin = partial(LocalVideo, model=options.model, decoders=decoders, part=part)
        ((_, _, outcome),) = map_videos([path], begin, options.label, options.model, jobs=1)
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome


def classify_many(
    paths: Iterable[AnyPath],
    model: Model | AnyPath,
    *,
    segment: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    top_k: int = 5,
    flip: bool = False,
    start: float | None = None,
    end: float | None = None,
    jobs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Generator[VideoResult, None, None]:
    """Yield one record per input, in order, as they are ready; takes the keywords of ``classify``, and ``jobs``.

    An input that cannot be labelled gives a record with ``status`` "error", and the others go on. While the network
    works on one video, the next ones are decoded, and their first flow is computed: ``jobs`` videos are open at once,
    and no more paths are consumed ahead. None and 0: two per core, as far as memory allows; for a GPU one per core, 16
    at most.
    """
    part, model = part_of(start, end), ensure_model(model)
    options = ClassifyOptions.of(model, segment, window, stride, top_k=top_k, flip=flip, progress=progress, part=part)
    yield from label_videos(paths, options, jobs=jobs)


@dataclass(frozen=True)
class ClassifyOptions:
    """What is wanted of every video, see ``classify`` and ``predict``; raises UsageError for what cannot be."""

    model: Model
    sliding: Sliding = WHOLE_VIDEO
    top_k: int = 5
    flip: bool = False
    batch_size: int = 0
    progress: Callable[[Progress], None] | None = None
    labels: str | None = None  # a pattern (``vadis.results.is_like``): only matching labels are reported
    part: Part | None = None  # of every video; None: all of it

    @classmethod
    def of(
        cls, model: Model, segment: float | None, window: int | None, stride: int | None, **others: Any
    ) -> "ClassifyOptions":
        """Return the options, with the length of segments by default that the model has."""
        segment = model.card.segment_seconds if segment is None else segment
        return cls(model, Sliding(segment, window, stride), **others)

    def __post_init__(self) -> None:
        self.sliding.check(self.model.card, self.batch_size)
        self.model.check_flip(self.flip)
        if self.top_k < 1:
            raise UsageError(f"top_k is 1 at least, got {self.top_k}", hint="leave it out for the best 5")
        if self.labels is not None and not any(self._label_mask()):
            message = f"{self.model.card.name} has no label like {self.labels!r}"
            raise UsageError(message, hint="`vadis labels` shows what a model can name")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the records: the same settings give the same ones."""
        own = {"sliding": self.sliding.to_json(), "top_k": self.top_k, "flip": self.flip, "labels": self.labels}
        return {**self.model.settings, **own, **(self.part._asdict() if self.part else {})}

    def _label_mask(self) -> list[bool]:
        return [self.labels is None or is_like(label, self.labels) for label in self.model.card.labels]

    def label(self, video: PendingVideo) -> VideoResult:
        """Return the record of a video; raise VideoError where it cannot be read to its end."""
        model, card, sliding = self.model, self.model.card, self.sliding
        score_fusion, seconds = MODELS[card.architecture].score_fusion, sliding.segment_seconds
        board = Scoreboard(card.labels, seconds, self.top_k, score_fusion, card.threshold or CLEAR, self._label_mask())
        how: dict[str, Any] = {"flip": self.flip, "batch_size": self.batch_size, "progress": self.progress}
        for centre, logits in predict(video, model, sliding, **how):
            board.add(centre, fuse_streams(logits, score_fusion))
        said = board.finish(_end(video.facts, card.frame_rate), first=video.facts.first_seconds)
        fields = record_fields(video, model, sliding)
        fields |= {"source_bytes": video.stamp.num_bytes, "source_mtime": video.stamp.mtime, "part": self.part}
        return VideoResult(**fields, **said)


def label_videos(
    paths: Iterable[AnyPath],
    options: ClassifyOptions,
    *,
    jobs: int | None = None,
    decoders: Decoders | None = None,
    first: FirstFlow | None = None,
    listed: bool = False,
) -> Generator[VideoResult, None, None]:
    """Yield the records of ``classify_many``; ``decoders`` may open more than local files, ``first`` has a first flow.

    ``listed``: files were there when inputs were listed, so a missing one is ``disappeared``, not ``not_found``.
    """
    with nullcontext(decoders) if decoders else Decoders() as opened:
        how: dict[str, Any] = {"listed": listed, "first": first, "part": options.part}
        begin = partial(LocalVideo, model=options.model, decoders=opened, **how)
        for _, video, outcome in map_videos(paths, begin, options.label, options.model, jobs=jobs):
            yield record_of(video.path, video.stamp, outcome, options.part)


def record_of(path: str, stamp: Stamp, outcome: VideoResult | VideoError, part: Part | None = None) -> VideoResult:
    """Return the record of a video: what was made of it, or why that could not be."""
    if isinstance(outcome, VideoResult):
        return outcome
    error: dict[str, Any] = {"error_code": outcome.code, "error_message": outcome.in_full}
    return VideoResult(path, "error", *stamp, part=part, **error)


def record_fields(video: PendingVideo, model: Model, sliding: Sliding) -> dict[str, Any]:
    """Return the fields of a record that do not depend on the outputs; the video has been read to its end."""
    facts, num_frames = video.facts, video.facts.num_frames or 0
    sliding = replace(sliding, window=window_of(model, sliding))
    present = {
        "rotated": facts.rotation % 360 != 0,
        "looped": num_frames < min_clip_frames(model, sliding),
        "completed": sliding.window is None and num_padding_frames(num_frames, video.expected_num_frames) > 0,
        "no_flow": video.streams != model.card.streams,
    }
    return {name: getattr(facts, name) for name in FACTS} | {
        "path": video.path,
        "flags": (*facts.flags, *(flag for flag in INFERENCE_FLAGS if present[flag])),
        "model": model.card.name,
        "model_sha256": model.sha256,
        "precision": model.precision,
        "cudnn": cudnn_version(model.device),
        "streams": video.streams,
        "sliding": sliding.to_json(),
    }


def _end(facts: VideoFacts, frame_rate: int) -> Fraction:
    """Return where the timeline ends: a lone frame is as long as its file, which a last frame may also outlast."""
    assert facts.num_frames is not None
    end = Fraction(facts.num_frames, frame_rate)
    if facts.num_frames == 1 and facts.duration_seconds:
        return Fraction(facts.duration_seconds)
    return min(end, Fraction(facts.duration_seconds)) if facts.duration_seconds else end
