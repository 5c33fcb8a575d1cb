"""What is known of an architecture: the fields of a row of ``MODELS``, and how its networks are used on a video."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vadis.models.folded import FEATURES, LOGITS

BOTH = "both"  # what belongs to several streams at once: a network, a training run, an answer
ALL_FRAMES = slice(None)


@dataclass(frozen=True)
class Architecture:
    """One row of the paper's table 1. Frames are those of the 25 fps grid.

    Attributes:
        letter: in the paper's figure 2.
        title: in the paper's tables.
        summary: one line for a person.
        streams: that it takes; fewer are possible.
        window_frames: the temporal footprint in training.
        test_window: the temporal footprint of one prediction at test; None where the whole video is one clip.
        test_frames: of a video, that the paper's test looks at.
        min_frames: that a network takes.
        sampling: by stream, which frames of a window a network sees.
        crop, short_side: px, of what it sees; and of the frames that this is cut from.
        meet: where the streams meet: "network" (one network takes them all), "training" (networks of their own,
            trained as one) or "test" (trained apart).
        averages: what is averaged over streams and predictions, "logits" or "probabilities".
        millions: of parameters at 400 classes, by table 1.
        layers: whose outputs can be had, by name.
        build: a network for some streams: (streams, num_classes, width) → its training form.
        fold: (the training form, a device) → the inference form.
    """

    letter: str
    title: str
    summary: str
    streams: tuple[str, ...]
    window_frames: int
    test_window: int | None
    test_frames: int
    sampling: Mapping[str, slice]
    meet: str
    averages: str
    millions: int
    build: Callable[[tuple[str, ...], int, float], nn.Module]
    min_frames: int = 1
    crop: int = 224
    short_side: int = 256
    layers: tuple[str, ...] = (FEATURES, LOGITS)
    fold: "Callable[[nn.Module, torch.device], InferenceForm]" = lambda network, device: SeparateClips(network, device)

    def networks(self, streams: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """The streams that each network takes, by the network's name: that of its stream, or ``BOTH``."""
        if self.meet == "network" and len(streams) > 1:
            return {BOTH: streams}
        return {stream: (stream,) for stream in streams}

    def runs(self, streams: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """The streams that each training run takes, by the run's name."""
        if self.meet != "test" and len(streams) > 1:
            return {BOTH: streams}
        return {stream: (stream,) for stream in streams}


class InferenceForm(Protocol):
    """A network made ready for inference."""

    def __call__(self, *clips: Tensor, layer: str = LOGITS) -> Tensor:
        """The outputs of a layer, (B, channels, steps), for one clip (B, C, T, H, W) per stream."""
        ...


class SeparateClips:
    """The inference form of a network that takes clips of one length: the network itself, in evaluation mode."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network.eval(), device

    @torch.inference_mode()
    def __call__(self, *clips: Tensor, layer: str = LOGITS) -> Tensor:
        """Logits (B, classes, steps) or features (B, channels, steps); only the last step where only that counts."""
        on_device = [clip.to(self._device) for clip in clips]
        y: Tensor = self._network(*on_device) if layer == LOGITS else self._network.features(*on_device)  # type: ignore[operator]
        return y[:, :, -1:] if getattr(self._network, "test_steps", "mean") == "last" else y
