"""The terminal: where data and messages go, what may be shown on it, and how much is said.

Data goes to stdout, everything else to stderr. Nothing is printed as Rich markup, and every name, label and message
passes through ``visible`` first, because a file name may hold anything.
"""

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

from vadis.cli.signals import Interrupted
from vadis.errors import VIDEO_ERROR_CODES, VadisError, advice, what_next, with_options
from vadis.formats import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


@dataclass
class Settings:
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    advised: set[str] = field(default_factory=set)  # codes of errors of which it has been said what to do next


settings = Settings()
"""The settings of this run, filled in by the global options before a command starts."""


def show(path: str | os.PathLike[str]) -> str:
    """Return a path as it may be shown, on one line."""
    return visible(os.fspath(path))


@lru_cache(maxsize=8)
def _console(file: TextIO, **more: Any) -> "Console":
    from rich.console import Console

    return Console(file=file, markup=False, emoji=False, highlight=False, **more)


def stdout_console() -> "Console":
    """Return the console on which a table is printed."""
    return _console(sys.stdout)


def file_console() -> "Console":
    """Return a console for a table that goes to a file: UTF-8, 80 columns, no colour."""
    return _console(io.StringIO(), width=80, color_system=None)


def stderr_console() -> "Console":
    """Return the console of messages and progress: one for all, which writes a message above a bar that is shown."""
    file = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # a shown bar takes the place of stderr
    return _console(file, stderr=True)


def warn(message: str, before: str = "", style: str = "") -> None:
    """Print a warning to stderr, even with ``--quiet``, after the prefix ``before`` in ``style``."""
    from rich.text import Text

    shown = "\n".join(visible(line) for line in message.split("\n"))
    stderr_console().print(Text.assemble((before, style), shown), soft_wrap=True)


def info(message: str) -> None:
    """Write a notice; ``--quiet`` leaves it out."""
    if not settings.quiet:
        warn(message)


def show_status(message: str) -> AbstractContextManager[object]:
    """Return a context manager that shows a status message on a terminal while its block runs."""
    console = stderr_console()
    return console.status(message) if console.is_terminal and not settings.quiet else nullcontext()


def debug(message: str) -> None:
    """Print a message to stderr, with ``--verbose`` only."""
    if settings.verbose:
        warn(message)


class LogHandler(logging.Handler):
    """Writes what the library logs: a warning as a problem, the rest as a notice."""

    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else info)(record.getMessage())


def warn_failed(path: str, code: str | None, message: str | None) -> None:
    """Warn that an input gives no result; print the advice for each error ``code`` once in a run."""
    warn(f"{show(path)}: {with_options(message or '')}")
    if code in VIDEO_ERROR_CODES and code not in settings.advised and not settings.quiet:
        settings.advised.add(code)
        warn(advice(code), before="hint: ", style="bold")


def report_error(error: BaseException) -> int:
    """Write why a run ended and what to do next, and return its exit code. Tracebacks are for ``--debug``."""
    if settings.debug:
        warn("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, Interrupted):
        warn("interrupted")
        return error.exit_code
    known = error if isinstance(error, VadisError) else _unexpected(error)
    warn(with_options(known.message), before="error: ", style="bold red")
    if known.hint:
        warn(with_options(known.hint), before="hint: ", style="bold")
    return known.exit_code


_NO_MEMORY = re.compile(  # in the text of an ImportError (of the loader), OSError or RuntimeError (of PyTorch, threads)
    "failed to map segment|annot allocate memory|out of memory|not enough memory|DefaultCPUAllocator|bad_alloc"
    "|_STATUS_ALLOC_FAILED|can't start new thread|Unable to allocate"
)


def _unexpected(error: BaseException) -> VadisError:
    may_be_memory = isinstance(error, ImportError | OSError | RuntimeError)
    if isinstance(error, MemoryError) or (may_be_memory and _NO_MEMORY.search(str(error))):
        hint = "close other programs, raise a limit on memory (ulimit -v), or use --streams rgb"
        return VadisError("there is not enough memory", hint)
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return VadisError(f"the operating system refuses: {error.strerror}{place}", hint=what_next(error.errno))
    hint = "run again with --debug to see where, and please report it"
    return VadisError(f"this is a bug in vadis: {type(error).__name__}: {error}", hint=hint)


def repair_standard_streams() -> None:
    """Give every standard stream that is closed (``>&-``) a descriptor, and stdout escapes for what it cannot write.

    Else the next file that is opened would get the descriptor, and what is printed would go into it. Writing to a
    closed stdout is refused by the kernel, for its descriptor is one for reading.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)  # gets the lowest that is free
            raw = io.FileIO(number, mode, closefd=False)
            setattr(sys, name, io.TextIOWrapper(raw, "utf-8", write_through=True))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def num_videos(number: int) -> str:
    """ "1 video", "1,200 videos"."""
    return f"{number:,} video{'' if number == 1 else 's'}"


def clock(seconds: float) -> str:
    """``0:07``, ``12:40`` or ``1:02:03``; whole seconds, rounded."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def tenths(seconds: float) -> str:
    """``0:07.3``: a time that has to be found again."""
    number = round(seconds * 10)
    return f"{clock(number // 10)}.{number % 10}"


@contextmanager
def frame_progress(what: str) -> "Iterator[Callable[[int, int | None], None]]":
    """Yield a callback ``(frames_done, frames_total)`` that draws how far the one video at hand is."""
    with video_progress() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def video_progress() -> "Progress":
    """Return bars for videos: what, how far, and the time left. They show nothing unless stderr is a terminal."""
    from rich.progress import TaskProgressColumn, TextColumn, TimeRemainingColumn

    return _progress(TaskProgressColumn(), TimeRemainingColumn(), TextColumn("left"))


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a callback ``(name, bytes_done, bytes_total)`` that draws a bar per name: bytes, speed and time left."""
    from rich.progress import DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    tasks = {}
    with _progress(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn("left")) as progress:

        def report(name: str, bytes_done: int, bytes_total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(visible(name), total=bytes_total)
            progress.update(tasks[name], completed=bytes_done, total=bytes_total)

        yield report


def _progress(*measures: "ProgressColumn") -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = stderr_console()
    drawn = console.is_terminal and not settings.quiet
    column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    what = TextColumn("{task.description}", markup=False, table_column=column)
    return Progress(what, BarColumn(20), *measures, console=console, transient=True, disable=not drawn, expand=True)
