"""Examples → clips: of each video only what its clip needs is decoded, cropped, mirrored and scaled.

Everything random in a clip follows from (seed, epoch, index), so neither the number of loader workers nor what was
loaded before changes anything. A video that cannot be read is replaced by the next in the list that can.

What is random in a training clip: where it begins, what is cropped, whether it is mirrored, how its colours shift.

The paper (section 2.5): a random 224×224 crop of the frames with their short side at 256, a random start among those
early enough, one left-right flip for the whole clip. It names photometric changes as promising and untried; here they
are off unless asked for.

Clips as bytes: on their way from the process that loads them to the device they take a quarter of their numbers.

Pictures are bytes anyway, and flow is kept as levels (``vadis.flow.store``). What makes a network's input of them is
done on the device, value by value as ``vadis.preprocessing`` does it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import floor
from random import Random
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.datasets import Example
from vadis.errors import VIDEO_ERROR_CODES, UsageError, VadisError, VideoError
from vadis.flow.store import ZERO, FlowStore, dequantize
from vadis.preprocessing import CROP, STREAMS, flow_input, shrunk
from vadis.results import printable
from vadis.training.sampler import derived_seed
from vadis.video.reader import open_video
from vadis.video.timegrid import GRID_FPS

_FLOW_INPUT = flow_input(dequantize(np.arange(256, dtype=np.uint8)).reshape(1, 1, 1, 256)).flatten()  # by level


def packed(frames: NDArray[np.uint8], stream: str, *, mirror: bool) -> Tensor:
    """Pictures (T, H, W, 3) or levels (T, 2, H, W), with left and right exchanged or not → uint8 (C, T, H, W)."""
    if stream == "rgb":
        pictures = torch.from_numpy(frames).permute(3, 0, 1, 2)  # (3, T, H, W)
        return pictures.flip(-1) if mirror else pictures
    levels = torch.from_numpy(frames).transpose(0, 1)  # (2, T, H, W)
    return _mirrored(levels) if mirror else levels


def _mirrored(levels: Tensor) -> Tensor:
    """What moved left moves right: dx changes its sign. A level's opposite lies as far on the other side of zero."""
    levels = levels.flip(-1)
    levels[0] = ((2 * ZERO) - levels[0].clamp(min=1).short()).byte()
    return levels


def unpacked(x: Tensor) -> Tensor:
    """Packed clips (…, C, T, H, W), C = 3 (rgb) or 2 (flow) → float32 in [-1, 1]; other numbers stay as they are."""
    if x.dtype != torch.uint8:
        return x
    if x.shape[-4] == STREAMS["rgb"].channels:
        return x.float().mul_(2 / 255).sub_(1)
    return _FLOW_INPUT.to(x.device)[x.int()]


_LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of red, green and blue


@dataclass(frozen=True)
class Jitter:
    """The largest photometric changes, one draw per clip.

    Attributes:
        brightness: added, as a share of the whole range.
        contrast: the factor around the clip's mean lies in [1 - contrast, 1 + contrast].
        saturation: the factor around grey, likewise.
    """

    brightness: float = 0.1
    contrast: float = 0.2
    saturation: float = 0.2


@dataclass(frozen=True)
class Draw:
    """What was drawn for one clip.

    Attributes:
        start, top, left: in [0, 1), shares of the room there is.
        is_mirrored: left and right are exchanged.
        brightness, contrast, saturation: in [-1, 1), shares of what a ``Jitter`` allows.
    """

    start: float
    top: float
    left: float
    is_mirrored: bool
    brightness: float
    contrast: float
    saturation: float


def drawn(seed: int, epoch: int, index: int) -> Draw:
    """The draw for a clip; the same on every machine, whatever was drawn before."""
    random = Random(derived_seed(seed, "clip", epoch, index))
    start, top, left, mirror, *shifts = (random.random() for _ in range(7))
    brightness, contrast, saturation = (2 * shift - 1 for shift in shifts)
    return Draw(start, top, left, mirror < 0.5, brightness, contrast, saturation)


