"""How good a network is on clips that it does not learn from: the loss that steers the learning rate."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.training.distributed import Process
from vadis.training.order import Clip, ClipDataset, micro_batches, stream_clips


@dataclass(frozen=True)
class Validation:
    """``loss``: mean cross-entropy in nats; ``accuracy``: share of clips whose class scored highest."""

    loss: float
    accuracy: float


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


def stack_clips(clips: list[Clip], device: torch.device) -> tuple[Tensor, Tensor]:
    """Clips (C, T, H, W) as a batch (B, C, T, H, W), and their classes (B,), int64."""
    x = torch.stack([clip.tensor.to(device, non_blocking=True) for clip in clips])  # (B, C, T, H, W)
    return x, torch.tensor([clip.label for clip in clips], device=device)


def clip_losses(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each clip in nats, float32 (B,), and whether its class scored highest, bool (B,).

    The logits of a clip are the mean over its steps in time. On CUDA the network computes in bfloat16 where that is
    safe (autocast), the loss always in float32.
    """
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=x.device.type == "cuda"):
        logits = network(x)  # (B, classes, steps)
    logits = logits.float().mean(dim=2)  # (B, classes)
    return functional.cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(dim=1) == labels


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
    for round_ in micro_batches(range(each), batch_size):  # as many rounds on every process
        (signum,) = process.largest(stop_requested())
        if signum:
            raise Stopped(signum)
        batch = [next(stream) for place in round_ if place < len(own)]
        if batch:
            losses, correct = clip_losses(network, *stack_clips(batch, process.device))
            totals += torch.stack([losses.double().sum(), correct.double().sum()]).cpu()
    mean = totals.to(process.device) / len(clips)
    process.average([mean])
    loss, accuracy = (mean * process.world_size).tolist()
    return Validation(loss, accuracy)
