"""The training loop: SGD with momentum, synchronous over all processes (paper, section 2.5).

What the numbers are is in ``recipes``, which clip comes when in ``loader``.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vadis.datasets.dataset import shorten
from vadis.device import NoMemoryError, release, runs_out_of_memory
from vadis.errors import UsageError, VadisError
from vadis.files import locked, os_errors_as
from vadis.models.card import EXACT, PRECISIONS
from vadis.training import checkpoint, loader
from vadis.training.distributed import Process, run_unless_stopped
from vadis.training.log import Event, MemoryShort, Resumed, Saved, StepDone, Validated, open_log
from vadis.training.recipes import Recipe, after_validation, is_finished

SMOOTHING = 0.95  # share of a smoothed value that one step keeps: about the last 20 steps


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

    def __str__(self) -> str:
        if self.validation is None:
            return f"the state after the last step, {self.steps:,}; no validation compared it with others"
        found = f"{self.validation.loss:.3f}, accuracy {self.validation.accuracy:.1%}"
        return f"the state after step {self.step:,} of {self.steps:,}, which has the lowest validation loss: {found}"


class StopRequested(Exception):
    """The run was asked to stop; its argument is the signal that said so."""


@dataclass(frozen=True)
class Context:
    """Where and how a run is computed; nothing in it changes what is learnt."""

    process: Process
    workers: int = 0  # processes that load clips, per training process; 0 loads them in between
    checkpoint_seconds: float = 600.0  # between checkpoints; 0 saves after every step
    resume: bool = False  # go on with what lies in the folder, or begin where nothing does
    allow_inexact: bool = False  # go on although recipe, data, processes, threads, device or PyTorch have changed
    report: Callable[[Event], None] = lambda event: None  # gets every event, in the main process only
    first_pass: Callable[[float], None] = lambda seconds: None  # gets what it took per clip, in the main process
    stop_requested: Callable[[], int] = lambda: 0  # called often: the number of a signal that asks to stop, or 0


# Of a micro-batch: the names of its clips, losses (B,), and whether each clip was right (B,)
MicroBatchResult = tuple[list[str], Tensor, Tensor]


@dataclass
class Trainer:
    """One training run of one network, in place; every process of a distributed run does it alike.

    Seeds PyTorch's global generators before every forward pass, from the recipe's seed and the clips' position.
    """

    network: nn.Module  # takes (B, C, T, H, W), gives logits (B, classes, steps)
    clips: loader.ClipDataset  # the training set
    validator: Callable[[nn.Module], Validation] | None  # gets the network in evaluation mode, on all processes
    recipe: Recipe
    folder: Path  # for log and checkpoints
    labels: Sequence[str]  # in the order of the clips' class numbers
    data_sha256: str  # of the list of clips: a run does not go on with another list
    context: Context

    def __post_init__(self) -> None:
        if not len(self.clips):
            raise UsageError("there are no clips to learn from", hint="give examples of the split train")
        self.process = self.context.process
        self.clips_per_process = len(loader.share_of_step(self.recipe, 0, self.process.rank, self.process.world_size))
        self.min_batch_size: int = getattr(self.network, "min_batch_size", 1)  # that it can learn from at once
        if self._min_micro_batch(self.recipe.micro_batch) < self.min_batch_size:
            message = f"this architecture learns from {self.min_batch_size} clips at once, at least"
            raise UsageError(message, hint="choose a batch_size that is a multiple of micro_batch")
        self.made_with = checkpoint.run_conditions(self.recipe, tuple(self.labels), self.data_sha256, self.process)
        self.network.to(self.process.device)
        self.state = checkpoint.State(self.network, self.recipe, min(self.recipe.micro_batch, self.clips_per_process))
        self.averages = checkpoint.RunningAverages(self.network, self.state.frozen)
        self.log: Callable[[Event], None] | None = None  # of the main process
        self.stream: Generator[loader.TrainingClip, None, None] | None = None
        self.step_seconds: float | None = None  # smoothed
        self.pass_seconds = 0.0  # of the last pass, for each of its clips
        self.has_abandoned_pass = False  # a pass goes on although the run has been stopped
        self.saved: tuple[int, int] | None = None  # (step, validated_at) of the last checkpoint
        self.saved_seconds = time.monotonic()

    def train(self) -> KeptState:
        """Train until all is done; leave the network as it was at the validation with the lowest loss, or at the end.

        Raise StopRequested after a checkpoint; a step in progress is dropped, and the process is to end by
        ``exit_now``. Raise UsageError where the folder holds another run, or this one cannot go on exactly, and
        VadisError where another process trains there, or loss, memory, disk or clips fail.
        """
        with ExitStack() as stack:
            if self.process.is_main:
                with os_errors_as(UsageError, f"{self.folder} cannot hold a training run"):
                    self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.folder, f"is training in {self.folder}"))
            stack.callback(self.close)
            resumed = self.begin()
            if self.process.is_main:
                self.log = stack.enter_context(open_log(self.folder, self.progress.step, self.progress.validated_at))
            if resumed:
                self.emit(resumed)
            stop = None
            try:
                while not self.is_finished():
                    self.take_step()
                    if time.monotonic() - self.saved_seconds >= self.context.checkpoint_seconds:
                        self.save()
            except StopRequested as requested:
                stop = requested
            self.save()
            self.process.barrier()  # torchrun sends SIGTERM to the others when the first one exits
            if stop is not None:
                raise stop
            return self.keep_best()

    @property
    def progress(self) -> checkpoint.TrainingProgress:
        return self.state.progress

    def begin(self) -> Resumed | None:
        """Begin, or take everything from the newest undamaged checkpoint; all processes then agree."""
        resumed, context = None, self.context
        if not context.resume:
            if self.process.is_main and checkpoint.list_checkpoints(self.folder / checkpoint.CHECKPOINTS_NAME):
                hint = "go on with it by `resume=True`, or choose another folder"
                raise UsageError(f"{self.folder} holds a training run already", hint)
        elif found := checkpoint.find_resumable(self.folder, self.made_with, self.process, context.allow_inexact):
            loaded, resumed = found
            before = loaded.state["made_with"]
            self.state.load(loaded)
            now = self.progress
            if before["clips"] != self.made_with["clips"]:  # the validations before were on other clips
                now.best, now.plateau = None, replace(now.plateau, best=None, stale=0)
            self.saved = (now.step, now.validated_at)
            is_same = before["micro_batch"] == self.recipe.micro_batch
            now.micro_batch = min(now.micro_batch if is_same else self.recipe.micro_batch, self.clips_per_process)
        self.process.broadcast(self.network)
        self._start_clips()
        return resumed

    def _start_clips(self) -> None:
        process = self.process
        order = loader.sample_keys(len(self.clips), self.recipe, self.progress.step, process.rank, process.world_size)
        self.close()
        on_cuda = process.device.type == "cuda"
        self.stream = loader.stream_clips(self.clips, order, self.context.workers, pin_memory=on_cuda)

    def close(self) -> None:
        if self.stream is not None and not self.has_abandoned_pass:  # else it is busy, and ends with the process
            self.stream.close()

    def is_finished(self) -> bool:
        """Return whether there is nothing left to do, after a validation where it is time for one."""
        step, every = self.progress.step, self.recipe.validate_every
        is_time = step == self.recipe.steps or (every > 0 and step % every == 0)
        if self.validator is not None and is_time and self.progress.validated_at < step:
            self.save()
            self.validate(self.validator)
        return is_finished(self.recipe, step, self.progress.plateau)

    def validate(self, validator: Callable[[nn.Module], Validation]) -> None:
        """Measure how good the network is, and let the schedule know."""
        network, now = self.state.average.eval(), self.progress
        found = self.process.gather(validator(network))[0]
        now.plateau, now.validated_at = after_validation(self.recipe, now.plateau, found.loss), now.step
        if is_best := found.loss < (now.best[1] if now.best else math.inf):
            now.best = (now.step, found.loss, found.accuracy)
            self.state.best = {key: value.cpu().clone() for key, value in network.state_dict().items()}
        self.emit(Validated(now.step, found.loss, found.accuracy, self.state.learning_rate(), is_best))

    def keep_best(self) -> KeptState:
        """Make the network what it was at its best validation, or leave it as it is where there was none."""
        now = self.progress
        if now.best is None:
            self.network.load_state_dict(self.state.average.state_dict())
            return KeptState(now.step, now.step, None)
        self.network.load_state_dict(self.state.best)
        step, loss, accuracy = now.best
        return KeptState(step, now.step, Validation(loss, accuracy))

    def take_step(self) -> None:
        """Do one update from ``batch_size`` clips; or, where memory runs out, none, and take smaller micro-batches."""
        began, results = time.monotonic(), list[MicroBatchResult]()
        self.state.begin_step()
        self.averages.begin()
        out_of_memory = runs_out_of_memory(lambda: self._forward_backward(results))
        losses = [pair for names, losses, _ in results for pair in zip(names, losses.isfinite().tolist(), strict=True)]
        suspects = [name for name, is_finite in losses if not is_finite]
        stop, any_out_of_memory, failed = self.process.maximum(
            self.context.stop_requested(), int(out_of_memory), len(suspects)
        )
        if (stop or any_out_of_memory) and not self.has_abandoned_pass:
            self.averages.restore()
        if stop:
            raise StopRequested(stop)
        if any_out_of_memory:
            self._halve_micro_batch()
            return
        if failed:
            self._fail("loss", suspects)
        gradients = [value.grad for value in self.state.parameters.values() if value.grad is not None]
        self.process.average(gradients)
        norm = get_total_norm(gradients)
        if not norm.isfinite():
            self._fail("gradient", [name for names, _, _ in results for name in names])
        if self.recipe.clip_norm:
            clip_grads_with_norm_(self.state.parameters.values(), self.recipe.clip_norm, norm)
        rate = self.state.learning_rate()
        if runs_out_of_memory(self.state.update):  # in the first step the optimiser takes its own
            message = f"memory ran out on {self.process.device} in the update of the parameters"
            raise NoMemoryError(message, "use a device with more memory, or train one stream or a narrower network")
        self.averages.finish(self.process)
        self.progress.step += 1
        self.state.move_average()
        self._emit_step(results, rate, float(norm), time.monotonic() - began)

    def _forward_backward(self, results: list[MicroBatchResult]) -> None:
        """Forward and backward, micro-batch by micro-batch: the gradients of this process's share of the step."""
        positions = loader.share_of_step(self.recipe, self.progress.step, self.process.rank, self.process.world_size)
        for piece in loader.micro_batches(positions, self.progress.micro_batch):
            if self.context.stop_requested():
                return
            work = partial(self._run_micro_batch, piece, len(positions))
            result = run_unless_stopped(work, self.context.stop_requested, self.process.device)
            if result is None:
                self.has_abandoned_pass = True
                return
            self.averages.add(len(piece) / len(positions))
            results.append(result)
            if self.step_seconds is None and len(results) == 1 and self.process.is_main:
                self.context.first_pass(self.pass_seconds)

    def _run_micro_batch(self, piece: range, num_clips: int) -> MicroBatchResult:
        assert self.stream is not None
        clips = [next(self.stream) for _ in piece]
        assert [clip.position for clip in clips] == list(piece)
        self.averages.restore()
        torch.manual_seed(loader.derived_seed(self.recipe.seed, "dropout", piece.start))
        began, batch = time.monotonic(), stack_clips(clips, self.process.device)
        smoothing, precision = self.recipe.label_smoothing, self.recipe.precision
        losses, correct = clip_losses(self.network, *batch, label_smoothing=smoothing, precision=precision)
        (losses.sum() / num_clips).backward()  # type: ignore[no-untyped-call]
        self.pass_seconds = (time.monotonic() - began) / len(clips)
        return [clip.name for clip in clips], losses.detach(), correct

    def _min_micro_batch(self, micro_batch: int) -> int:
        return min(len(piece) for piece in loader.micro_batches(range(self.clips_per_process), micro_batch))

    def _halve_micro_batch(self) -> None:
        before = self.progress.micro_batch
        if before == 1 or self._min_micro_batch(before // 2) < self.min_batch_size:
            clips = "a single clip" if before == 1 else f"{before} clips"
            raise VadisError(f"memory ran out with {clips} at a time", hint="use a device with more memory")
        self.progress.micro_batch = before // 2
        self.state.optimizer.zero_grad(set_to_none=True)
        release(self.process.device)
        self.emit(MemoryShort(self.progress.step, before // 2, before, self.recipe.batch_size))
        self._start_clips()

    def _fail(self, what: str, suspects: list[str]) -> NoReturn:
        """End the run before the update, on all processes, naming the clips of all."""
        names, step = [name for part in self.process.gather(suspects) for name in part], self.progress.step + 1
        hint = "look at these clips, or lower the learning rate; the last checkpoint is from before"
        raise VadisError(f"the {what} of step {step} is not finite, with the clips {shorten(names)}", hint)

    def _emit_step(self, results: list[MicroBatchResult], rate: float, norm: float, seconds: float) -> None:
        _, losses, correct = zip(*results, strict=True)
        means = torch.stack([torch.cat(losses).mean(), torch.cat(correct).float().mean()])
        self.process.average([means])
        loss, accuracy = means.tolist()
        now, steps, size = self.progress, self.recipe.steps, self.recipe.batch_size
        now.smoothed_loss = _smooth(now.smoothed_loss, loss, now.step)
        now.smoothed_accuracy = _smooth(now.smoothed_accuracy, accuracy, now.step)
        self.step_seconds = _smooth(self.step_seconds, seconds, now.step)
        epoch, left = now.step * size / len(self.clips), (steps - now.step) * self.step_seconds
        values = (loss, now.smoothed_loss, now.smoothed_accuracy, rate, norm, size / seconds, left)
        self.emit(StepDone(now.step, steps, epoch, *values))

    def save(self) -> None:
        """Write a checkpoint, unless this very state has one; the main process decides, and no other waits for it."""
        now = (self.progress.step, self.progress.validated_at)
        if not self.process.is_main or self.saved == now:
            return
        # An abandoned pass may change the running averages while they are written; nothing else.
        before = self.averages.before if self.has_abandoned_pass else {}
        state = self.state.to_checkpoint(self.made_with, before)
        path = checkpoint.save_checkpoint(self.folder / checkpoint.CHECKPOINTS_NAME, state)
        self.saved, self.saved_seconds = now, time.monotonic()
        self.emit(Saved(self.progress.step, str(path)))

    def emit(self, event: Event) -> None:
        """Write ``event`` into the log, and pass it on; in the main process."""
        if self.process.is_main:
            if self.log is not None:
                self.log(event)
            self.context.report(event)


def _smooth(before: float | None, value: float, count: int) -> float:
    """Return a mean over recent values; over all as long as they are few, so that the first does not weigh more."""
    kept = min(SMOOTHING, 1 - 1 / count)
    return value if before is None else kept * before + (1 - kept) * value


def stack_clips(clips: list[loader.TrainingClip], device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Clips (C, T, H, W) → batches (B, C, T, H, W), channels last, one per stream, unpacked; and their classes (B,)."""

    def stack(clips: tuple[Tensor, ...]) -> Tensor:
        moved = [loader.unpack(clip.to(device, non_blocking=True)) for clip in clips]
        if clips[0].ndim != 4:
            return torch.stack(moved)
        shape, layout = (len(clips), *clips[0].shape), torch.channels_last_3d
        return torch.stack(moved, out=torch.empty(shape, dtype=moved[0].dtype, device=device, memory_format=layout))

    streams = zip(*(clip.tensors for clip in clips), strict=True)
    return [stack(each) for each in streams], torch.tensor([clip.label for clip in clips], device=device)


def clip_losses(
    network: nn.Module,
    batches: Sequence[Tensor],
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    precision: str = EXACT,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each clip in nats, float32 (B,), and whether its class scored highest, bool (B,).

    The network's products are computed in ``precision``, its statistics and what follows it in float32.
    The network's ``training_steps``, in evaluation its ``test_steps``, say how steps in time become one prediction:
    "mean", "last", or "each" (the loss is the mean of all steps' losses, the prediction the last step's).
    """
    with torch.autocast(labels.device.type, PRECISIONS[precision], enabled=precision != EXACT):
        logits = network(*batches)  # (B, classes, steps)
    logits = logits.float()
    time_reduction = getattr(network, "training_steps" if network.training else "test_steps", "mean")
    cross_entropy = partial(functional.cross_entropy, reduction="none", label_smoothing=label_smoothing)
    answer = logits.mean(dim=2) if time_reduction == "mean" else logits[:, :, -1]  # (B, classes)
    if time_reduction == "each":
        every = labels[:, None].expand(-1, logits.shape[2])  # (B, steps)
        losses = cross_entropy(logits, every).mean(dim=1)
    else:
        losses = cross_entropy(answer, labels)
    return losses, answer.detach().argmax(dim=1) == labels


@torch.no_grad()
def validate_clips(network: nn.Module, clips: loader.ClipDataset, context: Context, batch_size: int) -> Validation:
    """Return loss and accuracy over ``clips``, shared out to processes; StopRequested on all where one is to stop."""
    network.eval()
    process = context.process
    share = -(-len(clips) // process.world_size)
    own = range(share * process.rank, min(share * (process.rank + 1), len(clips)))
    stream = loader.stream_clips(clips, [(index, 0, index) for index in own], context.workers)
    totals = torch.zeros(2, dtype=torch.float64)

    def add_batch() -> None:
        if batch := list(islice(stream, batch_size)):
            losses, correct = clip_losses(network, *stack_clips(batch, process.device))
            totals.add_(torch.stack([losses.double().sum(), correct.double().sum()]).cpu())

    for _ in range(0, share, batch_size):  # as many rounds on every process
        run_unless_stopped(add_batch, context.stop_requested, process.device)
        (signum,) = process.maximum(context.stop_requested())
        if signum:
            raise StopRequested(signum)
    mean = totals.to(process.device) / len(clips)
    process.average([mean])
    loss, accuracy = (mean * process.world_size).tolist()
    return Validation(loss, accuracy)
