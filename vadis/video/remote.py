"""Videos in object stores and on web servers: fetched by fsspec to a bounded scratch space, decoded there, removed."""

import asyncio
import concurrent.futures
import itertools
import logging
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, VadisError, VideoError
from vadis.files import FULL_DISK, locked, os_errors_as
from vadis.results import printable
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import Limits, network_patience
from vadis.video.sources import VIDEO_EXTENSIONS, Stamp, remote_scheme

CONNECT_SECONDS, SILENT_SECONDS = 10, 60  # in which a server must answer, and send the next byte
_SCRATCH = "vadis-scratch-"


def filesystem_of(url: str) -> Any:
    """Return the file system of fsspec that a URL is in; raise VadisError where its packages are not installed."""
    scheme, patience = remote_scheme(url), network_patience()
    connect, silent = CONNECT_SECONDS * patience, SILENT_SECONDS * patience
    try:
        import fsspec

        if scheme == "s3":
            config = {"connect_timeout": connect, "read_timeout": silent, "retries": {"max_attempts": 2}}
            return fsspec.filesystem(scheme, config_kwargs=config)
        from aiohttp import ClientTimeout

        # By itself it waits five minutes for a whole file, or for ever.
        timeout = ClientTimeout(total=None, sock_connect=connect, sock_read=silent)
        if scheme == "https":
            return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout})
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # which logs all that it raises
        return fsspec.filesystem(scheme, requests_timeout=timeout)
    except ImportError as error:
        raise VadisError(f"{scheme}:// needs packages that are not installed", "pip install 'vadis[remote]'") from error


def expand_url(url: str) -> list[str]:
    """Return a URL, or the videos below one in an object store that ends with a slash, without hidden ones, in order.

    Raises UsageError for other URLs, VideoError where the folder cannot be listed.
    """
    scheme = remote_scheme(url)
    if scheme is None:
        raise UsageError(f"{printable(url)} is in no store that vadis reads", "give s3://, gs:// or https://")
    filesystem = filesystem_of(url)
    if scheme == "https" or not url.endswith("/"):
        return [url]
    try:
        names = filesystem.find(url)
    except Exception as error:  # every store has its own errors
        raise store_refusal(error, "the folder") from error
    root = filesystem._strip_protocol(url)
    videos = (name for name in names if name.lower().endswith(VIDEO_EXTENSIONS))
    shown = (name for name in videos if "/." not in f"/{name.removeprefix(root).lstrip('/')}")
    return sorted((f"{scheme}://{name}" for name in shown), key=os.fsencode)


def store_refusal(error: BaseException, what: str = "the file") -> VideoError:
    """Return what the error of a store means for this input."""
    status = getattr(error, "status", getattr(error, "code", None))
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return VideoError("not_found", f"there is no such {what.removeprefix('the ')} in the store")
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__ or status in (401, 403):
        return VideoError("permission_denied", f"{what} may not be read", "check the credentials for its store")
    reason = " ".join(str(error).split()) or type(error).__name__
    return VideoError("io_error", f"{what} could not be fetched: {printable(reason)[:200]}")


def _mtime(info: dict[str, Any]) -> str | None:
    """Return the time of change that a store states (S3, Google's, a web server), as in ``Stamp``."""
    time = info.get("LastModified") or info.get("mtime") or info.get("Last-Modified")
    if isinstance(time, str):
        with suppress(ValueError, TypeError):
            time = parsedate_to_datetime(time)
    return f"{time.timestamp():.6f}000" if isinstance(time, datetime) else None


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Make a folder in ``TMPDIR`` for this block; remove those that killed processes have left there."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_SCRATCH}*"):
        with suppress(VadisError, OSError):  # its process lives, or has just removed it
            if left.is_dir():
                with locked(left):
                    shutil.rmtree(left)
    folder = root / f"{_SCRATCH}{os.getpid()}-{secrets.token_hex(4)}"
    with locked(folder), os_errors_as(VadisError, f"no scratch space in {printable(str(root))}"):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class FetchingDecoders(Decoders):
    """Decoders that also open what is at a URL: it is fetched when the context of the video is entered.

    At most ``places`` videos are open at once, each with its share of ``scratch_bytes``: so none waits for another's.
    """

    def __init__(self, scratch_bytes: int, places: int, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.places, self.share_bytes = places, scratch_bytes // places
        self._numbers, self._exit_stack = itertools.count(1), ExitStack()
        self._scratch = self._exit_stack.enter_context(_scratch_folder())

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of a file, local or remote, as it is now; None in it where its server cannot be asked."""
        if remote_scheme(path) is None:
            return super().stamp(path)
        filesystem = filesystem_of(path)
        try:
            info = filesystem.info(path)
        except Exception:  # noqa: BLE001 (every store has its own errors)
            return Stamp(None, None)
        return Stamp(info.get("size"), _mtime(info))

    @contextmanager
    def local_path(self, path: str, is_cancelled: Callable[[], bool]) -> Iterator[str]:
        """Yield the local file for what ``path`` stands for, fetched for this block if that is at a URL.

        Raises VideoError for what its store refuses, VadisError where scratch space is missing.
        """
        if remote_scheme(path) is None:
            yield path
            return
        extension = os.path.splitext(re.sub(r"[?#].*", "", path))[1].lower()  # noqa: PTH122
        place = self._scratch / f"{next(self._numbers):08}{extension if extension in VIDEO_EXTENSIONS else ''}"
        try:
            _fetch(path, place, self.share_bytes, is_cancelled)
            yield str(place)
        finally:
            place.unlink(missing_ok=True)

    def close(self) -> None:
        super().close()
        self._exit_stack.close()


def _fetch(url: str, place: Path, max_bytes: int, is_cancelled: Callable[[], bool]) -> None:
    from fsspec.callbacks import Callback

    def check(size: int | None, value: int = 0, **_: Any) -> None:
        if max(size or 0, value) > max_bytes:
            message = f"the file has over {max_bytes / 1e9:.3g} GB, the share of one video in the scratch space"
            hint = "give more scratch space (`scratch_bytes`), or open fewer videos at once (`places`)"
            raise VideoError("too_large", message, hint)

    filesystem, transfer = filesystem_of(url), Callback(hooks={"size": check})
    fetching = filesystem._get_file(filesystem._strip_protocol(url), str(place), callback=transfer)
    done = asyncio.run_coroutine_threadsafe(fetching, filesystem.loop)
    try:
        while not concurrent.futures.wait([done], 0.1).done:
            if is_cancelled():
                raise VideoError("decoder_crash", "the video was given up before it was fetched")
        done.result()
    except (VadisError, KeyboardInterrupt):
        raise
    except Exception as error:  # every store has its own errors
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            hint = "make room, set TMPDIR to another place, or give a smaller `scratch_bytes`"
            raise VadisError("no space left for fetched videos", hint) from error
        raise store_refusal(error) from error
    finally:
        done.cancel()
    if transfer.size not in (None, place.stat().st_size):
        raise VideoError("changed_while_reading", "the file had another size at the end than when it was begun")
