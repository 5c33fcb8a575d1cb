"""What a network costs: floating-point operations and stored numbers, counted on a network without memory.

The network is laid out on PyTorch's "meta" device, where tensors have shapes and no values, and PyTorch's own counter
adds up its convolutions and matrix products: a multiplication and an addition are two operations. Batch norm, pooling
and activations, about a hundredth of it, are not counted.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vadis.models import MODELS, STREAM_CHANNELS

BACKWARD_PASSES = 2  # a backward pass takes the gradient of the inputs and that of the weights: two forward passes
NUM_CLASSES = 400  # at which operations are counted: the last layer is less than a thousandth of them


class Size(NamedTuple):
    """How many numbers a network has: all that a model file keeps, those that learn, those that its last layer sees."""

    stored: int
    learning: int
    features: int


def clip_flops(architecture: str, streams: tuple[str, ...]) -> int:
    """Operations of one forward pass over one training clip, through all networks of these streams.

    Raises:
        KeyError: for an architecture or stream that does not exist.
    """
    row = MODELS[architecture]
    return sum(_flops(architecture, taken, row.window_frames) for taken in row.networks(streams).values())


def training_flops(architecture: str, streams: tuple[str, ...]) -> int:
    """Operations of learning from one clip: a pass forward and one backward."""
    return (1 + BACKWARD_PASSES) * clip_flops(architecture, streams)


def video_flops(architecture: str, streams: tuple[str, ...]) -> int:
    """Operations of the paper's test of one video, 10 s or longer.

    I3D takes the 250 frames whole; the others in windows of their own.
    """
    row = MODELS[architecture]
    frames = row.test_window or row.test_frames
    windows = -(-row.test_frames // frames)
    return windows * sum(_flops(architecture, taken, frames) for taken in row.networks(streams).values())


def network_sizes(architecture: str, streams: tuple[str, ...], num_classes: int) -> dict[str, Size]:
    """How many numbers each network has, by its name (see ``Architecture.networks``)."""
    networks = MODELS[architecture].networks(streams)
    return {name: _size(architecture, taken, num_classes) for name, taken in networks.items()}


@lru_cache
def _size(architecture: str, streams: tuple[str, ...], num_classes: int) -> Size:
    network = _laid_out(architecture, streams, num_classes)
    state = network.state_dict()
    stored = sum(tensor.numel() for tensor in state.values())
    learning = sum(value.numel() for value in network.parameters() if value.requires_grad)
    (last,) = (tensor for key, tensor in state.items() if key.startswith("Logits.") and key.endswith(".weight"))
    return Size(stored, learning, last.shape[1])


@lru_cache
def _flops(architecture: str, streams: tuple[str, ...], frames: int) -> int:
    """Operations of one forward pass of one network over ``frames`` frames of the grid."""
    row = MODELS[architecture]
    lengths = {stream: len(range(frames)[row.sampling[stream]]) for stream in streams}
    clips = [
        torch.empty(1, STREAM_CHANNELS[stream], length, row.crop, row.crop, device="meta")  # (B, C, T, H, W)
        for stream, length in lengths.items()
    ]
    network = _laid_out(architecture, streams, NUM_CLASSES)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*clips)
    total: int = counter.get_total_flops()
    return total


def _laid_out(architecture: str, streams: tuple[str, ...], num_classes: int) -> nn.Module:
    """One network of the paper's width, without memory, in evaluation mode."""
    with torch.device("meta"):
        return MODELS[architecture].build(streams, num_classes, 1.0).eval()
