"""Max pooling, and sums and differences of frames, on the CPU: what PyTorch has no fast operation for.

Arrays are flat float32: frames one after the other, each laid out H, W, C (channels-last). The work on a frame, or its
rows, is shared out to as many threads as PyTorch uses.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.flow.compiling import compiled
from vadis.flow.lanes import LANES, high, load, spread, store

Flat = npt.NDArray[np.float32]

OUTPUTS, TAPS = 4, 3  # frames that are made at once, each from three neighbours
POINTS = OUTPUTS + TAPS - 1
LEAST_SHARE = 1 << 14  # numbers, or more: for fewer a second thread is not woken


@cache
def _others() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="kernel")


def in_shares(kernel: Callable[..., object], length: int, weight: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, begin, end)`` for all parts of ``[0, length)``, on all of PyTorch's threads.

    ``weight`` is how many numbers one of ``length`` stands for.
    """
    shares = max(1, min(torch.get_num_threads(), length, length * weight // LEAST_SHARE))
    cuts = [length * index // shares for index in range(shares + 1)]
    waiting = [_others().submit(kernel, *arguments, begin, end) for begin, end in pairwise(cuts[1:])]
    try:
        kernel(*arguments, cuts[0], cuts[1])
    finally:
        for share in waiting:
            share.result()


def frames_of(x: Tensor) -> Flat:
    """The memory of ``x`` (1, C, T, H, W), channels-last, as (T · H · W · C): no copy where it is dense."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1).numpy()


@compiled
def mix_inputs(x: Flat, frames: int, first: int, mixed: Flat, groups: int, size: int, begin: int, end: int) -> None:
    """Of ``groups`` groups of six frames, every four from frame ``first`` on, what minimal filtering multiplies.

    ``x`` has ``frames`` frames, and zeros before and after them; ``mixed`` is (6, groups, size), of which blocks of 16
    from ``begin`` to ``end`` are filled.
    """
    zero, two, four, five = (
        spread(np.float32(0)),
        spread(np.float32(2)),
        spread(np.float32(4)),
        spread(np.float32(5)),
    )
    for group in range(groups):
        t, at = first + OUTPUTS * group, group * size
        pitch = groups * size
        for i in range(begin * LANES, end * LANES, LANES):
            a = load(x, t * size + i) if 0 <= t < frames else zero
            b = load(x, (t + 1) * size + i) if 0 <= t + 1 < frames else zero
            c = load(x, (t + 2) * size + i) if 0 <= t + 2 < frames else zero
            d = load(x, (t + 3) * size + i) if 0 <= t + 3 < frames else zero
            e = load(x, (t + 4) * size + i) if 0 <= t + 4 < frames else zero
            f = load(x, (t + 5) * size + i) if 0 <= t + 5 < frames else zero
            even, odd = e - four * c, d - four * b
            store(mixed, at + i, (four * a - five * c) + e)
            store(mixed, at + pitch + i, even + odd)
            store(mixed, at + 2 * pitch + i, even - odd)
            even, odd = e - c, two * (d - b)
            store(mixed, at + 3 * pitch + i, even + odd)
            store(mixed, at + 4 * pitch + i, even - odd)
            store(mixed, at + 5 * pitch + i, (four * b - five * d) + f)


@compiled
def unmix_outputs(
    m0: Flat, m1: Flat, m2: Flat, m3: Flat, m4: Flat, m5: Flat, size: int, y: Flat, frames: int, begin: int, end: int
) -> None:
    """ReLU of the ``frames`` frames (frames, size) that the six products (groups, size) stand for, into ``y``."""
    zero, two, four, eight = (
        spread(np.float32(0)),
        spread(np.float32(2)),
        spread(np.float32(4)),
        spread(np.float32(8)),
    )
    for t in range(0, frames, OUTPUTS):
        for i in range(begin * LANES, end * LANES, LANES):
            k, at = t // OUTPUTS * size + i, t * size + i
            one, minus_one, plus_two, minus_two = load(m1, k), load(m2, k), load(m3, k), load(m4, k)
            even1, odd1, even2, odd2 = one + minus_one, one - minus_one, plus_two + minus_two, plus_two - minus_two
            store(y, at, high(zero, (load(m0, k) + even1) + even2))
            if t + 1 < frames:
                store(y, at + size, high(zero, odd1 + two * odd2))
            if t + 2 < frames:
                store(y, at + 2 * size, high(zero, even1 + four * even2))
            if t + 3 < frames:
                store(y, at + 3 * size, high(zero, (odd1 + eight * odd2) + load(m5, k)))


@compiled
def _max_rows(
    x: Flat,
    shape: npt.NDArray[np.int64],
    window: npt.NDArray[np.int64],
    y: Flat,
    height: int,
    width: int,
    begin: int,
    end: int,
) -> None:
    """Rows ``begin`` to ``end`` of all rows (T' · H') of the pooled ``y``, W' · C each.

    ``shape``: T, H, W, C of ``x``. ``window`` (3, 3): kernel, stride and front padding, each along T, H, W. First the
    greatest of all rows in the window, which is one row; then along that.
    """
    frames, rows, columns, channels = shape
    length = columns * channels
    row = np.empty(length, np.float32)
    for at in range(begin, end):
        t, h = at // height * window[1, 0] - window[2, 0], at % height * window[1, 1] - window[2, 1]
        t_end, h_end = min(t + window[0, 0], frames), min(h + window[0, 1], rows)
        t, h = max(t, 0), max(h, 0)
        for i in range(0, length, LANES):
            best = load(x, (t * rows + h) * length + i)
            for from_t in range(t, t_end):
                for from_h in range(h, h_end):
                    best = high(best, load(x, (from_t * rows + from_h) * length + i))
            store(row, i, best)
        for out in range(width):
            w = out * window[1, 2] - window[2, 2]
            w_end, w = min(w + window[0, 2], columns), max(w, 0)
            for c in range(0, channels, LANES):
                best = load(row, w * channels + c)
                for from_w in range(w + 1, w_end):
                    best = high(best, load(row, from_w * channels + c))
                store(y, (at * width + out) * channels + c, best)


def max_pool(
    x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> Tensor:
    """``functional.max_pool3d(x, kernel, stride, padding, ceil_mode=True)`` of ``x`` (B, C, T, H, W), channels-last.

    C must be a multiple of 16.
    """
    batch, channels, *size = x.shape
    frames, height, width = map(_windows, size, kernel, stride, padding)
    y = x.new_empty(batch, frames, height, width, channels)
    shape, window = np.array([*size, channels]), np.array([kernel, stride, padding])
    for clip, pooled in zip(torch.split(x, 1), y, strict=True):
        weight = width * channels * kernel[0] * kernel[1]
        arguments = (frames_of(clip), shape, window, pooled.reshape(-1).numpy(), height, width)
        in_shares(_max_rows, frames * height, weight, *arguments)
    return y.permute(0, 4, 1, 2, 3)  # (B, C, T', H', W')


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    """How many windows there are, the last of which may go over the end, but not begin behind it."""
    count = -(-(size + 2 * padding - kernel) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count
