"""The road itself: a video file → what happens in it.

    file → frames (25 fps, short side 256) → chunks → with their flow → cropped clips → networks → scores → VideoResult

Every stage is a generator over the one before it, so a video is never in memory as a whole. ``classify`` is one
video, ``classify_many`` any number of them, with one record for each.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.errors import UsageError, VideoError
from vadis.flow.of_video import with_flow
from vadis.models import MODELS, Model, inference_form
from vadis.models.folded import FoldedI3D
from vadis.results import FINEST_SEGMENT_SECONDS, SEGMENT_SECONDS, VideoResult
from vadis.scores import Logits, Scoreboard
from vadis.streams import centre_crop, network_input
from vadis.video.facts import VideoFacts
from vadis.video.reader import Video, open_video
from vadis.video.windows import Clip, chunks, extended, sliding_windows

CHUNK_FRAMES = 32  # 1.28 s: full speed already (tests/benchmarks/network_speed.py), 51 MB after the first layer


@dataclass(frozen=True)
class Sliding:
    """How the network moves over a video.

    ``window`` None takes the whole video as one clip, as the paper tests it; otherwise separate windows of so many
    frames (25 per second), every ``stride`` frames (by default without overlap). ``segment_seconds`` is the step of
    the timeline, 0.32 at least.
    """

    segment_seconds: float = SEGMENT_SECONDS
    window: int | None = None
    stride: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The ``sliding`` field of a record."""
        segment = {"segment_seconds": self.segment_seconds}
        if self.window is None:
            return {"mode": "whole", **segment}
        return {"mode": "windows", "window": self.window, "stride": self.stride or self.window, **segment}

    def check(self, min_frames: int) -> None:
        """Raise UsageError for what cannot be."""
        if not self.segment_seconds >= FINEST_SEGMENT_SECONDS:
            raise UsageError(f"a segment has at least {FINEST_SEGMENT_SECONDS} s, the step of the network")
        if self.window is not None and self.window < min_frames:
            raise UsageError(f"a window has at least {min_frames} frames")
        if self.stride is not None and (self.window is None or self.stride < 1):
            raise UsageError("a stride goes with a window, and is 1 frame at least")


@dataclass(frozen=True)
class Progress:
    """Where the road is: frames of the 25 fps grid that are through the network, and what is being done now."""

    path: str
    stage: str  # "decoding", "flow" or "network"
    frames_done: int
    frames_total: int | None  # an estimate by the file's header


Prediction = tuple[Fraction, Logits]  # centre in seconds; (classes,)
Report = Callable[[str, int], None]  # the stage that begins, the frames that are newly through the network
Frames = NDArray[np.uint8]  # (T, H, W, 3)


