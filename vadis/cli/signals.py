"""SIGINT and SIGTERM: the first ends the run in good order, the second ends it at once.

While records are written a signal is *deferred* until the work in between may be dropped. While a module is imported a
signal waits too: PyTorch's C++ runs Python then, and ends the process by abort() if that raises. What takes long to
end, an import or a thread that compiles, is not waited for: a thread of its own then ends the process (``_exit_late``).
"""

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from vadis.errors import VadisError

SAME_SIGNAL_SECONDS = 0.5  # `timeout` and wrappers signal the process and its group: two deliveries of one wish
AGAIN_SECONDS = 0.02  # until it is looked again whether the import is over
END_SECONDS = 3.0  # from a signal that need not wait to the end of the process at the latest; 5 s are promised


class Interrupted(BaseException):
    """A signal asks the run to end; its exit code is 128 plus the signal's number (130, 143)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class _State:
    pending: int | None = None
    pending_since = 0.0
    deferred = False
    is_ending = False  # ``Interrupted`` has been raised: no block defers that any more
    is_reported = False  # the user knows what ended the run


def install() -> None:
    """Turn SIGINT and SIGTERM into ``Interrupted``, raised in the main thread."""
    _State.pending, _State.pending_since = None, 0.0
    _State.deferred = _State.is_ending = _State.is_reported = False
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _receive)
    signal.signal(signal.SIGALRM, _raise_if_allowed)


def finish() -> None:
    """End the watch: a signal that still waits has come too late."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _State.is_reported = True


@contextmanager
def deferred() -> Iterator[None]:
    """Within this block a signal waits until ``interruptible`` or the block's end."""
    with _deferring(True):
        yield
    _raise_pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within a ``deferred`` block: here a signal, also one that waits, is raised."""
    with _deferring(False):
        _raise_pending()
        yield


def pending() -> int:
    """Return the signal that waits in a ``deferred`` block, 0 for none: for work that ends itself in order."""
    return _State.pending or 0


def cause(error: BaseException) -> BaseException:
    """Return what ended the run: a signal, if one came, rather than a failure that vadis does not know."""
    is_known = isinstance(error, VadisError | Interrupted)
    return error if _State.pending is None or is_known else Interrupted(_State.pending)


@contextmanager
def _deferring(value: bool) -> Iterator[None]:
    before, _State.deferred = _State.deferred, value
    try:
        yield
    finally:
        _State.deferred = before


def _receive(signum: int, frame: FrameType | None) -> None:
    if _State.pending is not None:
        if time.monotonic() - _State.pending_since >= SAME_SIGNAL_SECONDS:
            _exit_now(signum)
        return
    _State.pending_since, _State.pending = time.monotonic(), signum
    _thread.start_new_thread(_exit_late, (signum, _State.pending_since))  # without the locks of threading.Thread
    _raise_if_allowed(signum, frame)


def _raise_if_allowed(signum: int, frame: FrameType | None) -> None:
    """Raise what waits, if it need not wait on."""
    if _State.deferred or _State.pending is None:
        return
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame is not None:  # a module is being imported
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    else:
        _raise_pending()


def _exit_late(signum: int, since: float) -> None:
    """End the process ``END_SECONDS`` after a signal at ``since``; those in which it is deferred do not count."""
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        time.sleep(AGAIN_SECONDS)
        if _State.deferred and not _State.is_ending:
            end = time.monotonic() + END_SECONDS
    if _State.pending_since == since:
        if not _State.is_reported:
            os.write(2, b"interrupted\n")
        _exit_now(signum)


def _exit_now(signum: int) -> NoReturn:
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\x1b[?25h")  # show the cursor, which a progress bar may have hidden
    os._exit(128 + signum)


def _raise_pending() -> None:
    if _State.pending is not None:
        _State.is_ending = True
        raise Interrupted(_State.pending)
