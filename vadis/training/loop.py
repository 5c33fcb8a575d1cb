"""The training loop, in the order in which things happen.

``train`` is the road: go on or begin, then step after step, validate and save when it is time. ``_Run`` below it says
what each of these means. SGD with momentum, synchronous over all processes (paper, section 2.5); what the numbers are
is in ``recipes``, which clip comes when in ``order``.
"""

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from vadis.device import NoMemoryError, release, runs_out_of_memory
from vadis.errors import UsageError, VadisError
from vadis.training import checkpoint, state
from vadis.training.distributed import Process
from vadis.training.log import Event, Failed, Log, MemoryShort, Resumed, Saved, StepDone, Validated, open_log
from vadis.training.recipes import Recipe
from vadis.training.sampler import (
    Clip,
    ClipDataset,
    ClipOrder,
    derived_seed,
    micro_batches,
    share_of_step,
    stream_clips,
)
from vadis.training.state import Progress, RunningAverages, State
from vadis.training.stopping import unless_stopped
from vadis.training.validation import KeptState, Stopped, Validate, Validation, clip_losses, never, stack_clips

SMOOTHING = 0.95  # share of a smoothed value that one step keeps: about the last 20 steps
NAMES_SHOWN = 6  # clips in a message; the log has them all


@dataclass(frozen=True)
class Settings:
    """How a run is computed; nothing in it changes what is learnt.

    Attributes:
        workers: processes that load clips, per training process; 0 loads them in between.
        checkpoint_seconds: between checkpoints; 0 saves after every step.
        resume: go on with what lies in the folder, or begin where nothing does.
        allow_inexact: go on although recipe, data, processes, threads, device or PyTorch have changed.
    """

    workers: int = 0
    checkpoint_seconds: float = 600.0
    resume: bool = False
    allow_inexact: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: steps done in all.
        validation: the last one of this process.
        stopped_by: the signal that ended it early, after a checkpoint; the network is then as after ``step`` steps.
        kept: which state the network holds at the end.
    """

    step: int
    validation: Validation | None
    stopped_by: int = 0
    kept: KeptState | None = None


def train(
    network: nn.Module,
    clips: ClipDataset,
    recipe: Recipe,
    folder: Path,
    *,
    labels: Sequence[str],
    data_sha256: str,
    process: Process,
    validate: Validate | None = None,
    settings: Settings = Settings(),
    report: Callable[[Event], None] = lambda event: None,
    stop_requested: Callable[[], int] = never,
) -> Outcome:
    """Train ``network``, in place, by ``recipe``; every process of a distributed run calls this alike.

    Args:
        network: takes (B, C, T, H, W), gives logits (B, classes, steps); moved to the device of ``process``. At the
            end it is as it was at the validation with the lowest loss; without any, as after the last step.
        clips: what it learns from.
        folder: of the run: log and checkpoints.
        labels: the class names, in the order of the clips' class numbers.
        data_sha256: of the list of clips: a run does not go on with another list.
        validate: tells loss and accuracy on other clips; called by all processes.
        report: gets every event, in the main process only.
        stop_requested: asked often; the number of a signal makes the run save a checkpoint and end early. A step in
            progress is dropped, and done again by the run that goes on. On a CPU it may still be busy in a thread when
            this returns (``stopping.is_left_alone``): end the process by ``os._exit`` then.

    Seeds PyTorch's global generators before every forward pass, from the recipe's seed and the clips' position.

    Raises:
        UsageError: where the folder holds another run, or this one cannot go on exactly.
        OutputLockedError: where another process is training there.
        VadisError: where the loss is not finite, memory or disk run out, or clips cannot be loaded; the last
            checkpoint is intact.
    """
    with ExitStack() as stack:
        if process.is_main:
            stack.enter_context(checkpoint.locked(folder))
        made_with = checkpoint.made_with(recipe, tuple(labels), data_sha256, process)
        run = _Run(network, clips, recipe, folder, made_with, process, validate, settings, report, stop_requested)
        stack.callback(run.close)
        resumed = run.begin()
        if process.is_main:
            run.log = stack.enter_context(open_log(folder, run.progress.step, run.progress.validated_at))
        if resumed:
            run.tell(resumed)
        signum = 0
        try:
            while not run.is_finished():
                run.take_step()
                if run.must_save():
                    run.save()
        except Stopped as stop:
            signum = stop.signum
        run.save()
        process.meet()  # torchrun sends SIGTERM to the others when the first one leaves
        return Outcome(run.progress.step, run.validation, signum, None if signum else run.keep_best())


@dataclass
class _Tally:
    """What the forward passes of one step gave, on this process."""

    losses: list[Tensor] = field(default_factory=list)  # (B,) each, in nats
    correct: list[Tensor] = field(default_factory=list)  # (B,) each, bool
    names: list[str] = field(default_factory=list)

    def suspects(self) -> list[str]:
        """The clips whose loss is not finite."""
        if not self.losses:
            return []
        fine = torch.cat(self.losses).isfinite().tolist()
        return [name for name, is_fine in zip(self.names, fine, strict=True) if not is_fine]


@dataclass
class _Run:
    """A run: what ``train`` was given, and what comes of it."""

    network: nn.Module
    clips: ClipDataset
    recipe: Recipe
    folder: Path
    made_with: dict[str, Any]
    process: Process
    validator: Validate | None
    settings: Settings
    report: Callable[[Event], None]
    stop_requested: Callable[[], int]
    log: Log | None = None  # of the main process
    validation: Validation | None = None
    stream: Generator[Clip, None, None] | None = None
    pace: float | None = None  # seconds per step, smoothed
    is_left_alone: bool = False  # a pass goes on although the run has been stopped

    def __post_init__(self) -> None:
        if not len(self.clips):
            raise UsageError("there are no clips to learn from", hint="give examples of the split train")
        self.share = len(share_of_step(self.recipe, 0, self.process.rank, self.process.world_size))
        self.least = getattr(self.network, "min_batch_size", 1)  # that it can learn from at once
        if self._fewest_at_once(self.recipe.micro_batch) < self.least:
            raise UsageError(
                f"this architecture learns from {self.least} clips at once, at least",
                hint="choose a batch_size that is a multiple of micro_batch",
            )
        self.network.to(self.process.device)
        self.state = State(self.network, self.recipe, min(self.recipe.micro_batch, self.share))
        self.averages = RunningAverages(self.network)
        self.saved: tuple[int, int] | None = None  # (step, validated_at) of the last checkpoint
        self.saved_seconds = time.monotonic()

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.state.progress

    def begin(self) -> Resumed | None:
        """Begin, or take everything from the newest undamaged checkpoint; all processes then agree."""
        resumed = self._resume() if self.settings.resume else None
        if self.process.is_main and not self.settings.resume:
            checkpoint.refuse_another_run(self.folder)
        self.process.copy_main(self.network)
        self._start_clips()
        return resumed

    def _resume(self) -> Resumed | None:
        allow = self.settings.allow_inexact
        found = checkpoint.find_resumable(self.folder, self.made_with, self.process, allow_inexact=allow)
        if found is None:
            return None
        loaded, resumed = found
        self.state.load(loaded)
        self.saved = (self.progress.step, self.progress.validated_at)
        if loaded.state["made_with"]["data_sha256"] != self.made_with["data_sha256"]:
            self.state.forget_best()
        recipe_before = loaded.state["made_with"]["recipe"]
        if recipe_before["micro_batch"] != self.recipe.micro_batch or self.progress.micro_batch > self.share:
            self.progress.micro_batch = min(self.recipe.micro_batch, self.share)
        return resumed

    def _start_clips(self) -> None:
        """Load clips from the next step on."""
        size, (rank, world_size) = len(self.clips), (self.process.rank, self.process.world_size)
        order = ClipOrder(size, self.recipe, self.progress.step, rank, world_size)
        on_cuda = self.process.device.type == "cuda"
        self.close()
        self.stream = stream_clips(self.clips, order, self.settings.workers, pin_memory=on_cuda)

    def close(self) -> None:
        """End the processes that load clips."""
        if self.stream is not None and not self.is_left_alone:  # else it is busy, and ends with the process
            self.stream.close()

    def is_finished(self) -> bool:
        """Whether there is nothing left to do, after a validation where it is time for one."""
        if self.must_validate():
            self.save()
            self.validate()
        return state.is_finished(self.recipe, self.progress.step, self.progress.plateau)

    def must_validate(self) -> bool:
        """Whether it is time, and not done yet."""
        step, every = self.progress.step, self.recipe.validate_every
        is_time = step == self.recipe.steps or (every > 0 and step % every == 0)
        return self.validator is not None and is_time and self.progress.validated_at < step

    def validate(self) -> None:
        """Ask how good the network is, and let the schedule know."""
        assert self.validator is not None
        self.network.eval()
        self.validation = self.process.from_main(self.validator(self.network))
        step, before, found = self.progress.step, self.progress.plateau, self.validation
        self.progress.plateau = state.after_validation(self.recipe, before, found.loss)
        self.progress.validated_at = step
        is_best = self.state.keep_if_best(found.loss, found.accuracy)
        self.tell(Validated(step, found.loss, found.accuracy, self.state.learning_rate(), is_best))

    def keep_best(self) -> KeptState:
        """Make the network what it was at its best validation, or leave it as it is where there was none."""
        now = self.progress
        self.state.restore_best()
        if now.best_at is None:
            return KeptState(now.step, now.step, None)
        return KeptState(now.best_at, now.step, Validation(now.best_loss, now.best_accuracy))

    def take_step(self) -> None:
        """One update from ``batch_size`` clips; or, where memory runs out, none, and smaller micro-batches."""
        began, tally = time.monotonic(), _Tally()
        self.network.train()
        self.state.optimizer.zero_grad(set_to_none=True)
        self.averages.begin()
        is_short = runs_out_of_memory(lambda: self._pass_clips(tally))
        suspects = tally.suspects()
        stop, short, failed = self.process.largest(self.stop_requested(), int(is_short), len(suspects))
        if stop:
            if not self.is_left_alone:
                self.averages.restore()
            raise Stopped(stop)
        if failed and not short:
            self._fail("loss", suspects)
        if short:
            self.averages.restore()
            self._halve_micro_batch()
            return
        gradients = [value.grad for value in self.state.parameters.values() if value.grad is not None]
        self.process.average(gradients)
        norm = float(get_total_norm(gradients))
        if not math.isfinite(norm):
            self._fail("gradient", tally.names)
        rate = self.state.learning_rate()
        if runs_out_of_memory(self.state.update):  # in the first step the optimiser takes its own
            raise NoMemoryError(
                f"memory ran out on {self.process.device} in the update: network, gradients and optimiser do not fit",
                hint="use a device with more memory, or train one stream or a narrower network; "
                "nothing was learnt in this step",
            )
        self.averages.finish(self.process)
        self.progress.step += 1
        self._tell_step(tally, rate, norm, time.monotonic() - began)

    def _pass_clips(self, tally: _Tally) -> None:
        """Forward and backward, micro-batch by micro-batch: the gradients of this process's share of the step."""
        share = share_of_step(self.recipe, self.progress.step, self.process.rank, self.process.world_size)
        for piece in micro_batches(share, self.progress.micro_batch):
            if self.stop_requested():
                return
            work = partial(self._pass_piece, piece, len(share))
            found = unless_stopped(work, self.stop_requested, self.process.device)
            if found is None:
                self.is_left_alone = True
                return
            names, losses, correct = found
            self.averages.add(len(piece) / len(share))
            tally.names += names
            tally.losses.append(losses)
            tally.correct.append(correct)

    def _pass_piece(self, piece: range, num_clips: int) -> tuple[list[str], Tensor, Tensor]:
        """Load one micro-batch of a step of ``num_clips``, forward and backward.

        Returns:
            Its clips' names, their losses (B,), and whether each was right (B,).
        """
        clips = [self._next_clip(position) for position in piece]
        self.averages.restore()
        torch.manual_seed(derived_seed(self.recipe.seed, "dropout", piece.start))
        losses, correct = clip_losses(self.network, *stack_clips(clips, self.process.device))
        (losses.sum() / num_clips).backward()  # type: ignore[no-untyped-call]
        return [clip.name for clip in clips], losses.detach(), correct

    def _next_clip(self, position: int) -> Clip:
        assert self.stream is not None
        clip = next(self.stream)
        assert clip.position == position
        return clip

    def _fewest_at_once(self, micro_batch: int) -> int:
        """The size of the smallest piece of a step."""
        return min(len(piece) for piece in micro_batches(range(self.share), micro_batch))

    def _halve_micro_batch(self) -> None:
        before = self.progress.micro_batch
        if before == 1 or self._fewest_at_once(before // 2) < self.least:
            clips = "a single clip" if before == 1 else f"{before} clips"
            raise VadisError(f"memory ran out with {clips} at a time", hint="use a device with more memory")
        self.progress.micro_batch = before // 2
        self.state.optimizer.zero_grad(set_to_none=True)
        release(self.process.device)
        self.tell(MemoryShort(self.progress.step, before // 2, before, self.recipe.batch_size))
        self._start_clips()

    def _fail(self, what: str, suspects: list[str]) -> NoReturn:
        """End the run before the update, on all processes, naming the clips of all."""
        names, step = self.process.gather(suspects), self.progress.step + 1
        self.tell(Failed(step, what, tuple(names)))
        shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" * (len(names) > NAMES_SHOWN))
        raise VadisError(
            f"the {what} of step {step} is not finite, with the clips {shown}",
            hint="look at these clips, or lower the learning rate; the last checkpoint is from before",
        )

    def _tell_step(self, tally: _Tally, rate: float, norm: float, seconds: float) -> None:
        means = torch.stack([torch.cat(tally.losses).mean(), torch.cat(tally.correct).float().mean()])
        self.process.average([means])
        loss, accuracy = means.tolist()
        now = self.progress
        now.smoothed_loss = _smooth(now.smoothed_loss, loss, now.step)
        now.smoothed_accuracy = _smooth(now.smoothed_accuracy, accuracy, now.step)
        self.pace = _smooth(self.pace, seconds, now.step)
        event = StepDone(
            step=now.step,
            steps=self.recipe.steps,
            epoch=now.step * self.recipe.batch_size / len(self.clips),
            loss=loss,
            smoothed_loss=now.smoothed_loss,
            smoothed_accuracy=now.smoothed_accuracy,
            learning_rate=rate,
            gradient_norm=norm,
            clips_per_second=self.recipe.batch_size / seconds,
            seconds_left=(self.recipe.steps - now.step) * self.pace,
        )
        self.tell(event)

    def must_save(self) -> bool:
        """Whether the last checkpoint is old enough; the main process decides, and no other waits for it."""
        return time.monotonic() - self.saved_seconds >= self.settings.checkpoint_seconds

    def save(self) -> None:
        """Write a checkpoint, unless this very state has one."""
        now = (self.progress.step, self.progress.validated_at)
        if not self.process.is_main or self.saved == now:
            return
        # What is left alone may change the running averages while they are written; nothing else.
        before = self.averages.before() if self.is_left_alone else {}
        state = self.state.to_checkpoint(self.made_with, before)
        path = checkpoint.save_checkpoint(checkpoint.checkpoints_in(self.folder), state)
        self.saved, self.saved_seconds = now, time.monotonic()
        self.tell(Saved(self.progress.step, str(path), sum(file.stat().st_size for file in path.iterdir())))

    def tell(self, event: Event) -> None:
        """Into the log, and to whoever watches; in the main process."""
        if self.process.is_main:
            if self.log is not None:
                self.log.write(event)
            self.report(event)


def _smooth(before: float | None, value: float, count: int) -> float:
    """A mean over recent values; over all of them as long as they are few, so that the first does not weigh more."""
    kept = min(SMOOTHING, 1 - 1 / count)
    return value if before is None else kept * before + (1 - kept) * value
