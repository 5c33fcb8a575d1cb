"""From frames to clips: chunks, loops, padded ends, windows, and what happens where a video is too short.

A clip is one array per stream, with time along axis 0 and the same number of frames in each, so that the streams stay
in step. Every generator here holds a bounded number of frames, whatever the length of the video.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

Clip = dict[str, NDArray[Any]]  # stream → (T, …)

# Of a processor; 1.28 s: full speed already (tests/benchmarks/network_speed.py), 51 MB after the first layer
CHUNK_FRAMES = 32


def chunks(frames: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield consecutive frames (H, W, 3) stacked into arrays (T, H, W, 3), T = ``size`` but for the last."""
    coming = iter(frames)
    while gathered := list(islice(coming, size)):
        yield np.stack(gathered)


def num_frames(clip: Clip) -> int:
    """Return the length T of a clip."""
    return len(next(iter(clip.values())))


def cut_clip(clip: Clip, start: int, stop: int) -> Clip:
    """Return the frames ``[start, stop)``."""
    return {stream: array[start:stop] for stream, array in clip.items()}


def join_clips(clips: Sequence[Clip]) -> Clip:
    """Return clips one after another."""
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


def sliding_windows(clips: Iterable[Clip], window: int, stride: int) -> Iterator[tuple[int, Clip]]:
    """Yield windows of ``window`` frames every ``stride`` frames, each with the index of its first frame.

    The last one is moved back to end at the last frame, so that no frame is left out; a video shorter than a window
    is looped. Holds at most a window, a stride and a chunk.
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
    elif start - stride + window < end:
        yield end - window, cut_clip(buffer, end - window - offset, end - offset)
