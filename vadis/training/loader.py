"""Which clip comes when, and what it shows: of each video only what its clip needs is decoded, cropped and mirrored.

One endless row of positions is cut into steps, and shared out to processes and micro-batches:

    epoch   position // len(dataset)    each is a permutation of its own, drawn from (seed, epoch)
    step    position // batch_size      so a batch may span two epochs; processes have equal shares of it

Everything random in a clip follows from (seed, epoch, index): a run goes on at any step without replaying those before,
and the numbers of workers and processes do not matter. A broken video is replaced by the next that can be read.
"""

import hashlib
import logging
import os
import signal
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import count, islice
from multiprocessing.util import Finalize
from random import Random
from types import FrameType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vadis.datasets import Example
from vadis.datasets.dataset import shorten
from vadis.errors import VIDEO_ERROR_CODES, UsageError, VadisError, VideoError
from vadis.flow.store import ZERO, FlowStore, dequantize
from vadis.preprocessing import CROP, STREAMS, downsample, flow_input
from vadis.results import printable
from vadis.training.recipes import Recipe
from vadis.video.reader import open_video
from vadis.video.timegrid import GRID_FPS

CLIP_FRAMES = 64  # (paper) of a training clip: 2.56 s
CLIPS_AHEAD = 4  # per worker, loaded before they are asked for; an RGB clip of 64 frames has 39 MB
GRACE_SECONDS = 30  # from SIGTERM to the end of a worker; a checkpoint takes a few
MAX_BROKEN = 0.01  # share of the videos; one is allowed however few there are

ClipKey = tuple[int, int, int]  # position, epoch, index
Loaded = tuple[tuple[Tensor, ...], int, str]  # by stream (C, T, H, W), number of the class, name for messages

_log = logging.getLogger(__name__)


class ClipDataset(Protocol):
    """So many clips in an epoch, each without the axis B; it is sent to loader workers, so it must be picklable."""

    def __len__(self) -> int: ...
    def clip(self, epoch: int, index: int) -> Loaded: ...


class TrainingClip(NamedTuple):
    """A clip with its place in the row."""

    position: int
    tensors: tuple[Tensor, ...]  # (C, T, H, W) by stream
    label: int
    name: str


def derived_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2^63) for what ``parts`` name; different parts give unrelated seeds, on every machine."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def permutation(seed: int, epoch: int, size: int) -> list[int]:
    """Return the order of the clips in an epoch."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def share_of_step(recipe: Recipe, step: int, rank: int, world_size: int) -> range:
    """Return the positions that process ``rank`` of ``world_size`` takes in the step after ``step`` others."""
    if recipe.batch_size % world_size:
        message = f"a batch of {recipe.batch_size} clips cannot be shared equally among {world_size} processes"
        raise UsageError(message, hint="choose a batch_size that is a multiple of the number of processes")
    size = recipe.batch_size // world_size
    start = step * recipe.batch_size + rank * size
    return range(start, start + size)


def micro_batches(share: range, size: int) -> list[range]:
    """Return ``share`` cut into pieces of ``size``; the last may be smaller."""
    return [share[start : start + size] for start in range(0, len(share), size)]


def sample_keys(size: int, recipe: Recipe, step: int, rank: int = 0, world_size: int = 1) -> Iterator[ClipKey]:
    """Yield (position, epoch, index) of every clip for one process, of ``size`` clips, from a step on, without end."""
    drawn, order = -1, []
    for each in count(step):
        for position in share_of_step(recipe, each, rank, world_size):
            epoch, place = divmod(position, size)
            if epoch != drawn:
                drawn, order = epoch, permutation(recipe.seed, epoch, size)
            yield position, epoch, order[place]


class _ByKey(Dataset[TrainingClip | VadisError]):
    """A clip dataset as ``DataLoader`` wants it; an error comes as a plain VadisError, which passes any pipe."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips

    def __getitem__(self, key: ClipKey) -> TrainingClip | VadisError:
        position, epoch, index = key
        try:
            return TrainingClip(position, *self._clips.clip(epoch, index))
        except VadisError as error:
            return VadisError(error.message, error.hint)


