"""What is known of an architecture (a row of ``MODELS``), of a model file (its card), and a loaded model."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from vadis.device import BatchLimit
from vadis.errors import UsageError
from vadis.flow.store import FLOW_BOUND
from vadis.models.i3d_inference import FEATURES, LOGITS
from vadis.preprocessing import CROP
from vadis.results import SEGMENT_SECONDS
from vadis.video.metadata import SHORT_SIDE
from vadis.video.timegrid import GRID_FPS

BOTH = "both"  # what belongs to several streams at once: a network, a training run, an answer
ALL_FRAMES = slice(None)
EXACT = "fp32"
PRECISIONS = {EXACT: torch.float32, "bf16": torch.bfloat16}
"""What the convolutions multiply; sums, averages and scores are float32 always."""


InferenceForm = Callable[..., Tensor]
"""A network made ready for inference: from a clip (B, C, T, H, W) for each of its streams, and the name of a ``layer``,
to the layer's outputs (B, channels, steps)."""


def separate_clips(network: nn.Module, device: torch.device, precision: torch.dtype) -> InferenceForm:
    """Return the inference form of a network that takes clips of one length: the network itself, in evaluation mode."""
    assert precision == torch.float32
    network.eval()

    @torch.inference_mode()
    def run(*clips: Tensor, layer: str = LOGITS) -> Tensor:
        on_device = [clip.to(device) for clip in clips]
        y: Tensor = network(*on_device) if layer == LOGITS else network.features(*on_device)  # type: ignore[operator]
        return y[:, :, -1:] if getattr(network, "test_steps", "mean") == "last" else y  # where only the last counts

    return run


