"""PyTorch's ``conv3d(x).relu()`` and ``max_pool3d`` on the CPU, faster: in channels-last, float32 or bfloat16.

Winograd along time (Lavin and Gray 2016): four frames that a 3×3×3 convolution makes are twelve 3×3 convolutions of one
frame; six of sums of frames, summed again, are enough: F(4, 3). The first layer, 7×7×7 of stride 2, is four taps along
pairs of frames: F(3, 4). The kernels' arrays are flat: frames one after the other, each laid out H, W, C.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import (
    LANES,
    broadcast,
    load,
    load_packed,
    maximum,
    maximum_packed,
    store,
    store_packed,
)
from vadis.models.i3d import Axes, same_padding

Flat = npt.NDArray[np.float32]
Bits = npt.NDArray[np.int16]  # of bfloat16
Convolution = Callable[[Tensor, Axes], Tensor]  # (x, padding) → ReLU(conv(x))

POINTS = 6  # frames that a transform takes at once: four of three taps each, or three of four, are made of them
# Each product is the convolution at one point: of the taps times the powers of the point, scaled; the last at infinity.
FINITE_POINTS = ((0, 1 / 4), (1, -1 / 8), (-1, -1 / 6), (2, 1 / 24), (-2, 1 / 24))  # point, scale
BIAS_POINT = 1  # that product is added once to every frame that is made, so the bias is added there
PIXEL_STEPS = 255  # in [-1, 1]: times this, 8-bit pictures are odd whole numbers, which bfloat16 holds exactly
LAYOUTS = 4  # kept of a 1×1×1 kernel: to lay one out takes less than a millisecond
MIN_SHARE = 1 << 14  # numbers, or more: for fewer a second thread is not woken


def fastest_convolution(weight: Tensor, bias: Tensor, stride: Axes, dtype: torch.dtype = torch.float32) -> Convolution:
    """Return the fastest convolution in ``dtype``, with ReLU, of a float32 ``weight`` (channels, C, kt, kh, kw)."""
    channels, in_channels, *kernel = weight.shape
    is_exact = dtype == torch.float32
    can_use_winograd = kernel == [3, 3, 3] and stride == (1, 1, 1) and channels % LANES == in_channels % LANES == 0
    # In bfloat16 only Conv3d_2c_3x3, where the most work is, gains more than the error that is added is worth.
    if can_use_winograd and (is_exact or in_channels == 64):
        return WinogradConv3d(weight, bias, dtype)
    if kernel == [7, 7, 7] and stride == (2, 2, 2) and channels % LANES == 0:
        return WinogradStem(weight, bias) if is_exact else PairedStem(weight, bias)
    return DirectConv3d(weight, bias, stride, "relu", dtype)


class DirectConv3d:
    """One call of oneDNN, by the operator that torch.compile's freezing emits.

    ``conv3d`` lays weights out anew at every call. Which layout is best depends on the input, and a call that wants
    another than there is takes several times as long. The few weights of a 1×1×1 kernel are laid out for each length
    and number of threads; the others once, as the first input wants them, for nearly all want the same.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: Axes, activation: str, dtype: torch.dtype = torch.float32
    ) -> None:
        self.bias, self.stride, self.activation = bias, list(stride), activation
        self._weight = weight.contiguous() if dtype == torch.float32 else round_to_bfloat16(weight)
        self._dtype, self._is_pointwise, self._lock = dtype, weight[0, 0].numel() == 1, threading.Lock()
        self._layouts: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        with self._lock:
            weight = self._laid_out(x, padding)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x.to(self._dtype), weight, self.bias, list(padding), self.stride, [1, 1, 1], 1, self.activation, [], ""
        )
        return y

    def _laid_out(self, x: Tensor, padding: Axes) -> Tensor:
        key = (x.shape[2], torch.get_num_threads()) if self._is_pointwise else ()
        if key not in self._layouts:
            self._layouts[key] = torch.ops.aten.mkldnn_reorder_conv3d_weight(
                self._weight.to_mkldnn(), list(padding), self.stride, [1, 1, 1], 1, list(x.shape)
            )
            if not self._is_pointwise:
                del self._weight
            if len(self._layouts) > LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
        return self._layouts[key]


def round_to_bfloat16(weight: Tensor) -> Tensor:
    """Round ``weight`` (channels, …) so that the errors of all that one channel adds up come to nearly nothing.

    What comes out of ReLU is of one sign, so errors that went their own ways would shift the sum, in every clip alike.
    """
    by_input = functional.pad(weight.flatten(1).t(), (0, -len(weight) % LANES)).contiguous()  # (C · taps, channels)
    rounded = by_input.to(torch.bfloat16)
    _round_columns(by_input.view(-1).numpy(), numbers_of(rounded), *by_input.shape)
    return rounded[:, : len(weight)].t().reshape(weight.shape)