def stream_clips(
    clips: ClipDataset, order: Iterable[ClipKey], workers: int, *, pin_memory: bool = False
) -> Generator[TrainingClip, None, None]:
    """Yield the clips in ``order``, loaded by ``workers`` processes (0: in this one), each on one thread."""
    loader = DataLoader(
        _ByKey(clips),
        batch_size=None,  # single clips: a micro-batch may become smaller on the way
        sampler=order,
        num_workers=workers,
        prefetch_factor=CLIPS_AHEAD if workers else None,
        multiprocessing_context="spawn" if workers else None,  # a fork would copy threads' locks, but not the threads
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # its own, or every start would draw from that of dropout
        pin_memory=pin_memory,
    )
    received = iter(loader)
    try:
        for clip in received:
            if isinstance(clip, VadisError):
                raise clip
            yield clip
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        hint = "often memory or shared memory ran out: use fewer `workers`, or give a container more by --shm-size"
        raise VadisError("a process that loads clips was killed", hint) from error
    finally:  # now, and not whenever nothing refers to it any more: a traceback would hold it
        if workers:
            received._shutdown_workers()  # type: ignore[attr-defined]


def _prepare_worker(worker: int) -> None:
    """Go on loading when a signal goes to the whole process group: the training process decides when to stop."""

    # Not for ever, though: where it ends without a word to its workers, SIGTERM is all that Python sends them.
    def end_soon(signum: int, frame: FrameType | None) -> None:
        signal.alarm(GRACE_SECONDS)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_soon)
    # The thread that hands over clips may be in the middle of one: the end of the interpreter would abort in it.
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)  # the last of all


_FLOW_INPUT = flow_input(dequantize(np.arange(256, dtype=np.uint8)).reshape(1, 1, 1, 256)).flatten()  # by level


# Clips travel as bytes, a quarter of their numbers, from the process that loads them to the device: pictures are bytes
# anyway, and flow is kept as levels (``vadis.flow.store``). What makes a network's input of them is done on the device,
# value by value as ``vadis.preprocessing`` does it.
def pack(frames: NDArray[np.uint8], stream: str, *, mirror: bool) -> Tensor:
    """Pictures (T, H, W, 3) or levels (T, 2, H, W), with left and right exchanged or not → uint8 (C, T, H, W)."""
    if stream == "rgb":
        clip = torch.from_numpy(frames).permute(3, 0, 1, 2)  # (3, T, H, W)
        return clip.flip(-1) if mirror else clip
    clip = torch.from_numpy(frames).transpose(0, 1)  # (2, T, H, W)
    if mirror:  # what moved left moves right: dx changes its sign, a level is as far on the other side of zero
        clip = clip.flip(-1)
        clip[0] = ((2 * ZERO) - clip[0].clamp(min=1).short()).byte()
    return clip


def unpack(x: Tensor) -> Tensor:
    """Packed clips (…, C, T, H, W), C = 3 (rgb) or 2 (flow) → float32 in [-1, 1]; other numbers stay as they are."""
    if x.dtype != torch.uint8:
        return x
    if x.shape[-4] == STREAMS["rgb"].channels:
        return x.float().mul_(2 / 255).sub_(1)
    return _FLOW_INPUT.to(x.device)[x.int()]


class Augmentation(NamedTuple):
    """What was drawn for one clip."""

    start: float  # in [0, 1), like top and left: shares of the room there is
    top: float
    left: float
    mirror: bool  # left and right are exchanged
    brightness: float  # in [-1, 1), like contrast and saturation: shares of what the recipe allows
    contrast: float
    saturation: float


def draw_augmentation(seed: int, epoch: int, index: int) -> Augmentation:
    """Return the draw for a clip; the same on every machine, whatever was drawn before."""
    random = Random(derived_seed(seed, "clip", epoch, index))
    start, top, left, mirror, *shifts = (random.random() for _ in range(7))
    return Augmentation(start, top, left, mirror < 0.5, *(2 * shift - 1 for shift in shifts))


