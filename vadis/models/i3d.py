"""Inflated Inception-v1 (I3D), the network of the paper's architecture (e), exactly as DeepMind published it.

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, section 2.5 and figure 3;
(2) google-deepmind/kinetics-i3d, ``i3d.py`` at 0667e88, whose names the endpoints keep.

The network is ``ROWS``; everything below it only says what a row means. Axes: B batch, C channels, T time, H, W.
"""

import math
import operator
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAME_SIZE = 224  # px, height and width of what every Inception-v1 sees (paper, section 2.5)
Triple = tuple[int, int, int]  # along (T, H, W)
Axes = tuple[int, ...]  # along (T, H, W) or (H, W)

BATCH_NORM_EPSILON = 1e-3  # Sonnet's default (2); PyTorch's 1e-5 moves the logits
BATCH_NORM_MOMENTUM = 1e-3  # 1 - decay 0.999 (2)
HEAD_POOL: Triple = (2, 7, 7)  # average, stride 1, VALID (2): 7 = 224 / 32
PADDING_PERIOD = 4  # frames; clips whose lengths agree modulo this are padded alike in front: the strides of Conv3d_1a
# and MaxPool3d_4a. MaxPool3d_5a, whose kernel is its stride, is padded at the end alone.
MIN_FRAMES = 9  # two steps of Mixed_5c, the least that the head's 2-step average takes


class Conv(NamedTuple):
    """A convolution with batch norm and ReLU."""

    name: str
    channels: int
    kernel: Triple
    stride: Triple = (1, 1, 1)


class Pool(NamedTuple):
    name: str
    kernel: Triple
    stride: Triple


class Mixed(NamedTuple):
    """An Inception block: 1×1×1 | 1×1×1, 3×3×3 | 1×1×1, 3×3×3 | max pool 3×3×3, 1×1×1; concatenated."""

    name: str
    b0: int
    b1: tuple[int, int]
    b2: tuple[int, int]
    b3: int

    def branches(self) -> tuple[tuple[Conv | Pool, ...], ...]:
        """Return the four branches as rows, named after their place in DeepMind's graph."""
        one, three = (1, 1, 1), (3, 3, 3)
        return (
            (Conv("Conv3d_0a_1x1", self.b0, one),),
            (Conv("Conv3d_0a_1x1", self.b1[0], one), Conv("Conv3d_0b_3x3", self.b1[1], three)),
            (Conv("Conv3d_0a_1x1", self.b2[0], one), Conv("Conv3d_0b_3x3", self.b2[1], three)),
            (Pool("MaxPool3d_0a_3x3", three, one), Conv("Conv3d_0b_1x1", self.b3, one)),
        )


