"""PyTorch's ``conv3d(x).relu()`` and ``max_pool3d`` on the CPU, faster: for float32 in channels-last.

Winograd along time (Lavin and Gray 2016): four frames that a 3×3×3 convolution makes are twelve 3×3 convolutions of one
frame; six of sums of frames, summed again, are enough: F(4, 3). The first layer, 7×7×7 of stride 2, is four taps along
pairs of frames: F(3, 4). The kernels' arrays are flat: frames one after the other, each laid out H, W, C.
"""

import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import LANES, broadcast, load, maximum, store
from vadis.models.i3d import Axes, same_padding

Flat = npt.NDArray[np.float32]
Convolution = Callable[[Tensor, Axes], Tensor]  # (x, padding) → ReLU(conv(x))

POINTS = 6  # frames that a transform takes at once: four of three taps each, or three of four, are made of them
# Each product is the convolution at one point: of the taps times the powers of the point, scaled; the last at infinity.
FINITE_POINTS = ((0, 1 / 4), (1, -1 / 6), (-1, -1 / 6), (2, 1 / 24), (-2, 1 / 24))  # point, scale
IN_ALL_OUTPUTS = 1  # the product at point 1 is added once to every frame that is made: there the bias goes in
BYTES_AT_ONCE = 12 << 20  # of products before they are summed: they stay in the cache
POOL_MIN, POOL_MAX = 6 << 20, 1 << 26  # numbers, 24 and 256 MB: what memory is kept for
POOL_ARRAYS = 2  # kept: what one operation reads and what it writes
MIN_SHARE = 1 << 14  # numbers, or more: for fewer a second thread is not woken


def onednn_convolution(weight: Tensor, bias: Tensor, stride: Axes) -> Convolution:
    """Return the fastest convolution, with ReLU, for this ``weight`` (channels, C, kt, kh, kw), float32 or bfloat16."""
    channels, in_channels, *kernel = weight.shape
    if weight.dtype != torch.float32:  # Winograd's sums of frames would be rounded
        return DirectConv3d(weight, bias, stride, "relu")
    if kernel == [3, 3, 3] and stride == (1, 1, 1) and channels % LANES == in_channels % LANES == 0:
        return WinogradConv3d(weight, bias)
    if kernel == [7, 7, 7] and stride == (2, 2, 2) and channels % LANES == 0:
        return WinogradStem(weight, bias)
    return DirectConv3d(weight, bias, stride, "relu")


