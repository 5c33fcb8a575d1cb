"""How networks move over a video: prepared clips in, their outputs in order of time out.

    cropped clips (vadis.preparing) → networks → outputs in time

What becomes of the outputs, labels or features, is decided further on. Where memory runs out, the frames or windows at
hand go through again, fewer at once; what a network holds of the frames before them is as it was.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.errors import UsageError
from vadis.memory import Portion, in_portions
from vadis.models import MODELS, Architecture, Model, inference_form
from vadis.models.folded import LOGITS, FoldedI3D
from vadis.models.i3d import step_centre
from vadis.results import FINEST_SEGMENT_SECONDS, SEGMENT_SECONDS
from vadis.streams import network_input, shrinking
from vadis.video.frames import OpenVideo
from vadis.video.windows import Clip, extended, num_frames, sliding_windows

_log = logging.getLogger(__name__)

Output = tuple[Fraction, dict[str, NDArray[np.float32]]]  # centre in seconds; by network (channels,)


@dataclass(frozen=True)
class Sliding:
    """How the network moves over a video.

    ``window`` None takes the video as the paper tests it: I3D the whole of it as one clip, the other architectures in
    windows of their own length; or in windows of the length that the model's card names. Otherwise separate windows of
    so many frames (25 per second), every ``stride`` frames (by default without overlap). ``segment_seconds`` is the
    step of the timeline, 0.32 at least.
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

    def check(self, architecture: Architecture) -> None:
        """Raise UsageError for what cannot be with networks of this architecture."""
        if not self.segment_seconds >= FINEST_SEGMENT_SECONDS:
            message = f"a segment has at least {FINEST_SEGMENT_SECONDS} s, the step of the network"
            raise UsageError(message, hint=f"leave --segment out for {SEGMENT_SECONDS} s")
        if self.window is not None and self.window < architecture.min_frames:
            message = f"a window has at least {architecture.min_frames} frames"
            raise UsageError(message, hint="leave --window out to see each video as a whole")
        if self.window is not None and architecture.test_window not in (None, self.window):
            message = f"{architecture.title} looks at windows of {architecture.test_window} frames, no others"
            raise UsageError(message, hint="leave --window out to see all of each video in such windows")
        if self.stride is not None and (self.window is None or self.stride < 1):
            raise UsageError("a stride goes with a window, and is 1 frame at least", "such as --window 64 --stride 16")


WHOLE_VIDEO = Sliding()


def outputs(
    clips: Iterator[Clip],
    video: OpenVideo,
    model: Model,
    sliding: Sliding,
    *,
    layer: str = LOGITS,
    flip: bool = False,
    batch_size: int = 1,
    notify: Callable[[str], None] = _log.warning,
) -> Iterator[Output]:
    """What the networks say of prepared clips, in order of time.

    Args:
        clips: from ``Preparation.clips``.
        video: which they come from.
        model: with the streams that the clips have.
        sliding: over the whole video, or in separate windows.
        layer: one of the architecture's ``layers``; before the last two, averaged over space.
        flip: averaged with the outputs of the mirror image.
        batch_size: separate windows that go through at once; the whole video goes through in chunks.
        notify: hears, once, that memory is short and less goes through at once.

    Yields:
        Centre in seconds, and by network the output (channels,).

    Raises:
        NoMemoryError: where memory does not suffice for one frame, or one window, at a time.
    """
    window = window_of(model, sliding)
    if window is None:
        found = _over_whole_video(clips, model, layer, flip, notify)
    else:
        stride = sliding.stride or window
        found = _over_windows(clips, model, window, stride, layer, flip, batch_size, notify)
    return _in_time(found, video, shortest(model, sliding), model.card.frame_rate)


def window_of(model: Model, sliding: Sliding) -> int | None:
    """The length in frames of the separate windows that a model looks through; None where a video is one clip."""
    return sliding.window or model.card.test_window or MODELS[model.card.architecture].test_window


def shortest(model: Model, sliding: Sliding) -> int:
    """The number of frames below which a video is looped."""
    return window_of(model, sliding) or model.card.window_frames