def crop_window(size: tuple[int, int], draw: Augmentation | None) -> tuple[slice, slice]:
    """Return rows and columns of a 224×224 crop of frames of ``size`` (width, height): as drawn, or the centre."""
    rooms = (size[1] - CROP, size[0] - CROP)
    if draw is None:
        top, left = (room // 2 for room in rooms)
    else:
        top, left = (int(share * (room + 1)) for share, room in zip((draw.top, draw.left), rooms, strict=True))
    return slice(top, top + CROP), slice(left, left + CROP)


def shift_colours(x: Tensor, recipe: Recipe, draw: Augmentation) -> Tensor:
    """Return an RGB clip (3, T, H, W) in [-1, 1] with other saturation, contrast and brightness, in [-1, 1] again."""
    luma = x.new_tensor((0.299, 0.587, 0.114))  # Rec. 601, of red, green and blue
    gray = torch.einsum("c,cthw->thw", luma, x)  # (T, H, W)
    x = torch.lerp(gray, x, 1 + recipe.saturation * draw.saturation)  # (3, T, H, W)
    x = torch.lerp(gray.mean(), x, 1 + recipe.contrast * draw.contrast)
    return x.add_(2 * recipe.brightness * draw.brightness).clamp_(-1, 1)


def place_of_clip(example: Example, num_frames: int, length: int, draw: Augmentation | None) -> range:
    """Return which frames of a video of ``num_frames`` a clip of ``length`` shows; without a draw the first ones.

    Where there are fewer, they are repeated from the first on.
    """
    # 10 frames, length = 4, start drawn in [0, 1) → one of 0 … 6; 3 frames, length = 4 → 0 1 2 0
    start_seconds, end_seconds = example.span(num_frames / GRID_FPS)
    first = round(start_seconds * GRID_FPS)
    end = num_frames if end_seconds is None else min(num_frames, round(end_seconds * GRID_FPS))
    room = end - first
    if room <= 0:
        raise VideoError("too_short", "it ends before the listed part of it begins", "correct the times in the list")
    count = min(room, length)
    first += 0 if draw is None else int(draw.start * (room - count + 1))
    return range(first, first + count)


@dataclass(eq=False)
class VideoClips:
    """The clips of videos, as a ``ClipDataset``."""

    examples: Sequence[Example]  # videos, or parts of videos, with their classes
    classes: Sequence[str]  # in the order of the network's outputs
    streams: tuple[str, ...]  # what the clips show: "rgb", "flow", or both, of the same frames
    recipe: Recipe  # says their length, what is random, and how far colours change
    _: KW_ONLY
    train: bool  # random clips; False: the first frames of each video, their centre, no change
    store: FlowStore | None = None  # where the flow comes from
    flip: bool = True  # mirror half of the training clips; off for classes that tell left from right
    sampling: Mapping[str, slice] = field(default_factory=dict)  # by stream, which frames of a clip are shown, or all
    shrink: int = 1  # by how much pictures shrink, each side

    def __post_init__(self) -> None:
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._labels = [numbers[example.label] for example in self.examples]
        # By example: 0, or 1 + the place of its error's code; and its grid frames, 0 while nobody has looked. Shared
        # with loader workers, which count together, and read a header once.
        size = len(self.examples)
        self._broken = torch.zeros(size, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self._lengths = torch.zeros(size, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.examples)

    def clip(self, epoch: int, index: int) -> Loaded:
        """Return the clip by stream (C, T, 224, 224), C = 3 (rgb) or 2 (flow), for ``unpack``; its class; its video."""
        draw = draw_augmentation(self.recipe.seed, epoch, index) if self.train else None
        for place in range(index, index + len(self)):
            number = place % len(self)
            try:
                loaded = self._load(number, draw)
            except VideoError as error:
                self._note_broken(number, error)
                continue
            self._broken[number] = 0  # if it was broken, then only for a moment
            return loaded, self._labels[number], self.examples[number].path
        raise VadisError("not one of the videos can be read", hint="the warnings before say why of each")

    def broken(self) -> list[tuple[str, str]]:
        """Return the videos that could not be read up to now, by any worker: (path, code of the error)."""
        numbers, codes = torch.nonzero(self._broken).flatten().tolist(), tuple(VIDEO_ERROR_CODES)
        return [(self.examples[number].path, codes[int(self._broken[number]) - 1]) for number in numbers]

    def _note_broken(self, number: int, error: VideoError) -> None:
        """Remember that an example is broken; raise VadisError where too many are, or all of a class."""
        example = self.examples[number]
        if self._broken[number] == 0:
            self._broken[number] = 1 + tuple(VIDEO_ERROR_CODES).index(error.code)
            _log.warning("%s: %s; the next video takes its place", printable(example.path), error)
        refuse_many_broken(self.broken(), len(self), error)
        own = [place for place, label in enumerate(self._labels) if label == self._labels[number]]
        if self.train and bool(self._broken[own].all()):
            video = f"{printable(example.path)} ({error.code})"
            message = f"the class {printable(example.label)} has no training video that can be read: {video}"
            raise VadisError(message, hint="repair its videos, or take the class out")

    def _load(self, number: int, draw: Augmentation | None) -> tuple[Tensor, ...]:
        """Return the clip of one example by stream, all of the same moment; without a draw, for testing."""
        example, num_frames = self.examples[number], self._num_frames(number)
        for _ in range(2):
            place = place_of_clip(example, num_frames, self.recipe.clip_frames, draw)
            read = [self._read(example.path, stream, place, draw) for stream in self.streams]
            ends = [end for frames, end in read if len(frames) < len(place)]
            if not ends:
                pairs = zip(read, self.streams, strict=True)
                return tuple(self._shown(frames, stream, draw) for (frames, _), stream in pairs)
            num_frames = ends[0]
        raise VideoError("decode_failed", "it does not give the same frames when it is read again")

    def _num_frames(self, number: int) -> int:
        """Return the grid frames of a video: the store's count, which was made by decoding, or else the header's."""
        if self._lengths[number] == 0:
            path = self.examples[number].path
            if self.store is not None and "flow" in self.streams:
                self._lengths[number] = self.store.num_frames(path)
            else:
                with open_video(path) as video:  # where the header promises no number, its frames are counted
                    self._lengths[number] = video.expected_num_frames or sum(1 for _ in video)
        return int(self._lengths[number])

    def _shown(self, frames: NDArray[np.uint8], stream: str, draw: Augmentation | None) -> Tensor:
        """Return what one stream shows of a clip, of whose frames the first are there."""
        if len(frames) < self.recipe.clip_frames:
            frames = frames[np.arange(self.recipe.clip_frames) % len(frames)]
        frames = frames[self.sampling.get(stream, slice(None))]
        clip = pack(frames, stream, mirror=draw is not None and draw.mirror and self.flip)  # (C, T, 224, 224)
        if self.shrink != 1:
            clip = downsample(unpack(clip)[None], self.shrink)[0]
        shifts = self.recipe.brightness or self.recipe.contrast or self.recipe.saturation
        return shift_colours(unpack(clip), self.recipe, draw) if draw and shifts and stream == "rgb" else clip

    def _read(self, path: str, stream: str, place: range, draw: Augmentation | None) -> tuple[NDArray[np.uint8], int]:
        """Return the cropped frames of a place: (T, 224, 224, 3) or (T, 2, 224, 224); and where reading ended."""
        if stream == "rgb":
            # In this process: loader workers are children already, and what ends one of them is said (stream_clips).
            # Going through a child of their own, clips would cross two pipes.
            with open_video(path, start_frame=place.start) as video:
                rows, columns = crop_window(video.size, draw)
                pictures = [frame.pixels[rows, columns] for frame in islice(video, len(place))]
                end = video.facts.num_frames
            frames = np.stack(pictures) if pictures else np.empty(0, np.uint8)
            return frames, place.start + len(frames) if end is None else end
        assert self.store is not None
        levels = self.store.read_levels(path, place.start, len(place))  # (T, 2, H, W)
        rows, columns = crop_window((levels.shape[3], levels.shape[2]), draw)
        return np.ascontiguousarray(levels[:, :, rows, columns]), place.start + len(levels)


def refuse_many_broken(broken: Sequence[tuple[str, str]], num_videos: int, last: VideoError) -> None:
    """Raise VadisError where more videos are ``broken``, (path, code) each, than may be."""
    if len(broken) > max(1, MAX_BROKEN * num_videos):
        videos = shorten((f"{path} ({code})" for path, code in broken), 20)
        message = f"{len(broken):,} of {num_videos:,} videos cannot be read: {videos}"
        raise VadisError(message, hint=last.own_hint or "repair or remove them; up to 1 % may be broken")
