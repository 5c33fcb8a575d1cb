"""Files that appear under their name complete or not at all: a temporary file beside them, fsync, rename, fsync."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
