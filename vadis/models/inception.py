"""Inception-v1 with batch norm, in 2D: ``i3d.ROWS`` without time; and Two-Stream, architecture (c).

References: (1) Carreira & Zisserman, CVPR 2017, sections 2.3 and 2.4; (2) Ioffe & Szegedy, "Batch normalization", 2015;
(3) Simonyan & Zisserman, "Two-stream convolutional networks for action recognition in videos", 2014.

The two networks of (c) are trained through the average of their predictions (1): of probabilities, as in (3), while
(1) adds the logits of (e). Axes: B batch, C channels, T time, H, W.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vadis.models.i3d import I3D, ROWS, build_unit, check_clip, flat_name, initialise
from vadis.preprocessing import STREAMS

SNAPSHOT_FRAMES = {"rgb": 1, "flow": 10}  # of a stream, that make one prediction (table 1: 0.4 s)


class InceptionBody(nn.Module):
    """Inception-v1 up to the last average pooling."""

    def __init__(self, in_channels: int = 3, *, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, in_channels
        for row in ROWS:
            unit, self.channels = build_unit(row, self.channels, width, is_flat=True)
            self.add_module(flat_name(row.name), unit)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) in [-1, 1] → (B, 1024, ceil(H / 32), ceil(W / 32))."""
        x = x.contiguous(memory_format=torch.channels_last)  # max pooling on the CPU is many times faster so
        for unit in self.children():
            x = unit(x)
        return x


class ClipNetwork(nn.Module):
    """A network with a linear last layer, which sees the ``features`` of clips, (B, channels, steps)."""

    features: Callable[..., Tensor]
    dropout: nn.Module
    Logits: nn.Linear

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits (B, classes, steps); raise ValueError for clips that ``features`` does not take."""
        logits: Tensor = self.Logits(self.dropout(self.features(*clips).transpose(1, 2)))  # (B, steps, classes)
        return logits.transpose(1, 2)  # (B, classes, steps)


class Inception(ClipNetwork):
    """Inception-v1 that looks at the frames of a snapshot as one image: one stream of architecture (c)."""

    def __init__(self, num_classes: int, stream: str = "rgb", *, width: float = 1.0) -> None:
        super().__init__()
        self.in_channels, self.frames = STREAMS[stream].channels, SNAPSHOT_FRAMES[stream]
        self.body = InceptionBody(self.in_channels * self.frames, width=width)
        self.dropout = nn.Dropout()
        self.Logits = nn.Linear(self.body.channels, num_classes)
        self.apply(initialise)

    def features(self, x: Tensor) -> Tensor:
        """A clip (B, in_channels, frames, 224, 224) in [-1, 1] → the average over space, (B, 1024, 1)."""
        check_clip(f"Inception-v1 of {self.frames} frame(s)", x, self.in_channels, self.frames)
        pooled: Tensor = self.body(stacked(x)).mean(dim=(2, 3))  # (B, 1024)
        return pooled.unsqueeze(2)


def stacked(x: Tensor) -> Tensor:
    """Return frames as one image, dx₁, dy₁, dx₂, …, as in (3), equation 1: (B, C, T, H, W) → (B, T·C, H, W)."""
    return x.transpose(1, 2).flatten(1, 2)


class Averaged(nn.Module):
    """Networks of several streams as one, by name: the average of their predictions; they stay usable alone."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for stream, network in networks.items():
            self.add_module(stream, network)

    def forward(self, *clips: Tensor) -> Tensor:
        """Return the logarithm of the averaged probabilities, (B, classes, steps), which serves as logits."""
        each = [network(clip) for network, clip in zip(self.children(), clips, strict=True)]
        return mean_log_probabilities(torch.stack(each))


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, B, classes, steps) → the logarithm of their N softmaxes' mean, (B, classes, steps), float32."""
    return logits.float().log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))


# --- from ImageNet: inflated, adapted, checked -----------------------------------------------------------------------

_FIRST_KERNEL = f"{flat_name(ROWS[0].name)}.conv.weight"


def from_imagenet(network: nn.Module, imagenet: Mapping[str, Tensor]) -> None:
    """Start ``network`` from ImageNet: every Inception-v1 and I3D in it, but for last layers; the rest is left alone.

    Kernels are inflated, so that a video that repeats one image gives what the 2D network gives for the image: the
    boring-video fixed point (1). For flow those of the first layer are averaged over colour.

    ``imagenet`` is the state dict of an ``Inception`` for RGB, of the same width. Raise ValueError, with ``network``
    unchanged, where nothing in it starts from ImageNet, or names or shapes are not exactly those that are needed.
    """
    targets = [module for module in network.modules() if isinstance(module, I3D | InceptionBody)]
    if not targets:
        raise ValueError(f"{type(network).__name__} has no Inception-v1 in it, so it cannot start from ImageNet")
    body = imagenet_body(imagenet)
    states = [_adapted(target, body) for target in targets]
    for target, state in zip(targets, states, strict=True):
        target.load_state_dict(state)


def imagenet_body(imagenet: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the body in the state dict of an ``Inception`` for RGB; raise ValueError for any other."""
    with torch.device("meta"):
        expected = {key for key in InceptionBody().state_dict() if not _is_counter(key)}
    body = {key.removeprefix("body."): value for key, value in imagenet.items() if key.startswith("body.")}
    body = {key: value for key, value in body.items() if not _is_counter(key)}
    if wrong := sorted(expected ^ body.keys()):
        differences = f"{len(wrong)} tensors missing or unexpected, such as {', '.join(wrong[:3])}"
        raise ValueError(f"these are not the weights of an Inception-v1: {differences}")
    shape = tuple(body[_FIRST_KERNEL].shape)
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"the Inception-v1 to start from is not for RGB: its first kernel has the shape {shape}")
    return body


def _adapted(target: I3D | InceptionBody, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = target.state_dict()
    for key, own in state.items():
        if key.startswith("Logits.") or _is_counter(key):
            continue
        value = body[flat_name(key)]
        if flat_name(key) == _FIRST_KERNEL and own.shape[1] != 3:  # flow: 2 channels for each of its frames
            value = value.mean(dim=1, keepdim=True).repeat(1, own.shape[1], 1, 1)  # (64, in_channels, 7, 7)
        if own.ndim == 5:
            value = inflate(value)
        if value.shape != own.shape:
            shapes = f"{key} {tuple(value.shape)} for {tuple(own.shape)}"
            raise ValueError(f"ImageNet's weights are not of this network's size: {shapes}")
        state[key] = value
    return state


def inflate(kernel: Tensor) -> Tensor:
    """Return a 2D kernel (out, in, N, N) as a cube (out, in, N, N, N), repeated along time and divided by N (1)."""
    return kernel.unsqueeze(2).repeat(1, 1, kernel.shape[-1], 1, 1) / kernel.shape[-1]


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")