class PairedStem:
    """``conv3d(x).relu()`` of 7×7×7, stride 2, SAME in space: each two columns are one with twice the channels.

    So three channels fill a register of the processor better. In memory nothing changes but the shape.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        pairs = functional.pad(weight / PIXEL_STEPS, (0, 1)).reshape(*weight.shape[:4], 4, 2)
        pairs = pairs.permute(0, 5, 1, 2, 3, 4).flatten(1, 2)  # (channels, 2 C, 7, 7, 4)
        self._convolve = DirectConv3d(pairs, bias, (2, 2, 1), "relu", torch.bfloat16)

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ⌊(T + 2 padding - 7) / 2⌋ + 1, ⌈H / 2⌉, ⌈W / 2⌉)."""
        (left, right), height = same_padding(x.shape[4], 7, 2), same_padding(x.shape[3], 7, 2)
        steps = (x * PIXEL_STEPS).to(torch.bfloat16).permute(0, 2, 3, 4, 1)
        x = functional.pad(steps, (0, 0, left, right + 1, *height))  # (B, T, H, W, C)
        pairs = x.reshape(*x.shape[:3], -1, 2 * x.shape[4])  # (B, T, H, W / 2, 2 C)
        return self._convolve(pairs.permute(0, 4, 1, 2, 3), (padding[0], 0, 0))


