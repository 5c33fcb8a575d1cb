"""Inception-v1 with batch norm, in 2D: the base network of the paper's architectures (a), (c), (d), and of (e) before
inflation.

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, section 2; (2) Ioffe & Szegedy,
"Batch normalization", 2015, the paper's [13]; (3) Simonyan & Zisserman, "Two-stream convolutional networks for action
recognition in videos", 2014, the paper's [27].

The network is I3D's table ``ROWS`` without its time axis, and its parts are named as I3D's, with "2d" for "3d": what is
common to all architectures is the same here. As in I3D, batch norm's gamma is kept as it comes (1, or ImageNet's) and
not trained: a positive factor passes through the ReLU, and the weights of the next layer can take its place.
Axes: B batch, C channels, T time, H, W.

Two-Stream, architecture (c): Inception-v1 on one frame and on ten frames of flow, trained as one network.

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, section 2.3; (2) Simonyan &
Zisserman, "Two-stream convolutional networks for action recognition in videos", 2014, the paper's [27].

The two networks meet in the average of their predictions, which (1) has inside the training ("end-to-end, including the
two-stream averaging process"). What is averaged are probabilities, as in (2), which fuses by averaging softmax scores;
the logits of (1)'s own architecture (e) are added instead. With probabilities, a stream that is sure outweighs one
that is not, whatever the scale of their logits.
"""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.models.i3d import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    ROWS,
    Conv,
    Mixed,
    MixedUnit,
    Pool,
    check_clip,
    initialise,
    same_padding,
    scaled,
)

TORCHVISION_STEM_PADDING = (3, 3)  # of torchvision's port of the ImageNet weights; TensorFlow's SAME is (2, 3)


def flat_name(name: str) -> str:
    """What a part of I3D is called in 2D: ``Mixed_3b.Branch_1.Conv3d_0b_3x3`` → ``Mixed_3b.Branch_1.Conv2d_0b_3x3``."""
    return name.replace("Conv3d_", "Conv2d_").replace("MaxPool3d_", "MaxPool2d_")


class FlatConvUnit(nn.Module):
    """Convolution (SAME, no bias), batch norm, ReLU.

    ``padding`` is (front, back) of height and width for a strided convolution; None is SAME, by the size of the input.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int, padding: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        inner = kernel // 2 if stride == 1 else 0  # SAME is symmetric where nothing is skipped
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, inner, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)
        self.norm.weight.requires_grad_(False)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, channels, ceil(H / stride), ceil(W / stride))."""
        if self.stride > 1:
            height, width = (self.padding or same_padding(size, self.kernel, self.stride) for size in x.shape[2:])
            x = functional.pad(x, (*width, *height))  # (B, C, H + kernel - stride, W + kernel - stride)
        return functional.relu(self.norm(self.conv(x)), inplace=True)


class FlatPoolUnit(nn.Module):
    """Max pooling (SAME): the odd element of the padding, at the end, is what ``ceil_mode`` allows for."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, ceil(H / stride), ceil(W / stride))."""
        front = tuple(same_padding(size, self.kernel, self.stride)[0] for size in x.shape[2:])
        return functional.max_pool2d(x, self.kernel, self.stride, front, ceil_mode=True)


class InceptionBody(nn.Module):
    """Everything before the last average pooling.

    Args:
        in_channels: of the image: 3 for RGB, 20 for ten frames of flow.
        width: multiplies every channel count, as in I3D.
        stem_padding: of the first convolution, (front, back); None is TensorFlow's SAME.
    """

    def __init__(
        self, in_channels: int = 3, *, width: float = 1.0, stem_padding: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, in_channels
        for row in ROWS:
            unit, self.channels = _flat_unit(row, self.channels, width, stem_padding)
            self.add_module(flat_name(row.name), unit)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) in [-1, 1] → (B, 1024, ceil(H / 32), ceil(W / 32))."""
        x = x.contiguous(memory_format=torch.channels_last)  # max pooling on the CPU is many times faster so
        for unit in self.children():
            x = unit(x)
        return x

    def endpoints(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The output of every row in turn, with its name in I3D's graph."""
        for row, unit in zip(ROWS, self.children(), strict=True):
            x = unit(x)
            yield row.name, x


