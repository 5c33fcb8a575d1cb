"""A run over many inputs: the inputs, the model, progress while it lasts, the problems, the count at the end."""

import gc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vadis.batch import Summary
from vadis.cli import signals
from vadis.cli.outputs import writing
from vadis.cli.terminal import (
    debug,
    download_progress,
    info,
    report_error,
    show,
    show_status,
    video_progress,
    warn,
    warn_failed,
)
from vadis.cli.timeline import missing_part
from vadis.device import resolve_device
from vadis.errors import UnreachableError, VadisError
from vadis.files import write_file
from vadis.results import VideoResult
from vadis.video.metadata import VideoFacts
from vadis.video.sources import Source, VideoSources, find_videos, stamp
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, STAND_IN, TAKE_STAND_IN, WEIGHTS

if TYPE_CHECKING:
    from vadis.inference.predict import Progress
    from vadis.models.card import Model
    from vadis.video.remote import FetchingDecoders

SOME_FAILED = 3  # the exit code of a run that finished although some inputs failed
MOST_UNREADABLE = 20  # videos in a row that the disk does not give, after which the run ends


def find_inputs(
    inputs: list[str], from_file: str | None, null: bool, *, allow_remote: bool = False, arrays: bool = False
) -> VideoSources:
    """Return every input once, and say what was left out; ``arrays`` as of ``find_videos``."""
    if allow_remote:
        from vadis.video.remote import expand_url
    remote = expand_url if allow_remote else None
    found = find_videos(inputs, from_file=from_file, nul=null, remote=remote, arrays=arrays)
    if found.num_ignored:
        debug(f"{found.num_ignored} other entries of the folders are left out: hidden, or not a video by name")
    if found.num_duplicates:
        info(f"{found.num_duplicates} given more than once, taken once")
    return found


def open_remote(
    allow_remote: bool, scratch_gb: float | None, jobs: int, device: str
) -> "AbstractContextManager[FetchingDecoders | None]":
    """Return a context manager that yields the decoders of remote videos, or None where these are not allowed."""
    if not allow_remote:
        return nullcontext()
    from vadis.inference.prefetch import num_jobs
    from vadis.video.remote import FetchingDecoders

    places = num_jobs(jobs, resolve_device(device))
    # By default 4 GB for each video that is open at once: an evening's film.
    return FetchingDecoders(int((scratch_gb or 4 * places) * 1e9), places)


def load_for_command(
    name: str | None,
    streams: str | None,
    device: str,
    offline: bool,
    *,
    precision: str = "fp32",
    option: str = "--model",
    announce: bool = True,
    may_stand_in: bool = False,
) -> "Model":
    """Return the model of this name or file, or the default, with the streams asked for; downloads show their progress.

    ``option`` is the command's own for a model, which the hint names where this one cannot be reached. ``announce``:
    say what was loaded, and where. ``may_stand_in``: one that comes with vadis, where the default cannot be reached.
    """
    if "torch" not in sys.modules:  # a million objects that stay: no search for garbage now (0.2 s) or later (0.5 s)
        gc.disable()
        with show_status("loading the model …"):
            import_module("vadis.weights.load")
        from vadis.flow.numba_cache import import_ahead

        import_ahead("vadis.models.cpu_kernels", "vadis.flow.tvl1_cpu")
        gc.freeze()
        gc.enable()
    from vadis.weights import load

    try:
        with download_progress() as progress:
            how: dict[str, Any] = {"streams": streams, "precision": precision, "offline": offline or None}
            model = load.load_model(name or DEFAULT_MODEL, device, **how, progress=progress)
    except UnreachableError as error:
        if name is None and may_stand_in and streams in (None, "rgb"):
            (own, _), (better, _) = SHIPPED[STAND_IN].accuracy["rgb"], WEIGHTS[DEFAULT_MODEL].accuracy["both"]
            warn(
                f"{error.message}\nso {STAND_IN}, which comes with vadis, labels instead: by RGB alone, right for "
                f"{own} % of Kinetics' test videos, not {better} %; `vadis weights download` gets {DEFAULT_MODEL}, "
                "or says how else to get it"
            )
            return load_for_command(STAND_IN, streams, device, offline, precision=precision)
        ours = f"`{option} {STAND_IN} --streams rgb` works without a network"
        raise UnreachableError(error.message, (error.hint or "").replace(TAKE_STAND_IN, ours)) from error
    if announce:
        info(f"{show(model.card.name)}, {' and '.join(model.card.streams)}, on {model.device}")
    return model


