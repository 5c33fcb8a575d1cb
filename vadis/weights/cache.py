"""Where vadis keeps what it has fetched, and how processes take turns there.

    CACHE/models/NAME.safetensors          converted models, each with NAME.safetensors.sha256 beside it
    CACHE/downloads/CHECKPOINT/…           the published files as fetched; of no more use once converted
    CACHE/locks/NAME.lock                  held while a model is fetched

CACHE is ``VADIS_CACHE``, or else the platform's cache folder.

What a user reads when the disk refuses a file of the cache, or a model file.

Git's name for a content: the SHA-1 of ``b"blob SIZE\0"`` and the content.

DeepMind published no checksums, but a file in a git repository has this one. SHA-1 is weak where an attacker makes
both files; here the published one is given, and the CRC-32C of every tensor must agree too.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

from vadis.errors import WeightsError
from vadis.files import FULL_DISK
from vadis.weights.catalog import WEIGHTS, RemoteFile

LOCK_POLL_SECONDS = 0.2
LOCK_PATIENCE_SECONDS = 1800.0  # then on without it: the process that holds it must be stopped

Notify = Callable[[str], None]


def cache_folder() -> Path:
    """The cache, which need not exist yet."""
    chosen = os.environ.get("VADIS_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("vadis", appauthor=False)


def model_path(name: str) -> Path:
    """Where the converted model of this name lies, or will lie."""
    return cache_folder() / "models" / f"{name}.safetensors"


def stamp_path(model: Path) -> Path:
    """The file beside a model that holds its SHA-256, as ``sha256sum`` writes it."""
    return model.with_name(f"{model.name}.sha256")


def download_path(file: RemoteFile) -> Path:
    """Where a published file lies, or will lie."""
    return cache_folder() / "downloads" / file.local


def model_files(name: str) -> list[Path]:
    """What the cache holds of a converted model: the file, its stamp, and a damaged one that was set aside."""
    path = model_path(name)
    candidates = (path, stamp_path(path), path.with_name(f"{path.name}.corrupt"))
    return [file for file in candidates if is_file(file)]


def downloaded_files(name: str) -> list[Path]:
    """What the cache holds of the checkpoints that a model was made from, and of damaged ones that were set aside."""
    paths = [download_path(file) for file in WEIGHTS[name].files]
    candidates = [*paths, *(path.with_name(f"{path.name}.corrupt") for path in paths)]
    return [file for file in candidates if is_file(file)]


def is_file(path: Path) -> bool:
    """Whether there is a file at ``path``; in a folder that may not be entered there is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``NAME.corrupt``, over an older one; raises OSError if it cannot be."""
    return path.replace(path.with_name(f"{path.name}.corrupt"))


@contextlib.contextmanager
def turn(name: str, notify: Notify) -> Iterator[None]:
    """Wait for other processes that are fetching ``name``, so that only one does.

    Politeness, not correctness: where locks do not work (network file systems, a read-only cache) everybody goes on
    at once, and all end with the right file.
    """
    descriptor = _lock(cache_folder() / "locks" / f"{name}.lock", name, notify)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which also unlocks


def _lock(path: Path, name: str, notify: Notify) -> int | None:
    """An open, locked file, or None where that cannot be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    said = False
    patience = time.monotonic() + LOCK_PATIENCE_SECONDS
    while time.monotonic() < patience:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                break
            if not said:
                notify(f"another vadis is fetching {name}; waiting for it")
                said = True
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return descriptor
    os.close(descriptor)
    return None


def write_error(path: Path, num_bytes: int | None, error: OSError) -> WeightsError:
    """What a user should read when ``path``, of ``num_bytes``, could not be written."""
    size = "" if num_bytes is None else f" ({num_bytes / 1e6:,.1f} MB)"
    if error.errno in FULL_DISK:
        return WeightsError(
            f"no space left to write {path}{size}",
            hint="free some space, or set VADIS_CACHE to a folder on another disk",
        )
    return WeightsError(
        f"{path}{size} cannot be written: {error.strerror}",
        hint="set VADIS_CACHE to a folder that can be written, if this is the cache",
    )


CHUNK_BYTES = 1 << 20


def git_blob_id(path: Path) -> str:
    """The git blob id of a file, 40 hexadecimal digits; raises OSError if it cannot be read."""
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        digest = _digest(size)
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git_blob_id_of(content: bytes) -> str:
    """Return the git blob id of a content, 40 hexadecimal digits."""
    digest = _digest(len(content))
    digest.update(content)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; raises OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _digest(size: int) -> "hashlib._Hash":
    """Return a digest that has seen what git hashes in front of a content of ``size`` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
