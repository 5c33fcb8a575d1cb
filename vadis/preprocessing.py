"""Clips, one array per stream with time along axis 0, looped, padded or cut into windows → the input of a network.

As published (google-deepmind/kinetics-i3d; paper, section 2.5): frames with a short side of 256 px, of which a network
sees the 224×224 centre, RGB in [-1, 1], flow truncated to ±20 px and divided by 20. Axes: T time, H, W.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vadis.flow.store import FLOW_BOUND

CROP = 224  # px, height and width of what the network sees

Clip = dict[str, NDArray[Any]]  # stream → (T, …)
Array = NDArray[np.generic]  # uint8 frames (T, H, W, 3), or float32 flow (T, 2, H, W)


@dataclass(frozen=True)
class Stream:
    """One of the two views of a video that the networks were trained on."""

    channels: int
    spatial_axes: tuple[int, int]  # of H and W in the arrays of this stream
    to_input: Callable[[Array], Tensor]
    mirror: Callable[[Tensor], Tensor]  # (B, C, T, H, W) with left and right exchanged


def rgb_input(frames: Array) -> Tensor:
    """uint8 (T, H, W, 3) → float32 (1, 3, T, H, W) in [-1, 1], channels last in memory: no copy beyond the scaling."""
    x = torch.from_numpy(frames).to(torch.float32).mul_(2 / 255).sub_(1)  # (T, H, W, 3)
    return x.permute(3, 0, 1, 2).unsqueeze(0)  # (1, 3, T, H, W)


def flow_input(flow: Array) -> Tensor:
    """float32 (T, 2, H, W) in pixels per frame → (1, 2, T, H, W) in [-1, 1]."""
    x = torch.from_numpy(flow).clamp(-FLOW_BOUND, FLOW_BOUND).div_(FLOW_BOUND)  # (T, 2, H, W)
    return x.transpose(0, 1).unsqueeze(0)  # (1, 2, T, H, W)


def mirror_flow(x: Tensor) -> Tensor:
    """(B, 2, T, H, W) with left and right exchanged: what moved left now moves right, so dx changes its sign."""
    sign = torch.tensor([-1.0, 1.0], dtype=x.dtype, device=x.device).view(1, 2, 1, 1, 1)
    return x.flip(-1) * sign


STREAMS: dict[str, Stream] = {
    "rgb": Stream(channels=3, spatial_axes=(1, 2), to_input=rgb_input, mirror=lambda x: x.flip(-1)),
    "flow": Stream(channels=2, spatial_axes=(2, 3), to_input=flow_input, mirror=mirror_flow),
}


def downsample(x: Tensor, factor: int) -> Tensor:
    """(B, C, T, H, W) with every ``factor`` × ``factor`` pixels averaged: (B, C, T, H / factor, W / factor)."""
    return x if factor == 1 else functional.avg_pool3d(x, (1, factor, factor))


CROPS = (1, 3, 10)  # views that a clip can have: the centre; with both ends; centre and corners, mirrored too


def cut_views(array: Array, stream: str, count: int, size: int) -> list[Array]:
    """Return the places of ``size`` × ``size`` pixels that ``count`` views (``CROPS``) show, in their order.

    Three lie along the longer side; of ten the first five are top left, top right, centre, bottom left, bottom right.
    """
    rows, columns = STREAMS[stream].spatial_axes
    down, right = array.shape[rows] - size, array.shape[columns] - size  # how far a view can move
    assert down >= 0 and right >= 0, f"no {size} px in an array of shape {array.shape}"
    middle = (down // 2, right // 2)
    ends = [(0, middle[1]), (down, middle[1])] if down > right else [(middle[0], 0), (middle[0], right)]
    corners = [(0, 0), (0, right), middle, (down, 0), (down, right)]
    places = {1: [middle], 3: [ends[0], middle, ends[1]], 10: corners}[count]
    before = (slice(None),) * rows
    cuts = [(*before, slice(y, y + size), slice(x, x + size)) for y, x in places]
    return [array[cut] for cut in cuts]


def centre_crop(array: Array, stream: str, size: int = CROP) -> Array:
    """Return the ``size``×``size`` centre of every frame, as a copy, so that the whole frames can be freed."""
    return np.ascontiguousarray(cut_views(array, stream, 1, size)[0])


def network_input(
    array: Array, stream: str, *, flip: bool = False, shrink: int = 1, crops: int = 1, size: int = CROP
) -> Tensor:
    """Return a clip as a network input: float32 (B, C, T, H, W); B is 1, 2 with the mirror image, or ``crops``.

    ``array`` has been cropped already, unless it has several ``crops`` of ``size`` pixels (see ``cut_views``).
    """
    parts = [array] if crops == 1 else cut_views(array, stream, crops, size)
    x = torch.cat([downsample(STREAMS[stream].to_input(np.ascontiguousarray(part)), shrink) for part in parts])
    return torch.cat([x, STREAMS[stream].mirror(x)]) if flip or crops == 10 else x


def num_frames(clip: Clip) -> int:
    """Return the length T of a clip."""
    return len(next(iter(clip.values())))


def cut_clip(clip: Clip, start: int, stop: int) -> Clip:
    return {stream: array[start:stop] for stream, array in clip.items()}


def join_clips(clips: Sequence[Clip]) -> Clip:
    return {stream: np.concatenate([clip[stream] for clip in clips]) for stream in clips[0]} if clips[1:] else clips[0]


def loop_clip(clip: Clip, length: int) -> Clip:
    """Return the clip repeated as often as needed and cut to ``length`` frames (paper, section 2.5)."""
    # frames = [1, 2, 3], length = 8 → [1, 2, 3, 1, 2, 3, 1, 2]
    index = np.arange(length) % num_frames(clip)
    return {stream: array[index] for stream, array in clip.items()}


def pad_clip(clip: Clip, extra: int) -> Clip:
    """Return the clip with its last frame repeated ``extra`` times."""
    # frames = [1, 2, 3], extra = 2 → [1, 2, 3, 3, 3]
    index = np.minimum(np.arange(num_frames(clip) + extra), num_frames(clip) - 1)
    return {stream: array[index] for stream, array in clip.items()} if extra else clip


def sliding_windows(
    clips: Iterable[Clip], window: int, stride: int, *, regular: bool = False
) -> Iterator[tuple[int, Clip]]:
    """Yield windows of ``window`` frames every ``stride`` frames, each with the index of its first frame.

    The last one is moved back to end at the last frame, unless ``regular``; a video shorter than a window is looped.
    """
    # 10 frames, window = 4, stride = 4 → 0, 4, 6
    buffer: Clip = {}
    offset = start = 0  # frame index of the buffer's first frame, of the next window
    for clip in clips:
        buffer = join_clips([buffer, clip]) if buffer else clip
        end = offset + num_frames(buffer)
        while start + window <= end:
            yield start, cut_clip(buffer, start - offset, start - offset + window)
            start += stride
        first_needed = max(offset, min(start, end - window))  # the last window may reach back
        buffer, offset = cut_clip(buffer, first_needed - offset, end - offset), first_needed
    end = offset + num_frames(buffer)
    if end < window:
        yield 0, loop_clip(buffer, window)
    elif start - stride + window < end and not regular:
        yield end - window, cut_clip(buffer, end - window - offset, end - offset)


def spread_windows(clips: Iterable[Clip], window: int, count: int) -> Iterator[tuple[int, Clip]]:
    """Yield windows as ``sliding_windows`` end to end, or where fewer than ``count`` fit, so many, spread evenly."""
    # 10 frames, window = 4, count = 4 → 0, 2, 4, 6
    kept, rest, frames = list[Clip](), iter(clips), 0
    for clip in rest:
        kept.append(clip)
        frames += num_frames(clip)
        if frames > window * count:
            yield from sliding_windows(chain(kept, rest), window, window)
            return
    whole = loop_clip(join_clips(kept), max(frames, window))
    for number in range(count):
        start = round(number * (num_frames(whole) - window) / max(count - 1, 1))
        yield start, cut_clip(whole, start, start + window)
