"""What a run will take: operations from its network and its recipe, bytes on the disk, both by rule of thumb.

Counted are the passes of training and those of the test; not the validations (about 1 % more) nor the flow and
the decoding that go on beside them. Every figure is an upper bound where the recipe stops early or videos are short.

What a network costs: floating-point operations and stored numbers, counted on a network without memory.

The network is laid out on PyTorch's "meta" device, where tensors have shapes and no values, and PyTorch's own counter
adds up its convolutions and matrix products: a multiplication and an addition are two operations. Batch norm, pooling
and activations, about a hundredth of it, are not counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vadis.models import MODELS, STREAM_CHANNELS
from vadis.training.checkpoint import KEPT
from vadis.training.recipes import default_recipe, find_recipe

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


NUMBER_BYTES = 4  # float32
ANSWER_BYTES = 10  # of a logit in answers.jsonl: 6 digits, sign, point, comma and blank
FLOW_BYTES = 5_000  # of a frame in the flow store (docs/flow-store.md)
FLOW_CORE_SECONDS = 0.037  # of one frame of 340×256: 0.0185 s on two cores (docs/performance.md)
FRAME_RATE = 25
TERA, GIGA = 1e12, 1e9
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class DatasetSize:
    """How large a dataset is.

    Attributes:
        num_classes: of it.
        train, test: videos, by split.
        used: videos that one split uses, and all splits together.
        seconds: mean length of a video.
        num_bytes: of the videos as they are published, about.
    """

    num_classes: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    used: tuple[int, int]
    seconds: float
    num_bytes: float


SIZES = {
    # Soomro et al., 2012: 13,320 videos, 27 hours, 6.9 GB; splits by the official lists
    "ucf101": DatasetSize(101, (9_537, 9_586, 9_624), (3_783, 3_734, 3_696), (13_320, 13_320), 7.3, 6.9 * GIGA),
    # Kuehne et al., 2011: 2.1 GB; a split uses 5,100 of the 6,766 videos, of some 95 frames at 30 per second
    "hmdb51": DatasetSize(51, (3_570,) * 3, (1_530,) * 3, (5_100, 6_766), 3.2, 2.1 * GIGA),
    # paper, section 3: 240 k to train, 100 per class to test; and 50 per class for validation (Kay et al., 2017)
    "kinetics": DatasetSize(400, (240_000,), (40_000,), (300_000, 300_000), 10.0, 450 * GIGA),
}
"""By dataset."""


@dataclass(frozen=True)
class Effort:
    """What one command takes.

    Attributes:
        flops: on the GPU.
        core_seconds: of flow on the CPU.
        num_bytes: on the disk when it has ended, by what they are.
    """

    flops: float = 0.0
    core_seconds: float = 0.0
    num_bytes: Mapping[str, float] = field(default_factory=dict)

    def gpu_hours(self, tflops: float) -> float:
        """Hours of a GPU that sustains so many 10¹² operations per second."""
        return self.flops / (tflops * TERA) / SECONDS_PER_HOUR

    @property
    def core_hours(self) -> float:
        """Hours of one core of a CPU."""
        return self.core_seconds / SECONDS_PER_HOUR


def training_effort(architecture: str, dataset: str, split: int, begun: str, streams: tuple[str, ...]) -> Effort:
    """Of training a network end to end, and of its test.

    Args:
        architecture: a key of ``MODELS``.
        dataset: a key of ``SIZES``.
        split: the number of the official split.
        begun: "scratch" (ImageNet too) or "full", as in ``default_recipe``.
        streams: of the model.
    """
    classes, row = SIZES[dataset].num_classes, MODELS[architecture]
    sizes, flops, checkpoints = network_sizes(architecture, streams, classes), 0.0, 0.0
    for run, taken in row.runs(streams).items():
        recipe = find_recipe(default_recipe(architecture, dataset, run, begun))
        networks = row.networks(taken)
        flops += training_flops(architecture, taken) * recipe.batch_size * recipe.steps
        checkpoints += KEPT * NUMBER_BYTES * sum(sizes[name].stored + sizes[name].learning for name in networks)
    test = evaluation_effort(architecture, dataset, split, streams)
    kept = {"checkpoints": checkpoints, "models": _model_bytes(architecture, streams, classes), **test.num_bytes}
    return Effort(flops + test.flops, num_bytes=kept)


def last_layer_effort(architecture: str, dataset: str, split: int, streams: tuple[str, ...]) -> Effort:
    """Of the features of all training videos, a last layer that learns from them (which is nothing), and its test."""
    size = SIZES[dataset]
    videos, classes = size.train[split - 1], size.num_classes
    channels = sum(each.features for each in network_sizes(architecture, streams, classes).values())
    test = evaluation_effort(architecture, dataset, split, streams)
    kept = {
        "features": videos * channels * NUMBER_BYTES,
        "models": _model_bytes(architecture, streams, classes),
        **test.num_bytes,
    }
    return Effort(videos * video_flops(architecture, streams) + test.flops, num_bytes=kept)


def evaluation_effort(architecture: str, dataset: str, split: int, streams: tuple[str, ...]) -> Effort:
    """Of the paper's test alone."""
    size = SIZES[dataset]
    videos, classes = size.test[split - 1], size.num_classes
    answers = videos * classes * len(MODELS[architecture].networks(streams)) * ANSWER_BYTES
    return Effort(videos * video_flops(architecture, streams), num_bytes={"answers": answers})


def flow_effort(dataset: str, *, all_splits: bool) -> Effort:
    """Of computing the flow of all videos that one split uses, or all splits, on a CPU."""
    size = SIZES[dataset]
    frames = size.used[1 if all_splits else 0] * size.seconds * FRAME_RATE
    return Effort(core_seconds=frames * FLOW_CORE_SECONDS, num_bytes={"flow": frames * FLOW_BYTES})


def _model_bytes(architecture: str, streams: tuple[str, ...], num_classes: int) -> float:
    sizes = network_sizes(architecture, streams, num_classes).values()
    return float(NUMBER_BYTES * sum(size.stored for size in sizes))
