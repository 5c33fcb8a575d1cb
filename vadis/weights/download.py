"""Published files → the cache, over HTTPS.

The standard library does it: one GET with a few headers, while a client package would bring its own retries, its own
idea of a timeout (none covers name resolution) and a dependency for four files in the life of an installation.

A file gets its final name only after its size and git blob id agree (or what was published of its SHA-256), so what
lies under a final name is right, whatever servers, locks or other processes do.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from vadis.errors import UnreachableError, WeightsError
from vadis.files import write_atomic
from vadis.video.metadata import network_patience
from vadis.weights import cache, http_get
from vadis.weights.cache import Notify, git_blob_id, sha256_of, write_error
from vadis.weights.catalog import RemoteFile

Progress = Callable[[str, int, int | None], None]  # what, bytes done, bytes in all (None: not known)

SIZE_CAP = 256 << 20  # bytes, of a file whose size was not published: a sample array has at most 95 MB


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


@dataclass(frozen=True)
class _Errand:
    """One file on its way."""

    file: RemoteFile
    patience: Patience
    report: Callable[[int, int | None], None]  # bytes done, bytes in all
    notify: Notify


@dataclass
class _Part:
    """What has come of a file so far, and from where."""

    path: Path
    stream: BinaryIO
    url: str = ""
    etag: str = ""
    resumed: bool = False

    def restart(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        self.resumed = False


def is_offline() -> bool:
    """Whether ``VADIS_OFFLINE`` asks for no connections."""
    return os.environ.get("VADIS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def obtain(
    name: str,
    files: Sequence[RemoteFile],
    *,
    offline: bool,
    progress: Progress,
    notify: Notify,
    otherwise: str,
) -> list[Path]:
    """The paths of all ``files`` in the cache, verified; those that are not there are downloaded.

    Args:
        name: what they are for, in messages and progress.
        files: what is wanted.
        offline: open no connection.
        progress: called with the bytes of the missing files together.
        notify: called with sentences for the user.
        otherwise: what else a user without a connection can do, for the hint.

    Raises:
        UnreachableError: if one of them cannot be had; the hint says where to put it by hand.
        WeightsError: if one cannot be read or written.
    """
    missing = [file for file in files if not _is_there(file, offline, notify)]
    if missing and offline:
        raise UnreachableError(
            f"{name} needs {missing[0].local}, which is not in the cache, and vadis is offline",
            hint=_by_hand(missing, otherwise),
        )
    total = None if any(file.size is None for file in missing) else sum(file.size or 0 for file in missing)
    done = 0
    for file in missing:
        before = done

        def report(bytes_done: int, bytes_total: int | None, before: int = before) -> None:
            progress(name, before + bytes_done, total if total is not None else bytes_total)

        try:
            done += _download(_Errand(file, DEFAULT_PATIENCE.times(network_patience()), report, notify))
        except http_get.UnavailableError as error:
            message = f"{file.local} (for {name}) could not be downloaded from {error}"
            raise UnreachableError(message, hint=_by_hand(missing[missing.index(file) :], otherwise)) from error
    return [cache.download_path(file) for file in files]


def why_unreachable(files: Sequence[RemoteFile], seconds: float) -> str | None:
    """Return why files that are not in the cache cannot be had; None if a host answers within ``seconds``.

    Raises:
        WeightsError: if ``VADIS_MIRROR`` is not an address.
    """
    missing = [file for file in files if not cache.is_file(cache.download_path(file))]
    if not missing:
        return None
    if is_offline():
        return "vadis is offline"
    reasons: dict[str, None] = {}  # in their order, each once
    for url in _urls(missing[0]):
        try:
            http_get.get(url, {}, seconds, seconds).close()
            return None
        except (http_get.NoAnswerError, http_get.BrokenOffError, http_get.RefusedError) as error:
            reasons[str(error)] = None
    return "; ".join(reasons)


def _is_there(file: RemoteFile, offline: bool, notify: Notify) -> bool:
    """Whether the cache holds ``file``; a wrong one under its name is renamed, once, and said."""
    path = cache.download_path(file)
    try:
        if not cache.is_file(path):
            return False
        if _is_right(path, file):
            return True
        if offline:
            raise WeightsError(
                f"{path} is not the published file, or is damaged", hint=f"it should be {_urls(file)[0]}; delete it"
            )
        notify(
            f"{path} is not the published file, or is damaged: renamed to {cache.set_aside(path).name}, fetched again"
        )
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read or renamed: {error.strerror}", hint="set VADIS_CACHE to another folder"
        ) from error
    return False


def _is_right(path: Path, file: RemoteFile) -> bool:
    return file.size in (None, path.stat().st_size) and _has_published_content(path, file)


def _has_published_content(path: Path, file: RemoteFile) -> bool:
    """By the git blob id, or else by the digits of the SHA-256 that were published: those tell damage, not a forgery,
    so such a file is read with ``weights_only`` as every other, and otherwise trusted as far as HTTPS goes.
    """
    if file.git_blob:
        return git_blob_id(path) == file.git_blob
    return bool(file.sha256_prefix) and sha256_of(path).startswith(file.sha256_prefix)


def _download(errand: _Errand) -> int:
    """Fetch a file to its place in the cache and return its size in bytes.

    Raises:
        UnavailableError: if no host gives the right file.
        WeightsError: if it cannot be written.
    """
    path = cache.download_path(errand.file)
    try:
        with write_atomic(path) as stream:
            _receive_from_any(errand, _Part(Path(stream.name), stream))
            return stream.tell()
    except OSError as error:
        raise write_error(path, errand.file.size, error) from error


def _receive_from_any(errand: _Errand, part: _Part) -> None:
    """Fill ``part`` with the right content, from whichever host gives it, trying up to five times."""
    urls = list(_urls(errand.file))
    reasons: dict[str, str] = {}
    answered = False
    give_up = time.monotonic() + errand.patience.first_answer
    for number, pause in enumerate(errand.patience.pauses):
        if number == 2 and not answered:  # a name that does not resolve twice, a refused connection: no use in going on
            break
        time.sleep(pause if answered else min(pause, max(0.0, give_up - time.monotonic())))
        for url in list(urls):
            seconds = errand.patience.answer if answered else min(errand.patience.answer, give_up - time.monotonic())
            if seconds <= 0:
                break
            try:
                _receive(url, part, errand, seconds)
                return
            except http_get.NoAnswerError as error:
                reasons.setdefault(url, str(error))
            except http_get.BrokenOffError as error:
                answered = True
                reasons[url] = str(error)
                errand.notify(f"{urlsplit(url).hostname}: {error}; trying again")
            except http_get.RefusedError as error:
                answered = True
                reasons[url] = str(error)
                urls.remove(url)
        if not urls:
            break
    raise http_get.UnavailableError(_summary(reasons))


def _summary(reasons: dict[str, str]) -> str:
    """The first address with what went wrong there, and the others where something else did."""
    shown: dict[str, str] = {}
    for url, reason in reasons.items():
        shown.setdefault(reason, url)
    return "; ".join(f"{url}: {reason}" for reason, url in shown.items())


def _receive(url: str, part: _Part, errand: _Errand, seconds: float) -> None:
    """Get what is missing of ``part`` from one host, and verify the whole."""
    headers = {}
    have = part.stream.seek(0, os.SEEK_END)
    if have:
        headers["Range"] = f"bytes={have}-"
        if part.url == url and part.etag:
            headers["If-Range"] = part.etag
    try:
        answer = http_get.get(url, headers, seconds, errand.patience.stall)
    except http_get.RangeRefusedError:
        part.restart()
        raise
    with contextlib.closing(answer):
        total = _check_answer(answer, errand.file)
        if answer.first_byte != have:
            part.restart()
        if answer.first_byte not in (0, have):
            raise http_get.BrokenOffError("the host answered with another part of the file than was asked for")
        part.resumed = answer.first_byte > 0
        part.url, part.etag = url, answer.strong_etag
        _copy(answer, part, errand, total)
    if total is not None and part.stream.tell() < total:
        raise http_get.BrokenOffError(f"the transfer was cut after {part.stream.tell():,} of {total:,} bytes")
    part.stream.flush()
    if not _has_published_content(part.path, errand.file):
        resumed = part.resumed
        part.restart()
        error = http_get.BrokenOffError if resumed else http_get.RefusedError
        raise error("the host sent other bytes than were published")


def _check_answer(answer: http_get.Answer, file: RemoteFile) -> int | None:
    """The size of the whole file, in bytes; refuses an answer that cannot be the file."""
    if answer.content_type in ("text/html", "application/xhtml+xml"):
        raise http_get.RefusedError(f"not a weights file (got {answer.content_type})")
    if None not in (file.size, answer.total) and file.size != answer.total:
        raise http_get.RefusedError(f"not the published file: it has {answer.total:,} bytes instead of {file.size:,}")
    return file.size or answer.total


def _copy(answer: http_get.Answer, part: _Part, errand: _Errand, total: int | None) -> None:
    """Append the body of an answer to ``part``."""
    limit = total or SIZE_CAP
    errand.report(part.stream.tell(), total)
    for chunk in answer.chunks(errand.patience.stall):
        if part.stream.tell() + len(chunk) > limit:
            part.restart()
            raise http_get.RefusedError(f"not the published file: it has more than {limit:,} bytes")
        part.stream.write(chunk)
        errand.report(part.stream.tell(), total)


def _urls(file: RemoteFile) -> list[str]:
    """Where to look for a file; ``VADIS_MIRROR`` stands for every host."""
    mirror = os.environ.get("VADIS_MIRROR")
    if not mirror:
        return list(file.urls)
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise WeightsError(
            "VADIS_MIRROR is not the address of a host",
            hint="it should look like https://mirror.example or http://10.0.0.1:8080",
        )
    return [mirror.rstrip("/") + urlsplit(url).path for url in file.urls]


def _by_hand(files: Sequence[RemoteFile], otherwise: str) -> str:
    """What a user without a connection can do."""
    places = "\n".join(f"  {_urls(file)[0]}\n    to {cache.download_path(file)}" for file in files)
    return f"{otherwise}; or fetch by hand, on any machine,\n{places}"
