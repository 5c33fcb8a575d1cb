"""A run over many inputs as the terminal shows it: progress while it lasts, the problems, the count at the end."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vadis.batch.summary import Summary
from vadis.cli import signals
from vadis.cli.outputs import writing
from vadis.cli.terminal import debug, info, report_error, show, video_progress, warn, warn_of
from vadis.cli.timeline import missing_part
from vadis.errors import VadisError, VideoError
from vadis.files import write_file
from vadis.results import VideoResult

if TYPE_CHECKING:
    from vadis.inference.predict import Progress
    from vadis.video.metadata import VideoFacts
    from vadis.video.sources import Source

SOME_FAILED = 3  # the exit code of a run that finished although some inputs failed
LOST_DISK_ERRORS = ("io_error", "disappeared")
MOST_UNREADABLE = 20  # videos in a row with one of these: no accident any more

_STAGES = {"decoding": "decoding", "flow": "optical flow", "network": "network"}


class Run:
    """Counts records as they pass, and keeps what stopped the run until everything found has been written.

    Args:
        inputs: that are to be done.
        name_problems: on stderr, because the output itself does not show them to a person.
        summary: of all inputs, also of those that an earlier run has done; by default ``inputs`` are all.
        goes_on: the same command goes on after an interruption.
        strict: a partial video counts as failed.
    """

    def __init__(
        self,
        inputs: "Sequence[Source]",
        name_problems: bool,
        summary: Summary | None = None,
        *,
        goes_on: bool = False,
        strict: bool = False,
    ) -> None:
        self.summary = summary or Summary(len(inputs))
        self._inputs, self._name_problems, self._goes_on, self._strict = inputs, name_problems, goes_on, strict
        self._unreadable = 0  # videos in a row
        self._stop: BaseException | None = None
        self._bars = _Bars(len(inputs))

    def report(self, progress: "Progress") -> None:
        """Show how far the library is; it calls this while it works."""
        self._bars.update(progress, self.summary.statuses.total() - self.summary.num_before)

    def paths(self) -> Iterator[str]:
        """Return the inputs that can be tried."""
        return (source.path for source in self._inputs if source.error is None)

    def records(self, labelled: Iterator[VideoResult]) -> Iterator[VideoResult]:
        """Yield one record per input, in order; ``labelled`` has those of ``paths``.

        When the run is stopped, by a signal or a failure, the records end, so that what there is can be written.
        """
        for source in self._inputs:
            began = time.monotonic()
            try:
                with signals.interruptible(), self._bars.shown():
                    if self._unreadable >= MOST_UNREADABLE:
                        message = f"the disk seems gone: the last {self._unreadable} videos could not be read"
                        raise VadisError(message, hint="see that it is there, and give the same command again")
                    record = next(labelled) if source.error is None else _error_record(source.path, source.error)
            except BaseException as stop:  # noqa: BLE001 (kept, and explained in finish)
                self._stop = stop
                return
            seconds = time.monotonic() - began
            is_lost = source.error is None and record.error_code in LOST_DISK_ERRORS
            self._unreadable = self._unreadable + 1 if is_lost else 0
            if record.status == "partial" and self._strict:
                record = _as_failed(record)
            yield record
            self._note(record, seconds)  # it has been written

    def stop(self, failure: Exception) -> None:
        """Note that the run cannot go on: what it has cannot be written."""
        self._stop = failure

    def finish(self, summary_file: Path | None = None) -> None:
        """Say why the run ended, then the count; raise typer.Exit unless every input was labelled."""
        code = report_error(self._stop) if self._stop else SOME_FAILED if self.summary.statuses["error"] else 0
        if summary_file is not None:
            with writing(show(summary_file)):
                write_file(summary_file, json.dumps(self.summary.to_json(code), indent=2) + "\n")
        line = self.summary.line()
        if self.summary.num_left and self._goes_on:
            line += "; the same command goes on"
        all_well = not code and not self.summary.statuses["partial"]
        (info if all_well else warn)(line)
        if code:
            raise typer.Exit(code)

    @property
    def is_complete(self) -> bool:
        """Whether every input has its record."""
        return self.summary.num_left == 0

    def _note(self, record: VideoResult, seconds: float) -> None:
        self.summary.add(record)
        if record.status == "error" and self._name_problems:
            warn_of(record.path, record.error_code, record.error_message)
        elif record.status == "partial" and self._name_problems:
            warn(f"{show(record.path)}: partial, {missing_part(record)}")
        elif record.duration_seconds is not None:
            debug(f"{show(record.path)}: {record.duration_seconds:.1f} s of video in {seconds:.1f} s")


def _error_record(path: str, error: VideoError) -> VideoResult:
    from vadis.video.sources import stamp

    return VideoResult(path, "error", *stamp(path), error_code=error.code, error_message=error.in_full)


def _as_failed(partial: VideoResult) -> VideoResult:
    """Return what ``--strict`` makes of a partial record."""
    message = f"{missing_part(partial)} (--strict takes no part for the whole)"
    failed = VideoResult(partial.path, "error", error_code="truncated_or_incomplete", error_message=message)
    facts = ("source_bytes", "source_mtime", "duration_seconds", "num_frames", "frames_decoded", "frames_declared")
    return replace(failed, **{name: getattr(partial, name) for name in (*facts, "flags")})


def fail_if_partial(path: str, facts: "VideoFacts") -> None:
    """Say which part of a video is missing in what was made of it, and leave with the code of a failed input."""
    if facts.status == "partial":
        warn(f"{show(path)}: partial, {missing_part(facts)}")
        raise typer.Exit(SOME_FAILED)


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
        """Show the bars in this block, and remove them after it, so that records can be written there."""
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
