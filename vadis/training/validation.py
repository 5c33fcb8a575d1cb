"""How good a network is on clips that it does not learn from: the loss that steers the learning rate.

And, before the first step of a run, how long it will take: one pass of one clip, and what follows from it.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vadis.device import release, runs_out_of_memory
from vadis.training.distributed import Process, run_unless_stopped
from vadis.training.loader import ClipDataset, TrainingClip, micro_batches, stream_clips, unpack
from vadis.training.log import Event
from vadis.training.recipes import Recipe

FORWARD_SHARE = 1 / 3  # of a pass forward and backward: the backward one takes twice as long


@dataclass(frozen=True)
class Validation:
    """``loss``: mean cross-entropy in nats; ``accuracy``: share of clips whose class scored highest."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class KeptState:
    """Which state of a run its network holds: that after ``step`` of ``steps`` steps."""

    step: int
    steps: int
    validation: Validation | None  # the one with the lowest loss; None where there was none: it is the last state

    def to_json(self) -> dict[str, Any]:
        """Return it as a model's card has it."""
        chosen_by = "last" if self.validation is None else "validation loss"
        values = {"step": self.step, "steps": self.steps, "chosen_by": chosen_by}
        return values if self.validation is None else {**values, "validation": asdict(self.validation)}

    def __str__(self) -> str:
        if self.validation is None:
            return f"the state after the last step, {self.steps:,}; no validation compared it with others"
        return (
            f"the state after step {self.step:,} of {self.steps:,}, which has the lowest validation loss: "
            f"{self.validation.loss:.3f}, accuracy {self.validation.accuracy:.1%}"
        )


class StopRequested(Exception):
    """The run was asked to stop; ``signum`` is the signal that said so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@dataclass(frozen=True)
class Context:
    """Where and how a run is computed; nothing in it changes what is learnt."""

    process: Process
    workers: int = 0  # processes that load clips, per training process; 0 loads them in between
    checkpoint_seconds: float = 600.0  # between checkpoints; 0 saves after every step
    resume: bool = False  # go on with what lies in the folder, or begin where nothing does
    allow_inexact: bool = False  # go on although recipe, data, processes, threads, device or PyTorch have changed
    report: Callable[[Event], None] = lambda event: None  # gets every event, in the main process only
    stop_requested: Callable[[], int] = lambda: 0  # called often: the number of a signal that asks to stop, or 0


def stack_clips(clips: list[TrainingClip], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Clips (C, T, H, W) → batches (B, C, T, H, W), one per stream, unpacked, and their classes (B,), int64."""
    streams = zip(*(clip.tensors for clip in clips), strict=True)
    return [_stack(each, device) for each in streams], torch.tensor([clip.label for clip in clips], device=device)


def _stack(clips: tuple[Tensor, ...], device: torch.device) -> Tensor:
    """Return one batch of ``clips``, laid out as 3D networks take it: they need not copy it once more."""
    moved = [unpack(clip.to(device, non_blocking=True)) for clip in clips]
    if clips[0].ndim != 4:
        return torch.stack(moved)
    shape, layout = (len(clips), *clips[0].shape), torch.channels_last_3d
    return torch.stack(moved, out=torch.empty(shape, dtype=moved[0].dtype, device=device, memory_format=layout))


def clip_losses(
    network: nn.Module, batches: Sequence[Tensor], labels: Tensor, precision: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each clip in nats, float32 (B,), and whether its class scored highest, bool (B,).

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
def validate_clips(network: nn.Module, clips: ClipDataset, context: Context, batch_size: int) -> Validation:
    """Return the mean loss and accuracy over every clip of ``clips`` (their epoch 0), shared out to the processes.

    Raises Stopped on all processes where a stop is requested on one.
    """
    network.eval()
    process = context.process
    each = -(-len(clips) // process.world_size)
    own = range(each * process.rank, min(each * (process.rank + 1), len(clips)))
    stream = stream_clips(clips, [(index, 0, index) for index in own], context.workers)
    totals = torch.zeros(2, dtype=torch.float64)

    def raise_if_stopped() -> None:
        (signum,) = process.maximum(context.stop_requested())
        if signum:
            raise StopRequested(signum)

    def next_sums(number: int) -> Tensor:
        batch = [next(stream) for _ in range(number)]
        losses, correct = clip_losses(network, *stack_clips(batch, process.device))
        return torch.stack([losses.double().sum(), correct.double().sum()]).cpu()

    for round_ in micro_batches(range(each), batch_size):  # as many rounds on every process
        raise_if_stopped()
        number = sum(place < len(own) for place in round_)
        work = partial(next_sums, number)
        sums = run_unless_stopped(work, context.stop_requested, process.device) if number else None
        totals += 0 if sums is None else sums
    raise_if_stopped()
    mean = totals.to(process.device) / len(clips)
    process.average([mean])
    loss, accuracy = (mean * process.world_size).tolist()
    return Validation(loss, accuracy)


def validator_on(clips: ClipDataset, recipe: Recipe, context: Context) -> Callable[[nn.Module], Validation]:
    """Return what validates a network on ``clips``."""
    return lambda network: validate_clips(network, clips, context, recipe.micro_batch)


@dataclass(frozen=True)
class Pace:
    """What one clip takes, in seconds: to load it, and to learn from it."""

    load_seconds: float
    learn_seconds: float

    def step_seconds(self, recipe: Recipe, num_processes: int, workers: int) -> float:
        """Return what a step takes; clips are loaded meanwhile where there are ``workers`` for it."""
        return recipe.batch_size / num_processes * self._clip_seconds(self.learn_seconds, workers)

    def run_seconds(self, recipe: Recipe, num_val: int, num_processes: int, workers: int) -> float:
        """Return what all steps take, with a validation on ``num_val`` clips as often as the recipe has it."""
        validations = 1 + (recipe.steps // recipe.validate_every if recipe.validate_every else 0)
        each = num_val / num_processes * self._clip_seconds(FORWARD_SHARE * self.learn_seconds, workers)
        return recipe.steps * self.step_seconds(recipe, num_processes, workers) + validations * each

    def _clip_seconds(self, seconds: float, workers: int) -> float:
        return max(seconds, self.load_seconds / workers) if workers else seconds + self.load_seconds


def measure_pace(network: nn.Module, clips: ClipDataset, context: Context) -> Pace | None:
    """Measure the pace on a copy of ``network``; None where memory runs out or a stop is requested.

    A GPU's first pass is not counted: it chooses its algorithms.
    """
    device, paces = context.process.device, []

    def measure() -> None:
        began = time.perf_counter()
        tensors, label, name = clips.clip(0, 0)
        loaded = time.perf_counter() - began
        learner = copy.deepcopy(network).to(device).train()
        number = getattr(network, "min_batch_size", 1)
        for _ in range(2 if device.type == "cuda" else 1):
            began = time.perf_counter()
            losses, _ = clip_losses(learner, *stack_clips([TrainingClip(0, tensors, label, name)] * number, device))
            losses.sum().backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        paces.append(Pace(loaded, (time.perf_counter() - began) / number))

    state = torch.random.get_rng_state()
    is_short = run_unless_stopped(partial(runs_out_of_memory, measure), context.stop_requested, device)
    torch.random.set_rng_state(state)
    if is_short:
        release(device)
    return None if is_short is None or not paces else paces[0]
