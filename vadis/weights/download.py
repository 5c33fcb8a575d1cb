"""Published files → the cache, over HTTPS.

The standard library does it: one GET with a few headers, while a client package would bring its own retries, its own
idea of a timeout (none covers name resolution) and a dependency for four files in the life of an installation.

A file gets its final name only after its size and git blob id agree (or what was published of its SHA-256), so what
lies under a final name is right, whatever servers, locks or other processes do.
"""

import contextlib
import hashlib
import http.client
import os
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from vadis.errors import UnreachableError, WeightsError
from vadis.files import write_atomic
from vadis.video.metadata import network_patience
from vadis.weights import cache
from vadis.weights.cache import Notify, git_blob_id, write_error
from vadis.weights.catalog import RemoteFile

DownloadProgress = Callable[[str, int, int | None], None]  # what, bytes done, bytes in all (None: not known)

SIZE_CAP = 256 << 20  # bytes, of a file whose size was not published: a sample array has at most 95 MB
CHUNK_BYTES = 1 << 18
MIN_BYTES_PER_SECOND = 1024  # slower than an early modem is a stalled transfer
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses after which asking again may help


class NoAnswerError(Exception):
    """A host was not reached, or said nothing."""


class TransferError(Exception):
    """A host answered, but the transfer failed in a way that may pass."""


class RangeError(TransferError):
    """A host does not give the part of the file that was asked for (416)."""


class HTTPError(Exception):
    """A host answered, and asking again would give the same."""


