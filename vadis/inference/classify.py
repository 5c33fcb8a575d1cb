"""The road itself: a video file → what happens in it.

    file → frames → clips (vadis.inference.prefetch) → networks (vadis.inference.predict) → scores → VideoResult

``classify`` is one video, ``classify_many`` any number of them, with one record for each.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, TypeVar

from vadis.device import cudnn_version
from vadis.errors import UsageError, VideoError
from vadis.flow.video_flow import FirstFlow
from vadis.inference.predict import Batches, Sliding, completion, outputs_together, shortest, window_of
from vadis.inference.prefetch import Preparation, Prepared, Report, Way, each_prepared, given_or_new
from vadis.inference.scores import Scoreboard, fused
from vadis.models import MODELS, Model
from vadis.results import VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import OpenVideo, VideoFacts
from vadis.video.sources import Stamp
from vadis.weights.load import given_or_loaded

__all__ = ["FLAGS", "Progress", "Sliding", "classify", "classify_many"]

_log = logging.getLogger(__name__)

AnyPath = str | os.PathLike[str]
Path = TypeVar("Path", bound=AnyPath)


@dataclass(frozen=True)
class Progress:
    """Where the road is: frames of the 25 fps grid that are through the network, and what is being done now."""

    path: str
    stage: str  # "decoding", "flow" or "network"
    frames_done: int
    frames_total: int | None  # an estimate by the file's header


def classify(
    path: str | os.PathLike[str],
    model: Model | str | os.PathLike[str],
    *,
    sliding: Sliding | None = None,
    top_k: int = 5,
    flip: bool = False,
    batch_size: int = 0,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = _log.warning,
    decoders: Decoders | None = None,
) -> VideoResult:
    """What happens in one video.

    Args:
        path: a local file.
        model: from ``load_model``; or what that takes, a name or a path: then it is loaded for this call.
        sliding: over the whole video or in separate windows, and the timeline's step; by default as the model was
            made for: most see the whole video, and a step is 2.56 s.
        top_k: how many labels to give, for the video and for each segment.
        flip: average every prediction with that of the mirror image (costs twice the network).
        batch_size: separate windows that go through the network at once; fewer where memory does not suffice. 0 takes
            what suits the device.
        listed: the file was there when inputs were listed, so a missing one is ``disappeared``, not ``not_found``.
        progress: called whenever the stage changes.
        notify: called with a sentence where memory is short, which is said once per model.
        decoders: the processes that decode; by default one is started for this video.

    Raises:
        VideoError: the file cannot be labelled; ``code`` says why.
        UsageError: for a window, stride, segment, top_k or batch_size that cannot be.
        DeviceError: memory does not suffice, not even for the least that can go through at once.
    """
    model = given_or_loaded(model)
    asked = Asked(model, sliding or Sliding(model.card.segment_seconds), top_k, flip, batch_size, progress, notify)
    ((_, _, outcome),) = asked.of_each([path], decoders, jobs=1, listed=listed)
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome


def classify_many(
    paths: Iterable[str | os.PathLike[str]],
    model: Model | str | os.PathLike[str],
    *,
    jobs: int | None = None,
    decoders: Decoders | None = None,
    first: FirstFlow | None = None,
    listed: bool = False,
    sliding: Sliding | None = None,
    top_k: int = 5,
    flip: bool = False,
    batch_size: int = 0,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = _log.warning,
) -> Generator[VideoResult, None, None]:
    """One record per input, in order, as they are ready; takes the keywords of ``classify``, and ``jobs``.

    An input that cannot be labelled gives a record with ``status`` "error", and the others go on. While the network
    works on one video, the next ones are decoded, and their first flow is computed; at most ``jobs`` paths are taken
    from ``paths`` before the first of them has its record. On a GPU separate windows share a pass with those of the
    next videos, so there a few more are.

    Args:
        jobs: videos read at once, that at the network among them. 1: none is begun before the one before it is done.
            None and 0: one per processor, 4 at most.
        first: what has begun with the flow of one of them, before the model was there.
    """
    model = given_or_loaded(model)
    asked = Asked(model, sliding or Sliding(model.card.segment_seconds), top_k, flip, batch_size, progress, notify)
    for path, found, outcome in asked.of_each(paths, decoders, jobs, listed, first):
        yield error_record(os.fspath(path), outcome, found) if isinstance(outcome, VideoError) else outcome


def error_record(path: str, error: VideoError, found: Stamp) -> VideoResult:
    """The record of an input that cannot be labelled; ``found``: the file's stamp when it was tried.

    What its code says to do next is not in it: the code is enough to look that up, also in 100,000 records.
    """
    return VideoResult(path, "error", *found, error_code=error.code, error_message=error.in_full)


@dataclass(frozen=True)
class Asked:
    """What is wanted of every video; see ``classify``."""

    model: Model
    sliding: Sliding
    top_k: int
    flip: bool
    batch_size: int
    progress: Callable[[Progress], None] | None
    notify: Callable[[str], None]

    def __post_init__(self) -> None:
        self.sliding.check(MODELS[self.model.card.architecture])
        if self.top_k < 1:
            raise UsageError(f"top_k is 1 at least, got {self.top_k}", hint="leave it out for the best 5")
        self.model.check_flip(self.flip)
        Batches(self.batch_size, self.model.device)  # refuses a size that cannot be, before a video is opened

    def of_each(
        self,
        paths: Iterable[str | os.PathLike[str]],
        decoders: Decoders | None,
        jobs: int | None,
        listed: bool,
        first: FirstFlow | None = None,
    ) -> Iterator[tuple[str | os.PathLike[str], Stamp, VideoResult | VideoError]]:
        """Every video with its stamp from before it was opened, and its record, or why there is none."""
        stamps: deque[Stamp] = deque()  # of the videos that are begun, in their order

        def stamped() -> Iterator[str | os.PathLike[str]]:
            for path in paths:
                stamps.append(decoding.stamp(os.fspath(path)))
                yield path

        with given_or_new(decoders) as decoding:
            begin = partial(Preparation, model=self.model, decoders=decoding, listed=listed, first=first)
            for path, outcome in self.in_order(stamped(), begin, jobs):
                found = stamps.popleft()
                if isinstance(outcome, VideoResult):
                    outcome = replace(outcome, source_bytes=found.num_bytes, source_mtime=found.mtime)
                yield path, found, outcome

    def in_order(
        self, paths: Iterable[Path], begin: Callable[[Path], Prepared], jobs: int | None
    ) -> Iterator[tuple[Path, VideoResult | VideoError]]:
        """Every video with its record, or why there is none; ``begin`` makes its preparation."""
        batches = Batches(self.batch_size, self.model.device)
        work = partial(self._labelled, batches)
        return each_prepared(paths, begin, work, self.model, jobs=jobs, batches=batches, notify=self.notify)

    def _labelled(self, batches: Batches, path: AnyPath, prepared: Prepared) -> Way[VideoResult]:
        """The networks' part of a video; raises VideoError where it cannot be read to its end."""
        model = self.model
        sliding = replace(self.sliding, window=self.sliding.window or model.card.test_window)  # as the record says it
        averages = MODELS[model.card.architecture].score_fusion
        card = model.card
        board = Scoreboard(
            card.labels,
            sliding.segment_seconds,
            self.top_k,
            averages,
            threshold=card.threshold,
            otherwise=card.otherwise,
        )
        streams, clips = prepared.clips(reporter(prepared, self.progress))
        given = outputs_together(
            clips,
            prepared.video,
            model,
            sliding,
            batches,
            expected=prepared.expected_num_frames,
            streams=streams,
            flip=self.flip,
            notify=self.notify,
        )
        for found in given:
            if found is None:
                yield
            else:
                seconds, logits = found
                board.add(seconds, fused(logits, averages))
        video = prepared.video.facts
        labels, segments = board.finish(_end(video, model.card.frame_rate), first=video.first_seconds)
        facts = facts_of(prepared.path, prepared.video, model, streams, sliding)
        return VideoResult(labels=labels, segments=segments, **facts)


