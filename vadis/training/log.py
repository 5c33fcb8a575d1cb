"""What a run tells while it lasts: events, handed to whoever shows them, and written down in ``log.jsonl``.

One JSON object per line: ``event``, the fields of that event, and ``time`` (seconds since 1970). A continued run takes
away what an interrupted one wrote after the checkpoint, so that no step is told of twice.

The log of a training run (``log.jsonl``, written by training/log.py) as numbers to draw.
"""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VadisError, what_next
from vadis.parsing import parse_json

LOG_NAME = "log.jsonl"
RESUME = "go on with `resume=True`"  # what goes on, once the disk takes it


@dataclass(frozen=True)
class StepDone:
    """After each step. ``loss`` is its mean cross-entropy in nats; the smoothed values are means over recent steps."""

    step: int  # done so far
    steps: int
    epoch: float
    loss: float
    smoothed_loss: float
    smoothed_accuracy: float  # share of training clips whose class scored highest
    learning_rate: float
    gradient_norm: float
    clips_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Validated:
    """After each validation; ``learning_rate`` is the one from here on."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float
    is_best: bool


@dataclass(frozen=True)
class Saved:
    """After each checkpoint."""

    step: int
    path: str
    num_bytes: int


@dataclass(frozen=True)
class Resumed:
    """Once, where a run goes on. ``damaged`` are newer checkpoints that had to be passed over, and set aside."""

    step: int
    path: str
    damaged: tuple[str, ...]
    differences: tuple[str, ...]  # from the run as it was: with any, it does not go on exactly


@dataclass(frozen=True)
class MemoryShort:
    """Memory ran out: the step is done again in smaller pieces. The batch, and so the learning, stays as it was."""

    step: int
    micro_batch: int  # from here on
    micro_batch_before: int
    batch_size: int


@dataclass(frozen=True)
class Failed:
    """The loss or a gradient was not finite: the run ends before the update. ``clips`` names all that may be why."""

    step: int
    what: str
    clips: tuple[str, ...]


Event = StepDone | Validated | Saved | Resumed | MemoryShort | Failed


def event_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON values; a number that is not finite becomes None."""
    values = {key: None if _is_not_finite(value) else value for key, value in asdict(event).items()}
    return {"event": type(event).__name__, **values}


class Log:
    """``log.jsonl``, open for more lines."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def write(self, event: Event) -> None:
        """One line, in one write; raises VadisError where the disk does not take it."""
        line = json.dumps({**event_json(event), "time": round(time.time(), 3)}, allow_nan=False) + "\n"
        try:
            os.write(self._descriptor, line.encode("ascii"))
        except OSError as error:
            message = f"{self._path} cannot be written: {error.strerror}"
            raise VadisError(message, hint=what_next(error.errno, again=RESUME)) from error


@contextmanager
def open_log(folder: Path, step: int, validated_at: int) -> Iterator[Log]:
    """The log of the run in ``folder``, continued after ``step`` steps, the last validation after ``validated_at``.

    Raises:
        UsageError: where it cannot be written.
    """
    path = folder / LOG_NAME
    try:
        _forget_after(path, step, validated_at)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint=what_next(error.errno)) from error
    try:
        yield Log(path, descriptor)
    finally:
        os.close(descriptor)


def _forget_after(path: Path, step: int, validated_at: int) -> None:
    """Take away the lines about what will be done again, and a torn last one."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _is_past(line, step, validated_at)]
    if len(kept) < len(lines):
        shortened = path.with_name(f"{LOG_NAME}.tmp")
        shortened.write_bytes(b"".join(kept))
        shortened.replace(path)


def _is_past(line: bytes, step: int, validated_at: int) -> bool:
    try:
        values = parse_json(line)
        last = validated_at if values["event"] == Validated.__name__ else step
        return bool(values["step"] <= last) and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError):
        return False


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


Values = NDArray[np.float64]


@dataclass(frozen=True)
class RunLog:
    """What the log says, after each step and each validation.

    ``steps`` maps step, loss, smoothed_accuracy and learning_rate to (steps,); ``validations`` maps step, loss,
    accuracy and is_best to (validations,). Losses in nats, accuracies in [0, 1]; what was not finite is NaN.
    """

    steps: Mapping[str, Values]
    validations: Mapping[str, Values]


def read_log(path: Path) -> RunLog:
    """Read a log that may still be written to: a torn line is left out, as are events that are not drawn.

    Raises:
        OSError: where it cannot be read.
    """
    done, validated = [], []
    with path.open("rb") as file:
        for event in _events(file):
            if event.get("event") == "StepDone":
                done.append(event)
            elif event.get("event") == "Validated":
                validated.append(event)
    names = ("step", "loss", "smoothed_accuracy", "learning_rate")
    return RunLog(_columns(done, names), _columns(validated, ("step", "loss", "accuracy", "is_best")))


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _columns(events: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Values]:
    # None, which stands for a number that is not finite, becomes NaN.
    return {name: np.array([event.get(name) for event in events], np.float64) for name in names}
