"""How good a network is on clips that it does not learn from: the loss that steers the learning rate."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.training.distributed import Process
from vadis.training.loader import unpacked
from vadis.training.sampler import Clip, ClipDataset, micro_batches, stream_clips
from vadis.training.stopping import unless_stopped


@dataclass(frozen=True)
class Validation:
    """``loss``: mean cross-entropy in nats; ``accuracy``: share of clips whose class scored highest."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class KeptState:
    """Which state of a run its network holds: that after ``step`` of ``steps`` steps.

    ``validation`` is that of this state, the one with the lowest loss; None where there was none: it is the last state.
    """

    step: int
    steps: int
    validation: Validation | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a model's card has it."""
        chosen_by = "last" if self.validation is None else "validation loss"
        found = {"step": self.step, "steps": self.steps, "chosen_by": chosen_by}
        return found if self.validation is None else {**found, "validation": asdict(self.validation)}

    def __str__(self) -> str:
        if self.validation is None:
            return f"the state after the last step, {self.steps:,}; no validation compared it with others"
        return (
            f"the state after step {self.step:,} of {self.steps:,}, which has the lowest validation loss: "
            f"{self.validation.loss:.3f}, accuracy {self.validation.accuracy:.1%}"
        )


Validate = Callable[[nn.Module], Validation]
"""Called by all processes, with the network in evaluation mode; all must return the same."""


class Stopped(Exception):
    """The run was asked to stop; ``signum`` is the signal that said so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def never() -> int:
    """No signal has asked the run to stop."""
    return 0


def stack_clips(clips: list[Clip], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Clips (C, T, H, W) as batches (B, C, T, H, W), one per stream, unpacked, and their classes (B,), int64."""
    streams = zip(*(clip.tensors for clip in clips), strict=True)
    batches = [_stacked(each, device) for each in streams]  # (B, C, T, H, W)
    return batches, torch.tensor([clip.label for clip in clips], device=device)


def _stacked(clips: tuple[Tensor, ...], device: torch.device) -> Tensor:
    """One batch of ``clips``, laid out as 3D networks take it: they need not copy it once more."""
    moved = [unpacked(clip.to(device, non_blocking=True)) for clip in clips]
    if clips[0].ndim != 4:
        return torch.stack(moved)
    shape, layout = (len(clips), *clips[0].shape), torch.channels_last_3d
    return torch.stack(moved, out=torch.empty(shape, dtype=moved[0].dtype, device=device, memory_format=layout))


def clip_losses(
    network: nn.Module, batches: Sequence[Tensor], labels: Tensor, precision: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each clip in nats, float32 (B,), and whether its class scored highest, bool (B,).

    What counts of the logits is what ``network`` says of itself: ``training_steps`` while it learns, else
    ``test_steps``: their mean over the steps in time, the last step, or each (the losses' mean; the answer is the last
    step's). With ``precision`` bfloat16 the network computes in it where that is safe (autocast), which takes less
    memory but more time for 3D convolutions (docs/performance.md); the loss is always in float32.
    """
    with torch.autocast(labels.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = network(*batches)  # (B, classes, steps)
    logits = logits.float()
    counts = getattr(network, "training_steps" if network.training else "test_steps", "mean")
    answer = logits.mean(dim=2) if counts == "mean" else logits[:, :, -1]  # (B, classes)
    if counts == "each":
        every = labels[:, None].expand(-1, logits.shape[2])  # (B, steps)
        losses = functional.cross_entropy(logits, every, reduction="none").mean(dim=1)
    else:
        losses = functional.cross_entropy(answer, labels, reduction="none")
    return losses, answer.detach().argmax(dim=1) == labels


@torch.no_grad()
def validate_clips(
    network: nn.Module,
    clips: ClipDataset,
    process: Process,
    *,
    batch_size: int = 6,
    workers: int = 0,
    stop_requested: Callable[[], int] = never,
) -> Validation:
    """The mean loss and accuracy over every clip of ``clips`` (their epoch 0), once, shared out to the processes.

    Raises:
        Stopped: on all processes, where ``stop_requested`` gives a signal's number on one.
    """
    network.eval()
    each = -(-len(clips) // process.world_size)
    own = range(each * process.rank, min(each * (process.rank + 1), len(clips)))
    stream = stream_clips(clips, [(index, 0, index) for index in own], workers)
    totals = torch.zeros(2, dtype=torch.float64)

    def stop_where_asked() -> None:
        (signum,) = process.largest(stop_requested())
        if signum:
            raise Stopped(signum)

    def next_sums(number: int) -> Tensor:
        batch = [next(stream) for _ in range(number)]
        losses, correct = clip_losses(network, *stack_clips(batch, process.device))
        return torch.stack([losses.double().sum(), correct.double().sum()]).cpu()

    for round_ in micro_batches(range(each), batch_size):  # as many rounds on every process
        stop_where_asked()
        number = sum(place < len(own) for place in round_)
        sums = unless_stopped(partial(next_sums, number), stop_requested, process.device) if number else None
        totals += 0 if sums is None else sums
    stop_where_asked()
    mean = totals.to(process.device) / len(clips)
    process.average([mean])
    loss, accuracy = (mean * process.world_size).tolist()
    return Validation(loss, accuracy)
