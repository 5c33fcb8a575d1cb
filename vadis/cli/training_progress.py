"""What a person sees of a training run: two lines that change on a terminal, a line now and then elsewhere.

What stays is plain lines: every validation, and at the end how far it came.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress
from rich.text import Text

from vadis.cli.terminal import clock, debug, info, settings, show, stderr_console, warn
from vadis.training.log import Event, MemoryShort, Resumed, Saved, StepDone, Validated

QUIET_SECONDS = 10.0  # between lines where there is no terminal


@contextmanager
def training_progress(run: str) -> Iterator[Callable[[Event], None]]:
    """Yield a function that takes the events of the training loop, and shows them on stderr."""
    console = stderr_console()
    is_drawn = console.is_terminal and not console.is_dumb_terminal and not settings.quiet
    bars = Progress("{task.description}", BarColumn(None), "{task.fields[left]}", console=console, expand=True)
    bar, figures = bars.add_task(run, total=None, left="the first step"), Text(style="dim", overflow="ellipsis")
    began, shown, last = time.monotonic(), -math.inf, list[StepDone]()

    def report(event: Event) -> None:
        nonlocal shown
        if isinstance(event, StepDone):
            last[:] = [event]
            count, left = f"{event.step:,}/{event.steps:,}", f"{clock(event.seconds_left)} left"
            figures.plain = "  ".join(_figures(event))
            bars.update(bar, total=event.steps, completed=event.step, left=f"{count}  {left}")
            if not is_drawn and time.monotonic() - shown >= QUIET_SECONDS:
                shown = time.monotonic()
                info(f"{run} step {count}  {figures.plain}  {left}")
        elif isinstance(event, Validated):
            what = f"validation loss {event.loss:.3f}, accuracy {event.accuracy:.1%}"
            info(f"{run} after step {event.step:,}: {what}{', the best so far' if event.is_best else ''}")
        elif isinstance(event, Saved):
            debug(f"{run} after step {event.step:,}: checkpoint in {show(event.path)}")
        elif isinstance(event, Resumed):
            info(f"{run}: goes on after step {event.step:,}")
            for path in event.damaged:
                warn(f"{run}: the checkpoint {show(path)} is damaged, and was passed over")
        elif isinstance(event, MemoryShort):
            clips = f"{event.micro_batch} clips at a time from here on, not {event.micro_batch_before}"
            warn(f"{run}: memory ran out; {clips}; still {event.batch_size} to a step")

    live = Live(Group(bars, figures), console=console, transient=True, refresh_per_second=5)
    try:
        with live if is_drawn else nullcontext():
            yield report
    finally:
        for step in last:
            loss, accuracy, *_ = _figures(step)
            seconds = clock(time.monotonic() - began)
            info(f"{run}: {step.step:,} of {step.steps:,} steps done after {seconds}, {loss}, {accuracy}")


def _figures(event: StepDone) -> list[str]:
    loss, accuracy = f"loss {event.smoothed_loss:.3f}", f"accuracy {event.smoothed_accuracy:.1%}"
    return [loss, accuracy, f"rate {event.learning_rate:.2g}", f"{event.clips_per_second:.1f} clips/s"]
