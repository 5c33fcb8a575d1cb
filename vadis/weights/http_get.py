"""One HTTP GET that cannot hang: every step has a time limit, and every failure is one of three kinds."""

import contextlib
import http.client
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 18
MIN_BYTES_PER_SECOND = 1024  # slower than an early modem is a stalled transfer


class UnavailableError(Exception):
    """A file cannot be had from any host."""


class NoAnswerError(Exception):
    """A host was not reached, or said nothing."""


class BrokenOffError(Exception):
    """A host answered, but the transfer failed in a way that may pass."""


class RangeRefusedError(BrokenOffError):
    """A host does not give the part of the file that was asked for."""


class RefusedError(Exception):
    """A host answered, and asking again would give the same."""


FAILURES = {416: RangeRefusedError, **dict.fromkeys((408, 425, 429, 500, 502, 503, 504), BrokenOffError)}
"""What a status means; RefusedError for all others."""


class Answer:
    """A response with its headers read, and its body to come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.headers.get_content_type()
        etag = response.headers.get("ETag", "")
        self.strong_etag = "" if etag.startswith("W/") else etag
        self.first_byte, self.total = self._range()

    def _range(self) -> tuple[int, int | None]:
        """Where the body begins in the file, and the size of the whole file if it is said."""
        if self.status == 206:  # Content-Range: bytes 100-199/200
            unit, _, place = self._response.headers.get("Content-Range", "").partition(" ")
            span, _, total = place.partition("/")
            first = span.partition("-")[0]
            return int(first) if unit == "bytes" and first.isdecimal() else -1, int(
                total
            ) if total.isdecimal() else None
        length = self._response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None

    def chunks(self, stall_seconds: float) -> Iterator[bytes]:
        """The body as it comes; raises BrokenOffError when it stops coming."""
        since, received = time.monotonic(), 0
        while True:
            try:
                chunk = self._response.read1(CHUNK_BYTES)
            except TimeoutError as error:
                raise BrokenOffError("the transfer stalled") from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise BrokenOffError(f"the transfer was cut ({_words(error)})") from error
            if not chunk:
                return
            yield chunk
            received += len(chunk)
            elapsed = time.monotonic() - since
            if elapsed > stall_seconds:
                if received < MIN_BYTES_PER_SECOND * elapsed:
                    raise BrokenOffError("the transfer stalled")
                since, received = time.monotonic(), 0

    def close(self) -> None:
        """Drop the connection."""
        self._response.close()


def get(url: str, headers: Mapping[str, str], answer_seconds: float, stall_seconds: float) -> Answer:
    """Ask for ``url``; redirects are followed, from https only to https.

    Raises:
        NoAnswerError: if the host's headers are not there after ``answer_seconds``, name resolution included.
        BrokenOffError: for a status that may pass, like 503.
        RefusedError: for any other status that is not success, and for a redirect to a plain connection.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "vadis", **headers})
    opener = urllib.request.build_opener(_Redirects(allow_http=urlsplit(url).scheme == "http"))
    try:
        response = _within(answer_seconds, opener, request, stall_seconds)
    except urllib.error.HTTPError as error:
        with error:
            raise FAILURES.get(error.code, RefusedError)(
                f"the host answered {error.code} {http.client.responses.get(error.code, '')}".rstrip()
            ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(f"no answer from {urlsplit(url).hostname}: {_words(error)}") from error
    return Answer(response)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from a protected connection to a plain one."""

    def __init__(self, *, allow_http: bool) -> None:
        self.schemes = ("http", "https") if allow_http else ("https",)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self.schemes:
            fp.close()
            raise RefusedError("the host redirects to a connection that is not protected")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _within(
    seconds: float, opener: urllib.request.OpenerDirector, request: urllib.request.Request, stall_seconds: float
) -> http.client.HTTPResponse:
    """Open a request, or raise TimeoutError after ``seconds``.

    A thread does it, because a socket's time limit holds for each address of a host by itself, and for looking them
    up not at all. One that is given up is left to end on its own.
    """
    outcome: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        try:
            response = opener.open(request, timeout=stall_seconds)
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            outcome.put(error)
            return
        if given_up.is_set():
            response.close()
        else:
            outcome.put(response)

    threading.Thread(target=work, name="vadis-http", daemon=True).start()
    try:
        result = outcome.get(timeout=max(0.0, seconds))
    except queue.Empty:
        given_up.set()
        with contextlib.suppress(queue.Empty):
            late = outcome.get_nowait()
            if not isinstance(late, Exception):
                late.close()
        raise TimeoutError(f"timed out after {seconds:.0f} s") from None
    if isinstance(result, Exception):
        raise result
    return result


def _words(error: Exception) -> str:
    """Why a connection failed, in a few words without addresses or credentials."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return "timed out"
    if isinstance(reason, socket.gaierror):
        return "its name cannot be resolved"
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