class Inception(nn.Module):
    """Inception-v1 that looks at ``frames`` frames as one image: each stream of architecture (c).

    Args:
        num_classes: size of the last layer.
        in_channels: of a frame: 3 for RGB, 2 for flow.
        frames: how many are stacked; the first convolution has ``in_channels`` times as many inputs.
        width: multiplies every channel count (rounded, at least 1).
        dropout: of the features before the last layer, while training. The paper names none; it is I3D's.
        stem_padding: as in ``InceptionBody``.
    """

    training_steps: ClassVar[str] = "mean"  # of one step
    test_steps: ClassVar[str] = "mean"

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        frames: int = 1,
        width: float = 1.0,
        dropout: float = 0.5,
        stem_padding: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.frames = in_channels, frames
        self.body = InceptionBody(in_channels * frames, width=width, stem_padding=stem_padding)
        self.dropout = nn.Dropout(dropout)
        self.Logits = nn.Linear(self.body.channels, num_classes)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes, 1) of a clip ``x`` (B, in_channels, frames, 224, 224) in [-1, 1].

        Raises ValueError for a clip of another shape.
        """
        logits: Tensor = self.Logits(self.dropout(self.features(x).squeeze(2)))  # (B, classes)
        return logits.unsqueeze(2)  # (B, classes, 1)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of such a clip: the average over space, (B, 1024, 1)."""
        check_clip(f"Inception-v1 of {self.frames} frame(s)", x, self.in_channels, self.frames)
        return averaged(self.body(stacked(x))).unsqueeze(2)


def stacked(x: Tensor) -> Tensor:
    """Frames as the channels of one image: (B, C, T, H, W) → (B, T·C, H, W).

    The channels of a frame stay together: dx₁, dy₁, dx₂, dy₂, …, the order of (3), equation 1. Any order would do for
    a network of its own; models that are exchanged must agree on one.
    """
    return x.transpose(1, 2).flatten(1, 2)


def averaged(grid: Tensor) -> Tensor:
    """The last average pooling: (B, C, 7, 7) → (B, C)."""
    return grid.mean(dim=(2, 3))


def _flat_unit(
    row: Conv | Pool | Mixed, in_channels: int, width: float, stem_padding: tuple[int, int] | None
) -> tuple[nn.Module, int]:
    """The module of a row without its time axis, and how many channels leave it."""
    if isinstance(row, Pool):
        return FlatPoolUnit(row.kernel[1], row.stride[1]), in_channels
    if isinstance(row, Conv):
        channels = scaled(row.channels, width)
        return FlatConvUnit(in_channels, channels, row.kernel[1], row.stride[1], stem_padding), channels
    branches, total = [], 0
    for rows in row.branches():
        branch, channels = nn.Sequential(), in_channels
        for inner in rows:
            unit, channels = _flat_unit(inner, channels, width, stem_padding)
            branch.add_module(flat_name(inner.name), unit)
        branches.append(branch)
        total += channels
    return MixedUnit(branches), total


SNAPSHOT_FRAMES = {"rgb": 1, "flow": 10}
"""How many frames of a stream make one prediction (table 1: 0.4 s)."""


def snapshot_network(
    num_classes: int, stream: str, in_channels: int, *, width: float = 1.0, dropout: float = 0.5
) -> Inception:
    """The network of one stream: of "rgb" for (B, 3, 1, 224, 224), of "flow" for (B, 2, 10, 224, 224)."""
    return Inception(num_classes, in_channels, frames=SNAPSHOT_FRAMES[stream], width=width, dropout=dropout)


class Averaged(nn.Module):
    """Networks of several streams as one: the average of their predictions.

    Its parameters are named ``STREAM.KEY``, as in a model file; the networks stay usable alone.

    Args:
        networks: by stream, in the order in which ``forward`` takes their clips.
    """

    training_steps: ClassVar[str] = "mean"  # of one step
    test_steps: ClassVar[str] = "mean"

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for stream, network in networks.items():
            self.add_module(stream, network)

    def forward(self, *clips: Tensor) -> Tensor:
        """The logarithm of the averaged probabilities, (B, classes, steps); of one clip per stream.

        It serves as logits: its softmax is the average, its cross-entropy the average's.
        Raises ValueError for another number of clips.
        """
        networks = dict(self.named_children())
        if len(clips) != len(networks):
            raise ValueError(f"one clip is needed for each of {', '.join(networks)}; got {len(clips)}")
        each = [network(clip) for network, clip in zip(networks.values(), clips, strict=True)]
        return mean_log_probabilities(torch.stack(each))


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, B, classes, steps) → the logarithm of their N softmaxes' mean, (B, classes, steps), float32."""
    return logits.float().log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))
