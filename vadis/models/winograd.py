"""Convolution + ReLU on the CPU by oneDNN, with weights laid out for it once; 3×3×3 and 7×7×7 with half the products.

**Along time by minimal filtering** (Winograd 1980; Lavin and Gray 2016 for networks). Four frames that a 3×3×3
convolution makes are twelve 3×3 convolutions of one frame each; six are enough, of sums and differences of frames,
whose results are summed again: F(4, 3). The first layer, 7×7×7 of stride 2, is four taps along pairs of frames: three
frames are twelve convolutions of a pair, and again six are enough: F(3, 4). The weights are mixed once, in float64.
The roundings differ from the plain sum's: the error against float64 is a few times the plain sum's
(tests/models/test_winograd.py), millionths of the largest value.
"""

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vadis.flow.simd import LANES
from vadis.models.cpu_kernels import POINTS, frames_of, in_shares, mix_inputs, mix_pairs, recycled, unmix_outputs
from vadis.models.i3d import Triple, same_padding

Convolution = Callable[[Tensor, Triple], Tensor]  # (x, padding) → ReLU(conv(x))

BYTES_AT_ONCE = 12 << 20  # of products before they are summed: they stay in the cache

# Each product is the convolution at one point: of the taps times the powers of the point, scaled; the last at infinity.
FINITE_POINTS = ((0, 1 / 4), (1, -1 / 6), (-1, -1 / 6), (2, 1 / 24), (-2, 1 / 24))  # point, scale
IN_ALL_OUTPUTS = 1  # the product at point 1 is added once to every frame that is made: there the bias goes in


def onednn_convolution(weight: Tensor, bias: Tensor, stride: Triple) -> Convolution:
    """The fastest for this ``weight`` (channels, C, kt, kh, kw)."""
    channels, in_channels, *kernel = weight.shape
    if kernel == [3, 3, 3] and stride == (1, 1, 1) and channels % LANES == in_channels % LANES == 0:
        return FilteredConvolution(weight, bias)
    if kernel == [7, 7, 7] and stride == (2, 2, 2) and channels % LANES == 0:
        return FilteredStem(weight, bias)
    return DirectConvolution(weight, bias, stride, "relu")


class DirectConvolution:
    """One call of oneDNN. The operator is the one that torch.compile's freezing emits.

    Deep layers are three to four times faster than ``conv3d``, which lays their weights out anew at every call
    (tests/benchmarks/network_speed.py). Which layout is best depends on the input: that of the first decides.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: Triple, activation: str) -> None:
        self.bias, self.stride, self.activation = bias, list(stride), activation
        self._weight, self._is_packed, self._packing = weight.contiguous(), False, threading.Lock()

    def __call__(self, x: Tensor, padding: Triple) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T', H', W')."""
        if not self._is_packed:
            with self._packing:
                self._pack(list(x.shape), list(padding))
        one = [1, 1, 1]
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weight, self.bias, list(padding), self.stride, one, 1, self.activation, [], ""
        )
        return y

    def _pack(self, shape: list[int], padding: list[int]) -> None:
        if self._is_packed:  # by another thread, meanwhile
            return
        plain = self._weight.to_mkldnn()
        self._weight = torch.ops.aten.mkldnn_reorder_conv3d_weight(plain, padding, self.stride, [1, 1, 1], 1, shape)
        self._is_packed = True


