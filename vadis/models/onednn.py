"""Convolution + ReLU on the CPU by oneDNN, with weights laid out for it once; 3×3×3 with half the multiplications.

**Along time by minimal filtering** (Winograd 1980; Lavin and Gray 2016 for networks: F(4, 3)). Four frames that a 3×3×3
convolution makes are twelve 3×3 convolutions of one frame each; six are enough, of sums and differences of frames,
whose results are summed again. The weights are mixed once, in float64. The roundings differ from the plain sum's: the
error against float64 is a few times the plain sum's (tests/models/test_onednn.py), millionths of the largest value.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vadis.flow.lanes import LANES
from vadis.models.cpu_kernels import OUTPUTS, POINTS, Flat, frames_of, in_shares, mix_inputs, unmix_outputs
from vadis.models.i3d import Triple

Convolution = Callable[[Tensor, Triple], Tensor]  # (x, padding) → ReLU(conv(x))

BYTES_AT_ONCE = 12 << 20  # of products before they are summed: they stay in the cache

# Row k: what the k-th product takes of the three taps; the points are 0, 1, -1, 2, -2 and infinity.
MIXED_TAPS = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
IN_ALL_OUTPUTS = 1  # the product at point 1 is added once to each of the four frames: there the bias goes in


def onednn_convolution(weight: Tensor, bias: Tensor, stride: Triple) -> Convolution:
    """The faster of the two for this ``weight`` (channels, C, kt, kh, kw)."""
    channels, in_channels, *kernel = weight.shape
    if kernel == [3, 3, 3] and stride == (1, 1, 1) and channels % LANES == in_channels % LANES == 0:
        return FilteredConvolution(weight, bias)
    return DirectConvolution(weight, bias, stride, "relu")


class DirectConvolution:
    """One call of oneDNN. The operator is the one that torch.compile's freezing emits.

    Deep layers are three to four times faster than ``conv3d``, which lays their weights out anew at every call
    (tests/benchmarks/network_speed.py). Which layout is best depends on the input: that of the first decides.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: Triple, activation: str) -> None:
        self.bias, self.stride, self.activation = bias, list(stride), activation
        self._weight, self._is_packed = weight.contiguous(), False

    def __call__(self, x: Tensor, padding: Triple) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T', H', W')."""
        if not self._is_packed:
            self._pack(list(x.shape), list(padding))
        one = [1, 1, 1]
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.default(
            x, self._weight, self.bias, list(padding), self.stride, one, 1, self.activation, [], ""
        )
        return y

    def _pack(self, shape: list[int], padding: list[int]) -> None:
        plain = self._weight.to_mkldnn()
        self._weight = torch.ops.aten.mkldnn_reorder_conv3d_weight(plain, padding, self.stride, [1, 1, 1], 1, shape)
        self._is_packed = True


class FilteredConvolution:
    """3×3×3, stride 1, by minimal filtering along time."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        mixed = torch.einsum("kt,octhw->kochw", torch.tensor(MIXED_TAPS, dtype=torch.float64), weight.double()).float()
        none = torch.zeros_like(bias)
        self.channels = len(bias)
        self.products = [
            DirectConvolution(taps[:, :, None], bias if point == IN_ALL_OUTPUTS else none, (1, 1, 1), "none")
            for point, taps in enumerate(mixed)
        ]

    def __call__(self, x: Tensor, padding: Triple) -> Tensor:
        """(B, C, T, H, W) → (B, channels, T + 2 padding - 2, H, W)."""
        batch, _, frames, height, width = x.shape
        y = x.new_empty(batch, frames + 2 * padding[0] - 2, height, width, self.channels)
        for clip, made in zip(torch.split(x, 1), y, strict=True):
            self._one_clip(clip, made, padding)
        return y.permute(0, 4, 1, 2, 3)

    def _one_clip(self, x: Tensor, y: Tensor, padding: Triple) -> None:
        """(1, C, T, H, W) → ``y`` (T', H, W, channels), a few groups of four frames at a time."""
        groups, (height, width, _) = -(-len(y) // OUTPUTS), y.shape[1:]
        at_once = max(1, BYTES_AT_ONCE // (4 * POINTS * y[0].numel()))
        source = frames_of(x)
        for first in range(0, groups, at_once):
            part = y[OUTPUTS * first : OUTPUTS * (first + at_once)]
            count = -(-len(part) // OUTPUTS)
            mixed = x.new_empty(POINTS, 1, count, height, width, x.shape[1])
            self._mix(source, x.shape[2], OUTPUTS * first - padding[0], mixed)
            products = [
                frames_of(product(frames.permute(0, 4, 1, 2, 3), (0, *padding[1:])))
                for product, frames in zip(self.products, mixed, strict=True)
            ]
            size = y[0].numel()
            in_shares(unmix_outputs, size // LANES, OUTPUTS * LANES, *products, size, part.view(-1).numpy(), len(part))

    def _mix(self, source: Flat, frames: int, first: int, mixed: Tensor) -> None:
        size = mixed[0, 0, 0].numel()
        blocks = size // LANES
        in_shares(
            mix_inputs, blocks, POINTS * LANES, source, frames, first, mixed.view(-1).numpy(), mixed.shape[2], size
        )
