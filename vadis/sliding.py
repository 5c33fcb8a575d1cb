"""How networks move over a video: prepared clips in, their outputs in order of time out.

    file → frames (25 fps, short side 256) → chunks → with their flow → cropped clips → networks → outputs in time

Every stage is a generator over the one before it, so a video is never in memory as a whole. What becomes of the
outputs, labels or features, is decided further on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vadis.errors import UsageError, VideoError
from vadis.flow.of_video import with_flow
from vadis.models import BOTH, MODELS, Architecture, Model, inference_form
from vadis.models.folded import LOGITS, FoldedI3D
from vadis.models.i3d import step_centre
from vadis.results import FINEST_SEGMENT_SECONDS, SEGMENT_SECONDS
from vadis.streams import centre_crop, network_input, shrinking
from vadis.video.reader import Video
from vadis.video.windows import Clip, chunks, extended, sliding_windows

CHUNK_FRAMES = 32  # 1.28 s: full speed already (tests/benchmarks/network_speed.py), 51 MB after the first layer

Output = tuple[Fraction, dict[str, NDArray[np.float32]]]  # centre in seconds; by network (channels,)
Report = Callable[[str, int], None]  # the stage that begins, the frames that are newly through the network
Frames = NDArray[np.uint8]  # (T, H, W, 3)


@dataclass(frozen=True)
class Sliding:
    """How the network moves over a video.

    ``window`` None takes the video as the paper tests it: I3D the whole of it as one clip, the other architectures in
    windows of their own length. Otherwise separate windows of so many frames (25 per second), every ``stride`` frames
    (by default without overlap). ``segment_seconds`` is the step of the timeline, 0.32 at least.
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
            raise UsageError(f"a segment has at least {FINEST_SEGMENT_SECONDS} s, the step of the network")
        if self.window is not None and self.window < architecture.min_frames:
            raise UsageError(f"a window has at least {architecture.min_frames} frames")
        if self.window is not None and architecture.test_window not in (None, self.window):
            raise UsageError(f"{architecture.title} looks at windows of {architecture.test_window} frames, no others")
        if self.stride is not None and (self.window is None or self.stride < 1):
            raise UsageError("a stride goes with a window, and is 1 frame at least")


WHOLE_VIDEO = Sliding()


def prepared(
    video: Video, model: Model, report: Report, *, max_frames: int | None = None
) -> tuple[tuple[str, ...], Iterator[Clip]]:
    """The streams of this video, and chunk by chunk its frames (T, 224, 224, 3) and flow (T, 2, 224, 224), cropped.

    One frame has no flow, so a two-stream model sees it through RGB alone, if its streams have networks of their own.
    Of more than ``max_frames`` the rest is not read.

    Raises:
        VideoError: ``too_short`` where that leaves nothing.
    """
    clips = _cropped((frame.pixels for frame in islice(video, max_frames)), model, report)
    first = next(clips)
    usable = tuple(stream for stream in model.card.streams if stream in first)
    if not usable or (usable != model.card.streams and BOTH in model.networks):
        raise VideoError("too_short", "the video has one frame, and optical flow needs two")

    def all_clips() -> Iterator[Clip]:
        yield first
        yield from clips

    return usable, all_clips()


def outputs(
    clips: Iterator[Clip], video: Video, model: Model, sliding: Sliding, *, layer: str = LOGITS, flip: bool = False
) -> Iterator[Output]:
    """What the networks say of prepared clips, in order of time.

    Args:
        clips: from ``prepared``.
        video: which they come from.
        model: with the streams that the clips have.
        sliding: over the whole video, or in separate windows.
        layer: one of the architecture's ``layers``; before the last two, averaged over space.
        flip: averaged with the outputs of the mirror image.

    Yields:
        Centre in seconds, and by network the output (channels,).
    """
    window = sliding.window or MODELS[model.card.architecture].test_window
    if window is None:
        found = _over_whole_video(clips, model, layer, flip)
    else:
        found = _over_windows(clips, model, window, sliding.stride or window, layer, flip)
    return _in_time(found, video, shortest(model, sliding), model.card.frame_rate)