def _over_whole_video(
    clips: Iterator[Clip], model: Model, layer: str, flip: bool, notify: Callable[[str], None]
) -> Iterator[Output]:
    """One pass over the video in chunks; only I3D can do that."""
    forms = {name: form for name, form in inference_form(model).items() if isinstance(form, FoldedI3D)}
    passes = {stream: form.open(layer) for stream, form in forms.items()}
    portion = model.portions.setdefault("frames", Portion(sys.maxsize, "frames"))
    step = 0
    multiple = MODELS[model.card.architecture].prediction_stride
    for clip, last in extended(clips, minimum=model.card.window_frames, multiple=multiple):

        def fed(stream: str, start: int, stop: int, clip: Clip = clip, last: bool = last) -> Tensor | None:
            x = network_input(clip[stream][start:stop], stream, flip=flip)
            return passes[stream].feed(x, last=last and stop == num_frames(clip))

        arrived: dict[str, list[NDArray[np.float32]]] = {}
        for stream in passes:
            parts = in_portions(partial(fed, stream), num_frames(clip), portion, model.device, notify)
            arrived[stream] = [row for x in parts if x is not None for row in _steps(x)]
        for index in range(len(next(iter(arrived.values())))):  # streams lag alike
            yield step_centre(layer, step) / model.card.frame_rate, {s: steps[index] for s, steps in arrived.items()}
            step += 1


def _over_windows(
    clips: Iterator[Clip],
    model: Model,
    window: int,
    stride: int,
    layer: str,
    flip: bool,
    batch_size: int,
    notify: Callable[[str], None],
) -> Iterator[Output]:
    """Separate windows, each an output at its centre: the mean of its steps, as DeepMind's code gives it."""
    portion = model.portions.setdefault("windows", Portion(sys.maxsize, "windows"))
    windows = sliding_windows(clips, window, stride)
    while batch := list(islice(windows, min(portion.size, batch_size))):

        def seen(start: int, stop: int, batch: list[tuple[int, Clip]] = batch) -> list[dict[str, NDArray[np.float32]]]:
            return _of_windows([clip for _, clip in batch[start:stop]], model, layer, flip)

        found = [each for part in in_portions(seen, len(batch), portion, model.device, notify) for each in part]
        for (start, _), output in zip(batch, found, strict=True):
            yield Fraction(2 * start + window, 2 * model.card.frame_rate), output


def _of_windows(windows: list[Clip], model: Model, layer: str, flip: bool) -> list[dict[str, NDArray[np.float32]]]:
    """What the networks say of windows of one length, by network (channels,) for each, in one pass."""
    architecture, forms = MODELS[model.card.architecture], inference_form(model)
    shrink = shrinking(model.card.short_side)
    inputs = {
        stream: torch.cat(
            [
                network_input(clip[stream][architecture.sampling[stream]], stream, flip=flip, shrink=shrink)
                for clip in windows
            ]
        )
        for stream in windows[0]
    }
    found: list[dict[str, NDArray[np.float32]]] = [{} for _ in windows]
    for name, streams in architecture.networks(model.card.streams).items():
        y = forms[name](*(inputs[stream] for stream in streams), layer=layer)  # (N or 2 N, channels, steps)
        for output, x in zip(found, y.chunk(len(windows)), strict=True):
            output[name] = _steps(x).mean(axis=0)
    return found


def _steps(x: Tensor) -> NDArray[np.float32]:
    """(B, channels, steps), averaged over a clip and its mirror image → (steps, channels)."""
    steps: NDArray[np.float32] = x.mean(dim=0).T.cpu().numpy()
    return steps


def _in_time(found: Iterator[Output], video: OpenVideo, shortest: int, frame_rate: int) -> Iterator[Output]:
    """The outputs of a video shorter than ``shortest`` frames, which was looped, folded back into it, in order."""
    first = next(found)
    length = video.facts.num_frames  # known by now where the video was looped
    if length is None or length >= shortest:
        yield first
        yield from found
        return
    end = Fraction(length, frame_rate)
    yield from sorted(((seconds % end, output) for seconds, output in [first, *found]), key=itemgetter(0))
