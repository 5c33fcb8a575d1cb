"""The cache, ``VADIS_CACHE`` or the platform's, of published files and of models made from them, filled over HTTPS.

CACHE/downloads/CHECKPOINT/… has the files, CACHE/models/NAME.safetensors the models. A file gets its final name only
after its size and published hash agree, so what lies under a final name is right.
"""

import contextlib
import hashlib
import http.client
import logging
import math
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import platformdirs

from vadis.errors import UnreachableError, WeightsError
from vadis.files import os_errors_as, write_atomic
from vadis.video.metadata import network_patience
from vadis.weights.catalog import WEIGHTS, RemoteFile

LOCK_POLL_SECONDS = 0.2
LOCK_TIMEOUT_SECONDS = 1800.0  # then without the lock: the process that holds it must be stopped

DownloadProgress = Callable[[str, int, int | None], None]  # what, bytes done, bytes in all (None: not known)
FileProgress = Callable[[int, int | None], None]  # bytes done, bytes in all

SIZE_CAP = 256 << 20  # bytes, of a file whose size was not published: a sample array has at most 95 MB
CHUNK_BYTES = 1 << 18
# How long to wait, in seconds; ``network_patience`` is a factor of all but the pauses.
ANSWER_SECONDS = 5.0  # for one host, from name resolution to the first line of its answer
FIRST_ANSWER_SECONDS = 9.0  # for all hosts and tries, while none has ever answered: the net is not there
STALL_SECONDS = 20.0  # without MIN_BYTES_PER_SECOND
PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)  # before each of the five rounds
MIN_BYTES_PER_SECOND = 1024  # slower than an early modem is a stalled transfer
RETRYABLE_STATUSES = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses after which asking again may help

_log = logging.getLogger(__name__)


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
    return os.path.isfile(path)  # noqa: PTH113 (``Path.is_file`` raises there)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to ``NAME.corrupt``, over an older one; raise OSError if it cannot be."""
    return path.replace(path.with_name(f"{path.name}.corrupt"))