def facts_of(path: str, video: OpenVideo, model: Model, streams: tuple[str, ...], sliding: Sliding) -> dict[str, Any]:
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
        "flags": (*facts.flags, *_own_flags(video, model, streams, sliding)),
        "model": model.card.name,
        "model_sha256": model.sha256,
        "cudnn": cudnn_version(model.device),
        "streams": streams,
        "sliding": sliding.to_json(),
    }


def _end(facts: VideoFacts, frame_rate: int) -> Fraction:
    """Where the timeline ends; the last frame of the grid may outlast the file, and a lone frame is as long as it."""
    assert facts.num_frames is not None
    end = Fraction(facts.num_frames, frame_rate)
    if facts.num_frames == 1 and facts.duration_seconds:
        return Fraction(facts.duration_seconds)
    return end if facts.duration_seconds is None else min(end, Fraction(facts.duration_seconds))


FLAGS = {
    "rotated": "the frames were turned upright, as the file's metadata asks",
    "looped": "shorter than a clip: repeated from its start until it was long enough",
    "completed": "long, and of another length than its header promises: its last frame is repeated up to three times",
    "no_flow": "a single frame: labelled by RGB alone",
}
"""Every flag that this room adds to those of ``vadis.video.metadata.FLAGS``, with its meaning."""


def _own_flags(video: OpenVideo, model: Model, streams: tuple[str, ...], sliding: Sliding) -> list[str]:
    facts, num_frames = video.facts, video.facts.num_frames or 0
    is_one_clip = window_of(model, sliding) is None
    present = {
        "rotated": facts.rotation % 360 != 0,
        "looped": num_frames < shortest(model, sliding),
        "completed": is_one_clip and completion(num_frames, video.expected_num_frames) > 0,
        "no_flow": streams != model.card.streams,
    }
    return [flag for flag in FLAGS if present[flag]]


def reporter(prepared: Prepared, progress: Callable[[Progress], None] | None) -> Report:
    """A function to call with the stage that begins and the frames that are now through the network."""
    frames_done = 0

    def report(stage: str, frames: int = 0) -> None:
        nonlocal frames_done
        frames_done += frames
        if progress is not None:
            progress(Progress(prepared.path, stage, frames_done, prepared.expected_num_frames))

    return report
