"""From what was typed to files: paths, folders, patterns and lists → one ``Source`` each, in a stable order.

Inputs keep the order in which they were given. A folder is walked depth first, its entries in the order of their names'
bytes; its hidden entries are passed over, and so are files without one of ``VIDEO_EXTENSIONS``. A file that was named
is tried whatever its name. Everything is local, unless the caller says what a URL stands for (``vadis.video.remote``).
"""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, overload

from vadis.errors import NothingToDoError, UsageError, VideoError, what_next
from vadis.parsing import decode, is_text
from vadis.results import printable
from vadis.video.container import is_container, is_ogg_without_video, os_refusal, regular_file

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
    *(".mkv", ".webm", ".avi", ".divx", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".gif"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".h264", ".264", ".h265", ".265", ".hevc"),
)
"""What a walk through a folder picks up, whatever the case of its letters."""

_IS_SOMETHING_ELSE: dict[str, Callable[[bytes], bool]] = {
    ".ts": is_text,  # TypeScript, and Qt's translations
    ".mts": is_text,  # TypeScript
    ".ogg": is_ogg_without_video,  # mostly sound
}
"""Extensions that videos share with other files, and what the first bytes of such a file fulfil."""

_HEAD_BYTES = 4096

REMOTE_SCHEMES = ("s3", "gs", "https")
"""Where videos can be fetched from, if that is asked for."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAME_THE_FILE = "name the video itself; save to a file what comes through a pipe"
_MOST_NAMED = 5  # paths in one message


@dataclass(frozen=True)
class Source:
    """One input: its path as given (bytes that are not UTF-8 as surrogates), and why it cannot be read, if known."""

    path: str
    error: VideoError | None = None


class Stamp(NamedTuple):
    """By what a file is known again: its size, and its time of change in seconds since 1970, to the nanosecond.

    Of a file that cannot be looked at, None.
    """

    num_bytes: int | None
    mtime: str | None


def stamp(path: str) -> Stamp:
    """The stamp of a file as it is now."""
    try:
        status = os.stat(path)  # noqa: PTH116 (follows links; Path.stat would normalise the path)
    except (OSError, ValueError):
        return Stamp(None, None)
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)  # before 1970: -0.5 s is -1 and 500000000
    return Stamp(status.st_size, f"{seconds}.{nanoseconds:09}")


def remote_scheme(path: str) -> str | None:
    """Which of ``REMOTE_SCHEMES`` a path is in; None for a local one, also one that only looks like a URL."""
    match = _URL.match(path)
    scheme = match[1].lower() if match else None
    return scheme if scheme in REMOTE_SCHEMES and not os.path.lexists(path) else None


@dataclass(frozen=True)
class Found(Sequence[Source]):
    """The sources, and how many entries were left out.

    Attributes:
        sources: one for each file, each file once.
        num_ignored: in folders: hidden entries, files that are not videos by name, and pipes, sockets or devices.
        num_duplicates: files that were met again.
    """

    sources: tuple[Source, ...]
    num_ignored: int
    num_duplicates: int

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Source, ...]: ...
    def __getitem__(self, index: int | slice) -> Source | tuple[Source, ...]:
        return self.sources[index]

    def __len__(self) -> int:
        return len(self.sources)


def find_videos(
    inputs: Iterable[str | os.PathLike[str]],
    *,
    from_file: str | os.PathLike[str] | None = None,
    nul: bool = False,
    remote: Callable[[str], list[str]] | None = None,
) -> Found:
    """All that the inputs stand for.

    Args:
        inputs: files, folders (taken with all below them), patterns with ``*``, ``?``, ``[...]`` or ``**`` (expanded
            only where no file of that very name exists), or ``-`` for a list on the standard input.
        from_file: a list of files and folders, ``-`` for the standard input.
        nul: the entries of lists end with NUL bytes instead of line feeds.
        remote: gives what a URL stands for (``vadis.video.remote.found_at``); None: URLs are refused.

    Raises:
        UsageError: no input given, none of them exists, one is a URL that is refused, or a list cannot be read.
        NothingToDoError: the folders given hold no video, or the list is empty.
    """
    search = _Search(remote)
    given = [os.fspath(each) for each in inputs]
    if not given and from_file is None:
        raise UsageError("no input given", "name videos, folders, or a list by `from_file`")
    for path in given:
        if path == "-":
            search.add_list(_read_list("-", nul))
        else:
            search.add(path, is_pattern_allowed=True)
    if from_file is not None:
        search.add_list(_read_list(os.fspath(from_file), nul))
    return search.finish()


class _Search:
    """Gathers sources, each once."""

    def __init__(self, remote: Callable[[str], list[str]] | None) -> None:
        self._remote = remote
        self._sources: dict[str, Source] = {}  # by the real path of the folder and the name: links to files stay apart
        self._real_folders: dict[str, str] = {}
        self._folders: list[str] = []
        self._missing: list[str] = []  # each once
        self._num_ignored = 0
        self._num_duplicates = 0

    def add_list(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.add(path, is_pattern_allowed=False)

    def add(self, path: str, *, is_pattern_allowed: bool) -> None:
        """Take one input as it was given."""
        if not os.path.lexists(path):
            if _URL.match(path):
                self._add_url(path)
                return
            matches = _matches(path) if is_pattern_allowed else []
            for match in matches:
                self._add_existing(match)
            if matches:
                return
            if self._add_existing(path):
                self._missing.append(path)
            return
        self._add_existing(path)

    def _add_url(self, url: str) -> None:
        if self._remote is None:
            hint = "vadis classify fetches s3://, gs:// and https:// by `remote`; or download it first"
            raise UsageError(f"{printable(url)} is a URL: vadis reads local files", hint)
        self._folders += [url] if url.endswith("/") else []
        try:
            for found in self._remote(url):
                self._keep(Source(found))
        except VideoError as error:
            self._keep(Source(url, error))

    def finish(self) -> Found:
        if self._missing and len(self._missing) == len(self._sources):
            hint = "see how it is spelled; a path that does not begin with / begins in the current folder"
            raise UsageError(f"no such file: {_enumerated(self._missing)}", hint)
        if not self._sources:
            if not self._folders:
                raise NothingToDoError("the list of videos is empty", "write the path of a video into each line")
            looked_for = " ".join(VIDEO_EXTENSIONS)
            message = f"no video files under {_enumerated(self._folders)} (looked for {looked_for})"
            raise NothingToDoError(message, "videos with other endings are taken where they are named themselves")
        return Found(tuple(self._sources.values()), self._num_ignored, self._num_duplicates)

    def _add_existing(self, path: str) -> bool:
        """Take a file or folder; return False for a file that was there already."""
        if os.path.isdir(path):  # noqa: PTH112 (Path would drop "./" and trailing slashes from what was given)
            self._folders.append(path)
            self._walk(path)
            return True
        try:
            regular_file(path, listed=False)
        except VideoError as error:
            return self._keep(Source(path, error))
        return self._keep(Source(path))

    def _keep(self, source: Source) -> bool:
        """Add a source; return False, and count it, where it is there already."""
        folder, name = os.path.split(source.path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        key = os.path.join(self._real_folders[folder], name)  # noqa: PTH118
        if key in self._sources:
            self._num_duplicates += 1
            return False
        self._sources[key] = source
        return True

    def _walk(self, root: str) -> None:
        """All videos below ``root``; a folder that several links lead to, or a link in a circle, is visited once."""
        pending, visited = [root], set[str]()  # by their real paths: some file systems give equal inode numbers
        while pending:
            path = pending.pop()
            if path != root and not os.path.isdir(path):  # noqa: PTH112
                self._keep(Source(path))
                continue
            try:
                place = os.path.realpath(path)
                if place in visited:
                    continue
                visited.add(place)
                entries = sorted(self._wanted(path), key=os.fsencode, reverse=True)
            except OSError as error:
                self._keep(Source(path, os_refusal(error, what="the folder")))
                continue
            pending += entries

    def _wanted(self, folder: str) -> Iterator[str]:
        """The folders and videos in a folder; the rest is counted."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and _is_video_or_folder(entry):
                    yield entry.path
                else:
                    self._num_ignored += 1