@contextlib.contextmanager
def download_lock(name: str) -> Iterator[None]:
    """Wait for other processes that fetch ``name``; where locks do not work, all do, and end with the right file."""
    import filelock  # not needed to look into the cache

    path = cache_folder() / "locks" / f"{name}.lock"
    lock = filelock.FileLock(path)
    with contextlib.suppress(OSError, NotImplementedError):  # filelock.Timeout is an OSError
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.info("another vadis is fetching %s; waiting for it", name)
            lock.acquire(LOCK_TIMEOUT_SECONDS, LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def cache_errors(path: Path, num_bytes: int | None = None) -> contextlib.AbstractContextManager[None]:
    """Return a context manager that turns an OSError on writing a file of the cache into a WeightsError."""
    size = "" if num_bytes is None else f" ({num_bytes / 1e6:,.1f} MB)"
    return os_errors_as(WeightsError, f"{path}{size} cannot be written in the cache (VADIS_CACHE names another folder)")


def git_blob_id(path: Path) -> str:
    """Return git's name (by SHA-1) for the content of a file: the only checksum that DeepMind's were published with."""
    content = path.read_bytes()  # 103 MB at most
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


# --- downloads --------------------------------------------------------------------------------------------------------


class NoAnswerError(Exception):
    """A host was not reached, or said nothing."""


class TransferError(Exception):
    """A host answered, but the transfer failed in a way that may pass."""


class HTTPError(Exception):
    """A host answered, and asking again would give the same."""


def is_offline() -> bool:
    """Return whether ``VADIS_OFFLINE`` asks for no connections."""
    return os.environ.get("VADIS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def ensure_downloaded(
    name: str, files: Sequence[RemoteFile], *, offline: bool, progress: DownloadProgress, fallback_hint: str
) -> list[Path]:
    """Return the paths of all ``files`` in the cache, verified; download those that are not there.

    ``name`` says what they are for; ``progress`` gets the bytes of the missing files together; ``fallback_hint`` says
    what else a user without a connection can do. Raise UnreachableError if one cannot be had, with a hint where to put
    it by hand, WeightsError if one cannot be read or written.
    """
    missing = [file for file in files if not _is_there(file, offline)]
    if missing and offline:
        message = f"{name} needs {missing[0].local}, which is not in the cache, and vadis is offline"
        raise UnreachableError(message, _hint_by_hand(missing, fallback_hint))
    total = None if any(file.size is None for file in missing) else sum(file.size or 0 for file in missing)
    done = 0
    for number, file in enumerate(missing):

        def report(bytes_done: int, bytes_total: int | None, before: int = done) -> None:
            progress(name, before + bytes_done, bytes_total if total is None else total)

        path = download_path(file)
        with cache_errors(path, file.size), write_atomic(path) as stream:
            if reasons := _fetch(file, stream, report):
                message = f"{file.local} (for {name}) could not be downloaded from {reasons}"
                raise UnreachableError(message, _hint_by_hand(missing[number:], fallback_hint))
            done += stream.tell()
    return [download_path(file) for file in files]


def why_unreachable(files: Sequence[RemoteFile], seconds: float) -> str | None:
    """Return why files that are not in the cache cannot be had; None if a host answers within ``seconds``."""
    missing = [file for file in files if not is_file(download_path(file))]
    if missing and is_offline():
        return "vadis is offline"
    reasons = []
    for url in _urls(missing[0]) if missing else ():
        try:
            get(url, {}, seconds, seconds).close()
            return None
        except (NoAnswerError, TransferError, HTTPError) as error:
            reasons.append(str(error))
    return "; ".join(dict.fromkeys(reasons)) or None


def _is_there(file: RemoteFile, offline: bool) -> bool:
    """Return whether the cache holds ``file``; rename a wrong one, and say so."""
    if not is_file(path := download_path(file)):
        return False
    with os_errors_as(WeightsError, f"{path} in the cache (VADIS_CACHE) cannot be read or renamed"):
        if file.size in (None, path.stat().st_size) and _has_published_content(path, file):
            return True
        damage = f"{path} is not the published file, or is damaged"
        if offline:
            raise WeightsError(damage, f"it should be {_urls(file)[0]}; delete it")
        _log.info("%s: renamed to %s, fetched again", damage, set_aside(path).name)
    return False


def _has_published_content(path: Path, file: RemoteFile) -> bool:
    if file.git_blob:
        return git_blob_id(path) == file.git_blob
    # Eight digits tell damage, not a forgery, so such a file is read with ``weights_only`` as every other.
    return bool(file.sha256_prefix) and hashlib.sha256(path.read_bytes()).hexdigest().startswith(file.sha256_prefix)


def _fetch(file: RemoteFile, stream: BinaryIO, report: FileProgress) -> str | None:
    """Fill ``stream`` with the published content, in up to five rounds over all hosts; or return why no host has it."""
    urls, reasons, patience = _urls(file), dict[str, str](), network_patience()
    give_up = time.monotonic() + FIRST_ANSWER_SECONDS * patience  # unless a host has answered
    for number, pause in enumerate(PAUSES):
        if not urls or (number == 2 and give_up < math.inf):  # no use in going on: no name resolves, nobody listens
            break
        time.sleep(max(0.0, min(pause, give_up - time.monotonic())))
        for url in list(urls):
            seconds = min(ANSWER_SECONDS * patience, give_up - time.monotonic())
            is_resumed = stream.seek(0, os.SEEK_END) > 0
            try:
                _receive(file, url, stream, seconds, STALL_SECONDS * patience, report)
                return None
            except NoAnswerError as error:
                reasons.setdefault(url, str(error))
            except (TransferError, HTTPError) as error:
                give_up, reasons[url] = math.inf, str(error)
                if isinstance(error, HTTPError):  # without what is there already, the whole file may be given
                    stream.truncate(stream.seek(0))
                if isinstance(error, HTTPError) and not is_resumed:
                    urls.remove(url)
                else:
                    _log.info("%s: %s; trying again", urlsplit(url).hostname, error)
    shown: dict[str, str] = {}  # the first address with what went wrong there, others where something else did
    for url, reason in reasons.items():
        shown.setdefault(reason, url)
    return "; ".join(f"{url}: {reason}" for reason, url in shown.items())


def _receive(
    file: RemoteFile, url: str, stream: BinaryIO, seconds: float, stall_seconds: float, report: FileProgress
) -> None:
    """Get what ``stream``, which is at its end, still lacks from one host, and verify the whole."""
    have = stream.tell()
    with contextlib.closing(get(url, {"Range": f"bytes={have}-"} if have else {}, seconds, stall_seconds)) as response:
        # Content-Range: bytes 100-199/200
        first_byte = response.headers.get("Content-Range", "bytes 0-").removeprefix("bytes ").partition("-")[0]
        if first_byte not in ("0", str(have)):
            raise HTTPError("the host answered with another part of the file than was asked for")
        if first_byte == "0":
            have = stream.truncate(stream.seek(0))
        if (content_type := response.headers.get_content_type()) in ("text/html", "application/xhtml+xml"):
            raise HTTPError(f"not a weights file (got {content_type})")
        total = file.size if response.length is None else have + response.length
        if total and file.size not in (None, total):
            raise HTTPError(f"not the published file: it has {total:,} bytes instead of {file.size:,}")
        report(have, total)
        for chunk in _chunks(response, stall_seconds):
            have += len(chunk)
            if have > (limit := total or SIZE_CAP):
                raise HTTPError(f"not the published file: it has more than {limit:,} bytes")
            stream.write(chunk)
            report(have, total)
    if total and have < total:
        raise TransferError(f"the transfer was cut after {have:,} of {total:,} bytes")
    stream.flush()
    if not _has_published_content(Path(stream.name), file):  # two parts may be of two files
        raise HTTPError("the host sent other bytes than were published")


def _urls(file: RemoteFile) -> list[str]:
    """Return where to look for a file; ``VADIS_MIRROR`` stands for every host."""
    mirror = os.environ.get("VADIS_MIRROR")
    if not mirror:
        return list(file.urls)
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        hint = "it should look like https://mirror.example or http://10.0.0.1:8080"
        raise WeightsError("VADIS_MIRROR is not the address of a host", hint)
    return [mirror.rstrip("/") + urlsplit(url).path for url in file.urls]


def _hint_by_hand(files: Sequence[RemoteFile], fallback_hint: str) -> str:
    places = "\n".join(f"  {_urls(file)[0]}\n    to {download_path(file)}" for file in files)
    return f"{fallback_hint}; or fetch by hand, on any machine,\n{places}"


# --- one GET that cannot hang ----------------------------------------------------------------------------------------


def _chunks(response: http.client.HTTPResponse, stall_seconds: float) -> Iterator[bytes]:
    since, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except TimeoutError as error:
            raise TransferError("the transfer stalled") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise TransferError(f"the transfer was cut ({_reason(error)})") from error
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed > stall_seconds:
            if received < MIN_BYTES_PER_SECOND * elapsed:
                raise TransferError("the transfer stalled")
            since, received = time.monotonic(), 0


def get(url: str, headers: Mapping[str, str], answer_seconds: float, stall_seconds: float) -> http.client.HTTPResponse:
    """Ask for ``url``; redirects are followed, from https only to https.

    Raise NoAnswerError if the host's headers are not there after ``answer_seconds``, name resolution included,
    TransferError for a status that may pass, like 503, HTTPError for any other, and a redirect to a plain connection.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "vadis", **headers})
    outcome: Future[http.client.HTTPResponse] = Future()

    def work() -> None:
        try:
            outcome.set_result(urllib.request.build_opener(_Redirects).open(request, timeout=stall_seconds))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            outcome.set_exception(error)

    # A thread, because a socket's time limit holds for each address of a host by itself, and for looking them up not
    # at all. One that is given up is left to end on its own.
    threading.Thread(target=work, name="vadis-http", daemon=True).start()
    try:
        return outcome.result(max(0.0, answer_seconds))
    except urllib.error.HTTPError as error:
        with error:
            kind = TransferError if error.code in RETRYABLE_STATUSES else HTTPError
            words = http.client.responses.get(error.code, "")
            raise kind(f"the host answered {error.code} {words}".rstrip()) from error
    except (OSError, http.client.HTTPException, ValueError, FutureTimeoutError) as error:
        raise NoAnswerError(f"no answer from {urlsplit(url).hostname}: {_reason(error)}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from a protected connection to a plain one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("https", req.type):
            fp.close()
            raise HTTPError("the host redirects to a connection that is not protected")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: Exception) -> str:
    """Return why a connection failed, in a few words without addresses or credentials."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError | FutureTimeoutError):  # two classes until Python 3.11
        return "timed out"
    return getattr(reason, "strerror", None) or type(reason).__name__
