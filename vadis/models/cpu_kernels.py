"""Max pooling, and sums and differences of frames, on the CPU: what PyTorch has no fast operation for.

Arrays are flat float32: frames one after the other, each laid out H, W, C (channels-last). The work on a frame, or its
rows, is shared out to as many threads as PyTorch uses.
"""

import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import LANES, broadcast, load, maximum, store

Flat = npt.NDArray[np.float32]

POINTS = 6  # frames that minimal filtering takes at once: four of three taps each, or three of four, are made of them
LEAST_KEPT, MOST_KEPT = 6 << 20, 1 << 26  # numbers, 24 and 256 MB: what memory is kept for
KEPT = 2  # arrays: what one operation reads and what it writes
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


_kept: list[tuple[Flat, weakref.ref[Flat]]] = []  # arrays, and the view that a tensor was last made of
_keeping = threading.Lock()


def recycled(*shape: int) -> Tensor:
    """An empty float32 tensor, in memory that an earlier one has left where that is large enough.

    Tens of megabytes come from the system page by page, which takes ten times as long as writing them does; what is
    smaller the C library keeps itself. A tensor and all its views keep the array alive that they were made of: when
    that is gone, the memory is free.
    """
    length = math.prod(shape)
    if not LEAST_KEPT <= length <= MOST_KEPT:
        return torch.empty(shape)
    with _keeping:
        free = [index for index, (array, lent) in enumerate(_kept) if len(array) >= length and lent() is None]
        array = _kept.pop(free[0])[0] if free else np.empty(length, np.float32)
        view = array[:length]
        _kept[:] = sorted([*_kept, (array, weakref.ref(view))], key=lambda kept: len(kept[0]))[-KEPT:]
        return torch.from_numpy(view).view(shape)


@compiled
def mix_inputs(x: Flat, frames: int, first: int, mixed: Flat, groups: int, size: int, begin: int, end: int) -> None:
    """Of ``groups`` groups of six frames, every four from frame ``first`` on, what minimal filtering multiplies.

    ``x`` has ``frames`` frames, and zeros before and after them; ``mixed`` is (6, groups, size), of which blocks of 16
    from ``begin`` to ``end`` are filled.
    """
    zero, two, four, five = (
        broadcast(np.float32(0)),
        broadcast(np.float32(2)),
        broadcast(np.float32(4)),
        broadcast(np.float32(5)),
    )
    for group in range(groups):
        t, at = first + (POINTS - 2) * group, group * size
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


@inlined
def _clear(x: Flat, begin: int, end: int) -> None:
    for i in range(begin, end):
        x[i] = 0


@compiled
def mix_pairs(x: Flat, shape: npt.NDArray[np.int64], first: int, mixed: Flat, begin: int, end: int) -> None:
    """``mix_inputs`` of six pairs of frames, from frame ``first`` on: of each pair the rows take turns.

    ``shape``: T, H, W, C of ``x``, W · C at least 16, then the rows of a frame of ``mixed`` (6, rows, 2, columns, C),
    its columns, and the row and the column at which the picture begins; around it are zeros. Rows ``begin`` to ``end``
    are filled.
    """
    frames, height, width, channels, rows, columns, top, left = shape
    length, pitch, plane = width * channels, columns * channels, rows * 2 * columns * channels
    zero, two = broadcast(np.float32(0)), broadcast(np.float32(2))
    four, five = broadcast(np.float32(4)), broadcast(np.float32(5))
    for line in range(2 * begin, 2 * end):
        t, h, at = first + line % 2, line // 2 - top, line * pitch + left * channels
        is_inside = 0 <= h < height
        for point in range(POINTS):
            start = point * plane + line * pitch
            _clear(mixed, start, start + (left * channels if is_inside else pitch))
            _clear(mixed, start + left * channels + length, start + pitch)
        if not is_inside:
            continue
        row, pair = (t * height + h) * length, 2 * height * length
        for i in range(0, length, LANES):
            i = min(i, length - LANES)  # the last may take up some of the one before
            a = load(x, row + i) if 0 <= t < frames else zero
            b = load(x, row + pair + i) if 0 <= t + 2 < frames else zero
            c = load(x, row + 2 * pair + i) if 0 <= t + 4 < frames else zero
            d = load(x, row + 3 * pair + i) if 0 <= t + 6 < frames else zero
            e = load(x, row + 4 * pair + i) if 0 <= t + 8 < frames else zero
            f = load(x, row + 5 * pair + i) if 0 <= t + 10 < frames else zero
            even1, odd1, even2, odd2 = e - four * c, d - four * b, e - c, two * (d - b)
            store(mixed, at + i, (four * a - five * c) + e)
            store(mixed, at + plane + i, even1 + odd1)
            store(mixed, at + 2 * plane + i, even1 - odd1)
            store(mixed, at + 3 * plane + i, even2 + odd2)
            store(mixed, at + 4 * plane + i, even2 - odd2)
            store(mixed, at + 5 * plane + i, (four * b - five * d) + f)


@compiled
def unmix_outputs(
    m0: Flat,
    m1: Flat,
    m2: Flat,
    m3: Flat,
    m4: Flat,
    m5: Flat,
    size: int,
    y: Flat,
    frames: int,
    outputs: int,
    begin: int,
    end: int,
) -> None:
    """ReLU of the ``frames`` frames (frames, size) that the six products (groups, size) stand for, into ``y``.

    ``outputs`` frames, 4 or 3, are made of each group.
    """
    zero, two, four, eight = (
        broadcast(np.float32(0)),
        broadcast(np.float32(2)),
        broadcast(np.float32(4)),
        broadcast(np.float32(8)),
    )
    for t in range(0, frames, outputs):
        for i in range(begin * LANES, end * LANES, LANES):
            k, at = t // outputs * size + i, t * size + i
            one, minus_one, plus_two, minus_two, last = load(m1, k), load(m2, k), load(m3, k), load(m4, k), load(m5, k)
            even1, odd1, even2, odd2 = one + minus_one, one - minus_one, plus_two + minus_two, plus_two - minus_two
            store(y, at, maximum(zero, (load(m0, k) + even1) + even2))
            if t + 1 < frames:
                store(y, at + size, maximum(zero, odd1 + two * odd2))
            if t + 2 < frames:
                third = even1 + four * even2
                store(y, at + 2 * size, maximum(zero, third if outputs == 4 else third + last))
            if t + 3 < frames and outputs == 4:
                store(y, at + 3 * size, maximum(zero, (odd1 + eight * odd2) + last))


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
                    best = maximum(best, load(x, (from_t * rows + from_h) * length + i))
            store(row, i, best)
        for out in range(width):
            w = out * window[1, 2] - window[2, 2]
            w_end, w = min(w + window[0, 2], columns), max(w, 0)
            for c in range(0, channels, LANES):
                best = load(row, w * channels + c)
                for from_w in range(w + 1, w_end):
                    best = maximum(best, load(row, from_w * channels + c))
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