class DirectConv3d:
    """One call of oneDNN, by the operator that torch.compile's freezing emits.

    ``conv3d`` lays weights out anew at every call. Which layout is best depends on the input: the first decides.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: Axes, activation: str) -> None:
        self.bias, self.stride, self.activation = bias, list(stride), activation
        self._weight, self._packing = weight.contiguous(), threading.Lock()

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        with self._packing:
            if not self._weight.is_mkldnn:
                self._weight = torch.ops.aten.mkldnn_reorder_conv3d_weight(
                    self._weight.to_mkldnn(), list(padding), self.stride, [1, 1, 1], 1, list(x.shape)
                )
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weight, self.bias, list(padding), self.stride, [1, 1, 1], 1, self.activation, [], ""
        )
        return y


class _Winograd:
    """The six convolutions of one frame each, and the frames they are summed to; subclasses transform their input."""

    def __init__(self, taps: Tensor, bias: Tensor, stride: tuple[int, int], padding: int) -> None:
        count = taps.shape[2]  # 3 or 4, of (channels, C, count, kh, kw)
        matrix = [[scale * point**power for power in range(count)] for point, scale in FINITE_POINTS]
        matrix.append([0.0] * (count - 1) + [1.0])
        by_tap = taps.movedim(2, 0).flatten(1).double()  # (count, channels · C · kh · kw)
        planes = [(row @ by_tap).float().view_as(taps[:, :, 0]) for row in torch.tensor(matrix, dtype=torch.float64)]
        none = torch.zeros_like(bias)
        self._outputs, self._channels, self._padding = POINTS - count + 1, len(bias), (0, padding, padding)
        self._products = [
            DirectConv3d(plane[:, :, None], bias if point == IN_ALL_OUTPUTS else none, (1, *stride), "none")
            for point, plane in enumerate(planes)
        ]

    def _convolve(self, x: Tensor, front: int, *shape: int) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T', H', W'), ``shape``; ``front`` frames of zeros come first."""
        y = empty_from_pool(len(x), *shape, self._channels)
        for clip, output in zip(torch.split(x, 1), y, strict=True):
            self._one_clip(clip, output, front)
        return y.permute(0, 4, 1, 2, 3)

    def _one_clip(self, x: Tensor, y: Tensor, front: int) -> None:
        raise NotImplementedError

    def _inverse(self, transformed: Tensor, y: Tensor) -> None:
        """Convolve ``transformed`` (6, 1, groups, H, W, C), and store the ReLU in ``y`` (T', H', W', channels)."""
        products = [
            frames_of(product(frames.permute(0, 4, 1, 2, 3), self._padding))
            for product, frames in zip(self._products, transformed, strict=True)
        ]
        size = y[0].numel()
        arguments = (*products, size, y.view(-1).numpy(), len(y), self._outputs)
        parallel_for(_output_transform, size // LANES, len(y) * LANES, *arguments)


class WinogradConv3d(_Winograd):
    """``conv3d(x).relu()`` of 3×3×3, stride 1, by F(4, 3) along time."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias, stride=(1, 1), padding=1)

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T + 2 padding - 2, H, W); the padding in space is 1."""
        return self._convolve(x, padding[0], x.shape[2] + 2 * padding[0] - 2, *x.shape[3:])

    def _one_clip(self, x: Tensor, y: Tensor, front: int) -> None:
        source, size = frames_of(x), x[0, :, 0].numel()
        step = self._outputs * max(1, BYTES_AT_ONCE // (4 * POINTS * y[0].numel()))  # groups whose products are cached
        for first in range(0, len(y), step):
            part = y[first : first + step]
            groups = -(-len(part) // self._outputs)
            transformed = x.new_empty(POINTS, 1, groups, *y.shape[1:3], x.shape[1])
            arguments = (source, x.shape[2], first - front, transformed.view(-1).numpy(), groups, size)
            parallel_for(_input_transform, size // LANES, groups * POINTS * LANES, *arguments)
            self._inverse(transformed, part)


class WinogradStem(_Winograd):
    """``conv3d(x).relu()`` of 7×7×7, stride 2, SAME in space: four taps along pairs of frames, by F(3, 4).

    The rows of a pair take turns in one frame, which a kernel of 14×7 goes over with a stride of 4 and 2.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        eight = torch.cat([weight, torch.zeros_like(weight[:, :, :1])], dim=2)
        taps = torch.stack([eight[:, :, ::2], eight[:, :, 1::2]], dim=4)  # (channels, C, 4, 7, 2, 7)
        super().__init__(taps.flatten(3, 4), bias, stride=(4, 2), padding=0)

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ⌊(T + 2 padding - 7) / 2⌋ + 1, ⌈H / 2⌉, ⌈W / 2⌉); C · W at least 16."""
        _, channels, frames, height, width = x.shape
        if channels * width < LANES:
            raise ValueError(f"a row has {channels * width} numbers, fewer than {LANES}")
        return self._convolve(x, padding[0], (frames + 2 * padding[0] - 7) // 2 + 1, -(-height // 2), -(-width // 2))

    def _one_clip(self, x: Tensor, y: Tensor, front: int) -> None:
        (_, channels, frames, height, width), source = x.shape, frames_of(x)
        (top, bottom), (left, right) = same_padding(height, 7, 2), same_padding(width, 7, 2)
        rows, columns = height + top + bottom, width + left + right
        transformed = x.new_empty(POINTS, 1, 1, 2 * rows, columns, channels)
        shape = np.array([frames, height, width, channels, rows, columns, top, left])
        for first in range(0, len(y), self._outputs):
            arguments = (source, shape, 2 * first - front, transformed.view(-1).numpy())
            parallel_for(_input_transform_pairs, rows, POINTS * 2 * columns * channels, *arguments)
            self._inverse(transformed, y[first : first + self._outputs])


# --- kernels ---------------------------------------------------------------------------------------------------------


_threads = ThreadPoolExecutor(thread_name_prefix="kernel")


def parallel_for(kernel: Callable[..., object], length: int, numbers: int, *arguments: Any) -> None:
    """Call ``kernel(*arguments, begin, end)`` for parts of ``[0, length)``, of ``numbers`` each, in threads."""
    shares = max(1, min(torch.get_num_threads(), length, length * numbers // MIN_SHARE))
    cuts = [length * index // shares for index in range(shares + 1)]
    waiting = [_threads.submit(kernel, *arguments, begin, end) for begin, end in pairwise(cuts[1:])]
    try:
        kernel(*arguments, cuts[0], cuts[1])
    finally:
        for share in waiting:
            share.result()


def frames_of(x: Tensor) -> Flat:
    """Return the memory of ``x`` (1, C, T, H, W), channels-last, as (T · H · W · C): no copy where it is dense."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1).numpy()


_pool = threading.local()  # of each thread: ``arrays``, each with the view that a tensor was last made of


def empty_from_pool(*shape: int) -> Tensor:
    """Return an empty float32 tensor, in memory that an earlier one and its views have left, if that is large enough.

    The system gives tens of megabytes page by page, which takes ten times as long as writing them.
    """
    length = math.prod(shape)
    if not POOL_MIN <= length <= POOL_MAX:
        return torch.empty(shape)
    arrays: list[tuple[Flat, weakref.ref[Flat]]] = getattr(_pool, "arrays", [])
    free = [index for index, (array, lent) in enumerate(arrays) if len(array) >= length and lent() is None]
    array = arrays.pop(free[0])[0] if free else np.empty(length, np.float32)
    view = array[:length]
    _pool.arrays = sorted([*arrays, (array, weakref.ref(view))], key=lambda entry: len(entry[0]))[-POOL_ARRAYS:]
    return torch.from_numpy(view).view(shape)


@inlined
def _store_six(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, out: Flat, to: int, plane: int) -> None:
    """Store in ``out``, from ``to`` on and ``plane`` apart, the six sums of six frames that F(4, 3) multiplies."""
    # No branches: with one, numba counts references to ``out`` at every call, which takes twice as long.
    two, four, five = broadcast(np.float32(2)), broadcast(np.float32(4)), broadcast(np.float32(5))
    even1, odd1, even2, odd2 = e - four * c, d - four * b, e - c, two * (d - b)
    store(out, to, (four * a - five * c) + e)
    store(out, to + plane, even1 + odd1)
    store(out, to + 2 * plane, even1 - odd1)
    store(out, to + 3 * plane, even2 + odd2)
    store(out, to + 4 * plane, even2 - odd2)
    store(out, to + 5 * plane, (four * b - five * d) + f)


@compiled
def _input_transform(x: Flat, frames: int, first: int, out: Flat, groups: int, size: int, begin: int, end: int) -> None:
    """Store the six sums of ``groups`` groups of six frames, every four from frame ``first`` on.

    ``x`` has zeros before and after its ``frames``; ``out`` is (6, groups, size), of which blocks of 16 from ``begin``
    to ``end`` are filled.
    """
    zero = broadcast(np.float32(0))
    for group in range(groups):
        t = first + (POINTS - 2) * group
        for i in range(begin * LANES, end * LANES, LANES):
            a = load(x, t * size + i) if 0 <= t < frames else zero
            b = load(x, (t + 1) * size + i) if 0 <= t + 1 < frames else zero
            c = load(x, (t + 2) * size + i) if 0 <= t + 2 < frames else zero
            d = load(x, (t + 3) * size + i) if 0 <= t + 3 < frames else zero
            e = load(x, (t + 4) * size + i) if 0 <= t + 4 < frames else zero
            f = load(x, (t + 5) * size + i) if 0 <= t + 5 < frames else zero
            _store_six(a, b, c, d, e, f, out, group * size + i, groups * size)


@compiled
def _input_transform_pairs(x: Flat, shape: npt.NDArray[np.int64], first: int, out: Flat, begin: int, end: int) -> None:
    """Fill rows ``begin`` to ``end`` of ``out`` (6, rows, 2, columns, C) with the six sums of six pairs of frames.

    ``shape``: T, H, W, C of ``x``, W · C at least 16, then rows, columns, and the row and the column at which the
    picture begins; around it are zeros.
    """
    frames, height, width, channels, rows, columns, top, left = shape
    length, pitch, plane = width * channels, columns * channels, rows * 2 * columns * channels
    zero = broadcast(np.float32(0))
    for line in range(2 * begin, 2 * end):
        t, h, at = first + line % 2, line // 2 - top, line * pitch + left * channels
        is_inside = 0 <= h < height
        for point in range(POINTS):
            start = point * plane + line * pitch
            out[start : start + (left * channels if is_inside else pitch)] = 0
            out[start + left * channels + length : start + pitch] = 0
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
            _store_six(a, b, c, d, e, f, out, at + i, plane)


@compiled
def _output_transform(
    m0: Flat, m1: Flat, m2: Flat, m3: Flat, m4: Flat, m5: Flat, size: int, y: Flat, frames: int, outputs: int,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Store in ``y`` (frames, size) the ReLU of the frames, ``outputs`` (4 or 3) of each group of six products."""
    zero, two = broadcast(np.float32(0)), broadcast(np.float32(2))
    four, eight = broadcast(np.float32(4)), broadcast(np.float32(8))
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
    x: Flat, shape: npt.NDArray[np.int64], window: npt.NDArray[np.int64], y: Flat, height: int, width: int,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Fill rows ``begin`` to ``end`` of all rows (T' · H') of the pooled ``y``, W' · C each.

    ``shape``: T, H, W, C of ``x``. ``window`` (3, 3): kernel, stride and front padding, each along T, H, W.
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


def max_pool(x: Tensor, kernel: Axes, stride: Axes, padding: Axes) -> Tensor:
    """Return ``functional.max_pool3d(…, ceil_mode=True)`` of ``x`` (B, C, T, H, W), channels-last, C in 16s."""
    batch, channels, *size = x.shape
    frames, height, width = map(_windows, size, kernel, stride, padding)
    y = x.new_empty(batch, frames, height, width, channels)
    shape, window = np.array([*size, channels]), np.array([kernel, stride, padding])
    for clip, pooled in zip(torch.split(x, 1), y, strict=True):
        arguments = (frames_of(clip), shape, window, pooled.reshape(-1).numpy(), height, width)
        parallel_for(_max_rows, frames * height, width * channels * kernel[0] * kernel[1], *arguments)
    return y.permute(0, 4, 1, 2, 3)  # (B, C, T', H', W')


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the number of windows; the last may go over the end, but not begin behind it."""
    count = -(-(size + 2 * padding - kernel) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count
