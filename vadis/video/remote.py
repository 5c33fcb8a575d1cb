"""Videos in object stores and on web servers: fetched to a bounded scratch space, decoded there, removed.

FFmpeg never sees an address: what is fetched is a local file like any other. Only who asks for it
(``find_videos(remote=expand_url)``, ``FetchingDecoders``) opens a connection. fsspec and what it needs are an extra:
``pip install 'vadis[remote]'``. Credentials are where the store's own programs have them.
"""

import asyncio
import concurrent.futures
import fcntl
import itertools
import logging
import os
import re
import shutil
import tempfile
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadis.errors import UsageError, VadisError, VideoError
from vadis.files import FULL_DISK
from vadis.results import printable
from vadis.video.isolated.pool import ChildVideo, Decoders
from vadis.video.metadata import AnyPath, Limits, network_patience
from vadis.video.sources import VIDEO_EXTENSIONS, Stamp, remote_scheme

if TYPE_CHECKING:
    from typing_extensions import Self

CONNECT_SECONDS, SILENT_SECONDS = 10, 60  # in which a server must answer, and send the next byte
_POLL_SECONDS = 0.1  # between looks whether anybody still wants the file
_SCRATCH = "vadis-scratch-"
_NO_CREDENTIALS = (
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"),
)


def filesystem_of(url: str) -> Any:
    """Return the file system of fsspec that a URL is in; raise VadisError where its packages are not installed."""
    scheme = remote_scheme(url)
    options: dict[str, Any] = {}
    try:
        import fsspec

        if scheme == "s3":
            factor = network_patience()
            limits = {"connect_timeout": CONNECT_SECONDS * factor, "read_timeout": SILENT_SECONDS * factor}
            options["config_kwargs"] = {**limits, "retries": {"max_attempts": 2}}
        elif scheme == "https":
            options["client_kwargs"] = {"timeout": _timeout()}
        elif scheme == "gs":
            options["requests_timeout"] = _timeout()
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # which logs all that it raises
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise VadisError(f"{scheme}:// needs packages that are not installed", "pip install 'vadis[remote]'") from error


def _timeout() -> Any:
    """Return how long a server may be silent: aiohttp's own limit is five minutes for a whole file, or none."""
    from aiohttp import ClientTimeout

    factor = network_patience()
    return ClientTimeout(total=None, sock_connect=CONNECT_SECONDS * factor, sock_read=SILENT_SECONDS * factor)


def expand_url(url: str) -> list[str]:
    """Return what a URL stands for: itself, or all videos below where it ends with a slash, in an object store.

    They come in the order of their names' bytes, without hidden ones. Raises UsageError for other URLs, VideoError
    where the folder cannot be listed.
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
    if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS or status in (401, 403):
        return VideoError("permission_denied", f"{what} may not be read", "check the credentials for its store")
    reason = " ".join(str(error).split()) or type(error).__name__
    return VideoError("io_error", f"{what} could not be fetched: {printable(reason)[:200]}")


def _mtime(info: dict[str, Any]) -> str | None:
    """Return the time of change that a store states, as in ``Stamp``."""
    time = next((info[key] for key in ("LastModified", "Last-Modified", "updated", "mtime") if info.get(key)), None)
    with suppress(ValueError, TypeError):
        if isinstance(time, str):
            time = parsedate_to_datetime(time) if "," in time else datetime.fromisoformat(time.replace("Z", "+00:00"))
        if isinstance(time, datetime):
            since = time.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
            return f"{since.days * 86400 + since.seconds}.{since.microseconds:06}000"
    return None


class Scratch:
    """A folder of this process for fetched files, in ``TMPDIR``; locked, so that the next process removes leftovers."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        for left in root.glob(f"{_SCRATCH}*"):
            _remove_unless_locked(left)
        self._numbers = itertools.count(1)
        try:
            self._descriptor, self._folder = _locked_folder(root)
        except OSError as error:
            place = printable(str(root))
            raise VadisError(f"no scratch space in {place}: {error.strerror}", "set TMPDIR to another place") from error

    def place_for(self, url: str) -> Path:
        extension = os.path.splitext(re.sub(r"[?#].*", "", url))[1].lower()  # noqa: PTH122
        known = extension if extension in VIDEO_EXTENSIONS else ""
        return self._folder / f"{next(self._numbers):08}{known}"

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._descriptor)


