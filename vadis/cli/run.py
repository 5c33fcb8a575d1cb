"""A run over many inputs as the terminal shows it: progress while it lasts, the problems, the count at the end."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from vadis.cli import interrupts
from vadis.cli.terminal import complain, detail, explain, say, show, video_progress
from vadis.cli.timeline import missing_part
from vadis.errors import VideoError
from vadis.results import VideoResult

if TYPE_CHECKING:
    from vadis.inference import Progress
    from vadis.video.sources import Source

SOME_FAILED = 3  # the exit code of a run that finished although some inputs failed

_STAGES = {"decoding": "decoding", "flow": "optical flow", "network": "network"}


class Run:
    """Counts records as they pass, and keeps what stopped the run until everything found has been written."""

    def __init__(self, inputs: "Sequence[Source]", name_problems: bool) -> None:
        self._inputs = inputs
        self._name_problems = name_problems
        self._counts: Counter[str] = Counter()
        self._stop: BaseException | None = None
        self._bars = _Bars(len(inputs))

    def report(self, progress: "Progress") -> None:
        """What the library calls while it works."""
        self._bars.update(progress, self._counts.total())

    def records(self, labelled: Iterator[VideoResult]) -> Iterator[VideoResult]:
        """One record per input, in order; ``labelled`` has those of the inputs without an error.

        When the run is stopped, by a signal or a failure, the records end, so that what there is can be written.
        """
        for source in self._inputs:
            began = time.monotonic()
            try:
                with interrupts.interruptible(), self._bars.shown():
                    record = next(labelled) if source.error is None else _error_record(source.path, source.error)
            except BaseException as stop:  # noqa: BLE001 (kept, and explained in finish)
                self._stop = stop
                return
            seconds = time.monotonic() - began
            yield record
            self._note(record, seconds)  # it has been written

    def finish(self, failure: Exception | None = None) -> None:
        """Say why the run ended, then the count; raises typer.Exit unless every input was labelled."""
        stop = failure or self._stop
        code = explain(stop) if stop else SOME_FAILED if self._counts["error"] else 0
        all_well = not code and not self._counts["partial"]
        (say if all_well else complain)(self._summary())
        if code:
            raise typer.Exit(code)

    def _note(self, record: VideoResult, seconds: float) -> None:
        self._counts[record.status] += 1
        if record.status == "error" and self._name_problems:
            complain(f"{show(record.path)}: {record.error_message}")
        elif record.status == "partial" and self._name_problems:
            complain(f"{show(record.path)}: partial, {missing_part(record)}")
        elif record.duration_seconds is not None:
            detail(f"{show(record.path)}: {record.duration_seconds:.1f} s of video in {seconds:.1f} s")

    def _summary(self) -> str:
        counts = self._counts
        parts = [f"{counts['ok']} ok"]
        parts += [f"{counts[status]} {word}" for status, word in _OTHER_STATUSES.items() if counts[status]]
        left = len(self._inputs) - counts.total()
        return ", ".join([*parts, f"{left} not done"] if left else parts)


_OTHER_STATUSES = {"partial": "partial", "skipped": "skipped", "error": "failed"}


def _error_record(path: str, error: VideoError) -> VideoResult:
    return VideoResult(path, "error", error_code=error.code, error_message=error.message)


class _Bars:
    """One bar for the video at hand and, where there are several, one for all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._progress = video_progress()
        self._path: str | None = None
        self._all = self._progress.add_task("", total=total, visible=total > 1)
        self._one = self._progress.add_task("", total=None)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The bars are on the terminal in this block, and gone after it, so that records can be written there."""
        from rich.live import Live

        if self._progress.disable:
            yield
            return
        # Progress.start() after a stop() would erase what was written in between; a new Live begins below it.
        with Live(get_renderable=self._progress.get_renderable, console=self._progress.console, transient=True):
            yield

    def update(self, now: "Progress", done: int) -> None:
        if now.path != self._path:
            self._path = now.path
            self._progress.reset(self._one, total=now.frames_total)
        name = f"{_STAGES[now.stage]}: {show(os.path.basename(now.path))}"  # noqa: PTH119 (keeps any bytes)
        self._progress.update(self._one, description=name, completed=now.frames_done, total=now.frames_total)
        share = now.frames_done / now.frames_total if now.frames_total else 0
        count = f"video {done + 1} of {self._total}"
        self._progress.update(self._all, description=count, completed=done + min(share, 1))
