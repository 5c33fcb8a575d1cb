"""What a person sees of a training run: two lines that change on a terminal, a line now and then elsewhere.

What stays is plain lines: every validation, and at the end how far it came.
"""

import math
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
    """Yield a function that takes the events of the training loop, and shows them on stderr."""
    console, display = stderr_console(), Display(run)
    is_drawn = console.is_terminal and not console.is_dumb_terminal and not settings.quiet
    began, shown = time.monotonic(), -math.inf

    def report(event: Event) -> None:
        nonlocal shown
        if isinstance(event, StepDone):
            display.step = event
            if not is_drawn and time.monotonic() - shown >= QUIET_SECONDS:
                shown = time.monotonic()
                figures, left = "  ".join(_figures(event)), clock(event.seconds_left)
                info(f"{run} step {event.step:,}/{event.steps:,}  {figures}  {left} left")
        elif isinstance(event, Validated):
            display.validation = event
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

    live = Live(display, console=console, transient=True, refresh_per_second=DRAWN_PER_SECOND)
    try:
        with live if is_drawn else nullcontext():
            yield report
    finally:
        if step := display.step:
            loss, accuracy = _figures(step)[:2]
            seconds = clock(time.monotonic() - began)
            info(f"{run}: {step.step:,} of {step.steps:,} steps done after {seconds}, {loss}, {accuracy}")


def _figures(event: StepDone) -> list[str]:
    return [
        f"loss {event.smoothed_loss:.3f}",
        f"accuracy {event.smoothed_accuracy:.1%}",
        f"rate {event.learning_rate:.2g}",
        f"{event.clips_per_second:.1f} clips/s",
    ]


@dataclass
class Display:
    """Where a run is, as two lines: a bar, and below it the figures."""

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
        total = f"{step.steps:,}"
        counts, left = f"{step.step:{len(total)},}/{total}", f"{clock(step.seconds_left)} left"
        row.add_row(Text(self.run), ProgressBar(step.steps, step.step), Text(counts), Text(left))
        yield row
        validation = [f"validation {self.validation.accuracy:.1%}"] if self.validation else []
        yield Text("  ".join(["", *_figures(step), *validation]), no_wrap=True, overflow="ellipsis", style="dim")