class UnavailableError(Exception):
    """A file cannot be had from any host."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    answer: float = 5.0  # one host, from name resolution to the first line of its answer
    first_answer: float = 9.0  # all hosts and tries, while none has ever answered: the net is not there
    stall: float = 20.0  # without MIN_BYTES_PER_SECOND
    pauses: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)  # before each of the five rounds

    def times(self, factor: float) -> "Patience":
        """Return the same with every wait for a host ``factor`` times as long."""
        return Patience(self.answer * factor, self.first_answer * factor, self.stall * factor, self.pauses)


DEFAULT_PATIENCE = Patience()


def is_offline() -> bool:
    """Return whether ``VADIS_OFFLINE`` asks for no connections."""
    return os.environ.get("VADIS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def ensure_downloaded(
    name: str,
    files: Sequence[RemoteFile],
    *,
    offline: bool,
    progress: DownloadProgress,
    notify: Notify,
    fallback_hint: str,
) -> list[Path]:
    """Return the paths of all ``files`` in the cache, verified; download those that are not there.

    ``name`` says what they are for; ``progress`` gets the bytes of the missing files together; ``fallback_hint`` says
    what else a user without a connection can do.

    Raises:
        UnreachableError: if one of them cannot be had; the hint says where to put it by hand.
        WeightsError: if one cannot be read or written.
    """
    missing = [file for file in files if not _is_there(file, offline, notify)]
    if missing and offline:
        message = f"{name} needs {missing[0].local}, which is not in the cache, and vadis is offline"
        raise UnreachableError(message, _hint_by_hand(missing, fallback_hint))
    total = None if any(file.size is None for file in missing) else sum(file.size or 0 for file in missing)
    done = 0
    for file in missing:

        def report(bytes_done: int, bytes_total: int | None, before: int = done) -> None:
            progress(name, before + bytes_done, total if total is not None else bytes_total)

        path = cache.download_path(file)
        try:
            with write_atomic(path) as stream:
                _Download(file, Path(stream.name), stream, report, notify).run()
                done += stream.tell()
        except UnavailableError as error:
            message = f"{file.local} (for {name}) could not be downloaded from {error}"
            hint = _hint_by_hand(missing[missing.index(file) :], fallback_hint)
            raise UnreachableError(message, hint) from error
        except OSError as error:
            raise write_error(path, file.size, error) from error
    return [cache.download_path(file) for file in files]


def why_unreachable(files: Sequence[RemoteFile], seconds: float) -> str | None:
    """Return why files that are not in the cache cannot be had; None if a host answers within ``seconds``."""
    missing = [file for file in files if not cache.is_file(cache.download_path(file))]
    if not missing:
        return None
    if is_offline():
        return "vadis is offline"
    reasons: dict[str, None] = {}  # in their order, each once
    for url in _urls(missing[0]):
        try:
            get(url, {}, seconds, seconds).close()
            return None
        except (NoAnswerError, TransferError, HTTPError) as error:
            reasons[str(error)] = None
    return "; ".join(reasons)


def _is_there(file: RemoteFile, offline: bool, notify: Notify) -> bool:
    """Return whether the cache holds ``file``; rename a wrong one under its name, once, and say so."""
    path = cache.download_path(file)
    try:
        if not cache.is_file(path):
            return False
        if file.size in (None, path.stat().st_size) and _has_published_content(path, file):
            return True
        if offline:
            hint = f"it should be {_urls(file)[0]}; delete it"
            raise WeightsError(f"{path} is not the published file, or is damaged", hint)
        aside = cache.set_aside(path).name
        notify(f"{path} is not the published file, or is damaged: renamed to {aside}, fetched again")
    except OSError as error:
        message = f"{path} cannot be read or renamed: {error.strerror}"
        raise WeightsError(message, hint="set VADIS_CACHE to another folder") from error
    return False


def _has_published_content(path: Path, file: RemoteFile) -> bool:
    if file.git_blob:
        return git_blob_id(path) == file.git_blob
    # Eight digits tell damage, not a forgery, so such a file is read with ``weights_only`` as every other.
    return bool(file.sha256_prefix) and hashlib.sha256(path.read_bytes()).hexdigest().startswith(file.sha256_prefix)


@dataclass
class _Download:
    """One file on its way into ``stream``, the open file ``path``: what has come so far, and from where."""

    file: RemoteFile
    path: Path
    stream: BinaryIO
    report: Callable[[int, int | None], None]  # bytes done, bytes in all
    notify: Notify
    url: str = ""
    etag: str = ""
    is_resumed: bool = False

    def __post_init__(self) -> None:
        self.patience = DEFAULT_PATIENCE.times(network_patience())

    def run(self) -> None:
        """Fill the stream with the published content, from whichever host gives it, trying up to five times."""
        urls, reasons, answered = _urls(self.file), dict[str, str](), False
        give_up = time.monotonic() + self.patience.first_answer
        for number, pause in enumerate(self.patience.pauses):
            if not urls or (number == 2 and not answered):  # no use in going on: no name resolves, nobody listens
                break
            time.sleep(pause if answered else min(pause, max(0.0, give_up - time.monotonic())))
            for url in list(urls):
                seconds = self.patience.answer if answered else min(self.patience.answer, give_up - time.monotonic())
                if seconds <= 0:
                    break
                try:
                    return self._receive(url, seconds)
                except NoAnswerError as error:
                    reasons.setdefault(url, str(error))
                except (TransferError, HTTPError) as error:
                    answered, reasons[url] = True, str(error)
                    if isinstance(error, HTTPError):
                        urls.remove(url)
                    else:
                        self.notify(f"{urlsplit(url).hostname}: {error}; trying again")
        shown: dict[str, str] = {}  # the first address with what went wrong there, others where something else did
        for url, reason in reasons.items():
            shown.setdefault(reason, url)
        raise UnavailableError("; ".join(f"{url}: {reason}" for reason, url in shown.items()))

    def _receive(self, url: str, seconds: float) -> None:
        """Get what is missing from one host, and verify the whole."""
        headers, have = {}, self.stream.seek(0, os.SEEK_END)
        if have:
            headers["Range"] = f"bytes={have}-"
            if self.url == url and self.etag:
                headers["If-Range"] = self.etag
        try:
            response = get(url, headers, seconds, self.patience.stall)
        except RangeError:
            self._restart()
            raise
        with contextlib.closing(response):
            total = self._check(response)
            if response.first_byte != have:
                self._restart()
            if response.first_byte not in (0, have):
                raise TransferError("the host answered with another part of the file than was asked for")
            self.url, self.etag, self.is_resumed = url, response.etag, response.first_byte > 0
            self._copy(response, total)
        if total is not None and self.stream.tell() < total:
            raise TransferError(f"the transfer was cut after {self.stream.tell():,} of {total:,} bytes")
        self.stream.flush()
        if not _has_published_content(self.path, self.file):
            error = TransferError if self.is_resumed else HTTPError
            self._restart()
            raise error("the host sent other bytes than were published")

    def _check(self, response: "Response") -> int | None:
        """Return the size of the whole file in bytes; refuse a response that cannot be the file."""
        if response.content_type in ("text/html", "application/xhtml+xml"):
            raise HTTPError(f"not a weights file (got {response.content_type})")
        size, total = self.file.size, response.total
        if None not in (size, total) and size != total:
            raise HTTPError(f"not the published file: it has {total:,} bytes instead of {size:,}")
        return size or total

    def _copy(self, response: "Response", total: int | None) -> None:
        limit = total or SIZE_CAP
        self.report(self.stream.tell(), total)
        for chunk in response.chunks(self.patience.stall):
            if self.stream.tell() + len(chunk) > limit:
                self._restart()
                raise HTTPError(f"not the published file: it has more than {limit:,} bytes")
            self.stream.write(chunk)
            self.report(self.stream.tell(), total)

    def _restart(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        self.is_resumed = False


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
    places = "\n".join(f"  {_urls(file)[0]}\n    to {cache.download_path(file)}" for file in files)
    return f"{fallback_hint}; or fetch by hand, on any machine,\n{places}"


# --- one GET that cannot hang ----------------------------------------------------------------------------------------


class Response:
    """An HTTP response with its headers read, and its body to come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        headers, self._response, self.close = response.headers, response, response.close
        self.status, self.content_type = response.status, headers.get_content_type()
        etag = headers.get("ETag", "")
        self.etag = "" if etag.startswith("W/") else etag  # a weak one does not promise the same bytes
        self.first_byte, total = 0, headers.get("Content-Length", "")
        if self.status == 206:  # Content-Range: bytes 100-199/200
            unit, _, place = headers.get("Content-Range", "").partition(" ")
            span, _, total = place.partition("/")
            first = span.partition("-")[0]
            self.first_byte = int(first) if unit == "bytes" and first.isdecimal() else -1
        self.total = int(total) if total.isdecimal() else None  # bytes of the whole file, if the host says

    def chunks(self, stall_seconds: float) -> Iterator[bytes]:
        """Yield the body as it comes; raise TransferError when it stops coming."""
        since, received = time.monotonic(), 0
        while True:
            try:
                chunk = self._response.read1(CHUNK_BYTES)
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


