"""Where vadis keeps what it has fetched, and the lock under which one process fetches a model.

    CACHE/models/NAME.safetensors          converted models
    CACHE/downloads/CHECKPOINT/…           the published files as fetched; of no more use once converted
    CACHE/locks/NAME.lock                  held while a model is fetched

CACHE is ``VADIS_CACHE``, or else the platform's cache folder.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from vadis.errors import WeightsError
from vadis.files import os_errors_as
from vadis.weights.catalog import WEIGHTS, RemoteFile

LOCK_POLL_SECONDS = 0.2
LOCK_TIMEOUT_SECONDS = 1800.0  # then without the lock: the process that holds it must be stopped

Notify = Callable[[str], None]


def cache_folder() -> Path:
    """Return the cache's folder, which need not exist yet."""
    chosen = os.environ.get("VADIS_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("vadis", appauthor=False)


def model_path(name: str) -> Path:
    """Return the path of the converted model ``name``, present or not."""
    return cache_folder() / "models" / f"{name}.safetensors"


def download_path(file: RemoteFile) -> Path:
    """Return the path of a published file, present or not."""
    return cache_folder() / "downloads" / file.local


def cached_files(name: str) -> list[Path]:
    """Return the files in the cache of a model and of its checkpoints, with damaged ones that were set aside."""
    paths = [model_path(name), *map(download_path, WEIGHTS[name].files)]
    return [file for path in paths for file in (path, path.with_name(f"{path.name}.corrupt")) if is_file(file)]


def is_file(path: Path) -> bool:
    """Return whether there is a file at ``path``; in a folder that may not be entered there is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``NAME.corrupt``, over an older one; raise OSError if it cannot be."""
    return path.replace(path.with_name(f"{path.name}.corrupt"))


@contextlib.contextmanager
def download_lock(name: str, notify: Notify) -> Iterator[None]:
    """Wait for other processes that are fetching ``name``, so that only one does.

    Correctness does not rest on it: where locks do not work, every process fetches, and all end with the right file.
    """
    import filelock  # not needed to look into the cache

    path = cache_folder() / "locks" / f"{name}.lock"
    lock = filelock.FileLock(path)
    with contextlib.suppress(OSError, NotImplementedError):  # filelock.Timeout is an OSError
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            notify(f"another vadis is fetching {name}; waiting for it")
            lock.acquire(LOCK_TIMEOUT_SECONDS, LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def cache_errors(path: Path, num_bytes: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Return what turns an OSError while a file of the cache, of ``num_bytes``, is written into a WeightsError."""
    size = "" if num_bytes is None else f" ({num_bytes / 1e6:,.1f} MB)"
    return os_errors_as(WeightsError, f"{path}{size} cannot be written in the cache (VADIS_CACHE names another)")


def git_blob_id(path: Path) -> str:
    """Return git's name for the content of a file: the only checksum that DeepMind's files were published with.

    SHA-1 is weak where an attacker makes both files; here one is given, and every tensor's CRC-32C must agree too.
    """
    content = path.read_bytes()  # 103 MB at most
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
