"""A model as the road uses it: its networks, and the card that says what they eat and what they answer.

What is known of an architecture: the fields of a row of ``MODELS``, and how its networks are used on a video.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vadis.device import BatchLimit
from vadis.errors import UsageError
from vadis.models.i3d_inference import FEATURES, LOGITS
from vadis.results import SEGMENT_SECONDS

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


FORMAT_VERSION = 1
_LATER = ("test_window", "threshold", "otherwise", "crop_first")  # fields that a card has only where they say something


@dataclass(frozen=True)
class ModelCard:
    """Everything but the tensors: stored in a model file, and enough to rebuild the networks.

    ``width`` is the multiplier of every channel count; ``window_frames`` the training length (64: 2.56 s at 25 fps);
    ``provenance`` says where the parameters come from (source URLs and hashes, or the training recipe and metrics);
    ``test_window`` is the length in frames of the separate windows that the model looks through where nothing else is
    asked for, None for what its architecture does. Where no label has a probability of ``threshold`` at least, what the
    model says is ``otherwise``, if it has one. With ``crop_first`` frames are cut to what the network sees before their
    flow is computed: half as much of it at 16:9, and a little other at the border; the paper cuts afterwards.
    """

    name: str
    architecture: str  # a key of MODELS
    streams: tuple[str, ...]  # of "rgb", "flow"; their logits are added
    labels: tuple[str, ...]
    width: float = 1.0
    window_frames: int = 64
    frame_rate: int = 25
    short_side: int = 256  # px, to which frames are resized
    crop: int = 224  # px, what the network sees
    flow_bound: float = 20.0  # px, clipped at, then scaled to 1
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    test_window: int | None = None
    threshold: float | None = None
    otherwise: str | None = None
    crop_first: bool = False

    @property
    def segment_seconds(self) -> float:
        """The step of the timeline where nothing else is asked for: that of the model's windows."""
        return SEGMENT_SECONDS if self.test_window is None else self.test_window / self.frame_rate

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON values; what came later than the format is left out where it says nothing."""
        return {key: value for key, value in asdict(self).items() if key not in _LATER or value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelCard":
        """The card that ``to_json`` gave; raises TypeError or KeyError for anything else."""
        values = dict(values)
        return cls(**{**values, "streams": tuple(values["streams"]), "labels": tuple(values["labels"])})


@dataclass
class Model:
    """A card with its networks, by name (see ``Architecture.networks``), on one device, in evaluation mode.

    ``sha256`` is that of the model file, None for a model made in memory.
    """

    card: ModelCard
    networks: dict[str, nn.Module]
    device: torch.device
    sha256: str | None = None
    folded: dict[str, InferenceForm] = field(default_factory=dict, repr=False)  # filled by ``inference_form``
    batch_limits: dict[str, BatchLimit] = field(default_factory=dict, repr=False)  # what fits into memory
    may_leave_device: bool = False  # nobody asked for it: where its memory does not suffice, there is the CPU

    def only(self, streams: tuple[str, ...]) -> "Model":
        """The same model with some of its streams.

        Raises:
            UsageError: it lacks one of them, or one network takes several.
        """
        if streams == self.card.streams:
            return self
        if lacking := [stream for stream in streams if stream not in self.card.streams]:
            has = " and ".join(self.card.streams)
            raise UsageError(f"the model {self.card.name} has no {lacking[0]} stream", hint=f"it has {has}")
        if BOTH in self.networks:
            message = f"the streams of {self.card.name} are one network, which needs all of them"
            raise UsageError(message, hint="leave `streams` out, or use a model with a network for each")
        kept = {stream: self.networks[stream] for stream in streams}
        return replace(self, card=replace(self.card, streams=streams), networks=kept)

    def check_flip(self, flip: bool) -> None:
        """Raises UsageError where a mirrored video is wanted of a model that learnt to tell left from right."""
        if flip and self.card.provenance.get("mirror") is False:
            message = f"{self.card.name} tells left from right, so a mirrored video is no second look"
            raise UsageError(message, hint="leave `flip` out")

    def to_cpu(self) -> None:
        """Leave the device for the CPU, for good."""
        self.device = torch.device("cpu")
        for network in self.networks.values():
            network.to(self.device)
        self.folded.clear()
        self.batch_limits.clear()
