"""Run networks over one video: its clips in, their outputs in order of time out.

A video that is one clip gives what the training form gives for exactly its frames. That depends on its length from the
first frame on (``vadis.models.i3d_inference``), and headers only promise a length. So a short video is kept until its
end, and goes through again if it has another; the last frame of a long one is repeated until its length modulo 4 is
that of the promised one.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.device import BatchLimit, run_in_batches, take_share
from vadis.errors import UsageError
from vadis.inference.prefetch import PendingVideo, source_crop_size
from vadis.models import MODELS, Model, ModelCard, inference_form
from vadis.models.i3d import PADDING_PERIOD, num_steps, step_centre
from vadis.models.i3d_inference import LOGITS, ChunkedI3D, FoldedI3D
from vadis.preprocessing import (
    CROPS,
    Clip,
    join_clips,
    loop_clip,
    network_input,
    num_frames,
    pad_clip,
    sliding_windows,
    spread_windows,
)
from vadis.results import FINEST_SEGMENT_SECONDS, SEGMENT_SECONDS
from vadis.video.metadata import SHORT_SIDE

WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 8}  # in a pass, where no batch size is given

SHORT_FRAMES = 320  # 12.8 s, more than a clip of Kinetics; so long a video is kept in memory, 0.55 MB a frame

Outputs = dict[str, NDArray[np.float32]]  # by network, (channels,), or (crops, channels)
Output = tuple[Fraction, Outputs]  # centre in seconds; outputs
ToInput = Callable[[NDArray[Any], str], Tensor]  # a clip of a stream → (B, C, T, H, W)
RunChunk = Callable[[Clip, bool], list[Outputs]]  # a chunk, whether it is the last → the steps that it completes


@dataclass(frozen=True)
class Progress:
    """Progress of one video: the stage that has begun, and the frames of the 25 fps grid that the network has seen."""

    path: str
    stage: str  # "decoding", "flow" or "network"
    frames_done: int
    frames_total: int | None  # an estimate by the file's header


@dataclass(frozen=True)
class Sliding:
    """How the network moves over a video: in windows of so many frames every ``stride`` frames, by default end to end.

    Without ``window`` as the model's card says, or the paper: I3D sees the whole video as one clip, the other
    architectures windows of their own length.
    """

    segment_seconds: float = SEGMENT_SECONDS  # the step of the timeline
    window: int | None = None
    stride: int | None = None
    regular: bool = False  # leave out the frames behind the last whole window; else a last window ends with the video

    def to_json(self) -> dict[str, Any]:
        """Return the ``sliding`` field of a record."""
        segment = {"segment_seconds": self.segment_seconds}
        if self.window is None:
            return {"mode": "whole", **segment}
        regular = {"regular": True} if self.regular else {}
        return {"mode": "windows", "window": self.window, "stride": self.stride or self.window, **regular, **segment}

    def check(self, card: ModelCard, batch_size: int = 0) -> None:
        """Raise UsageError for what cannot be done with a model of this card."""
        architecture, window = MODELS[card.architecture], self.window
        if not self.segment_seconds >= FINEST_SEGMENT_SECONDS:
            message = f"a segment has at least {FINEST_SEGMENT_SECONDS} s, the step of the network"
            raise UsageError(message, f"leave `segment` out for {card.segment_seconds} s")
        if window is not None and (window < architecture.min_frames or architecture.test_window not in (None, window)):
            frames = architecture.test_window or f"{architecture.min_frames} or more"
            message = f"{architecture.title} looks at windows of {frames} frames, not of {window}"
            raise UsageError(message, "leave `window` out to see all of each video")
        if self.stride is not None and (window is None or self.stride < 1):
            raise UsageError("a stride goes with a window, and is 1 frame at least", "such as `window=64`, `stride=16`")
        if self.regular and window is None:
            raise UsageError("only windows can be regular", "such as `window=16`, `stride=4`")
        if batch_size < 0:
            raise UsageError(f"batch_size is 0 or more, got {batch_size}", "0 chooses automatically")


WHOLE_VIDEO = Sliding()


def window_of(model: Model, sliding: Sliding) -> int | None:
    """Return the length in frames of the windows that a model looks through; None where a video is one clip."""
    return sliding.window or model.card.test_window or MODELS[model.card.architecture].test_window


def min_clip_frames(model: Model, sliding: Sliding) -> int:
    """Return the number of frames below which a video is looped."""
    return window_of(model, sliding) or max(model.card.window_frames, MODELS[model.card.architecture].min_frames)


def num_padding_frames(num_frames: int, expected: int | None) -> int:
    """Return how often the last frame is repeated, so that the length modulo 4 is that which the header promised.

    0 for a video that is kept in memory, which goes through again instead (see ``SHORT_FRAMES``).
    """
    return 0 if num_frames <= SHORT_FRAMES else ((expected or 0) - num_frames) % PADDING_PERIOD


def predict(
    video: PendingVideo,
    model: Model,
    sliding: Sliding = WHOLE_VIDEO,
    *,
    layer: str = LOGITS,
    flip: bool = False,
    crops: int = 1,
    batch_size: int = 0,
    snapshots: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Output]:
    """Yield the outputs over one video, in order of time: the centre in seconds, and by network float32 (channels,).

    Args:
        video: the video or part, opened by ``LocalVideo``; its ``facts`` are final afterwards.
        model: the model to run.
        sliding: whether it sees the whole video as one clip, or separate windows.
        layer: the layer to return, of the architecture's ``layers``; before the last two, averaged over space.
        flip: whether outputs are averaged with those of the mirror image.
        crops: the number of views of every frame (``CROPS``), each with outputs of its own; ``video`` then has whole
            frames.
        batch_size: separate windows in a pass; 0 chooses by the device. Where memory runs out, fewer go through.
        snapshots: the least number of separate windows, spread evenly over the video; 0: those that fit.
        progress: called whenever the stage changes.

    Raise VideoError if the video cannot be read, NoMemoryError if memory does not suffice for one frame or window.
    """
    frames_done = 0

    def report(stage: str, frames: int = 0) -> None:
        nonlocal frames_done
        frames_done += frames
        if progress is not None:
            progress(Progress(video.path, stage, frames_done, video.expected_num_frames))

    def reported(clips: Iterator[Clip]) -> Iterator[Clip]:
        for clip in clips:
            report("network")
            take_share()
            yield clip
            report("network", num_frames(clip))

    inference_form(model)  # while the decoder is at the first frames
    clips = reported(video.clips(report))
    model, min_frames, window = model.only(video.streams), min_clip_frames(model, sliding), window_of(model, sliding)
    to_input = partial(
        network_input, flip=flip, crops=crops, shrink=SHORT_SIDE // model.card.short_side, size=source_crop_size(model)
    )
    if window is None:
        outputs = over_whole_video(
            clips, model, video.expected_num_frames, min_frames=min_frames, layer=layer, to_input=to_input
        )
    else:
        fitting = sliding_windows(clips, window, sliding.stride or window, regular=sliding.regular)
        windows = spread_windows(clips, window, snapshots) if snapshots else fitting
        outputs = _over_windows(windows, model, layer, to_input, batch_size)
    yield from _map_looped_times(outputs, video, min_frames, model.card.frame_rate)


def _map_looped_times(
    outputs: Iterator[Output], video: PendingVideo, min_frames: int, frame_rate: int
) -> Iterator[Output]:
    """Yield the outputs; of a looped video, at times within its own length, and in their order."""
    wrapped: list[Output] = []
    for seconds, rows in outputs:
        frames = video.facts.num_frames  # known by now where the video was looped
        if frames is None or frames >= min_frames:
            yield seconds, rows
        else:
            wrapped.append((seconds % Fraction(frames, frame_rate), rows))
    yield from sorted(wrapped, key=itemgetter(0))


def _over_windows(
    windows: Iterator[tuple[int, Clip]], model: Model, layer: str, to_input: ToInput, batch_size: int
) -> Iterator[Output]:
    """Yield an output for each window, at its centre: the mean of its steps, as DeepMind's code gives it."""
    limit = model.batch_limits.setdefault("windows", BatchLimit(sys.maxsize, "windows"))
    while batch := list(islice(windows, batch_size or WINDOWS_AT_ONCE.get(model.device.type, 1))):
        clips, length = [clip for _, clip in batch], num_frames(batch[0][1])
        run = partial(_run_windows, clips, model, layer, to_input)
        parts = run_in_batches(run, len(batch), limit, model.device)
        for (start, _), rows in zip(batch, chain.from_iterable(parts), strict=True):
            yield Fraction(2 * start + length, 2 * model.card.frame_rate), rows