def _is_video_or_folder(entry: os.DirEntry[str]) -> bool:
    """By name and kind, and by the first bytes where the name is shared; a link in a circle is neither."""
    try:
        return entry.is_dir() or (entry.is_file() and is_video_by_name(entry.path))
    except OSError:
        return False


def is_video_by_name(path: str) -> bool:
    """Return whether a file has one of ``VIDEO_EXTENSIONS``, and does not begin like something else that has it too.

    A file that cannot be read, or is empty, is taken: its record says so.
    """
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 (keeps any bytes)
    if extension not in _IS_SOMETHING_ELSE:
        return extension in VIDEO_EXTENSIONS
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return True
    return not head or not _IS_SOMETHING_ELSE[extension](head)


def _matches(pattern: str) -> list[str]:
    """What a pattern stands for, in the order of the names' bytes."""
    try:
        return sorted(glob.glob(pattern, recursive=True), key=os.fsencode)  # noqa: PTH207 (Path.glob drops "./")
    except RecursionError as error:  # glob calls itself for each level of folders
        message = f"the folders that {printable(pattern)} goes through are nested too deep"
        raise UsageError(message, "name the folder itself: all videos below it are taken") from error


def _read_list(path: str, nul: bool) -> Iterator[str]:
    """The entries of a list of paths: text up to the next line feed (or NUL), a carriage return before it left out."""
    if path == "-":
        return _entries(sys.stdin.buffer, "the standard input", nul)
    try:
        with open(path, "rb") as file:
            return _entries(file, printable(path), nul)
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error


def _entries(file: BinaryIO, shown: str, nul: bool) -> Iterator[str]:
    """Names as bytes of the file system, unless the list says by its first bytes that it is UTF-16 or UTF-32.

    Raises:
        UsageError: for what is no list, before it is read as a whole.
    """
    head = file.read(_HEAD_BYTES)
    if is_container(head) and not is_text(head):
        raise UsageError(f"{shown} is a video, not a list of names", _NAME_THE_FILE)
    content = head + file.read()
    if nul:
        return (os.fsdecode(entry) for entry in content.split(b"\0") if entry)
    text = decode(content)
    if "\0" in text:
        if not is_text(content.replace(b"\0", b"")):
            raise UsageError(f"{shown} is not a list of names: it holds other data", _NAME_THE_FILE)
        hint = "add `nul=True`: its names end with NUL bytes, as find -print0 writes them"
        raise UsageError(f"{shown} is a list with NUL bytes in it", hint)
    return (entry for line in text.split("\n") if (entry := line.rstrip("\r")))


def _enumerated(paths: Sequence[str]) -> str:
    """``paths`` for a message, the first few of them."""
    named = ", ".join(printable(path) for path in paths[:_MOST_NAMED])
    return named if len(paths) <= _MOST_NAMED else f"{named} and {len(paths) - _MOST_NAMED} more"