class FilteredProducts:
    """The six convolutions of one frame each, and the frames they are summed to.

    Args:
        taps: (channels, C, taps, kh, kw), 3 or 4 taps; stride and padding in space as of the convolution.
    """

    def __init__(self, taps: Tensor, bias: Tensor, stride: tuple[int, int], padding: int) -> None:
        count = taps.shape[2]
        mixing = [[scale * point**power for power in range(count)] for point, scale in FINITE_POINTS]
        mixing.append([0.0] * (count - 1) + [1.0])
        mixed = torch.einsum("kt,octhw->kochw", torch.tensor(mixing, dtype=torch.float64), taps.double()).float()
        none = torch.zeros_like(bias)
        self.outputs, self.channels, self._padding = POINTS - count + 1, len(bias), (0, padding, padding)
        self._products = [
            DirectConvolution(plane[:, :, None], bias if point == IN_ALL_OUTPUTS else none, (1, *stride), "none")
            for point, plane in enumerate(mixed)
        ]

    def groups_at_once(self, y: Tensor) -> int:
        """How many groups of frames like ``y`` (H, W, channels) keep their products in the cache; at least one."""
        return max(1, BYTES_AT_ONCE // (4 * POINTS * y.numel()))

    def sum_up(self, mixed: Tensor, y: Tensor) -> None:
        """ReLU of what ``mixed`` (6, 1, groups, H, W, C) gives, into ``y`` (T', H', W', channels)."""
        products = [
            frames_of(product(frames.permute(0, 4, 1, 2, 3), self._padding))
            for product, frames in zip(self._products, mixed, strict=True)
        ]
        size, weight = y[0].numel(), len(y) * LANES
        in_shares(
            unmix_outputs, size // LANES, weight, *products, size, y.view(-1).numpy(), len(y), self.outputs
        )  # fmt: skip


class FilteredConvolution:
    """3×3×3, stride 1, by minimal filtering along time."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._products = FilteredProducts(weight, bias, stride=(1, 1), padding=1)

    def __call__(self, x: Tensor, padding: Triple) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T + 2 padding - 2, H, W); the padding in space is 1."""
        batch, _, frames, height, width = x.shape
        y = recycled(batch, frames + 2 * padding[0] - 2, height, width, self._products.channels)
        for clip, made in zip(torch.split(x, 1), y, strict=True):
            self._one_clip(clip, made, padding[0])
        return y.permute(0, 4, 1, 2, 3)

    def _one_clip(self, x: Tensor, y: Tensor, front: int) -> None:
        """(1, C, T, H, W) → ``y`` (T', H, W, channels), a few groups of four frames at a time."""
        source, size = frames_of(x), x[0, :, 0].numel()
        step = self._products.outputs * self._products.groups_at_once(y[0])
        for first in range(0, len(y), step):
            part = y[first : first + step]
            groups = -(-len(part) // self._products.outputs)
            mixed = x.new_empty(POINTS, 1, groups, *y.shape[1:3], x.shape[1])
            weight = groups * POINTS * LANES
            in_shares(
                mix_inputs, size // LANES, weight, source, x.shape[2], first - front, mixed.view(-1).numpy(),
                groups, size,
            )  # fmt: skip
            self._products.sum_up(mixed, part)


class FilteredStem:
    """7×7×7, stride 2, SAME padding in space: four taps along pairs of frames, by minimal filtering.

    The rows of a pair take turns in one frame, which a kernel of 14×7 goes over with a stride of 4 and 2.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        eight = torch.cat([weight, torch.zeros_like(weight[:, :, :1])], dim=2)
        taps = torch.stack([eight[:, :, ::2], eight[:, :, 1::2]], dim=4)  # (channels, C, 4, 7, 2, 7)
        self._products = FilteredProducts(taps.flatten(3, 4), bias, stride=(4, 2), padding=0)

    def __call__(self, x: Tensor, padding: Triple) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ⌊(T + 2 padding - 7) / 2⌋ + 1, ⌈H / 2⌉, ⌈W / 2⌉); C · W at least 16."""
        batch, channels, frames, height, width = x.shape
        if channels * width < LANES:
            raise ValueError(f"a row has {channels * width} numbers, fewer than {LANES}")
        shape = ((frames + 2 * padding[0] - 7) // 2 + 1, -(-height // 2), -(-width // 2))
        y = recycled(batch, *shape, self._products.channels)
        for clip, made in zip(torch.split(x, 1), y, strict=True):
            self._one_clip(clip, made, padding[0])
        return y.permute(0, 4, 1, 2, 3)

    def _one_clip(self, x: Tensor, y: Tensor, front: int) -> None:
        """(1, C, T, H, W) → ``y`` (T', H', W', channels), three frames at a time."""
        (_, channels, frames, height, width), source = x.shape, frames_of(x)
        (top, bottom), (left, right) = same_padding(height, 7, 2), same_padding(width, 7, 2)
        rows, columns = height + top + bottom, width + left + right
        mixed = x.new_empty(POINTS, 1, 1, 2 * rows, columns, channels)
        shape = np.array([frames, height, width, channels, rows, columns, top, left])
        for first in range(0, len(y), self._products.outputs):
            weight = POINTS * 2 * columns * channels
            in_shares(mix_pairs, rows, weight, source, shape, 2 * first - front, mixed.view(-1).numpy())
            self._products.sum_up(mixed, y[first : first + self._products.outputs])