def _run_windows(
    clips: list[Clip], model: Model, layer: str, to_input: ToInput, start: int, stop: int
) -> list[Outputs]:
    """Return the outputs of windows ``[start, stop)``, which are of one length, in one pass."""
    architecture, forms, clips = MODELS[model.card.architecture], inference_form(model), clips[start:stop]
    inputs = {
        stream: torch.cat([to_input(clip[stream][architecture.sampling[stream]], stream) for clip in clips])
        for stream in model.card.streams
    }
    outputs: list[Outputs] = [{} for _ in clips]
    for name, streams in architecture.networks(model.card.streams).items():
        y = forms[name](*(inputs[stream] for stream in streams), layer=layer)  # (N × views, channels, steps)
        for rows, x in zip(outputs, y.chunk(len(clips)), strict=True):
            rows[name] = _steps_of(x).mean(axis=0)
    return outputs


def _steps_of(x: Tensor) -> NDArray[np.float32]:
    """(B, channels, steps) → (steps, channels), the mean over a clip and its mirror image; of B crops (steps, B, …)."""
    return np.asarray((x.permute(2, 0, 1) if len(x) in CROPS[1:] else x.mean(dim=0).T).cpu())


def over_whole_video(
    clips: Iterable[Clip],
    model: Model,
    expected: int | None,
    *,
    min_frames: int,
    layer: str = LOGITS,
    to_input: ToInput = network_input,
) -> Iterator[Output]:
    """Yield I3D's outputs for a video as one clip, in constant memory; no other architecture can do that.

    ``clips`` are its chunks in order, of ``expected`` frames in all, if that is known; with fewer than ``min_frames``
    it is looped. ``to_input`` makes (B, C, T, 224, 224) of a chunk of a stream.
    """
    start_pass = partial(_start_pass, model, layer, to_input)
    for step, rows in enumerate(_steps(clips, expected, min_frames, layer, start_pass)):
        yield step_centre(layer, step) / model.card.frame_rate, rows