class _Winograd:
    """The six convolutions of one frame each, and the frames they are summed to; subclasses transform their input."""

    _step: int  # frames of the input for one of the output

    def __init__(self, taps: Tensor, bias: Tensor, dtype: torch.dtype, stride: tuple[int, int], padding: int) -> None:
        count = taps.shape[2]  # 3 or 4, of (channels, C, count, kh, kw)
        matrix = [[scale * point**power for power in range(count)] for point, scale in FINITE_POINTS]
        matrix.append([0.0] * (count - 1) + [1.0])
        by_tap = taps.movedim(2, 0).flatten(1).double()  # (count, channels · C · kh · kw)
        planes = [(row @ by_tap).float().view_as(taps[:, :, 0]) for row in torch.tensor(matrix, dtype=torch.float64)]
        none = torch.zeros_like(bias)
        self.outputs_per_call, self._channels, self._padding = POINTS - count + 1, len(bias), (0, padding, padding)
        self._dtype = dtype
        self._products = [
            DirectConv3d(plane[:, :, None], bias if point == BIAS_POINT else none, (1, *stride), "none", dtype)
            for point, plane in enumerate(planes)
        ]

    def _convolve(self, x: Tensor, front: int, frames: int, size: tuple[int, int], seen: tuple[int, int]) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ``frames``, *``size``); ``front`` frames of zeros come first.

        A few frames at a time, whose products stay in the cache, and for which oneDNN wants the same layout of weights
        however long the clip is. ``seen`` is the size of what is convolved.
        """
        y = x.new_empty(len(x), frames, *size, self._channels, dtype=self._dtype)
        transformed = x.new_empty(POINTS, 1, 1, *seen, x.shape[1], dtype=self._dtype)
        for clip, output in zip(torch.split(x, 1), y, strict=True):
            for first in range(0, frames, self.outputs_per_call):
                self._transform(clip, self._step * first - front, transformed)
                self._inverse(transformed, output[first : first + self.outputs_per_call])
        return y.permute(0, 4, 1, 2, 3)

    def _transform(self, x: Tensor, first: int, transformed: Tensor) -> None:
        """Store in ``transformed`` (6, 1, 1, H, W, C) the sums of ``x`` from frame ``first`` on."""
        raise NotImplementedError

    def _inverse(self, transformed: Tensor, y: Tensor) -> None:
        """Convolve ``transformed``, and store the ReLU of what the products make in ``y`` (T', H', W', channels)."""
        products = [
            frames_of(product(frame.permute(0, 4, 1, 2, 3), self._padding))
            for product, frame in zip(self._products, transformed, strict=True)
        ]
        size = y[0].numel()
        arguments = (*products, size, numbers_of(y), len(y), self.outputs_per_call)
        parallel_for(_output_transform, size // LANES, len(y) * LANES, *arguments)


class WinogradConv3d(_Winograd):
    """``conv3d(x).relu()`` of 3×3×3, stride 1, by F(4, 3) along time."""

    _step = 1

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(weight, bias, dtype, stride=(1, 1), padding=1)

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T + 2 padding - 2, H, W); the padding in space is 1."""
        _, _, frames, height, width = x.shape
        return self._convolve(x, padding[0], frames + 2 * padding[0] - 2, (height, width), (height, width))

    def _transform(self, x: Tensor, first: int, transformed: Tensor) -> None:
        size = transformed[0].numel()
        arguments = (frames_of(x), x.shape[2], first, numbers_of(transformed), size)
        parallel_for(_input_transform, size // LANES, POINTS * LANES, *arguments)


class WinogradStem(_Winograd):
    """``conv3d(x).relu()`` of 7×7×7, stride 2, SAME in space: four taps along pairs of frames, by F(3, 4).

    The rows of a pair take turns in one frame, which a kernel of 14×7 goes over with a stride of 4 and 2.
    """

    _step = 2

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        eight = torch.cat([weight, torch.zeros_like(weight[:, :, :1])], dim=2)
        taps = torch.stack([eight[:, :, ::2], eight[:, :, 1::2]], dim=4)  # (channels, C, 4, 7, 2, 7)
        super().__init__(taps.flatten(3, 4), bias, torch.float32, stride=(4, 2), padding=0)

    def __call__(self, x: Tensor, padding: Axes) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ⌊(T + 2 padding - 7) / 2⌋ + 1, ⌈H / 2⌉, ⌈W / 2⌉); C · W at least 16."""
        _, channels, frames, height, width = x.shape
        if channels * width < LANES:
            raise ValueError(f"a row has {channels * width} numbers, fewer than {LANES}")
        frames = (frames + 2 * padding[0] - 7) // 2 + 1
        rows, columns = (length + sum(same_padding(length, 7, 2)) for length in (height, width))
        return self._convolve(x, padding[0], frames, (-(-height // 2), -(-width // 2)), (2 * rows, columns))

    def _transform(self, x: Tensor, first: int, transformed: Tensor) -> None:
        (_, channels, frames, height, width), (two_rows, columns) = x.shape, transformed.shape[3:5]
        top, left = (same_padding(length, 7, 2)[0] for length in (height, width))
        shape = np.array([frames, height, width, channels, two_rows // 2, columns, top, left])
        arguments = (frames_of(x), shape, first, transformed.view(-1).numpy())
        parallel_for(_input_transform_pairs, two_rows // 2, POINTS * 2 * columns * channels, *arguments)


STEMS = (PairedStem, WinogradStem)  # which pad their input in space


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
    """Return the memory of ``x`` (1, C, T, H, W), channels-last, as (T · H · W · C): no copy where it is dense.

    NumPy knows no bfloat16: its bits are whole numbers.
    """
    return numbers_of(x.permute(0, 2, 3, 4, 1))


def numbers_of(x: Tensor) -> Flat:
    flat = x.reshape(-1)
    return flat.numpy() if x.dtype == torch.float32 else flat.view(torch.int16).numpy()


@inlined
def _store_six(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, out: Flat, to: int, plane: int) -> None:
    """Store in ``out``, from ``to`` on and ``plane`` apart, the six sums of six frames that F(4, 3) multiplies."""
    # No branches: with one, numba counts references to ``out`` at every call, which takes twice as long.
    two, four, five = broadcast(np.float32(2)), broadcast(np.float32(4)), broadcast(np.float32(5))
    even1, odd1, even2, odd2 = e - four * c, d - four * b, e - c, two * (d - b)
    store(out, to, (four * a - five * c) + e)
    store(out, to + plane, broadcast(np.float32(4 / 3)) * (even1 + odd1))  # -8 times what stands still: no rounding
    store(out, to + 2 * plane, even1 - odd1)
    store(out, to + 3 * plane, even2 + odd2)
    store(out, to + 4 * plane, even2 - odd2)
    store(out, to + 5 * plane, (four * b - five * d) + f)


@compiled
def _round_columns(x: Flat, y: Bits, rows: int, columns: int) -> None:
    """Store ``x`` (rows, columns), rounded, in ``y``; what rounding takes from a number goes to the one below."""
    for c in range(0, columns, LANES):
        lost = broadcast(np.float32(0))
        for i in range(c, rows * columns + c, columns):
            whole = load(x, i) + lost
            store(y, i, whole)
            lost = whole - load(y, i)


@compiled
def _input_transform(x: Flat, frames: int, first: int, out: Flat, size: int, begin: int, end: int) -> None:
    """Store in ``out`` (6, size) the six sums of six frames from ``first`` on, blocks of 16 from ``begin`` to ``end``.

    ``x`` has zeros before and after its ``frames``.
    """
    zero, t = broadcast(np.float32(0)), first
    for i in range(begin * LANES, end * LANES, LANES):
        a = load(x, t * size + i) if 0 <= t < frames else zero
        b = load(x, (t + 1) * size + i) if 0 <= t + 1 < frames else zero
        c = load(x, (t + 2) * size + i) if 0 <= t + 2 < frames else zero
        d = load(x, (t + 3) * size + i) if 0 <= t + 3 < frames else zero
        e = load(x, (t + 4) * size + i) if 0 <= t + 4 < frames else zero
        f = load(x, (t + 5) * size + i) if 0 <= t + 5 < frames else zero
        _store_six(a, b, c, d, e, f, out, i, size)


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
    """Store in ``y`` (frames, size) the ReLU of the first ``frames`` of the ``outputs``, 4 or 3, of six products."""
    zero, two = broadcast(np.float32(0)), broadcast(np.float32(2))
    four, eight = broadcast(np.float32(4)), broadcast(np.float32(8))
    for i in range(begin * LANES, end * LANES, LANES):
        one, minus_one, plus_two, minus_two, last = load(m1, i), load(m2, i), load(m3, i), load(m4, i), load(m5, i)
        even1, odd1, even2, odd2 = one + minus_one, one - minus_one, plus_two + minus_two, plus_two - minus_two
        store(y, i, maximum(zero, (load(m0, i) + even1) + even2))
        if frames > 1:
            store(y, i + size, maximum(zero, odd1 + two * odd2))
        if frames > 2:
            third = even1 + four * even2
            store(y, i + 2 * size, maximum(zero, third if outputs == 4 else third + last))
        if frames > 3:
            store(y, i + 3 * size, maximum(zero, (odd1 + eight * odd2) + last))


@compiled
def _max_rows(
    x: Flat, shape: npt.NDArray[np.int64], window: npt.NDArray[np.int64], y: Flat, height: int, width: int,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Fill rows ``begin`` to ``end`` of all rows (T' · H') of the pooled ``y``, W' · C each.

    ``shape``: T, H, W, C of ``x``, C at least ``step``, the numbers of a vector; the last vectors may overlap.
    ``window`` (3, 3): kernel, stride and front padding, each along T, H, W.
    """
    frames, rows, columns, channels = shape
    length, step = columns * channels, 4 * LANES // x.itemsize
    row = np.empty(length, x.dtype)
    for at in range(begin, end):
        t, h = at // height * window[1, 0] - window[2, 0], at % height * window[1, 1] - window[2, 1]
        t_end, h_end = min(t + window[0, 0], frames), min(h + window[0, 1], rows)
        t, h = max(t, 0), max(h, 0)
        for block in range(0, length, step):
            i = min(block, length - step)
            best = load_packed(x, (t * rows + h) * length + i)
            for from_t in range(t, t_end):
                for from_h in range(h, h_end):
                    best = maximum_packed(x, best, load_packed(x, (from_t * rows + from_h) * length + i))
            store_packed(row, i, best)
        for out in range(width):
            w = out * window[1, 2] - window[2, 2]
            w_end, w = min(w + window[0, 2], columns), max(w, 0)
            for block in range(0, channels, step):
                c = min(block, channels - step)
                best = load_packed(row, w * channels + c)
                for from_w in range(w + 1, w_end):
                    best = maximum_packed(x, best, load_packed(row, from_w * channels + c))
                store_packed(y, (at * width + out) * channels + c, best)


def max_pool(x: Tensor, kernel: Axes, stride: Axes, padding: Axes) -> Tensor:
    """Return ``functional.max_pool3d(…, ceil_mode=True)`` of ``x`` (B, C, T, H, W), channels-last, from 0 on.

    C is at least 16, or 32 of bfloat16, and even.
    """
    batch, channels, *size = x.shape
    frames, height, width = map(_windows, size, kernel, stride, padding)
    y = x.new_empty(batch, frames, height, width, channels)
    shape, window = np.array([*size, channels]), np.array([kernel, stride, padding])
    for clip, pooled in zip(torch.split(x, 1), y, strict=True):
        arguments = (frames_of(clip), shape, window, numbers_of(pooled), height, width)
        parallel_for(_max_rows, frames * height, width * channels * kernel[0] * kernel[1], *arguments)
    return y.permute(0, 4, 1, 2, 3)  # (B, C, T', H', W')


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the number of windows; the last may go over the end, but not begin behind it."""
    count = -(-(size + 2 * padding - kernel) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count
