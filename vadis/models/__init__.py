"""The five architectures of the paper, one file each, and the table of them all: ``MODELS``."""

import threading
from typing import cast

import torch
from torch import nn

from vadis.device import is_bfloat16_faster
from vadis.errors import DeviceError, UsageError
from vadis.models.c3d import C3D, CLIP_FRAMES, CLIP_SIZE
from vadis.models.card import ALL_FRAMES, EXACT, PRECISIONS, InferenceForm
from vadis.models.card import BOTH as BOTH
from vadis.models.card import FORMAT_VERSION as FORMAT_VERSION
from vadis.models.card import Architecture as Architecture
from vadis.models.card import Model as Model
from vadis.models.card import ModelCard as ModelCard
from vadis.models.fused import Fused
from vadis.models.i3d import I3D as I3D
from vadis.models.i3d import MIN_FRAMES
from vadis.models.i3d_inference import LAYERS, FoldedI3D
from vadis.models.inception import Averaged, Inception
from vadis.models.lstm import ConvLSTM
from vadis.preprocessing import STREAMS

STREAM_CHANNELS = {name: stream.channels for name, stream in STREAMS.items()}
MIDDLE_OF_TEN = slice(5, None, 10)  # the RGB frame of a snippet of ten frames of flow is the one in its middle


MODELS: dict[str, Architecture] = {
    "lstm": Architecture(
        letter="a",
        title="ConvNet+LSTM",
        streams=("rgb",),
        window_frames=125,  # 25 frames, every fifth: 5 s (section 2.1, table 1)
        test_window=250,  # 50 frames, one prediction after the last
        sampling={"rgb": slice(None, None, 5)},
        params_millions=9,
        build=lambda streams, num_classes, width: ConvLSTM(num_classes, width=width),
    ),
    "c3d": Architecture(
        letter="b",
        title="3D-ConvNet",
        streams=("rgb",),
        window_frames=CLIP_FRAMES,
        test_window=CLIP_FRAMES,
        test_frames=240,  # 15 clips (table 1)
        sampling={"rgb": ALL_FRAMES},
        params_millions=79,
        build=lambda streams, num_classes, width: C3D(num_classes, width=width),
        crop=CLIP_SIZE,
        short_side=128,
    ),
    "two-stream": Architecture(
        letter="c",
        title="Two-Stream",
        streams=("rgb", "flow"),
        window_frames=10,
        test_window=10,  # of 1 RGB frame and 10 of flow
        snapshots=25,  # (table 1)
        sampling={"rgb": MIDDLE_OF_TEN, "flow": ALL_FRAMES},
        fusion="joint",
        params_millions=12,
        build=lambda streams, num_classes, width: Inception(num_classes, streams[0], width=width),
    ),
    "fused": Architecture(
        letter="d",
        title="3D-Fused",
        streams=("rgb", "flow"),
        window_frames=50,  # 5 RGB frames, 10 apart, and 5 × 10 of flow (section 2.3, table 1)
        test_window=50,
        sampling={"rgb": MIDDLE_OF_TEN, "flow": ALL_FRAMES},
        fusion="in_network",
        params_millions=39,
        build=lambda streams, num_classes, width: Fused(num_classes, streams, width=width),
    ),
    "i3d": Architecture(
        letter="e",
        title="Two-Stream I3D",
        streams=("rgb", "flow"),
        window_frames=64,
        test_window=None,
        sampling={"rgb": ALL_FRAMES, "flow": ALL_FRAMES},
        score_fusion="logits",
        params_millions=25,
        build=lambda streams, num_classes, width: I3D(num_classes, STREAM_CHANNELS[streams[0]], width=width),
        min_frames=MIN_FRAMES,
        layers=LAYERS,
        fold=lambda network, device, precision: FoldedI3D(cast(I3D, network), device, precision),
        precisions=tuple(PRECISIONS),
    ),
}
"""Every architecture by the name that ``--arch`` takes."""


def build_networks(card: ModelCard) -> dict[str, nn.Module]:
    """Return new networks of ``card``, randomly initialised, by their names; KeyError for an unknown architecture."""
    architecture = MODELS[card.architecture]
    return {
        name: architecture.build(streams, len(card.labels), card.width)
        for name, streams in architecture.networks(card.streams).items()
    }


def joined_for_training(networks: dict[str, nn.Module]) -> nn.Module:
    """Return one network alone, or several whose predictions are averaged in training; keys begin with the name."""
    return next(iter(networks.values())) if len(networks) == 1 else Averaged(networks)


_folding = threading.Lock()


def inference_form(model: Model) -> dict[str, InferenceForm]:
    """Return the inference form of every network of ``model``, by name; made once and kept with the model."""
    with _folding:  # videos on several cores share it
        for name, network in model.networks.items():
            if name not in model.folded:
                precision = PRECISIONS[model.precision]
                model.folded[name] = MODELS[model.card.architecture].fold(network, model.device, precision)
    return {name: model.folded[name] for name in model.networks}


def check_precision(precision: str, architecture: str, device: torch.device) -> None:
    """Raise UsageError for a precision that models of a kind have not, DeviceError for one that is slower there."""
    row, without = MODELS[architecture], "leave `precision` out"
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}", hint=f"use {' or '.join(PRECISIONS)}")
    if precision not in row.precisions:
        raise UsageError(f"{row.title} is computed in {' or '.join(row.precisions)}, not in {precision}", without)
    if precision != EXACT and device.type != "cpu":
        raise DeviceError(f"{precision} is slower than {EXACT} on {device.type}: measured on an H200", without)
    if precision != EXACT and not is_bfloat16_faster():
        raise DeviceError(f"{precision} would be slower here, without AMX or AMD's AVX-512 BF16", without)


def i3d(num_classes: int = 400, in_channels: int = 3, *, width: float = 1.0) -> I3D:
    """Return a new I3D of random parameters, in training mode, see there; ``width`` multiplies every channel count."""
    return I3D(num_classes, in_channels, width=width)
