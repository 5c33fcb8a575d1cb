"""What a person sees of a training run: a line that changes on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vadis.cli.terminal import clock, complain, detail, say, settings, show, stderr_console

if TYPE_CHECKING:
    from vadis.training.log import Event, StepDone

QUIET_SECONDS = 10.0  # between lines where there is no terminal


@contextmanager
def training_progress(stream: str) -> "Iterator[Callable[[Event], None]]":
    """Gives what takes the events of the training loop, and shows them on stderr."""
    from rich.progress import Progress, TextColumn
    from rich.table import Column

    console = stderr_console()
    drawn = console.is_terminal and not settings.quiet
    text = TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, overflow="fold"))
    said = -QUIET_SECONDS
    with Progress(text, console=console, transient=True, disable=not drawn, expand=True) as bars:
        bar = bars.add_task(f"{stream}: the first step", total=None)

        def report(event: "Event") -> None:
            nonlocal said
            from vadis.training.log import StepDone

            if not isinstance(event, StepDone):
                _tell(stream, event)
                return
            bars.update(bar, description=line(stream, event))
            if not drawn and (event.step == event.steps or time.monotonic() - said >= QUIET_SECONDS):
                said = time.monotonic()
                say(line(stream, event))

        yield report


def line(stream: str, event: "StepDone") -> str:
    """A step in one line."""
    return (
        f"{stream} step {event.step:,}/{event.steps:,}  loss {event.loss:.3f}  "
        f"accuracy {event.smoothed_accuracy:.1%}  rate {event.learning_rate:.2g}  "
        f"{event.clips_per_second:.1f} clips/s  {clock(event.seconds_left)} left"
    )


def _tell(stream: str, event: "Event") -> None:
    from vadis.training.log import MemoryShort, Resumed, Saved, Validated

    if isinstance(event, Validated):
        best = ", the best so far" if event.is_best else ""
        say(
            f"{stream} after step {event.step:,}: validation loss {event.loss:.3f}, accuracy {event.accuracy:.1%}{best}"
        )
    elif isinstance(event, Saved):
        detail(f"{stream} after step {event.step:,}: checkpoint in {show(event.path)}")
    elif isinstance(event, Resumed):
        say(f"{stream}: goes on after step {event.step:,}")
        for path in event.damaged:
            complain(f"{stream}: the checkpoint {show(path)} is damaged, and was passed over")
    elif isinstance(event, MemoryShort):
        complain(
            f"{stream}: memory ran out; {event.micro_batch} clips at a time from here on, not "
            f"{event.micro_batch_before}; still {event.batch_size} to a step"
        )