def _steps(
    clips: Iterable[Clip], expected: int | None, min_frames: int, layer: str, start_pass: Callable[[int], RunChunk]
) -> Iterator[Outputs]:
    """Yield the steps of a video in order; those of a short one when all of it has been seen."""
    run_chunk, frames, has_begun = start_pass(expected or 0), 0, False
    kept: list[Clip] = []  # all clips, as long as the video may be a short one
    waiting: list[Clip] = []  # clips that have not gone through, for one of them may be the last
    steps: list[Outputs] = []  # which do not count before it is certain that nothing goes through again
    for clip in clips:
        if frames >= (SHORT_FRAMES if expected is None else min_frames):
            steps += [rows for earlier in waiting for rows in run_chunk(earlier, False)]
            waiting, has_begun = [], True
        if frames > SHORT_FRAMES:
            yield from steps
            kept, steps = [], []
        frames += num_frames(clip)
        waiting.append(clip)
        kept = [*kept, clip] if frames <= SHORT_FRAMES else []
    if frames <= SHORT_FRAMES and not (has_begun and frames % PADDING_PERIOD == (expected or 0) % PADDING_PERIOD):
        run_chunk, steps = start_pass(max(frames, min_frames)), []
        waiting = kept if frames >= min_frames else [loop_clip(join_clips(kept), min_frames)]
    *earlier_clips, last = waiting
    extra = num_padding_frames(frames, expected)
    steps += [rows for clip in earlier_clips for rows in run_chunk(clip, False)]
    steps += run_chunk(pad_clip(last, extra), True)
    surplus = num_steps(layer, frames + extra) - num_steps(layer, frames)  # steps that cover only padding
    yield from steps[: len(steps) - surplus]


def _start_pass(model: Model, layer: str, to_input: ToInput, length: int) -> RunChunk:
    """Return a function that runs the next chunk of a clip through all networks, and returns the steps it completes.

    Of ``length``, the clip's number of frames, only the remainder by 4 counts.
    """
    forms = {name: form for name, form in inference_form(model).items() if isinstance(form, FoldedI3D)}
    passes = {stream: ChunkedI3D(form, layer, length) for stream, form in forms.items()}
    limit = model.batch_limits.setdefault("frames", BatchLimit(sys.maxsize))

    def run_chunk(clip: Clip, is_last: bool) -> list[Outputs]:
        def run_part(stream: str, start: int, stop: int) -> Tensor | None:
            x = to_input(clip[stream][start:stop], stream)
            return passes[stream].feed(x, last=is_last and stop == num_frames(clip))

        steps: dict[str, list[NDArray[np.float32]]] = {}
        for stream in passes:
            parts = run_in_batches(partial(run_part, stream), num_frames(clip), limit, model.device)
            steps[stream] = [row for x in parts if x is not None for row in _steps_of(x)]
        return [dict(zip(steps, rows, strict=True)) for rows in zip(*steps.values(), strict=True)]

    return run_chunk
