"""The road itself: a video file → what happens in it.

    file → frames → clips → networks (vadis.sliding) → scores → VideoResult

``classify`` is one video, ``classify_many`` any number of them, with one record for each.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vadis.errors import UsageError, VideoError
from vadis.models import MODELS, Model
from vadis.results import VideoResult
from vadis.scores import Scoreboard, fused
from vadis.sliding import WHOLE_VIDEO, Report, Sliding, outputs, prepared, shortest
from vadis.video.facts import VideoFacts
from vadis.video.reader import Video, open_video

__all__ = ["FLAGS", "Progress", "Sliding", "classify", "classify_many"]


@dataclass(frozen=True)
class Progress:
    """Where the road is: frames of the 25 fps grid that are through the network, and what is being done now."""

    path: str
    stage: str  # "decoding", "flow" or "network"
    frames_done: int
    frames_total: int | None  # an estimate by the file's header


def classify(
    path: str | os.PathLike[str],
    model: Model,
    *,
    sliding: Sliding = WHOLE_VIDEO,
    top_k: int = 5,
    flip: bool = False,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> VideoResult:
    """What happens in one video.

    Args:
        path: a local file.
        model: from ``load_model``.
        sliding: over the whole video (default) or in separate windows, and the timeline's step.
        top_k: how many labels to give, for the video and for each segment.
        flip: average every prediction with that of the mirror image (costs twice the network).
        listed: the file was there when inputs were listed, so a missing one is ``disappeared``, not ``not_found``.
        progress: called whenever the stage changes.

    Raises:
        VideoError: the file cannot be labelled; ``code`` says why.
        UsageError: for a window, stride, segment or top_k that cannot be.
    """
    architecture = MODELS[model.card.architecture]
    sliding.check(architecture)
    if top_k < 1:
        raise UsageError(f"top_k is 1 at least, got {top_k}")
    board = Scoreboard(model.card.labels, sliding.segment_seconds, top_k, architecture.averages)
    with open_video(path, listed=listed) as video:
        streams, clips = prepared(video, model, reporter(os.fspath(path), video, progress))
        for seconds, logits in outputs(clips, video, model.only(streams), sliding, flip=flip):
            board.add(seconds, fused(logits, architecture.averages))
    labels, segments = board.finish(_end(video.facts, model.card.frame_rate))
    return VideoResult(labels=labels, segments=segments, **facts_of(os.fspath(path), video, model, streams, sliding))


def classify_many(paths: Iterable[str | os.PathLike[str]], model: Model, **options: Any) -> Iterator[VideoResult]:
    """One record per input, in order, as they are ready; takes the keywords of ``classify``.

    An input that cannot be labelled gives a record with ``status`` "error", and the others go on.
    """
    for path in paths:
        try:
            yield classify(path, model, **options)
        except VideoError as error:
            message = error.message if error.hint is None else f"{error.message} ({error.hint})"
            yield VideoResult(os.fspath(path), "error", error_code=error.code, error_message=message)


def facts_of(path: str, video: Video, model: Model, streams: tuple[str, ...], sliding: Sliding) -> dict[str, Any]:
    """The fields of a record that do not depend on what the network said; the video has been read to its end."""
    facts = video.facts
    return {
        "path": path,
        "status": facts.status,
        "duration_seconds": facts.duration_seconds,
        "source_fps": facts.source_fps,
        "source_size": facts.source_size,
        "num_frames": facts.num_frames,
        "frames_decoded": facts.frames_decoded,
        "frames_declared": facts.frames_declared,
        "flags": (*facts.flags, *_own_flags(facts, model, streams, sliding)),
        "model": model.card.name,
        "model_sha256": model.sha256,
        "streams": streams,
        "sliding": sliding.to_json(),
    }


def _end(facts: VideoFacts, frame_rate: int) -> Fraction:
    """Where the timeline ends; the last frame of the grid may outlast the file."""
    assert facts.num_frames is not None
    end = Fraction(facts.num_frames, frame_rate)
    return end if facts.duration_seconds is None else min(end, Fraction(facts.duration_seconds))


FLAGS = {
    "rotated": "the frames were turned upright, as the file's metadata asks",
    "looped": "shorter than a clip: repeated from its start until it was long enough",
    "no_flow": "a single frame: labelled by RGB alone",
}
"""Every flag that this room adds to those of ``vadis.video.facts.FLAGS``, with its meaning."""


def _own_flags(facts: VideoFacts, model: Model, streams: tuple[str, ...], sliding: Sliding) -> list[str]:
    present = {
        "rotated": facts.rotation % 360 != 0,
        "looped": (facts.num_frames or 0) < shortest(model, sliding),
        "no_flow": streams != model.card.streams,
    }
    return [flag for flag in FLAGS if present[flag]]


def reporter(path: str, video: Video, progress: Callable[[Progress], None] | None) -> Report:
    """A function to call with the stage that begins and the frames that are now through the network."""
    frames_done = 0

    def report(stage: str, frames: int = 0) -> None:
        nonlocal frames_done
        frames_done += frames
        if progress is not None:
            progress(Progress(path, stage, frames_done, video.expected_num_frames))

    return report
