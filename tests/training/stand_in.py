"""A network and a dataset so small that a training run takes milliseconds, and yet have all that a real one has."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vadis.training.distributed import Process
from vadis.training.loader import derived_seed
from vadis.training.loop import Context, KeptState, StopRequested, Trainer, validate_clips
from vadis.training.recipes import Recipe

LABELS = ("dark", "bright", "flickering")
ALONE = Process(torch.device("cpu"))
RECIPE = Recipe(
    name="tiny",
    batch_size=4,
    micro_batch=2,
    steps=12,
    schedule="plateau",
    learning_rate=0.05,
    plateau_patience=1,
    validate_every=5,
    batch_norm_decay=0.9,
    clip_frames=4,
    seed=3,
)


class TinyNetwork(nn.Module):
    """Convolution, batch norm, ReLU, dropout, a linear layer at every step: (B, 2, 4, 6, 6) → (B, 3, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 5, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(5, eps=1e-3)
        self.norm.weight.requires_grad_(False)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Conv3d(5, len(LABELS), 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).mean(dim=(3, 4), keepdim=True)  # (B, 5, T, 1, 1)
        logits: Tensor = self.head(self.dropout(x)).flatten(2)  # (B, 3, T)
        return logits


class ForgetfulNetwork(TinyNetwork):
    """Runs out of memory with more than two clips, forward or backward, as CUDA would say it."""

    def __init__(self, where: str, limit: int = 2) -> None:
        torch.manual_seed(1)
        super().__init__()
        self.where, self.limit = where, limit

    def forward(self, x):
        if self.training and len(x) > self.limit and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        logits = super().forward(x)
        if len(x) > self.limit and self.training:
            logits.register_hook(self._refuse)
        return logits

    def _refuse(self, gradient):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")


class TinyClips:
    """Noise around a level that tells the class; every epoch shows other noise."""

    def __init__(self, size: int = 10, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def clip(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], int, str]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch, index))
        label = index % len(LABELS)
        level = torch.tensor([[-0.5] * 4, [0.5] * 4, [-0.5, 0.5, -0.5, 0.5]][label]).view(1, 4, 1, 1)
        return (level + 0.3 * torch.randn(2, 4, 6, 6, generator=generator),), label, f"clip-{index}.avi"


def tiny_network(seed: int = 1) -> TinyNetwork:
    torch.manual_seed(seed)
    return TinyNetwork()


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after which step, by which signal, and which state it kept."""

    step: int
    stopped_by: int
    kept: KeptState | None


def run_tiny(folder: Path, network: nn.Module | None = None, **changes) -> tuple[nn.Module, Outcome, list]:
    """A run in ``folder`` that validates; ``changes`` are fields of ``Trainer``, of its recipe or of its context."""
    network = network or tiny_network()
    recipe = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
    settings = {name: changes.pop(name) for name in list(changes) if name in Context.__dataclass_fields__}
    events: list = []
    context = Context(**{"process": ALONE, "report": events.append, **settings})
    arguments = {
        "clips": TinyClips(),
        "labels": LABELS,
        "data_sha256": "0" * 64,
        "validator": lambda trained: validate_clips(trained, TinyClips(7, seed=9), Context(context.process), 3),
        **changes,
    }
    trainer = Trainer(network, recipe=replace(RECIPE, **recipe), folder=folder, context=context, **arguments)
    kept, signum = None, 0
    try:
        kept = trainer.train()
    except StopRequested as stop:
        (signum,) = stop.args
    return network, Outcome(trainer.progress.step, signum, kept), events


def digest(network: nn.Module) -> str:
    """The SHA-256 of all parameters and buffers."""
    found = hashlib.sha256()
    for key, value in network.state_dict().items():
        found.update(key.encode())
        found.update(value.cpu().numpy().tobytes())
    return found.hexdigest()