def get(url: str, headers: Mapping[str, str], answer_seconds: float, stall_seconds: float) -> Response:
    """Ask for ``url``; redirects are followed, from https only to https.

    Raises:
        NoAnswerError: if the host's headers are not there after ``answer_seconds``, name resolution included.
        TransferError: for a status that may pass, like 503.
        HTTPError: for any other status that is not success, and for a redirect to a plain connection.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "vadis", **headers})
    opener = urllib.request.build_opener(_Redirects(allow_http=urlsplit(url).scheme == "http"))
    outcome: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put(opener.open(request, timeout=stall_seconds))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            outcome.put(error)

    # A thread, because a socket's time limit holds for each address of a host by itself, and for looking them up not
    # at all. One that is given up is left to end on its own.
    threading.Thread(target=work, name="vadis-http", daemon=True).start()
    try:
        result = outcome.get(timeout=max(0.0, answer_seconds))
    except queue.Empty:
        result = TimeoutError()
    if isinstance(result, urllib.error.HTTPError):
        with result:
            kind = RangeError if result.code == 416 else TransferError if result.code in MAY_PASS else HTTPError
            words = http.client.responses.get(result.code, "")
            raise kind(f"the host answered {result.code} {words}".rstrip()) from result
    if isinstance(result, (OSError, http.client.HTTPException, ValueError)):
        raise NoAnswerError(f"no answer from {urlsplit(url).hostname}: {_reason(result)}") from result
    if isinstance(result, Exception):
        raise result
    return Response(result)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from a protected connection to a plain one."""

    def __init__(self, *, allow_http: bool) -> None:
        self.schemes = ("http", "https") if allow_http else ("https",)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self.schemes:
            fp.close()
            raise HTTPError("the host redirects to a connection that is not protected")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: Exception) -> str:
    """Return why a connection failed, in a few words without addresses or credentials."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "timed out"
    if isinstance(reason, socket.gaierror):
        return "its name cannot be resolved"
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