def _locked_folder(root: Path) -> tuple[int, Path]:
    """Return the descriptor that holds the lock of a new folder, and the folder."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=root))
        with suppress(FileNotFoundError, BlockingIOError):  # another process took it for one that was left
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks: nobody removes what cannot be locked
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir():
                return descriptor, folder
            os.close(descriptor)


def _remove_unless_locked(folder: Path) -> None:
    with suppress(OSError):  # it is gone, or its process lives
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


class FetchingDecoders(Decoders):
    """Decoders that also open what is at a URL.

    Args:
        scratch_bytes: what all fetched files may take together.
        places: videos that are open at once, at most; each may take its share of the scratch space, so that none
            ever waits for room that others hold while they wait for it.
    """

    def __init__(self, scratch_bytes: int, places: int, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.places, self.share_bytes = places, scratch_bytes // places
        self.scratch = Scratch()

    def stamp(self, path: str) -> Stamp:
        """Return the stamp of a file, local or remote, as it is now; None in it where its server cannot be asked."""
        if remote_scheme(path) is None:
            return super().stamp(path)
        try:
            info = filesystem_of(path).info(path)
        except VadisError:
            raise
        except Exception:  # noqa: BLE001 (every store has its own errors)
            return Stamp(None, None)
        return Stamp(info.get("size"), _mtime(info))

    def open(
        self, path: AnyPath, *, listed: bool = False, start_frame: int = 0, max_frames: int | None = None
    ) -> ChildVideo:
        """Return a video, fetched when its context is entered if it is at a URL; see ``Decoders.open``."""
        url = os.fspath(path)
        if remote_scheme(url) is None:
            return super().open(path, listed=listed, start_frame=start_frame, max_frames=max_frames)
        return FetchedVideo(self, url, listed=listed, start_frame=start_frame, max_frames=max_frames)

    def close(self) -> None:
        super().close()
        self.scratch.close()


class FetchedVideo(ChildVideo):
    """A video that is fetched when its context is entered, and removed when that is left."""

    def __init__(self, decoders: FetchingDecoders, url: str, **part: Any) -> None:
        self._url, self._max_bytes, self._place = url, decoders.share_bytes, decoders.scratch.place_for(url)
        super().__init__(decoders, self._place, **part)

    def __enter__(self) -> "Self":
        """Fetch and open the file; raises VideoError also for its store, VadisError where scratch space is missing."""
        try:
            self._fetch()
            return super().__enter__()
        except BaseException:
            self._place.unlink(missing_ok=True)
            raise

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._place.unlink(missing_ok=True)

    def _fetch(self) -> None:
        filesystem = filesystem_of(self._url)
        transfer = _watch_transfer(self._max_bytes)
        fetching = filesystem._get_file(filesystem._strip_protocol(self._url), str(self._place), callback=transfer)
        done = asyncio.run_coroutine_threadsafe(fetching, filesystem.loop)
        try:
            while not concurrent.futures.wait([done], _POLL_SECONDS).done:
                if self._cancelled:
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
        if transfer.size is not None and self._place.stat().st_size != transfer.size:
            raise VideoError("changed_while_reading", "the file had another size at the end than when it was begun")


def _watch_transfer(max_bytes: int) -> Any:
    """Return fsspec's observer of a transfer, which ends it where it grows too large."""
    from fsspec.callbacks import Callback

    def check(size: int | None, value: int = 0, **_: Any) -> None:
        if max(size or 0, value) > max_bytes:
            message = f"the file has over {max_bytes / 1e9:.3g} GB, the share of one video in the scratch space"
            hint = "give more scratch space (`scratch_bytes`), or open fewer videos at once (`places`)"
            raise VideoError("too_large", message, hint)

    return Callback(hooks={"size": check})
