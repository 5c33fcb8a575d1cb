"""Files that survive a kill, a full disk and a power cut: whole or absent, appended to by lines, one writer each."""

import errno
import fcntl
import glob
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vadis.errors import AGAIN, OutputLockedError, UsageError, VadisError, what_next
from vadis.results import printable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit set by `ulimit -f`
DISK_ERRORS = (*FULL_DISK, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES)
"""By which a file that is being written tells of its disk, whatever is written into it."""


@contextmanager
def os_errors_as(kind: type[VadisError], what: str, again: str = AGAIN) -> Iterator[None]:
    """Turn an ``OSError`` of this block into ``kind``: ``what``, a colon and errno's own words, and what to do next.

    A full disk is no wrong use: for a ``UsageError`` it gives a ``VadisError``. A reader that has left passes through.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in FULL_DISK and issubclass(kind, UsageError):
            kind = VadisError
        raise kind(f"{what}: {error.strerror or error}", what_next(error.errno, again)) from error


@contextmanager
def write_atomic(path: Path, place: Callable[[], Path | None] | None = None) -> Iterator[BinaryIO]:
    """Yield a temporary file beside ``path`` that takes its name, complete and on the disk, when the block ends.

    Where the block raises, ``path`` stays as it was. The file's ``name`` is its path, for what opens files itself or
    renames another onto it. The folder is made if need be. ``place`` says at the end of the block where the file goes
    instead; None: nowhere. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 24 * 3600:  # its process was killed
                leftover.unlink()
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        with temporary.open("x+b") as file:  # exclusive: follows no link
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target := path if place is None else place():
            temporary.replace(target)
            sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write ``content``, text in UTF-8, as ``write_atomic`` does."""
    with write_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` outlast a power cut, where the file system lets folders be flushed."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of ``content``: in one call, unless the disk takes only a part of it."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class AppendLog:
    """A file that grows by whole lines, each of them on the disk at most ``sync_seconds`` after it was appended.

    A line is written whole or not at all; what a killed process left behind the last whole one is cut off by the next.
    A file that has stayed empty is removed on closing. Every method raises VadisError where the disk refuses; ``again``
    is what its hint says to do once there is room.
    """

    def __init__(self, path: Path, sync_seconds: float = 1.0, again: str = AGAIN) -> None:
        self.path, self.shown = Path(os.path.realpath(path)), printable(str(path))
        self._sync_seconds, self._again = sync_seconds, again
        with self._errors():
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self.end = self._end_of_last_line()
            """Where the next line goes; set to 0, it replaces everything."""
        self._timer: threading.Timer | None = None  # of what was written and is not yet on the disk
        self._failure: OSError | None = None  # of a flush
        self._lock = threading.Lock()  # of both

    def __enter__(self) -> "AppendLog":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.sync()
        finally:
            if os.fstat(self._descriptor).st_size == 0:
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)

    def append(self, line: bytes) -> None:
        """Write one line, which ends with a line break; raises also where the file was removed or replaced."""
        with self._errors():
            if not _is_at(self._descriptor, self.path):
                message = f"{self.shown} was removed or replaced while it was being written"
                raise VadisError(message, hint="see that nothing else does that, and give the same command again")
            if os.fstat(self._descriptor).st_size != self.end:
                os.ftruncate(self._descriptor, self.end)
            try:
                write_all(self._descriptor, line)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self.end)
                raise
            self.end += len(line)
            with self._lock:
                self._raise_failure()
                if self._timer is None:
                    self._timer = threading.Timer(self._sync_seconds, self._flush)
                    self._timer.daemon = True
                    self._timer.start()

    def sync(self) -> None:
        """Flush now, and wait for a flush that is going on; raises what any flush has met."""
        self._flush()
        with self._errors():
            self._raise_failure()

    def _errors(self) -> Any:
        return os_errors_as(VadisError, f"cannot write to {self.shown}", self._again)

    def _end_of_last_line(self) -> int:
        end = os.fstat(self._descriptor).st_size
        while end:
            start = max(0, end - 65536)
            if at := os.pread(self._descriptor, end - start, start).rfind(b"\n") + 1:
                return start + at
            end = start
        return 0

    def _flush(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                try:
                    os.fsync(self._descriptor)
                except OSError as error:
                    self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none


@contextmanager
def locked(output: Path, task: str | None = None) -> Iterator[None]:
    """Hold the lock of ``output`` in this block: a file beside it, ``output.lock``, that says who holds it.

    The lock is the kernel's (``flock``), so that of a killed process is gone with it, whatever its file says. Where a
    file system has no such locks, a signed file is one, until it is removed. Raises OutputLockedError where another
    process holds it, which says its ``task`` (by default "writes OUTPUT"), and VadisError where it cannot be written.
    """
    place, shown = output.with_name(f"{output.name}.lock"), printable(str(output))
    with ExitStack() as stack:
        with os_errors_as(VadisError, f"cannot write to {shown}"):
            while True:
                descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
                stack.callback(os.close, descriptor)
                _acquire_lock(descriptor, place, task or f"writes {shown}")
                if _is_at(descriptor, place):
                    break
                stack.close()  # it was removed while we took it: take the next
            stack.callback(place.unlink, missing_ok=True)  # before it is let go: see above
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}, since {since}\n".encode(), 0)
        yield


def _acquire_lock(descriptor: int, place: Path, task: str) -> None:
    hint = "wait for it, or choose another output"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except OSError as error:
        has_locks = error.errno not in _NO_LOCKS
        if has_locks and error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
    # It is empty where its process was killed before it could sign, or is about to.
    holder = os.pread(descriptor, 4096, 0).decode("utf-8", "replace").strip()
    if not has_locks:
        hint = f"if that run is over, remove {printable(str(place))}"
        if not holder:
            return
    raise OutputLockedError(f"another vadis ({printable(holder) or 'just begun'}) {task}", hint)
