"""Videos in object stores and on web servers: fetched to a bounded scratch space, decoded there, removed.

FFmpeg never sees an address: what is fetched is a local file like any other, behind the same door. Only who asks for it
(``find_videos(remote=found_at)``, ``FetchingDecoders``) opens a connection. fsspec and what it needs are an extra:
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
from types import TracebackType
from typing import Any

from vadis.errors import UsageError, VadisError, VideoError
from vadis.files import FULL_DISK
from vadis.results import printable
from vadis.video.isolated.pool import ChildVideo, Decoders
from vadis.video.metadata import Limits, network_patience
from vadis.video.sources import VIDEO_EXTENSIONS, Stamp, remote_scheme
from vadis.video.sources import stamp as local_stamp

CONNECT_SECONDS, SILENT_SECONDS = 10, 60  # what a server may take to answer, and to say the next word
_POLL_SECONDS = 0.1  # between looks whether anybody still wants the file
_SCRATCH = "vadis-scratch-"
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
)
_REFUSED = (401, 403)  # HTTP statuses


def store_of(url: str) -> Any:
    """The file system of fsspec that a URL is in.

    Raises:
        VadisError: where the packages for it are not installed.
    """
    scheme = remote_scheme(url)
    options: dict[str, Any] = {}
    try:
        import fsspec

        if scheme == "s3":
            factor = network_patience()
            limits = {"connect_timeout": CONNECT_SECONDS * factor, "read_timeout": SILENT_SECONDS * factor}
            options["config_kwargs"] = {**limits, "retries": {"max_attempts": 2}}
        elif scheme == "https":
            options["client_kwargs"] = {"timeout": _patience()}
        elif scheme == "gs":
            options["requests_timeout"] = _patience()
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # which logs all that it raises
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise VadisError(f"{scheme}:// needs packages that are not installed", "pip install 'vadis[remote]'") from error


def _patience() -> Any:
    """How long a server may be silent: for aiohttp, whose own limit is five minutes for a whole file, or none."""
    from aiohttp import ClientTimeout

    factor = network_patience()
    return ClientTimeout(total=None, sock_connect=CONNECT_SECONDS * factor, sock_read=SILENT_SECONDS * factor)


def found_at(url: str) -> list[str]:
    """What a URL stands for: itself, or where it ends with a slash and an object store is behind it all videos below.

    They come in the order of their names' bytes, without hidden ones.

    Raises:
        UsageError: no store that vadis reads is behind it.
        VideoError: the folder cannot be listed.
        VadisError: as ``store_of``.
    """
    scheme = remote_scheme(url)
    if scheme is None:
        raise UsageError(f"{printable(url)} is in no store that vadis reads", "give s3://, gs:// or https://")
    store = store_of(url)
    if scheme == "https" or not url.endswith("/"):
        return [url]
    try:
        names = store.find(url)
    except Exception as error:  # every store has its own errors
        raise refusal(error, "the folder") from error
    root = store._strip_protocol(url)
    videos = (name for name in names if name.lower().endswith(VIDEO_EXTENSIONS))
    return sorted(
        (f"{scheme}://{name}" for name in videos if "/." not in f"/{name.removeprefix(root).lstrip('/')}"),
        key=os.fsencode,
    )


def stamp(path: str) -> Stamp:
    """The stamp of a file, local or remote, as it is now; None where it or its server cannot be asked."""
    if remote_scheme(path) is None:
        return local_stamp(path)
    try:
        info = store_of(path).info(path)
    except VadisError:
        raise
    except Exception:  # noqa: BLE001 (a codec that Matroska does not take, which raises nearly anything)
        return Stamp(None, None)
    return Stamp(info.get("size"), _mtime(info))


def refusal(error: BaseException, what: str = "the file") -> VideoError:
    """What the error of a store means for this input."""
    status = getattr(error, "status", getattr(error, "code", None))
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return VideoError("not_found", f"there is no such {what.removeprefix('the ')} in the store")
    if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS or status in _REFUSED:
        return VideoError("permission_denied", f"{what} may not be read", "check the credentials for its store")
    reason = " ".join(str(error).split()) or type(error).__name__
    return VideoError("io_error", f"{what} could not be fetched: {printable(reason)[:200]}")


def _mtime(info: dict[str, Any]) -> str | None:
    """The time of change that a store tells, as ``Stamp`` has it."""
    told = next((info[key] for key in ("LastModified", "Last-Modified", "updated", "mtime") if info.get(key)), None)
    with suppress(ValueError, TypeError):
        if isinstance(told, str):
            told = parsedate_to_datetime(told) if "," in told else datetime.fromisoformat(told.replace("Z", "+00:00"))
        if isinstance(told, datetime):
            since = told.astimezone(timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
            return f"{since.days * 86400 + since.seconds}.{since.microseconds:06}000"
    return None


class Scratch:
    """A folder of this process for fetched files, in the system's place for temporary ones (``TMPDIR``).

    It goes with ``close``. What a killed process has left is removed by the next one: the folder of a process that
    lives is locked, and the lock is the kernel's.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        for left in root.glob(f"{_SCRATCH}*"):
            _remove_unless_held(left)
        self._numbers = itertools.count(1)
        try:
            self._descriptor, self._folder = _held_folder(root)
        except OSError as error:
            place = printable(str(root))
            raise VadisError(f"no scratch space in {place}: {error.strerror}", "set TMPDIR to another place") from error

    def place_for(self, url: str) -> Path:
        """A name that is not taken, with the extension of the video."""
        extension = os.path.splitext(re.sub(r"[?#].*", "", url))[1].lower()  # noqa: PTH122
        known = extension if extension in VIDEO_EXTENSIONS else ""
        return self._folder / f"{next(self._numbers):08}{known}"

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._descriptor)