@dataclass
class Run:
    """Counts records as they are written, and holds the exception that stopped the run until all are written."""

    inputs: Sequence[Source]
    summary: Summary  # of all inputs, also of those that an earlier run has done
    name_problems: bool = True  # on stderr, because the output itself does not show them to a person
    resumable: bool = False  # the same command goes on after an interruption
    strict: bool = False  # a partial video counts as failed
    closing_message: str = ""  # what is said of the output, once it is there

    def __post_init__(self) -> None:
        self._num_before = self.summary.statuses.total()
        self._unreadable = 0  # videos in a row
        self._stop: BaseException | None = None
        self._fractions: dict[str, float] = {}  # done of every video at work, by path; several threads report
        self._bar = video_progress()
        self._task = self._bar.add_task("", total=len(self.inputs))

    def report(self, now: "Progress") -> None:
        """Update the bar, as the library's progress callback, and name the video that has been at work for longest."""
        num_done = self.summary.statuses.total() - self._num_before
        self._fractions[now.path] = min(1.0, now.frames_done / now.frames_total) if now.frames_total else 0.0
        self._bar.update(self._task, completed=num_done + sum(list(self._fractions.values())))
        if now.path == next(iter(self._fractions), None):
            which = f"{num_done + 1} of {len(self.inputs)}, " if len(self.inputs) > 1 else ""
            stage = "optical flow" if now.stage == "flow" else now.stage
            name = show(os.path.basename(now.path))  # noqa: PTH119 (keeps any bytes)
            self._bar.update(self._task, description=f"{which}{stage}: {name}")

    def paths(self) -> Iterator[str]:
        """Return the paths of the inputs that have no error yet."""
        return (source.path for source in self.inputs if source.error is None)

    def complete(
        self,
        labelled: Generator[VideoResult, None, None],
        write: Callable[[Iterator[VideoResult], Callable[[], bool]], object] = lambda records, _: deque(records, 0),
        summary_file: Path | None = None,
    ) -> int:
        """Have ``write`` take one record per input, in order, then say how the run ended, and return its exit code.

        ``labelled`` has the records of ``paths``. ``write`` takes all records, and a function that tells at their end
        whether every input has one: a signal or a failure ends them early, so that what there is can be written. Then
        typer.Exit is raised.
        """
        with signals.deferred(), closing(labelled):
            try:
                write(self._records(labelled), lambda: self.summary.num_left == 0)
            except VadisError as failure:
                self._stop = failure
            code = report_error(self._stop) if self._stop else SOME_FAILED if self.summary.statuses["error"] else 0
            if summary_file is not None:
                with writing(show(summary_file)):
                    write_file(summary_file, json.dumps(self.summary.to_json(code), indent=2) + "\n")
            if self.closing_message and not self._stop:
                info(self.closing_message)
            again = "; the same command goes on" if self.summary.num_left and self.resumable else ""
            (warn if code or self.summary.statuses["partial"] else info)(self.summary.line() + again)
            if self._stop:
                raise typer.Exit(code)
        return code

    def _records(self, labelled: Iterator[VideoResult]) -> Iterator[VideoResult]:
        from rich.live import Live

        bar = self._bar
        for source in self.inputs:
            began = time.monotonic()
            try:
                # Progress.start() after a stop() would erase what was written in between; a new Live begins below it.
                live = Live(get_renderable=bar.get_renderable, console=bar.console, transient=True)
                with signals.interruptible(), nullcontext() if bar.disable else live:
                    if self._unreadable >= MOST_UNREADABLE:
                        message = f"the disk seems gone: the last {self._unreadable} videos could not be read"
                        raise VadisError(message, hint="see that it is there, and give the same command again")
                    if (error := source.error) is None:
                        record = next(labelled)
                        self._fractions.pop(source.path, None)
                    else:
                        found, code, message = stamp(source.path), error.code, error.in_full
                        record = VideoResult(source.path, "error", *found, error_code=code, error_message=message)
            except BaseException as stop:  # noqa: BLE001 (kept, and explained in complete)
                self._stop = stop
                return
            seconds = time.monotonic() - began
            is_lost = source.error is None and record.error_code in ("io_error", "disappeared")
            self._unreadable = self._unreadable + 1 if is_lost else 0
            if record.status == "partial" and self.strict:
                message = f"{missing_part(record)} (--strict treats partial videos as failed)"
                nothing = dict.fromkeys(("labels", "clip_score", "timeline", "segments"), ())
                facts: dict[str, Any] = {"source_fps": None, "source_size": None, **nothing}
                facts |= {"error_code": "truncated_or_incomplete", "error_message": message}
                record = replace(record, status="error", **facts)
            yield record
            self.summary.add(record)  # it has been written
            if record.status == "error" and self.name_problems:
                warn_failed(record.path, record.error_code, record.error_message)
            elif record.status == "partial" and self.name_problems:
                warn(f"{show(record.path)}: partial, {missing_part(record)}")
            elif record.duration_seconds is not None:
                debug(f"{show(record.path)}: {record.duration_seconds:.1f} s of video in {seconds:.1f} s")


def fail_if_partial(path: str, facts: VideoFacts) -> None:
    """Say which part of a video is missing in what was made of it, and leave with the code of a failed input."""
    if facts.status == "partial":
        warn(f"{show(path)}: partial, {missing_part(facts)}")
        raise typer.Exit(SOME_FAILED)
