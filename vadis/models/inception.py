"""Inception-v1 with batch norm, in 2D: the base network of the paper's architectures (a), (c), (d), and of (e) before
inflation; and Two-Stream, architecture (c).

References: (1) Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, sections 2.3 and 2.4; (2) Ioffe &
Szegedy, "Batch normalization", 2015, the paper's [13]; (3) Simonyan & Zisserman, "Two-stream convolutional networks for
action recognition in videos", 2014, the paper's [27].

The network is I3D's table ``ROWS`` without its time axis, and its parts are named as I3D's, with "2d" for "3d": what is
common to all architectures is the same here. As in I3D, batch norm's gamma is kept as it comes (1, or ImageNet's) and
not trained: a positive factor passes through the ReLU, and the weights of the next layer can take its place.
Axes: B batch, C channels, T time, H, W.

The two networks of (c) meet in the average of their predictions, which (1) has inside the training ("end-to-end,
including the two-stream averaging process"). What is averaged are probabilities, as in (3), which fuses by averaging
softmax scores; the logits of (1)'s own architecture (e) are added instead. With probabilities, a stream that is sure
outweighs one that is not, whatever the scale of their logits.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vadis.models.i3d import I3D, ROWS, build_unit, check_clip, flat_name, initialise

TORCHVISION_STEM_PADDING = (3, 3)  # of torchvision's port of the ImageNet weights; TensorFlow's SAME is (2, 3)


class InceptionBody(nn.Module):
    """Inception-v1 up to the last average pooling; ``stem_padding`` (front, back) replaces SAME in the first layer."""

    def __init__(
        self, in_channels: int = 3, *, width: float = 1.0, stem_padding: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.in_channels, self.channels = in_channels, in_channels
        for row in ROWS:
            unit, self.channels = build_unit(row, self.channels, width, is_flat=True, padding=stem_padding)
            self.add_module(flat_name(row.name), unit)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_channels, H, W) in [-1, 1] → (B, 1024, ceil(H / 32), ceil(W / 32))."""
        x = x.contiguous(memory_format=torch.channels_last)  # max pooling on the CPU is many times faster so
        for unit in self.children():
            x = unit(x)
        return x

    def endpoints(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the output of every row in turn, with its name in I3D's graph."""
        for row, unit in zip(ROWS, self.children(), strict=True):
            x = unit(x)
            yield row.name, x


class ClipNetwork(nn.Module):
    """A network that takes clips of one length and gives one prediction for each.

    ``features`` is what its last layer sees, (B, channels, 1). The paper names no dropout before it; it is I3D's.
    """

    training_steps: ClassVar[str] = "mean"  # of one step
    test_steps: ClassVar[str] = "mean"
    features: Callable[..., Tensor]
    dropout: nn.Dropout
    Logits: nn.Linear

    def forward(self, *clips: Tensor) -> Tensor:
        """Return logits (B, classes, 1); raise ValueError for clips of another number or shape than ``features``."""
        logits: Tensor = self.Logits(self.dropout(self.features(*clips).squeeze(2)))  # (B, classes)
        return logits.unsqueeze(2)  # (B, classes, 1)


class Inception(ClipNetwork):
    """Inception-v1 that looks at ``frames`` stacked frames as one image: each stream of architecture (c).

    The first convolution has ``frames`` times ``in_channels`` inputs; the other arguments are as in ``I3D`` and
    ``InceptionBody``.
    """

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

    def features(self, x: Tensor) -> Tensor:
        """A clip (B, in_channels, frames, 224, 224) in [-1, 1] → the average over space, (B, 1024, 1)."""
        check_clip(f"Inception-v1 of {self.frames} frame(s)", x, self.in_channels, self.frames)
        return average_snapshots(self.body(stacked(x))).unsqueeze(2)


def stacked(x: Tensor) -> Tensor:
    """Return frames as the channels of one image: (B, C, T, H, W) → (B, T·C, H, W).

    The channels of a frame stay together: dx₁, dy₁, dx₂, dy₂, …, the order of (3), equation 1.
    """
    return x.transpose(1, 2).flatten(1, 2)


def average_snapshots(grid: Tensor) -> Tensor:
    """Return the average over space: (B, C, 7, 7) → (B, C)."""
    return grid.mean(dim=(2, 3))


SNAPSHOT_FRAMES = {"rgb": 1, "flow": 10}
"""How many frames of a stream make one prediction (table 1: 0.4 s)."""


def snapshot_network(
    num_classes: int, stream: str, in_channels: int, *, width: float = 1.0, dropout: float = 0.5
) -> Inception:
    """Return the network of one stream: of "rgb" for (B, 3, 1, 224, 224), of "flow" for (B, 2, 10, 224, 224)."""
    return Inception(num_classes, in_channels, frames=SNAPSHOT_FRAMES[stream], width=width, dropout=dropout)


class Averaged(ClipNetwork):
    """Networks of several streams as one: the average of their predictions; they stay usable alone.

    Its parameters are named ``STREAM.KEY``, as in a model file; ``forward`` takes a clip for each in their order.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for stream, network in networks.items():
            self.add_module(stream, network)

    def forward(self, *clips: Tensor) -> Tensor:
        """Return the logarithm of the averaged probabilities, (B, classes, steps).

        It serves as logits: its softmax is the average, its cross-entropy the average's.
        """
        networks = dict(self.named_children())
        if len(clips) != len(networks):
            raise ValueError(f"one clip is needed for each of {', '.join(networks)}; got {len(clips)}")
        each = [network(clip) for network, clip in zip(networks.values(), clips, strict=True)]
        return mean_log_probabilities(torch.stack(each))


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, B, classes, steps) → the logarithm of their N softmaxes' mean, (B, classes, steps), float32."""
    return logits.float().log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))


