"""A training run in TensorBoard: ``tensorboard --logdir RUN`` draws training and validation in one diagram each.

    RUN/<stream>/tensorboard/training/      loss, accuracy, learning rate, gradient norm, clips per second
    RUN/<stream>/tensorboard/validation/    loss, accuracy

TensorBoard is an extra, ``pip install 'vadis[tensorboard]'``. ``log.jsonl`` remains the record of the run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vadis.errors import UsageError, VadisError, what_next
from vadis.training.log import LOG_NAME, RESUME, Event, Resumed, StepDone, Validated, read_log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER_NAME = "tensorboard"
FLUSH_SECONDS = 30  # so old is, at most, what TensorBoard shows of a run in progress


def require_tensorboard() -> None:
    """Raise UsageError where the package is missing; costs nothing, so that it can be asked before any work."""
    if find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed", hint="pip install 'vadis[tensorboard]'")


@contextmanager
def tensorboard_writer(folder: Path) -> Iterator[Callable[[Event], None]]:
    """Gives what takes the events of the loop and writes them down for TensorBoard.

    What an earlier, interrupted run wrote of steps that are done again does not show twice.

    Args:
        folder: of the training run, with its log.

    Raises:
        UsageError: where TensorBoard is missing.
        VadisError: where its files cannot be written.
    """
    require_tensorboard()
    writers: dict[str, SummaryWriter] = {}

    def take(event: Event) -> None:
        with _explained(folder):
            if not writers:
                writers.update(_open(folder, event))
            _write(event, writers)

    try:
        yield take
    finally:
        with _explained(folder):
            for writer in writers.values():
                writer.close()


def _open(folder: Path, event: Event) -> "dict[str, SummaryWriter]":
    """The writers, from ``event`` on, the first one of the run: what was written of later steps is void."""
    from torch.utils.tensorboard import SummaryWriter

    done = dict.fromkeys(("training", "validation"), 0)
    if isinstance(event, Resumed):  # the log now ends where the run goes on
        validations = read_log(folder / LOG_NAME).validations["step"]
        done = {"training": event.step, "validation": max(map(int, validations), default=0)}
    return {
        name: SummaryWriter(folder.absolute() / FOLDER_NAME / name, purge_step=step + 1, flush_secs=FLUSH_SECONDS)
        for name, step in done.items()
    }


def _write(event: Event, writers: "dict[str, SummaryWriter]") -> None:
    if isinstance(event, StepDone):
        values = {
            "loss": event.loss,
            "accuracy": event.smoothed_accuracy,
            "learning rate": event.learning_rate,
            "gradient norm": event.gradient_norm,
            "clips per second": event.clips_per_second,
        }
        _add(writers["training"], event.step, values)
    elif isinstance(event, Validated):
        _add(writers["validation"], event.step, {"loss": event.loss, "accuracy": event.accuracy})


def _add(writer: "SummaryWriter", step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        writer.add_scalar(name, value, step)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{folder / FOLDER_NAME} cannot be written: {error.strerror}"
        raise VadisError(message, hint=what_next(error.errno, again=RESUME)) from error