ROWS: tuple[Conv | Pool | Mixed, ...] = (
    Conv("Conv3d_1a_7x7", 64, (7, 7, 7), (2, 2, 2)),
    Pool("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),  # no pooling in time in the first two (1, section 2.4)
    Conv("Conv3d_2b_1x1", 64, (1, 1, 1)),
    Conv("Conv3d_2c_3x3", 192, (3, 3, 3)),
    Pool("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    Mixed("Mixed_3b", 64, (96, 128), (16, 32), 32),
    Mixed("Mixed_3c", 128, (128, 192), (32, 96), 64),
    Pool("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
    Mixed("Mixed_4b", 192, (96, 208), (16, 48), 64),
    Mixed("Mixed_4c", 160, (112, 224), (24, 64), 64),
    Mixed("Mixed_4d", 128, (128, 256), (24, 64), 64),
    Mixed("Mixed_4e", 112, (144, 288), (32, 64), 64),
    Mixed("Mixed_4f", 256, (160, 320), (32, 128), 128),
    Pool("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
    Mixed("Mixed_5b", 256, (160, 320), (32, 128), 128),
    Mixed("Mixed_5c", 384, (192, 384), (48, 128), 128),
)


def _rows_to(layer: str) -> tuple[Conv | Pool | Mixed, ...]:
    names = [row.name for row in ROWS]
    return ROWS[: names.index(layer) + 1] if layer in names else ROWS


def frames_per_step(layer: str) -> int:
    """Return the temporal stride from the clip to the output of a layer."""
    return math.prod(row.stride[0] for row in _rows_to(layer) if not isinstance(row, Mixed))


def receptive_field(layer: str) -> Triple:
    """Return of how many frames, rows and columns of a clip one output of a layer is made."""
    windows = [
        ((3, 3, 3), (1, 1, 1)) if isinstance(row, Mixed) else (row.kernel, row.stride) for row in _rows_to(layer)
    ]
    windows += [(HEAD_POOL, (1, 1, 1))] * _is_averaged(layer)
    sizes = []
    for axis in range(3):
        size = step = 1  # of what the window before moves over, in frames or pixels
        for kernel, stride in windows:
            size, step = size + (kernel[axis] - 1) * step, step * stride[axis]
        sizes.append(size)
    return (sizes[0], sizes[1], sizes[2])


def _is_averaged(layer: str) -> bool:
    return all(row.name != layer for row in ROWS)


def step_centre(layer: str, step: int) -> Fraction:
    """Return where step j of a layer's output is centred in the clip, in frames: s·j + s/2, s being the layer's stride.

    What follows the head's average over two steps of 8 frames lies between them, at 8·(j + 1).
    """
    return frames_per_step(layer) * (step + (Fraction(1) if _is_averaged(layer) else Fraction(1, 2)))


def num_steps(layer: str, num_frames: int) -> int:
    """Return how many steps a layer has for a clip: ⌈T / s⌉, and one less after the head's average over two."""
    return -(-num_frames // frames_per_step(layer)) - _is_averaged(layer)


def check_clip(
    name: str, x: Tensor, channels: int, frames: int, size: int = FRAME_SIZE, *, or_larger: bool = False
) -> None:
    """Raise ValueError, which names the network, unless ``x`` is (B, channels, frames, size, size), B at least 1.

    With ``or_larger``, frames and size are the least.
    """
    batch, found, *rest = x.shape if x.ndim == 5 else (0, 0, 0, 0, 0)
    wanted = [frames, size, size]
    fits = all(map(operator.ge, rest, wanted)) if or_larger else rest == wanted
    if batch < 1 or found != channels or not fits:
        shape = f"(B, {channels}, {'T' if or_larger else frames}, {size}, {size})"
        least = f" with at least {frames} frames" if or_larger else ""
        raise ValueError(f"{name} takes clips of shape {shape}{least}, got one of {tuple(x.shape)}")


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding of one axis, ``(front, back)``: the odd element goes to the back (2)."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: Axes, stride: Axes) -> Tensor:
    """Return ``x`` with zeros around it so that a VALID operation gives what SAME gives in TensorFlow."""
    axes = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    return functional.pad(x, tuple(chain(*reversed(axes)))) if any(chain(*axes)) else x


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, T, H, W) laid out as B, T, H, W, C, for which pooling and training are many times faster."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def batch_norm(channels: int, dimensions: int) -> nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d:
    """Return a batch norm whose gamma is not trained: DeepMind's has none; ImageNet's (inflated) is kept as it is."""
    kind = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1]
    norm = kind(channels, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


class ConvUnit(nn.Module):
    """Convolution (SAME, no bias), batch norm, ReLU; of clips (B, C, T, H, W) or images (B, C, H, W)."""

    def __init__(self, in_channels: int, channels: int, kernel: Axes, stride: Axes) -> None:
        super().__init__()
        convolution = nn.Conv3d if len(kernel) == 3 else nn.Conv2d
        # Padding that never depends on the size of the input is left to the convolution: no padded copy.
        self.pads_in_conv = set(stride) == {1} and all(size % 2 for size in kernel)
        inner = tuple(size // 2 if self.pads_in_conv else 0 for size in kernel)
        self.conv = convolution(in_channels, channels, kernel, stride, inner, bias=False)  # type: ignore[arg-type]
        self.norm = batch_norm(channels, len(kernel))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, channels, ceil(T / st), ceil(H / sh), ceil(W / sw)), or without T."""
        if not self.pads_in_conv:
            x = pad_same(x, self.conv.kernel_size, self.conv.stride)
        elif x.is_cpu and torch.is_autocast_enabled("cpu") and x.shape[2] < self.conv.kernel_size[0]:
            # In bfloat16 oneDNN 3.12 gives wrong gradients of a kernel longer than the clip: zeros lengthen the clip.
            frames = x.shape[2]
            x = functional.pad(x, (0, 0, 0, 0, 0, self.conv.kernel_size[0] - frames))
            return functional.relu_(self.norm(self.conv(x)[:, :, :frames]))
        return functional.relu_(self.norm(self.conv(x)))


class PoolUnit(nn.Module):
    """Max pooling (SAME), without a padded copy: the odd element, at the back, is what ``ceil_mode`` allows for."""

    def __init__(self, kernel: Axes, stride: Axes) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, C, ceil(T / st), ceil(H / sh), ceil(W / sw)), or without T."""
        padding = [same_padding(*axis)[0] for axis in zip(x.shape[2:], self.kernel, self.stride, strict=True)]
        if x.ndim == 4:
            return functional.max_pool2d(x, self.kernel, self.stride, padding, ceil_mode=True)
        return functional.max_pool3d(channels_last(x), self.kernel, self.stride, padding, ceil_mode=True)


class MixedUnit(nn.Module):
    """An Inception block: branches side by side."""

    def __init__(self, branches: list[nn.Sequential]) -> None:
        super().__init__()
        for index, branch in enumerate(branches):
            self.add_module(f"Branch_{index}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, b0 + b1 + b2 + b3, T, H, W), or without T."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Head(nn.Module):
    """Average over 2 steps and the whole of a 224 crop, dropout, a linear layer at every step."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout()  # of half (2), here and in all networks; a recipe sets another
        self.Conv3d_0c_1x1 = nn.ModuleDict({"conv": nn.Conv3d(in_channels, num_classes, (1, 1, 1))})

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1024, T, H, W) → logits (B, classes, T - 1); a frame larger than 224 gives a mean over its 7×7 places."""
        x = functional.avg_pool3d(x, HEAD_POOL, stride=1)  # (B, 1024, T - 1, H - 6, W - 6)
        x = self.Conv3d_0c_1x1["conv"](self.dropout(x))  # (B, classes, T - 1, H - 6, W - 6)
        return x.mean(dim=(3, 4))  # (B, classes, T - 1)


class I3D(nn.Module):
    """The training form of I3D, one stream of architecture (e): ``in_channels`` is 3 for RGB, 2 for flow."""

    def __init__(self, num_classes: int, in_channels: int = 3, *, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels, channels = in_channels, in_channels
        for row in ROWS:
            unit, channels = build_unit(row, channels, width)
            self.add_module(row.name, unit)
        self.Logits = Head(channels, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, classes, ceil(T / 8) - 1) of a clip (B, in_channels, T, 224, 224), or larger, in [-1, 1].

        DeepMind's logits are their mean over time. Raise ValueError for fewer than 9 frames, or another shape.
        """
        check_clip("I3D", x, self.in_channels, MIN_FRAMES, or_larger=True)
        x = channels_last(x)
        for unit in self.children():
            x = unit(x)
        return x

    def new_head(self, num_classes: int) -> None:
        """Exchange the last layer for a new one, which gives so many classes."""
        old = self.get_parameter("Logits.Conv3d_0c_1x1.conv.weight")  # (classes, channels, 1, 1, 1)
        self.Logits = Head(old.shape[1], num_classes).to(old).train(self.training).apply(initialise)

    def endpoints(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the output of every endpoint in turn, with its name in DeepMind's graph."""
        for name, unit in self.named_children():
            x = unit(x)
            yield name, x


def scaled(channels: int, width: float) -> int:
    """Return ``channels`` at a width multiplier."""
    return max(1, round(channels * width))


def flat_name(name: str) -> str:
    """Return a part's name in 2D: ``Mixed_3b.Branch_1.Conv3d_0b_3x3`` → ``Mixed_3b.Branch_1.Conv2d_0b_3x3``."""
    return name.replace("Conv3d_", "Conv2d_").replace("MaxPool3d_", "MaxPool2d_")


def build_unit(
    row: Conv | Pool | Mixed, in_channels: int, width: float, *, is_flat: bool = False
) -> tuple[nn.Module, int]:
    """Return the module of a row, in 2D where ``is_flat``, and how many channels leave it."""
    first = int(is_flat)
    if isinstance(row, Pool):
        return PoolUnit(row.kernel[first:], row.stride[first:]), in_channels
    if isinstance(row, Conv):
        channels = scaled(row.channels, width)
        return ConvUnit(in_channels, channels, row.kernel[first:], row.stride[first:]), channels
    branches, total = [], 0
    for rows in row.branches():
        branch, channels = nn.Sequential(), in_channels
        for inner in rows:
            unit, channels = build_unit(inner, channels, width, is_flat=is_flat)
            branch.add_module(flat_name(inner.name) if is_flat else inner.name, unit)
        branches.append(branch)
        total += channels
    return MixedUnit(branches), total


def initialise(module: nn.Module) -> None:
    """Draw weights from a truncated normal of variance 1 / fan-in, Sonnet's default (2)."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
        fan_in = module.weight[0].numel()
        nn.init.trunc_normal_(module.weight, std=fan_in**-0.5, a=-2 * fan_in**-0.5, b=2 * fan_in**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
