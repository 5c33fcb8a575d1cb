"""What a run reports while it lasts: events, for whoever shows them, for ``log.jsonl`` and for TensorBoard.

``log.jsonl`` has one JSON object per line: ``event``, the fields of that event, and ``time`` (seconds since 1970).
TensorBoard's files are in ``tensorboard/`` beside it, those of training and of validation apart.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VadisError
from vadis.files import AppendLog, os_errors_as, write_file
from vadis.parsing import parse_json

LOG_NAME, TENSORBOARD_NAME = "log.jsonl", "tensorboard"
FLUSH_SECONDS = 30  # so old is, at most, what TensorBoard shows of a run in progress
RESUME = "go on with `resume=True`"  # what to do once the disk has room


class StepDone(NamedTuple):
    """After each step. The smoothed values are means over recent steps."""

    step: int  # done so far
    steps: int
    epoch: float
    loss: float  # mean cross-entropy, in nats
    smoothed_loss: float
    smoothed_accuracy: float  # share of training clips whose class scored highest
    learning_rate: float
    gradient_norm: float
    clips_per_second: float
    seconds_left: float


class Validated(NamedTuple):
    """After each validation."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float  # from here on
    is_best: bool


class Saved(NamedTuple):
    """After each checkpoint."""

    step: int
    path: str


class Resumed(NamedTuple):
    """Once, where a run goes on."""

    step: int
    path: str
    damaged: tuple[str, ...]  # newer checkpoints that had to be passed over, and were renamed
    differences: tuple[str, ...]  # from the run as it was: with any, it does not go on exactly


class MemoryShort(NamedTuple):
    """Memory ran out: the step is done again in smaller pieces. The batch, and so the learning, stays as it was."""

    step: int
    micro_batch: int  # from here on
    micro_batch_before: int
    batch_size: int


Event = StepDone | Validated | Saved | Resumed | MemoryShort


@contextmanager
def open_log(folder: Path, step: int, validated_at: int) -> Iterator[Callable[[Event], None]]:
    """Give a function that appends an event to the log of the run in ``folder``; numbers not finite become null.

    It goes on after ``step`` steps, the last validation after ``validated_at``: later lines and a torn one are removed.
    """
    path, last = folder / LOG_NAME, {"Validated": validated_at}
    if path.exists():
        with os_errors_as(VadisError, f"{path} cannot be written", RESUME):
            lines = [line for line, event in _read_lines(path) if event["step"] <= last.get(event["event"], step)]
            write_file(path, b"".join(lines))

    def write(event: Event) -> None:
        values = {"event": type(event).__name__, **event._asdict(), "time": round(time.time(), 3)}
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        log.append(json.dumps(values).encode("ascii") + b"\n")

    with AppendLog(path, again=RESUME) as log:
        yield write


def _read_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each line of a log with its event; a torn one, and what is no event, is left out."""
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"event", "step"} <= event.keys() and line.endswith(b"\n"):
            yield line, event


Curve = NDArray[np.float64]


class RunLog(NamedTuple):
    """A log as numbers to draw. Losses in nats, accuracies in [0, 1]; what was not finite is NaN."""

    steps: Mapping[str, Curve]  # step, loss, smoothed_accuracy and learning_rate: (steps,) each
    validations: Mapping[str, Curve]  # step, loss, accuracy and is_best: (validations,) each


def read_log(path: Path) -> RunLog:
    """Read a log that may still be written to: a torn line is left out."""
    events = [event for _, event in _read_lines(path)]

    def columns(kind: str, *names: str) -> dict[str, Curve]:
        rows = [event for event in events if event["event"] == kind]
        return {name: np.array([row.get(name) for row in rows], np.float64) for name in names}  # None becomes NaN

    return RunLog(
        columns("StepDone", "step", "loss", "smoothed_accuracy", "learning_rate"),
        columns("Validated", "step", "loss", "accuracy", "is_best"),
    )


def require_tensorboard() -> None:
    """Raise UsageError where the package is missing; imports nothing, so that it can be called before any work."""
    if find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed", hint="pip install 'vadis[tensorboard]'")


_CURVES = {  # of the events that TensorBoard draws
    "StepDone": ("loss", "smoothed_accuracy", "learning_rate", "gradient_norm", "clips_per_second"),
    "Validated": ("loss", "accuracy"),
}


@contextmanager
def tensorboard_writer(folder: Path) -> Iterator[Callable[[Event], None]]:
    """Give a function that writes the events of the run in ``folder`` for TensorBoard, no step of them twice."""
    require_tensorboard()
    path = folder.absolute() / TENSORBOARD_NAME
    writers: dict[str, Any] = {}  # by the kind of event

    def open_writers(first: Event) -> None:
        from torch.utils.tensorboard import SummaryWriter

        steps = validated_at = 0
        if isinstance(first, Resumed):  # the log ends where the run goes on: what was written of later steps is void
            steps, validated_at = first.step, int(max(read_log(folder / LOG_NAME).validations["step"], default=0))
        for kind, name, done in ("StepDone", "training", steps), ("Validated", "validation", validated_at):
            writers[kind] = SummaryWriter(path / name, purge_step=done + 1, flush_secs=FLUSH_SECONDS)

    def write(event: Event) -> None:
        with os_errors_as(VadisError, f"{path} cannot be written", RESUME):
            if not writers:
                open_writers(event)
            kind = type(event).__name__
            for name in _CURVES.get(kind, ()):
                title = name.removeprefix("smoothed_").replace("_", " ")
                writers[kind].add_scalar(title, getattr(event, name), event.step)

    try:
        yield write
    finally:
        with os_errors_as(VadisError, f"{path} cannot be written", RESUME):
            for writer in writers.values():
                writer.close()