def shortest(model: Model, sliding: Sliding) -> int:
    """The number of frames below which a video is looped."""
    return sliding.window or MODELS[model.card.architecture].test_window or model.card.window_frames


def _cropped(frames: Iterator[Frames], model: Model, report: Report) -> Iterator[Clip]:
    wanted, size = model.card.streams, model.card.crop * shrinking(model.card.short_side)
    decoded = _announced(
        chunks(frames, CHUNK_FRAMES), report, before="decoding", after="flow" if "flow" in wanted else "network"
    )
    alone = ((chunk, None) for chunk in decoded)
    for chunk, flow in with_flow(decoded, model.device) if "flow" in wanted else alone:
        clip: Clip = {"rgb": centre_crop(chunk, "rgb", size)} if "rgb" in wanted else {}
        if flow is not None:
            clip["flow"] = centre_crop(flow, "flow", size)
        report("network", 0)
        yield clip
        report("network", len(chunk))


def _announced(decoded: Iterator[Frames], report: Report, *, before: str, after: str) -> Iterator[Frames]:
    """``decoded`` as it is, with the stage told before and after every chunk."""
    report(before, 0)
    for frames in decoded:
        report(after, 0)
        yield frames
        report(before, 0)


def _over_whole_video(clips: Iterator[Clip], model: Model, layer: str, flip: bool) -> Iterator[Output]:
    """One pass over the video in chunks; only I3D can do that."""
    forms = {name: form for name, form in inference_form(model).items() if isinstance(form, FoldedI3D)}
    passes = {stream: form.open(layer) for stream, form in forms.items()}
    step = 0
    multiple = MODELS[model.card.architecture].prediction_stride
    for clip, last in extended(clips, minimum=model.card.window_frames, multiple=multiple):
        given = {s: p.feed(network_input(clip[s], s, flip=flip), last=last) for s, p in passes.items()}
        arrived = {s: _steps(x) for s, x in given.items() if x is not None}  # streams lag alike: all of them or none
        for index in range(len(next(iter(arrived.values()), ()))):
            yield step_centre(layer, step) / model.card.frame_rate, {s: steps[index] for s, steps in arrived.items()}
            step += 1


def _over_windows(
    clips: Iterator[Clip], model: Model, window: int, stride: int, layer: str, flip: bool
) -> Iterator[Output]:
    """Separate windows, each an output at its centre: the mean of its steps, as DeepMind's code gives it."""
    architecture, forms = MODELS[model.card.architecture], inference_form(model)
    shrink = shrinking(model.card.short_side)
    for start, clip in sliding_windows(clips, window, stride):
        inputs = {
            stream: network_input(array[architecture.sampling[stream]], stream, flip=flip, shrink=shrink)
            for stream, array in clip.items()
        }
        found = {
            name: _steps(forms[name](*(inputs[stream] for stream in streams), layer=layer)).mean(axis=0)
            for name, streams in architecture.networks(model.card.streams).items()
        }
        yield Fraction(2 * start + window, 2 * model.card.frame_rate), found


def _steps(x: Tensor) -> NDArray[np.float32]:
    """(B, channels, steps), averaged over a clip and its mirror image → (steps, channels)."""
    steps: NDArray[np.float32] = x.mean(dim=0).T.cpu().numpy()
    return steps


def _in_time(found: Iterator[Output], video: Video, shortest: int, frame_rate: int) -> Iterator[Output]:
    """The outputs of a video shorter than ``shortest`` frames, which was looped, folded back into it, in order."""
    first = next(found)
    length = video.facts.num_frames  # known by now where the video was looped
    if length is None or length >= shortest:
        yield first
        yield from found
        return
    end = Fraction(length, frame_rate)
    yield from sorted(((seconds % end, output) for seconds, output in [first, *found]), key=itemgetter(0))
