"""Files that appear under their name complete or not at all: a temporary file beside them, fsync, rename, fsync.

A log is the other way: a file that grows line by line, and after whatever ended its process still has every whole one.

One run at a time writes an output: a lock file beside it that says who holds it.

The lock is the kernel's (``flock``), so that of a killed run is gone with it, whatever its file says. Where a file
system has no such locks, the file's text decides: process and host.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vadis.errors import OutputLockedError, VadisError
from vadis.parsing import parse_json
from vadis.results import printable

STALE_SECONDS = 24 * 3600  # a temporary file this old belongs to a process that was killed
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit set by `ulimit -f`
DISK_ERRORS = (*FULL_DISK, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES)
"""By which a file that is being written tells of its disk, whatever is written into it."""


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new, empty, uniquely named file in the folder of ``path``, which is made if need be.

    The body writes, and calls ``replace(path)`` on the temporary path when the content is right. Afterwards the
    folder is flushed to the disk, and a temporary file that was not renamed is removed. Its mode is 0666 & ~umask.

    Raises:
        OSError: if the folder or file cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "r+b") as stream:
            yield temporary, stream
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a file that is there whole or not at all, and on the disk; return its size in bytes.

    Raises:
        OSError: if it cannot be written.
    """
    with temporary_beside(path) as (temporary, file):
        num_bytes = sum(map(file.write, pieces))
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
    return num_bytes


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left of earlier tries at ``path``."""
    for leftover in path.parent.glob(f"{_literal(path.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()


def _literal(name: str) -> str:
    """``name`` as a pattern that matches only itself."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` outlast a power cut, where the file system lets folders be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_MOST_BYTES = 4096  # of a lock file


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the lock of ``output`` in this block.

    Raises:
        OutputLockedError: another run holds it.
        OSError: the lock file cannot be written.
    """
    place = output.with_name(f"{output.name}.lock")
    descriptor = _taken(place, output)
    try:
        _sign(descriptor)
        yield
    finally:
        place.unlink(missing_ok=True)  # before it is let go: whoever waits looks again whether it is still the same
        os.close(descriptor)


def _taken(place: Path, output: Path) -> int:
    """The open lock file, held; of one that was removed while we took it, the next."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _take(descriptor, place, output)
            if _is_still(descriptor, place):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(descriptor: int, place: Path, output: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        is_without_locks = error.errno in _NO_LOCKS
        if not is_without_locks and error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        holder = _holder(descriptor)
        if is_without_locks and not _may_live(holder):
            return
        hint = "wait for it, or choose another output"
        if is_without_locks:
            hint = f"if that run is over, remove {printable(str(place))}"
        raise OutputLockedError(
            f"another vadis ({_described(holder)}) writes {printable(str(output))}", hint=hint
        ) from error


def _is_still(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    signature = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(signature).encode() + b"\n", 0)


def _holder(descriptor: int) -> dict[str, Any]:
    """What a lock file says; nothing where its run was killed before it could sign."""
    try:
        signature = parse_json(os.pread(descriptor, _MOST_BYTES, 0))
    except ValueError:
        return {}
    return signature if isinstance(signature, dict) else {}


def _described(holder: dict[str, Any]) -> str:
    if not holder:
        return "just begun"
    return printable(f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}")


def _may_live(holder: dict[str, Any]) -> bool:
    """Whether the run that signed may still go on; of another host that cannot be known."""
    if holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, KeyError, TypeError, ValueError):
        return True
    return int(holder["pid"]) != os.getpid()


SYNC_SECONDS = 1.0  # at most this much of a log is lost when the power goes


class AppendLog:
    """A file of lines that this process alone writes, each whole or not at all; made by ``open_log``.

    What is written is on the disk ``SYNC_SECONDS`` later, also when nothing more follows, and after ``sync``.

    Attributes:
        path: the file itself, whatever links lead to it.
        shown: its name as it was given.
        end: where the next line begins, to be set by whoever has read the file; what stands behind it is cut off then.
    """

    def __init__(self, path: Path, shown: str, descriptor: int) -> None:
        self.path, self.shown, self.end = path, shown, 0
        self._descriptor = descriptor
        self._timer: threading.Timer | None = None  # of what was written and is not yet on the disk
        self._failure: OSError | None = None
        self._lock = threading.Lock()  # of both

    def append(self, line: bytes) -> None:
        """Append a line; what a full disk took of it is cut off again.

        Raises:
            OSError: the disk refuses this line, or an earlier one when it was flushed.
            VadisError: the file was removed or replaced meanwhile.
        """
        if not _is_still(self._descriptor, self.path):
            message = f"{self.shown} was removed or replaced while it was being written"
            raise VadisError(message, hint="see that nothing else does that, and give the same command again")
        if self.end != os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, self.end)
        try:
            left = memoryview(line)
            while left:  # once, unless the disk takes only a part of it
                left = left[os.write(self._descriptor, left) :]
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.end)
            raise
        self.end += len(line)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._timer is None:
                self._timer = threading.Timer(SYNC_SECONDS, self._flush)
                self._timer.daemon = True
                self._timer.start()

    def sync(self) -> None:
        """Flush now, and wait for a flush that is going on; raises the OSError that any flush has met."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        self._flush()
        if self._failure is not None:
            raise self._failure

    def _flush(self) -> None:
        with self._lock:
            if self._timer is not None:  # else ``sync`` was quicker
                self._timer = None
                try:
                    os.fsync(self._descriptor)
                except OSError as error:
                    self._failure = error


@contextmanager
def open_log(path: Path) -> Iterator[AppendLog]:
    """A log for this process alone, made if need be; one that stays empty is removed again.

    Raises:
        OutputLockedError: another process has it.
        OSError: it cannot be written.
    """
    shown, path = printable(str(path)), Path(os.path.realpath(path))
    with locked(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            yield AppendLog(path, shown, descriptor)
        finally:
            if os.fstat(descriptor).st_size == 0:
                path.unlink(missing_ok=True)
            os.close(descriptor)