def crop_window(size: tuple[int, int], draw: Draw | None) -> tuple[slice, slice]:
    """Rows and columns of a 224×224 crop of frames of ``size`` (width, height): as drawn, or the centre."""
    width, height = size
    rooms = (height - CROP, width - CROP)
    if draw is None:
        top, left = (room // 2 for room in rooms)
    else:
        top, left = (int(share * (room + 1)) for share, room in zip((draw.top, draw.left), rooms, strict=True))
    return slice(top, top + CROP), slice(left, left + CROP)


def shift_colours(x: Tensor, jitter: Jitter, draw: Draw) -> Tensor:
    """An RGB clip (3, T, H, W) in [-1, 1] with other saturation, contrast and brightness, in [-1, 1] again."""
    gray = torch.einsum("c,cthw->thw", x.new_tensor(_LUMA), x)  # (T, H, W)
    x = torch.lerp(gray, x, 1 + jitter.saturation * draw.saturation)  # (3, T, H, W)
    x = torch.lerp(gray.mean(), x, 1 + jitter.contrast * draw.contrast)
    return x.add_(2 * jitter.brightness * draw.brightness).clamp_(-1, 1)


CLIP_FRAMES = 64  # (paper) of a training clip: 2.56 s
BROKEN_ALLOWED = 0.01  # of the videos; one is allowed however few there are
MOST_NAMED = 20  # videos in the message that ends a run

Bytes = NDArray[np.uint8]

_CODES = tuple(VIDEO_ERROR_CODES)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The frames ``[start, start + count)`` of a video, repeated from their first to ``length`` frames."""

    start: int
    count: int
    length: int


class VideoClips:
    """Clips by number, for ``vadis.training.sampler``.

    Args:
        examples: the videos, or parts of videos, with their classes.
        classes: the class names in the order of the network's outputs.
        streams: what the clips show: "rgb", "flow", or both, of the same frames.
        frames: length of a clip; None, in testing only, for all there are (64 at least).
        seed: of everything random.
        train: random clips; False: the first ``frames`` frames of each video, their centre, no change.
        store: where the flow comes from; needed for "flow".
        flip: mirror half of the training clips; off for classes that tell left from right.
        jitter: photometric changes of training clips, for "rgb"; None (as in the paper) for none.
        sampling: by stream, which of the frames of a clip are shown; all where it says nothing.
        shrink: by how much pictures shrink, each side.

    Raises:
        UsageError: no examples, a label that is not among ``classes``, flow without a store, or what cannot be.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        classes: Sequence[str],
        streams: tuple[str, ...],
        *,
        frames: int | None = CLIP_FRAMES,
        seed: int = 0,
        train: bool,
        store: FlowStore | None = None,
        flip: bool = True,
        jitter: Jitter | None = None,
        sampling: Mapping[str, slice] = MappingProxyType({}),
        shrink: int = 1,
    ) -> None:
        if not examples:
            raise UsageError("there is no video to learn from or to test on", hint="take a split that has some")
        if "flow" in streams and store is None:
            raise UsageError("flow is read from a flow store", hint="make one with vadis flow")
        if not streams or not set(streams) <= STREAMS.keys() or (train and frames is None):
            hint = f"streams are of {', '.join(STREAMS)}, and training clips have a number of frames"
            raise UsageError(f"there are no {'training' if train else 'test'} clips {streams = }, {frames = }", hint)
        numbers = {name: number for number, name in enumerate(classes)}
        unknown = sorted({example.label for example in examples} - numbers.keys())
        if unknown:
            message = f"{printable(unknown[0])} is not a class of this model ({len(unknown)} labels are not)"
            raise UsageError(message, hint="give the classes of the dataset that the examples are from")
        self._examples = tuple(examples)
        self._labels = [numbers[example.label] for example in examples]
        self._streams, self._store = streams, store
        self._frames, self._seed, self._train = frames, seed, train
        self._flip, self._jitter = flip, jitter
        self._sampling, self._shrink = dict(sampling), shrink
        # By example: 0, or 1 + the place of its error's code. Shared with loader workers, which count together.
        self._broken = torch.zeros(len(examples), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        # By example: its grid frames, 0 while nobody has looked. A header is read once, by one of the workers.
        self._lengths = torch.zeros(len(examples), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._examples)

    def clip(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], int, str]:
        """One clip.

        Returns:
            By stream (C, T, 224, 224), C = 3 (rgb) or 2 (flow), for ``packing.unpacked``: uint8, or float32 in [-1, 1]
            where pictures shrink or colours shift; the number of its class; its video.

        Raises:
            VadisError: more than 1 % of the videos are broken.
        """
        draw = drawn(self._seed, epoch, index) if self._train else None
        for place in range(index, index + len(self)):
            number = place % len(self)
            try:
                loaded = self._load(number, draw)
            except VideoError as error:
                self._note(number, error)
                continue
            self._broken[number] = 0  # if it was broken, then only for a moment
            return loaded, self._labels[number], self._examples[number].path
        raise VadisError("not one of the videos can be read", hint="the warnings before say why of each")

    def broken(self) -> list[tuple[str, str]]:
        """The videos that could not be read up to now, by any worker: (path, code of the error)."""
        numbers = torch.nonzero(self._broken).flatten().tolist()
        return [(self._examples[number].path, _CODES[int(self._broken[number]) - 1]) for number in numbers]

    def _note(self, number: int, error: VideoError) -> None:
        """Remember that an example is broken; raises VadisError where too many are."""
        if self._broken[number] == 0:
            self._broken[number] = 1 + _CODES.index(error.code)
            _log.warning("%s: %s; the next video takes its place", printable(self._examples[number].path), error)
        count = int(torch.count_nonzero(self._broken))
        if count > max(1, floor(BROKEN_ALLOWED * len(self))):
            named = [f"{printable(path)} ({code})" for path, code in self.broken()]
            more = f" and {count - MOST_NAMED:,} more" if count > MOST_NAMED else ""
            raise VadisError(
                f"{count:,} of {len(self):,} videos cannot be read: {', '.join(named[:MOST_NAMED])}{more}",
                hint=error.own_hint or "repair or remove them; up to 1 % are replaced by others",
            )
        own = [place for place, label in enumerate(self._labels) if label == self._labels[number]]
        if self._train and bool(self._broken[own].all()):
            label = printable(self._examples[number].label)
            message = (
                f"the class {label} has no training video that can be read: {printable(self._examples[number].path)}"
            )
            raise VadisError(f"{message} ({error.code})", hint="repair its videos, or take the class out")

    def _load(self, number: int, draw: Draw | None) -> tuple[Tensor, ...]:
        """Return the clip of one example, (C, T, 224, 224) by stream, as drawn or, without a draw, for testing.

        Its place follows from one length, so that all streams show the same moment. Where the file ends before that
        length, the place is chosen again, for all of them, by the number of frames that there are.
        """
        example, length = self._examples[number], self._length(number)
        for _ in range(2):
            part = part_of(example, length, self._frames, draw)
            try:
                return tuple(self._seen(example.path, stream, part, draw) for stream in self._streams)
            except _ShorterError as shorter:
                length = shorter.length
        raise VideoError("decode_failed", "it does not give the same frames when it is read again")

    def _length(self, number: int) -> int:
        """Return the grid frames of a video: the store's count, which was made by decoding, or else the header's."""
        if self._lengths[number] == 0:
            path = self._examples[number].path
            if "flow" in self._streams:
                assert self._store is not None
                found = self._store.num_frames(path)
            else:
                found = _promised_length(path)
            self._lengths[number] = found
        return int(self._lengths[number])

    def _seen(self, path: str, stream: str, part: Part, draw: Draw | None) -> Tensor:
        """What one stream shows of a clip."""
        frames = self._window(path, stream, part, draw)[self._sampling.get(stream, slice(None))]
        is_mirrored = draw is not None and draw.is_mirrored and self._flip
        clip = packed(frames, stream, mirror=is_mirrored)  # (C, T, 224, 224)
        if self._shrink != 1:
            clip = shrunk(unpacked(clip)[None], self._shrink)[0]
        if stream != "rgb" or draw is None or self._jitter is None:
            return clip
        return shift_colours(unpacked(clip), self._jitter, draw)

    def _window(self, path: str, stream: str, part: Part, draw: Draw | None) -> Bytes:
        """Return the cropped frames of a clip; raise _ShorterError where the video ends before them."""
        frames, end = self._read(path, stream, part, draw)
        if len(frames) < part.count:
            raise _ShorterError(end)
        return frames[np.arange(part.length) % len(frames)] if part.length > len(frames) else frames

    def _read(self, path: str, stream: str, part: Part, draw: Draw | None) -> tuple[Bytes, int]:
        """Return the frames of a part, cropped: (T, 224, 224, 3) or (T, 2, 224, 224); and where reading ended."""
        if stream == "rgb":
            # In this process: loader workers are children already, and what ends one of them is said (order.py). Going
            # through a child of their own, clips would cross two pipes.
            with open_video(path, start_frame=part.start) as video:
                rows, columns = crop_window(video.size, draw)
                pictures = [frame.pixels[rows, columns] for frame in islice(video, part.count)]
                end = video.facts.num_frames
            frames = np.stack(pictures) if pictures else np.empty(0, np.uint8)
            return frames, part.start + len(frames) if end is None else end
        assert self._store is not None
        codes = self._store.read_levels(path, part.start, part.count)  # (T, 2, H, W)
        rows, columns = crop_window((codes.shape[3], codes.shape[2]), draw)
        return np.ascontiguousarray(codes[:, :, rows, columns]), part.start + len(codes)


class _ShorterError(Exception):
    """A video has fewer grid frames than it promised: ``length``."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


def _promised_length(path: str) -> int:
    """Return the grid frames that a header promises; where it promises none, those that are there are counted."""
    with open_video(path) as video:
        if video.expected_num_frames is not None:
            return video.expected_num_frames
        return sum(1 for _ in video)


def part_of(example: Example, length: int, frames: int | None, draw: Draw | None) -> Part:
    """The part of a video of ``length`` grid frames that makes a clip of ``frames`` (None: of all, 64 at least).

    Raises:
        VideoError: ``too_short``.
    """
    # 10 frames, frames = 4, start drawn in [0, 1) → one of 0 … 6; 3 frames, frames = 4 → 0 1 2 0
    start_seconds, end_seconds = example.span(length / GRID_FPS)
    first = round(start_seconds * GRID_FPS)
    end = length if end_seconds is None else min(length, round(end_seconds * GRID_FPS))
    room = end - first
    if room <= 0:
        raise VideoError("too_short", "it ends before the listed part of it begins", "correct the times in the list")
    wanted = frames or max(room, CLIP_FRAMES)
    count = min(room, wanted)
    return Part(first + (0 if draw is None else int(draw.start * (room - count + 1))), count, wanted)