# --- from ImageNet: inflated, adapted, checked -----------------------------------------------------------------------

_BODY = "body."  # where an ``Inception`` keeps its ``InceptionBody``
_FIRST_KERNEL = f"{flat_name(ROWS[0].name)}.conv.weight"


def from_imagenet(network: nn.Module, imagenet: Mapping[str, Tensor]) -> None:
    """Start ``network`` from ImageNet: every Inception-v1 and I3D in it, whatever it is called; the rest is left alone.

    A 2D kernel becomes a 3D one by being repeated N times along time and divided by N. A video that repeats one image
    then gives, at every step, what the 2D network gives for the image: the boring-video fixed point (1). The image
    kernels of the first layer are averaged over colour for flow, and repeated for each of its channels. Batch norm,
    gamma included, is taken over as it is; last layers stay as they are, because they tell other classes apart.

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
        expected = [key for key in InceptionBody().state_dict() if not _is_counter(key)]
    body = {key.removeprefix(_BODY): tensor for key, tensor in imagenet.items() if key.startswith(_BODY)}
    wrong = [f"{key} missing" for key in expected if key not in body]
    wrong += [f"{key} unexpected" for key in body if key not in expected and not _is_counter(key)]
    if wrong:
        raise ValueError(f"these are not the weights of an Inception-v1: {_some(wrong)}")
    shape = tuple(body[_FIRST_KERNEL].shape)
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"the Inception-v1 to start from is not for RGB: its first kernel has the shape {shape}")
    return body


def _adapted(target: I3D | InceptionBody, body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of ``target`` with what it takes from ImageNet."""
    state, wrong = target.state_dict(), []
    for key, own in state.items():
        if key.startswith("Logits.") or _is_counter(key):
            continue
        value = body[flat_name(key)]
        if flat_name(key) == _FIRST_KERNEL and own.shape[1] != 3:  # flow: 2 channels for each of its frames
            value = value.mean(dim=1, keepdim=True).repeat(1, own.shape[1], 1, 1)  # (64, in_channels, 7, 7)
        if own.ndim == 5:
            value = inflate(value)
        if value.shape != own.shape:
            wrong.append(f"{key} {tuple(value.shape)} for {tuple(own.shape)}")
        state[key] = value
    if wrong:
        raise ValueError(f"ImageNet's weights are not of this network's size: {_some(wrong)}")
    return state


def inflate(kernel: Tensor) -> Tensor:
    """Return a 2D kernel (out, in, N, N) as a cube (out, in, N, N, N), repeated along time and divided by N (1)."""
    size = kernel.shape[-1]
    return kernel.unsqueeze(2).repeat(1, 1, size, 1, 1) / size


def _is_counter(key: str) -> bool:
    return key.endswith(".num_batches_tracked")


def _some(names: list[str]) -> str:
    """Return the first of them, and how many there are in all."""
    return f"{', '.join(names[:3])}{f' and more, {len(names)} in all' if len(names) > 3 else ''}"
