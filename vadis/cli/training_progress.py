"""What a person sees of a training run: two lines that change on a terminal, a line now and then elsewhere.

What stays is plain lines: every validation, and at the end how far it came.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vadis.cli.terminal import clock, debug, info, settings, show, stderr_console, warn

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

    from vadis.training.log import Event, StepDone, Validated

QUIET_SECONDS = 10.0  # between lines where there is no terminal
DRAWN_PER_SECOND = 5


@contextmanager
def training_progress(stream: str) -> "Iterator[Callable[[Event], None]]":
    """Gives what takes the events of the training loop, and shows them on stderr."""
    console, now = stderr_console(), _Now(stream)
    drawn = console.is_terminal and not console.is_dumb_terminal and not settings.quiet
    screen = _Screen(console, now) if drawn else None
    said = began = time.monotonic()

    def report(event: "Event") -> None:
        nonlocal said
        now.take(event)
        if now.step is not event:
            with screen.cleared() if screen else nullcontext():
                _tell(stream, event)
        elif not drawn and (now.is_first or time.monotonic() - said >= QUIET_SECONDS):
            said = time.monotonic()
            info(line(stream, now.step))

    try:
        with screen or nullcontext():
            yield report
    finally:
        if now.step is not None:
            info(last_line(stream, now.step, time.monotonic() - began))


def line(stream: str, event: "StepDone") -> str:
    """A step in one line."""
    return (
        f"{stream} step {event.step:,}/{event.steps:,}  loss {event.smoothed_loss:.3f}  "
        f"accuracy {event.smoothed_accuracy:.1%}  rate {event.learning_rate:.2g}  "
        f"{event.clips_per_second:.1f} clips/s  {clock(event.seconds_left)} left"
    )


def last_line(stream: str, event: "StepDone", seconds: float) -> str:
    """How far a run came in ``seconds``, to its end or to where it was stopped."""
    return (
        f"{stream}: {event.step:,} of {event.steps:,} steps done after {clock(seconds)}, "
        f"loss {event.smoothed_loss:.3f}, accuracy {event.smoothed_accuracy:.1%}"
    )


class _Screen:
    """The two lines on a terminal, drawn again and again from ``now``, in a ``with`` block."""

    def __init__(self, console: "Console", now: "_Now") -> None:
        self._console, self._now = console, now

    def __enter__(self) -> None:
        from rich.live import Live

        self._live = Live(self._now, console=self._console, transient=True, refresh_per_second=DRAWN_PER_SECOND)
        self._live.start(refresh=True)

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Take the lines away, so that a message stands where they were, and draw them below it."""
        self.__exit__()
        yield
        self.__enter__()


@dataclass
class _Now:
    """Where a run is, as two lines of any width: a bar, and below it as many of the figures as there is room for."""

    stream: str
    step: "StepDone | None" = None
    validation: "Validated | None" = None
    is_first: bool = field(default=True, init=False)  # whether no more than one step was told of

    def take(self, event: "Event") -> None:
        """Look at an event."""
        from vadis.training.log import StepDone, Validated

        if isinstance(event, StepDone):
            self.is_first = self.step is None
            self.step = event
        elif isinstance(event, Validated):
            self.validation = event

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        if self.step is None:
            yield Text(f"{self.stream}: the first step", no_wrap=True, overflow="ellipsis")
            return
        yield self._bar(self.step)
        yield self._figures(self.step, options.max_width)

    def _bar(self, step: "StepDone") -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 2, 0, 0), expand=True, pad_edge=False)
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_column(ratio=1)
        row.add_column(no_wrap=True, overflow="ellipsis", justify="right")
        row.add_column(no_wrap=True, overflow="ellipsis", justify="right")
        bar = ProgressBar(step.steps, step.step, style="dim", complete_style="magenta", finished_style="magenta")
        total = f"{step.steps:,}"
        done, left = f"{step.step:{len(total)},}/{total}", f"{clock(step.seconds_left)} left"
        row.add_row(Text(self.stream, style="bold"), bar, Text(done), Text(left))
        return row

    def _figures(self, step: "StepDone", width: int) -> "Text":
        from rich.text import Text

        pairs = [("loss ", f"{step.smoothed_loss:.3f}"), ("accuracy ", f"{step.smoothed_accuracy:5.1%}")]
        if self.validation is not None:
            pairs.append(("validation ", f"{self.validation.accuracy:5.1%}"))
        pairs += [("rate ", f"{step.learning_rate:.2g}"), ("", f"{step.clips_per_second:.1f} clips/s")]
        text = Text(" " * len(self.stream), no_wrap=True, overflow="crop")
        for name, value in pairs:
            if len(text) + 2 + len(name) + len(value) <= width:
                text.append("  ").append(name, style="dim").append(value)
        return text


def _tell(stream: str, event: "Event") -> None:
    from vadis.training.log import MemoryShort, Resumed, Saved, Validated

    if isinstance(event, Validated):
        best = ", the best so far" if event.is_best else ""
        info(
            f"{stream} after step {event.step:,}: validation loss {event.loss:.3f}, accuracy {event.accuracy:.1%}{best}"
        )
    elif isinstance(event, Saved):
        debug(f"{stream} after step {event.step:,}: checkpoint in {show(event.path)}")
    elif isinstance(event, Resumed):
        info(f"{stream}: goes on after step {event.step:,}")
        for path in event.damaged:
            warn(f"{stream}: the checkpoint {show(path)} is damaged, and was passed over")
    elif isinstance(event, MemoryShort):
        warn(
            f"{stream}: memory ran out; {event.micro_batch} clips at a time from here on, not "
            f"{event.micro_batch_before}; still {event.batch_size} to a step"
        )