def _held_folder(root: Path) -> tuple[int, Path]:
    """A new folder below ``root`` and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=root))
        with suppress(FileNotFoundError, BlockingIOError):  # another process took it for one that was left
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks: nobody removes what cannot be locked
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.is_dir():
                return descriptor, folder
            os.close(descriptor)


def _remove_unless_held(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its process lives
        pass
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

    def __enter__(self) -> "FetchingDecoders":
        return self

    def stamp(self, path: str) -> Stamp:
        """As ``stamp``, of this module."""
        return stamp(path)

    def open(
        self,
        path: str | os.PathLike[str],
        *,
        listed: bool = False,
        start_frame: int = 0,
        max_frames: int | None = None,
    ) -> ChildVideo:
        """A video, fetched when its context is entered if it is at a URL; see ``Decoders.open``."""
        options = {"listed": listed, "start_frame": start_frame, "max_frames": max_frames}
        url = os.fspath(path)
        if remote_scheme(url) is None:
            return ChildVideo(self, self.request(path, **options), self.limits)
        request = self.request(self.scratch.place_for(url), **options)
        return FetchedVideo(self, request, self.limits, url, self.share_bytes)

    def close(self) -> None:
        """End all children, and remove what was fetched."""
        super().close()
        self.scratch.close()


class FetchedVideo(ChildVideo):
    """A video that is fetched as its context is entered, and removed as that is left."""

    def __init__(self, decoders: Decoders, request: dict[str, Any], limits: Limits, url: str, max_bytes: int) -> None:
        super().__init__(decoders, request, limits)
        self._url, self._max_bytes, self._place = url, max_bytes, Path(request["path"])

    def __enter__(self) -> "FetchedVideo":
        """Fetch and open the file.

        Raises:
            VideoError: ``not_found``, ``permission_denied``, ``io_error`` by its store; ``too_large`` for the scratch
                space; all that opening a local file raises.
            VadisError: the scratch space cannot be written, or a package is missing.
        """
        try:
            self._fetch()
            super().__enter__()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            super().__exit__(kind, error, at)
        finally:
            self._remove()

    def _remove(self) -> None:
        self._place.unlink(missing_ok=True)

    def _fetch(self) -> None:
        store = store_of(self._url)
        watch = _watch(self._max_bytes)
        fetching = store._get_file(store._strip_protocol(self._url), str(self._place), callback=watch)
        done = asyncio.run_coroutine_threadsafe(fetching, store.loop)
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
            raise refusal(error) from error
        finally:
            done.cancel()
        if watch.size is not None and self._place.stat().st_size != watch.size:
            raise VideoError("changed_while_reading", "the file had another size at the end than when it was begun")


def _watch(max_bytes: int) -> Any:
    """What fsspec tells of a transfer, which ends where it grows too large."""
    from fsspec.callbacks import Callback

    def check(size: int | None, value: int = 0, **_: Any) -> None:
        if max(size or 0, value) > max_bytes:
            raise VideoError(
                "too_large",
                f"the file has over {max_bytes / 1e9:.3g} GB, the share of one video in the scratch space",
                "give more scratch space (`scratch_bytes`), or open fewer videos at once (`places`)",
            )

    return Callback(hooks={"size": check})
