"""What a person sees of a training run: two lines that change on a terminal, a line now and then elsewhere.

What stays is plain lines: every validation, and at the end how far it came.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vadis.cli.terminal import clock, debug, info, settings, show, stderr_console, warn
from vadis.training.log import Event, MemoryShort, Resumed, Saved, StepDone, Validated

QUIET_SECONDS = 10.0  # between lines where there is no terminal
DRAWN_PER_SECOND = 5


@contextmanager
def training_progress(run: str) -> Iterator[Callable[[Event], None]]:
    """Give what takes the events of the training loop, and shows them on stderr."""
    console, display = stderr_console(), Display(run)
    is_drawn = console.is_terminal and not console.is_dumb_terminal and not settings.quiet
    screen = _Screen(console, display) if is_drawn else None
    shown = began = time.monotonic()

    def report(event: Event) -> None:
        nonlocal shown
        if isinstance(event, StepDone):
            is_first, display.step = display.step is None, event
            if not is_drawn and (is_first or time.monotonic() - shown >= QUIET_SECONDS):
                shown = time.monotonic()
                info(step_line(run, event))
            return
        if isinstance(event, Validated):
            display.validation = event
        with screen.cleared() if screen else nullcontext():
            _show_event(run, event)

    try:
        with screen or nullcontext():
            yield report
    finally:
        if display.step is not None:
            info(last_line(run, display.step, time.monotonic() - began))


def step_line(run: str, event: StepDone) -> str:
    """Return a step in one line."""
    return (
        f"{run} step {event.step:,}/{event.steps:,}  loss {event.smoothed_loss:.3f}  "
        f"accuracy {event.smoothed_accuracy:.1%}  rate {event.learning_rate:.2g}  "
        f"{event.clips_per_second:.1f} clips/s  {clock(event.seconds_left)} left"
    )


def last_line(run: str, event: StepDone, seconds: float) -> str:
    """Return how far a run came in ``seconds``, to its end or to where it was stopped."""
    return (
        f"{run}: {event.step:,} of {event.steps:,} steps done after {clock(seconds)}, "
        f"loss {event.smoothed_loss:.3f}, accuracy {event.smoothed_accuracy:.1%}"
    )


def _show_event(run: str, event: Event) -> None:

    if isinstance(event, Validated):
        figures = f"validation loss {event.loss:.3f}, accuracy {event.accuracy:.1%}"
        info(f"{run} after step {event.step:,}: {figures}{', the best so far' if event.is_best else ''}")
    elif isinstance(event, Saved):
        debug(f"{run} after step {event.step:,}: checkpoint in {show(event.path)}")
    elif isinstance(event, Resumed):
        info(f"{run}: goes on after step {event.step:,}")
        for path in event.damaged:
            warn(f"{run}: the checkpoint {show(path)} is damaged, and was passed over")
    elif isinstance(event, MemoryShort):
        warn(
            f"{run}: memory ran out; {event.micro_batch} clips at a time from here on, not "
            f"{event.micro_batch_before}; still {event.batch_size} to a step"
        )


class _Screen:
    """The two lines on a terminal, drawn again and again in a ``with`` block."""

    def __init__(self, console: Console, display: "Display") -> None:
        self._console, self._display = console, display

    def __enter__(self) -> None:

        self._live = Live(self._display, console=self._console, transient=True, refresh_per_second=DRAWN_PER_SECOND)
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
class Display:
    """Where a run is, as two lines of any width: a bar, and below it as many of the figures as there is room for."""

    run: str
    step: StepDone | None = None
    validation: Validated | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:

        if (step := self.step) is None:
            yield Text(f"{self.run}: the first step", no_wrap=True, overflow="ellipsis")
            return
        row = Table.grid(padding=(0, 2, 0, 0), expand=True, pad_edge=False)
        for options_of_column in ({}, {"ratio": 1}, {"justify": "right"}, {"justify": "right"}):
            row.add_column(no_wrap=True, overflow="ellipsis", **options_of_column)
        bar = ProgressBar(step.steps, step.step, style="dim", complete_style="magenta", finished_style="magenta")
        total = f"{step.steps:,}"
        counts, left = f"{step.step:{len(total)},}/{total}", f"{clock(step.seconds_left)} left"
        row.add_row(Text(self.run, style="bold"), bar, Text(counts), Text(left))
        yield row
        pairs = [("loss ", f"{step.smoothed_loss:.3f}"), ("accuracy ", f"{step.smoothed_accuracy:5.1%}")]
        if self.validation is not None:
            pairs.append(("validation ", f"{self.validation.accuracy:5.1%}"))
        pairs += [("rate ", f"{step.learning_rate:.2g}"), ("", f"{step.clips_per_second:.1f} clips/s")]
        figures = Text(" " * len(self.run), no_wrap=True, overflow="crop")
        for name, value in pairs:
            if len(figures) + 2 + len(name) + len(value) <= options.max_width:
                figures.append("  ").append(name, style="dim").append(value)
        yield figures
