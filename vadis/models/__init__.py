"""The architectures of the paper as tables of rows, and the table of them all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vadis.models.card import FORMAT_VERSION, Model, ModelCard
from vadis.models.folded import FoldedI3D
from vadis.models.i3d import I3D, MIN_FRAMES, TEMPORAL_STRIDE
from vadis.streams import STREAMS

__all__ = [
    "FORMAT_VERSION",
    "MODELS",
    "STREAM_CHANNELS",
    "Architecture",
    "Model",
    "ModelCard",
    "build_networks",
    "inference_form",
]

STREAM_CHANNELS = {name: stream.channels for name, stream in STREAMS.items()}


@dataclass(frozen=True)
class Architecture:
    """One row of the paper's table 1."""

    letter: str  # in the paper's figure 2
    summary: str
    streams: tuple[str, ...]
    window_frames: int  # temporal footprint in training, at 25 fps
    min_frames: int  # that the network takes
    prediction_stride: int  # frames between predictions
    build: Callable[[int, int, float], I3D]  # (num_classes, in_channels, width) → the training form
    fold: Callable[[I3D, torch.device], FoldedI3D]  # → the inference form


MODELS: dict[str, Architecture] = {
    "i3d": Architecture(
        letter="e",
        summary="Two-Stream I3D: inflated Inception-v1 on RGB and on flow, logits added",
        streams=("rgb", "flow"),
        window_frames=64,
        min_frames=MIN_FRAMES,
        prediction_stride=TEMPORAL_STRIDE,
        build=lambda num_classes, in_channels, width: I3D(num_classes, in_channels, width=width),
        fold=FoldedI3D,
    ),
}


def build_networks(card: ModelCard) -> dict[str, I3D]:
    """New networks for every stream of ``card``, randomly initialised.

    Raises:
        KeyError: for an architecture or stream that does not exist.
    """
    architecture = MODELS[card.architecture]
    build = architecture.build
    return {stream: build(len(card.labels), STREAM_CHANNELS[stream], card.width) for stream in card.streams}


def inference_form(model: Model) -> dict[str, FoldedI3D]:
    """The inference form of every network of ``model``, by stream; made once and kept with the model."""
    for stream in model.card.streams:
        if stream not in model.folded:
            model.folded[stream] = MODELS[model.card.architecture].fold(model.networks[stream], model.device)
    return {stream: model.folded[stream] for stream in model.card.streams}
