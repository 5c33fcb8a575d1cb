"""How networks move over a video: prepared clips in, their outputs in order of time out.

    cropped clips (vadis.inference.prefetch) → networks → outputs in time

What becomes of the outputs, labels or features, is decided further on. Where memory runs out, the frames or windows at
hand go through again, fewer at once; what a network holds of the frames before them is as it was. Separate windows may
share a pass with those of other videos.

A video that is one clip gives what the training form gives for exactly its frames. That depends on its length from the
first frame on (``vadis.models.i3d_inference``), and headers only promise a length. So a short video is kept until its
end: where it has another length than promised it goes through again, and where nothing is promised it waits for its
end. A
long one is completed to what was promised, by its last frame.

Separate windows through the networks, several in one pass, of one video or of several.

    windows (vadis.inference.predict) → ``Batches`` → the outputs of each, in the tray of its video

A GPU takes several windows in hardly more time than one, and short videos have few: so there the last windows of a
video wait for the first of the next. On the CPU that gains nothing (tests/benchmarks/batching.py), and the last bits of
an output may follow from how many share its pass; so there each video goes by itself, and its record does not depend on
its neighbours.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.device import Portion, in_portions
from vadis.errors import UsageError
from vadis.models import MODELS, Architecture, Model, inference_form
from vadis.models.i3d import PADDING_PERIOD, num_steps, step_centre
from vadis.models.i3d_inference import LOGITS, FoldedI3D
from vadis.preprocessing import network_input, shrinking
from vadis.results import FINEST_SEGMENT_SECONDS, SEGMENT_SECONDS
from vadis.video.metadata import OpenVideo
from vadis.video.windows import Clip, join_clips, loop_clip, num_frames, pad_clip, sliding_windows

AT_ONCE = {"cpu": 1, "cuda": 8}  # windows in a pass, where nobody says how many

Rows = dict[str, NDArray[np.float32]]  # by network, (channels,)


@dataclass
class Tray:
    """What the networks say of one video's windows, in order: ``answered`` holds (first frame, outputs).

    ``streams`` are those of this video; ``layer`` and ``flip`` are what is wanted of ``model``, alike for all videos.
    """

    model: Model  # as a whole: it may leave its device while windows wait, and a part taken before would not know
    streams: tuple[str, ...]
    layer: str
    flip: bool
    notify: Callable[[str], None]
    waiting: int = 0  # windows without an answer
    answered: deque[tuple[int, Rows]] = field(default_factory=deque)


@dataclass(frozen=True)
class _Window:
    tray: Tray
    start: int
    clip: Clip


class Batches:
    """Gathers windows until as many are there as go through in one pass.

    Args:
        size: of a pass; 0 takes what suits the device. Where memory runs out, fewer go through.
        device: of the networks.
        across: windows of several videos share a pass; None: on a GPU.

    Raises:
        UsageError: for a size that cannot be.
    """

    def __init__(self, size: int, device: torch.device, *, across: bool | None = None) -> None:
        if size < 0:
            raise UsageError(f"batch_size is 1 at least, got {size}", hint="0 takes what suits this machine")
        self._size = size or AT_ONCE.get(device.type, AT_ONCE["cpu"])
        self._gathered: list[_Window] = []
        self.across = device.type == "cuda" if across is None else across

    def put(self, tray: Tray, start: int, clip: Clip) -> None:
        """Add a window (T, …) that begins with frame ``start``; all go through when there are enough.

        Raises:
            NoMemoryError: memory does not suffice for one at a time. None is lost: ``run`` tries again.
        """
        if self._gathered and self._gathered[0].clip.keys() != clip.keys():
            self.run()  # a video of one frame has no flow
        self._gathered.append(_Window(tray, start, clip))
        tray.waiting += 1
        if len(self._gathered) >= self._size:
            self.run()

    def run(self) -> None:
        """All that are gathered through the networks; raises NoMemoryError as ``put`` does."""
        if not self._gathered:
            return
        clips, tray = [window.clip for window in self._gathered], self._gathered[0].tray
        model = tray.model.only(tray.streams)
        portion = model.portions.setdefault("windows", Portion(sys.maxsize, "windows"))

        def seen(start: int, stop: int) -> list[Rows]:
            return of_windows(clips[start:stop], model, tray.layer, tray.flip)

        parts = list(in_portions(seen, len(clips), portion, model.device, tray.notify))
        for window, rows in zip(self._gathered, (rows for part in parts for rows in part), strict=True):
            window.tray.answered.append((window.start, rows))
            window.tray.waiting -= 1
        self._gathered.clear()

    def withdraw(self, tray: Tray) -> None:
        """Forget what of a video is still waiting."""
        self._gathered = [window for window in self._gathered if window.tray is not tray]


def of_windows(windows: list[Clip], model: Model, layer: str, flip: bool) -> list[Rows]:
    """What the networks say of windows of one length, in one pass."""
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
    found: list[Rows] = [{} for _ in windows]
    for name, streams in architecture.networks(model.card.streams).items():
        y = forms[name](*(inputs[stream] for stream in streams), layer=layer)  # (N or 2 N, channels, steps)
        for rows, x in zip(found, y.chunk(len(windows)), strict=True):
            rows[name] = steps_of(x).mean(axis=0)
    return found


def steps_of(x: Tensor) -> NDArray[np.float32]:
    """(B, channels, steps), averaged over a clip and its mirror image → (steps, channels)."""
    steps: NDArray[np.float32] = x.mean(dim=0).T.cpu().numpy()
    return steps


_log = logging.getLogger(__name__)

Output = tuple[Fraction, Rows]  # centre in seconds; by network (channels,)


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
            raise UsageError(message, hint=f"leave `segment_seconds` out for {SEGMENT_SECONDS} s")
        if self.window is not None and self.window < architecture.min_frames:
            message = f"a window has at least {architecture.min_frames} frames"
            raise UsageError(message, hint="leave `window` out to see each video as a whole")
        if self.window is not None and architecture.test_window not in (None, self.window):
            message = f"{architecture.title} looks at windows of {architecture.test_window} frames, no others"
            raise UsageError(message, hint="leave `window` out to see all of each video in such windows")
        if self.stride is not None and (self.window is None or self.stride < 1):
            raise UsageError(
                "a stride goes with a window, and is 1 frame at least", "such as `window=64` and `stride=16`"
            )


WHOLE_VIDEO = Sliding()

SHORT_FRAMES = 320  # 12.8 s, more than a clip of Kinetics has: what is kept of a video; 0.55 MB a frame in both streams

Feed = Callable[[Clip, bool], list[Rows]]  # a chunk, whether it is the last → the steps that it completes


def outputs(
    clips: Iterator[Clip],
    video: OpenVideo,
    model: Model,
    sliding: Sliding,
    *,
    expected: int | None = None,
    layer: str = LOGITS,
    flip: bool = False,
    batch_size: int = 0,
    notify: Callable[[str], None] = _log.warning,
) -> Iterator[Output]:
    """What the networks say of prepared clips, in order of time; separate windows share no pass with other videos.

    ``batch_size`` is that of ``Batches``; the other arguments are those of ``outputs_together``, and so is what is
    raised.
    """
    batches = Batches(batch_size, model.device, across=False)
    found = outputs_together(
        clips, video, model, sliding, batches, expected=expected, layer=layer, flip=flip, notify=notify
    )
    return (each for each in found if each is not None)


def outputs_together(
    clips: Iterator[Clip],
    video: OpenVideo,
    model: Model,
    sliding: Sliding,
    batches: Batches,
    *,
    expected: int | None = None,
    streams: tuple[str, ...] | None = None,
    layer: str = LOGITS,
    flip: bool = False,
    notify: Callable[[str], None] = _log.warning,
) -> Iterator[Output | None]:
    """What the networks say of prepared clips, in order of time.

    Args:
        clips: from ``Preparation.clips``.
        video: which they come from.
        model: that sees them.
        sliding: over the whole video, or in separate windows.
        batches: where windows wait for each other; the whole video goes through in chunks.
        expected: how many frames the clips promise to have together (``Prepared.expected_num_frames``).
        streams: that the clips have; None: all of the model's.
        layer: one of the architecture's ``layers``; before the last two, averaged over space.
        flip: averaged with the outputs of the mirror image.
        notify: hears, once, that memory is short and less goes through at once.

    Yields:
        Centre in seconds, and by network the output (channels,). Or None, at the end, as often as it is asked while
        windows of this video wait for those of the next, or for ``batches.run``.

    Raises:
        NoMemoryError: where memory does not suffice for one frame, or one window, at a time.
    """
    window = window_of(model, sliding)
    found: Iterator[Output | None]
    if window is None:
        only = model.only(streams or model.card.streams)
        least, to_input = shortest(model, sliding), partial(network_input, flip=flip)
        found = over_whole_video(clips, only, expected, least=least, layer=layer, to_input=to_input, notify=notify)
    else:
        tray = Tray(model, streams or model.card.streams, layer, flip, notify)
        found = _over_windows(clips, tray, window, sliding.stride or window, batches)
    return _in_time(found, video, shortest(model, sliding), model.card.frame_rate)


def window_of(model: Model, sliding: Sliding) -> int | None:
    """The length in frames of the separate windows that a model looks through; None where a video is one clip."""
    return sliding.window or model.card.test_window or MODELS[model.card.architecture].test_window


def shortest(model: Model, sliding: Sliding) -> int:
    """The number of frames below which a video is looped."""
    return window_of(model, sliding) or max(model.card.window_frames, MODELS[model.card.architecture].min_frames)


def completion(num_frames: int, expected: int | None) -> int:
    """Return by how many frames a video is completed that is too long to go through again (see ``SHORT_FRAMES``)."""
    return 0 if num_frames <= SHORT_FRAMES else ((expected or 0) - num_frames) % PADDING_PERIOD


def over_whole_video(
    clips: Iterable[Clip],
    model: Model,
    expected: int | None,
    *,
    least: int,
    layer: str = LOGITS,
    to_input: Callable[[NDArray[Any], str], Tensor] = network_input,
    notify: Callable[[str], None] = _log.warning,
) -> Iterator[Output]:
    """Yield what I3D says of a video as one clip, in chunks and in constant memory; no other architecture can do that.

    Args:
        clips: its chunks in order.
        model: whose streams the clips have.
        expected: how many frames they promise to have; None: nobody knows.
        least: a video with fewer frames is looped to so many.
        layer, notify: as for ``outputs_together``.
        to_input: a chunk of a stream → (B, C, T, 224, 224).
    """
    begin = partial(_begin_pass, model, layer, to_input, notify)
    for step, rows in enumerate(_steps(clips, expected, least, layer, begin)):
        yield step_centre(layer, step) / model.card.frame_rate, rows


def _steps(
    clips: Iterable[Clip], expected: int | None, least: int, layer: str, begin: Callable[[int], Feed]
) -> Iterator[Rows]:
    """Yield the steps of a video in order; those of a short one when all of it has been seen."""
    feed, frames, has_begun = begin(expected or 0), 0, False
    kept: list[Clip] = []  # all clips, as long as the video may be a short one
    waiting: list[Clip] = []  # clips that have not gone through, for one of them may be the last
    steps: list[Rows] = []  # which do not count before it is certain that nothing goes through again
    for clip in clips:
        if frames >= (SHORT_FRAMES if expected is None else least):
            steps += [rows for earlier in waiting for rows in feed(earlier, False)]
            waiting, has_begun = [], True
        if frames > SHORT_FRAMES:
            yield from steps
            kept, steps = [], []
        frames += num_frames(clip)
        waiting.append(clip)
        kept = [*kept, clip] if frames <= SHORT_FRAMES else []
    if frames <= SHORT_FRAMES and not (has_begun and frames % PADDING_PERIOD == (expected or 0) % PADDING_PERIOD):
        feed, steps = begin(max(frames, least)), []
        waiting = kept if frames >= least else [loop_clip(join_clips(kept), least)]
    *earlier_clips, last = waiting
    extra = completion(frames, expected)
    steps += [rows for clip in earlier_clips for rows in feed(clip, False)]
    steps += feed(pad_clip(last, extra), True)
    surplus = num_steps(layer, frames + extra) - num_steps(layer, frames)  # of which no frame is the video's
    yield from steps[: len(steps) - surplus]


def _begin_pass(
    model: Model,
    layer: str,
    to_input: Callable[[NDArray[Any], str], Tensor],
    notify: Callable[[str], None],
    length: int,
) -> Feed:
    """Begin a clip whose length has the remainder of ``length`` by 4; what feeds its chunks to all networks."""
    forms = {name: form for name, form in inference_form(model).items() if isinstance(form, FoldedI3D)}
    passes = {stream: form.open(layer, num_frames=length) for stream, form in forms.items()}
    portion = model.portions.setdefault("frames", Portion(sys.maxsize, "frames"))

    def feed(clip: Clip, is_last: bool) -> list[Rows]:
        def fed(stream: str, start: int, stop: int) -> Tensor | None:
            x = to_input(clip[stream][start:stop], stream)
            return passes[stream].feed(x, last=is_last and stop == num_frames(clip))

        arrived: dict[str, list[NDArray[np.float32]]] = {}
        for stream in passes:
            parts = in_portions(partial(fed, stream), num_frames(clip), portion, model.device, notify)
            arrived[stream] = [row for x in parts if x is not None for row in steps_of(x)]
        return [dict(zip(arrived, rows, strict=True)) for rows in zip(*arrived.values(), strict=True)]

    return feed


def _over_windows(
    clips: Iterator[Clip], tray: Tray, window: int, stride: int, batches: Batches
) -> Iterator[Output | None]:
    """Separate windows, each an output at its centre: the mean of its steps, as DeepMind's code gives it."""
    try:
        for start, clip in sliding_windows(clips, window, stride):
            batches.put(tray, start, clip)
            yield from _answered(tray, window)
        if not batches.across:
            batches.run()
        while tray.waiting:
            yield None
        yield from _answered(tray, window)
    finally:
        batches.withdraw(tray)


def _answered(tray: Tray, window: int) -> Iterator[Output]:
    while tray.answered:
        start, rows = tray.answered.popleft()
        yield Fraction(2 * start + window, 2 * tray.model.card.frame_rate), rows


def _in_time(
    found: Iterator[Output | None], video: OpenVideo, shortest: int, frame_rate: int
) -> Iterator[Output | None]:
    """The outputs of a video shorter than ``shortest`` frames, which was looped, folded back into it, in order."""
    folded: list[Output] = []
    for each in found:
        length = video.facts.num_frames  # known by now where the video was looped
        if each is None or length is None or length >= shortest:
            yield each
        else:
            folded.append((each[0] % Fraction(length, frame_rate), each[1]))
    yield from sorted(folded, key=itemgetter(0))