def classify(
    path: str | os.PathLike[str],
    model: Model,
    *,
    sliding: Sliding = Sliding(),
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
    sliding.check(MODELS[model.card.architecture].min_frames)
    if top_k < 1:
        raise UsageError(f"top_k is 1 at least, got {top_k}")
    board = Scoreboard(model.card.labels, sliding.segment_seconds, top_k)
    with open_video(path, listed=listed) as video:
        clips = _clips(video, model, _reporter(os.fspath(path), video, progress))
        streams, clips = _usable_streams(clips, model.card.streams)
        predictions = _predictions(clips, model.only(streams), sliding, flip)
        shortest = sliding.window or model.card.window_frames
        for seconds, logits in _in_time(predictions, video, shortest, model.card.frame_rate):
            board.add(seconds, logits)
    return _result(os.fspath(path), video, model, streams, sliding, board)


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


def _clips(video: Video, model: Model, report: Report) -> Iterator[Clip]:
    """Chunk by chunk, the centre of the frames (T, 224, 224, 3) and of their flow (T, 2, 224, 224)."""
    wanted = model.card.streams
    decoded = chunks((frame.pixels for frame in video), CHUNK_FRAMES)
    decoded = _announced(decoded, report, before="decoding", after="flow" if "flow" in wanted else "network")
    for frames, flow in (
        with_flow(decoded, model.device) if "flow" in wanted else ((frames, None) for frames in decoded)
    ):
        clip: Clip = {"rgb": centre_crop(frames, "rgb", model.card.crop)} if "rgb" in wanted else {}
        if flow is not None:
            clip["flow"] = centre_crop(flow, "flow", model.card.crop)
        report("network", 0)
        yield clip
        report("network", len(frames))


def _announced(decoded: Iterator[Frames], report: Report, *, before: str, after: str) -> Iterator[Frames]:
    """``decoded`` as it is, with the stage told before and after every chunk."""
    report(before, 0)
    for frames in decoded:
        report(after, 0)
        yield frames
        report(before, 0)


def _usable_streams(clips: Iterator[Clip], streams: tuple[str, ...]) -> tuple[tuple[str, ...], Iterator[Clip]]:
    """The streams of this video: one frame has no flow, so a two-stream model sees it through RGB alone."""
    first = next(clips)
    usable = tuple(stream for stream in streams if stream in first)
    if not usable:
        raise VideoError("too_short", "the video has one frame, and optical flow needs two")

    def all_clips() -> Iterator[Clip]:
        yield first
        yield from clips

    return usable, all_clips()


def _predictions(clips: Iterator[Clip], model: Model, sliding: Sliding, flip: bool) -> Iterator[Prediction]:
    networks = inference_form(model)
    if sliding.window is None:
        return _over_whole_video(clips, networks, model, flip)
    return _over_windows(clips, networks, model, sliding.window, sliding.stride or sliding.window, flip)


def _over_whole_video(
    clips: Iterator[Clip], networks: dict[str, FoldedI3D], model: Model, flip: bool
) -> Iterator[Prediction]:
    """One pass over the video in chunks; prediction j averages the 8-frame cells j and j + 1, so lies between them."""
    stride = MODELS[model.card.architecture].prediction_stride
    passes = {stream: network.open() for stream, network in networks.items()}
    centre = 0  # in frames
    for clip, last in extended(clips, minimum=model.card.window_frames, multiple=stride):
        given = [p.feed(network_input(clip[s], s, flip=flip), last=last) for s, p in passes.items()]
        logits = [x for x in given if x is not None]  # all streams lag alike: either all are there or none
        for step in _fused(logits) if logits else []:
            centre += stride
            yield Fraction(centre, model.card.frame_rate), step


def _over_windows(
    clips: Iterator[Clip], networks: dict[str, FoldedI3D], model: Model, window: int, stride: int, flip: bool
) -> Iterator[Prediction]:
    """Separate windows, each a prediction at its centre: the mean of its steps, as DeepMind's code gives it."""
    for start, clip in sliding_windows(clips, window, stride):
        logits = [network(network_input(clip[s], s, flip=flip)) for s, network in networks.items()]
        yield Fraction(2 * start + window, 2 * model.card.frame_rate), _fused(logits).mean(axis=0)


def _fused(logits: list[Tensor]) -> Logits:
    """The streams' logits (B, classes, steps), added; averaged over a clip and its mirror image → (steps, classes)."""
    fused: Logits = torch.stack(logits).sum(dim=0).mean(dim=0).T.cpu().numpy()  # (steps, classes)
    return fused


def _in_time(predictions: Iterator[Prediction], video: Video, shortest: int, frame_rate: int) -> Iterator[Prediction]:
    """The predictions of a video shorter than ``shortest`` frames, which was looped, folded back into it, in order."""
    first = next(predictions)
    length = video.facts.num_frames  # known by now where the video was looped
    if length is None or length >= shortest:
        yield first
        yield from predictions
        return
    end = Fraction(length, frame_rate)
    yield from sorted(((seconds % end, logits) for seconds, logits in [first, *predictions]), key=itemgetter(0))


def _result(
    path: str, video: Video, model: Model, streams: tuple[str, ...], sliding: Sliding, board: Scoreboard
) -> VideoResult:
    facts = video.facts
    assert facts.num_frames is not None
    end = Fraction(facts.num_frames, model.card.frame_rate)  # the last frame of the grid may outlast the file
    if facts.duration_seconds is not None:
        end = min(end, Fraction(facts.duration_seconds))
    labels, segments = board.finish(end)
    return VideoResult(
        path=path,
        status=facts.status,
        duration_seconds=facts.duration_seconds,
        source_fps=facts.source_fps,
        source_size=facts.source_size,
        num_frames=facts.num_frames,
        frames_decoded=facts.frames_decoded,
        frames_declared=facts.frames_declared,
        flags=(*facts.flags, *_own_flags(facts, model, streams, sliding)),
        model=model.card.name,
        model_sha256=model.sha256,
        streams=streams,
        sliding=sliding.to_json(),
        labels=labels,
        segments=segments,
    )


FLAGS = {
    "rotated": "the frames were turned upright, as the file's metadata asks",
    "looped": "shorter than a clip: repeated from its start until it was long enough",
    "no_flow": "a single frame: labelled by RGB alone",
}
"""Every flag that this room adds to those of ``vadis.video.facts.FLAGS``, with its meaning."""


def _own_flags(facts: VideoFacts, model: Model, streams: tuple[str, ...], sliding: Sliding) -> list[str]:
    present = {
        "rotated": facts.rotation % 360 != 0,
        "looped": (facts.num_frames or 0) < (sliding.window or model.card.window_frames),
        "no_flow": streams != model.card.streams,
    }
    return [flag for flag in FLAGS if present[flag]]


def _reporter(path: str, video: Video, progress: Callable[[Progress], None] | None) -> Report:
    """A function to call with the stage that begins and the frames that are now through the network."""
    frames_done = 0

    def report(stage: str, frames: int = 0) -> None:
        nonlocal frames_done
        frames_done += frames
        if progress is not None:
            progress(Progress(path, stage, frames_done, video.expected_num_frames))

    return report