@dataclass(frozen=True)
class Architecture:
    """One row of the paper's table 1. Frames are those of the 25 fps grid."""

    letter: str  # in the paper's figure 2
    title: str  # in the paper's tables
    streams: tuple[str, ...]  # that it takes; fewer are possible
    window_frames: int  # the temporal footprint in training
    test_window: int | None  # that of one prediction at test; None where the whole video is one clip
    sampling: Mapping[str, slice]  # by stream, which frames of a window a network sees
    params_millions: int  # at 400 classes, by table 1
    build: Callable[[tuple[str, ...], int, float], nn.Module]  # (streams, num_classes, width) → the training form
    snapshots: int = 0  # windows that the paper's test takes of a shorter video too, spread evenly; 0: those that fit
    test_frames: int = 250  # of a video, that the paper's test looks at: 10 s (table 1)
    fusion: str = "late"  # of streams; or "joint" (trained as one), or "in_network" (one network takes them all)
    score_fusion: str = "probabilities"  # what is averaged over streams and predictions; or "logits"
    min_frames: int = 1  # that a network takes
    crop: int = CROP  # px, of what a network sees
    short_side: int = SHORT_SIDE  # px, of the frames that this is cut from
    layers: tuple[str, ...] = (FEATURES, LOGITS)  # whose outputs can be had
    fold: Callable[[nn.Module, torch.device, torch.dtype], InferenceForm] = separate_clips
    precisions: tuple[str, ...] = (EXACT,)  # of ``PRECISIONS``

    def networks(self, streams: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Return the streams that each network takes, by the network's name: that of its stream, or ``BOTH``."""
        return _grouped(streams, self.fusion == "in_network")

    def training_groups(self, streams: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        """Return the streams that each training run takes, by the run's name."""
        return _grouped(streams, self.fusion != "late")


def _grouped(streams: tuple[str, ...], is_together: bool) -> dict[str, tuple[str, ...]]:
    return {BOTH: streams} if is_together and len(streams) > 1 else {stream: (stream,) for stream in streams}


FORMAT_VERSION = 1
_OPTIONAL = ("test_window", "threshold", "crop_first")  # only where they say something


@dataclass(frozen=True)
class ModelCard:
    """Everything but the tensors: stored in a model file, and enough to rebuild the networks."""

    name: str
    architecture: str  # a key of MODELS
    streams: tuple[str, ...]  # of "rgb", "flow"; their logits are added
    labels: tuple[str, ...]
    width: float = 1.0  # multiplier of every channel count
    window_frames: int = 64  # the training length (64: 2.56 s at 25 fps)
    frame_rate: int = GRID_FPS
    short_side: int = SHORT_SIDE  # px, to which frames are resized
    crop: int = CROP  # px, what the network sees
    flow_bound: float = FLOW_BOUND  # px, clipped at, then scaled to 1
    provenance: dict[str, Any] = field(default_factory=dict)  # sources and hashes, or the recipe and metrics
    format_version: int = FORMAT_VERSION
    test_window: int | None = None  # frames of the separate windows to look through; None: as the architecture does
    threshold: float | None = None  # the probability below which a label is not clear; None: ``CLEAR``
    # Cut frames before their flow is computed, not after it as in the paper: half as much to compute at 16:9.
    crop_first: bool = False

    @property
    def segment_seconds(self) -> float:
        """The step of a record's segments by default: that of the model's windows."""
        return SEGMENT_SECONDS if self.test_window is None else self.test_window / self.frame_rate

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain JSON values, without optional fields that say nothing."""
        return {key: value for key, value in asdict(self).items() if key not in _OPTIONAL or value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelCard":
        """Return the card that ``to_json`` gave; raise TypeError or KeyError for anything else."""
        return cls(**{**values, "streams": tuple(values["streams"]), "labels": tuple(values["labels"])})


@dataclass
class Model:
    """A card with its networks, by name (see ``Architecture.networks``), on one device, in evaluation mode."""

    card: ModelCard
    networks: dict[str, nn.Module]
    device: torch.device
    sha256: str | None = None  # in the model file; None for a model made in memory
    folded: dict[str, InferenceForm] = field(default_factory=dict, repr=False)  # filled by ``inference_form``
    batch_limits: dict[str, BatchLimit] = field(default_factory=dict, repr=False)  # what fits into memory
    may_leave_device: bool = False  # nobody asked for it: where its memory does not suffice, there is the CPU
    precision: str = EXACT  # one of PRECISIONS

    @property
    def settings(self) -> dict[str, Any]:
        """What a file says of the model that made it: its name, hash, streams, and precision if inexact."""
        streams: dict[str, Any] = {"streams": list(self.card.streams)}
        streams |= {} if self.precision == EXACT else {"precision": self.precision}
        return {"model": self.card.name, "model_sha256": self.sha256, **streams}

    def only(self, streams: tuple[str, ...]) -> "Model":
        """Return the same model with some of its streams; UsageError if it lacks one, or one network takes several."""
        if streams == self.card.streams:
            return self
        if lacking := [stream for stream in streams if stream not in self.card.streams]:
            message = f"the model {self.card.name} has no {lacking[0]} stream"
            raise UsageError(message, hint=f"it has {' and '.join(self.card.streams)}")
        if BOTH in self.networks:
            message = f"the streams of {self.card.name} are one network, which needs all of them"
            raise UsageError(message, hint="leave `streams` out, or use a model with a network for each")
        kept = {stream: self.networks[stream] for stream in streams}
        return replace(self, card=replace(self.card, streams=streams), networks=kept)

    def module(self, name: str) -> nn.Module:
        """Return a trainable copy of the network ``name``, in evaluation mode until ``train()``; UsageError if none."""
        if name not in self.networks:
            message = f"the model {self.card.name} has no network {name!r}"
            raise UsageError(message, hint=f"it has {' and '.join(self.networks)}")
        return copy.deepcopy(self.networks[name]).requires_grad_()

    def check_flip(self, flip: bool) -> None:
        """Raise UsageError where a mirrored video is wanted of a model that learnt to tell left from right."""
        if flip and self.card.provenance.get("mirror") is False:
            message = f"{self.card.name} tells left from right, so a mirrored video is no second look"
            raise UsageError(message, hint="leave `flip` out")

    def to_cpu(self) -> None:
        """Move to the CPU, for good."""
        self.device = torch.device("cpu")
        for network in self.networks.values():
            network.to(self.device)
        self.folded.clear()
        self.batch_limits.clear()
