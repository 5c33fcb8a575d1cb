"""From what was typed to files: paths, folders, patterns and lists → one ``Source`` each, in their order.

A folder is walked depth first, by the bytes of names, without hidden entries and others than ``VIDEO_EXTENSIONS``. A
file that was named is tried whatever its name.
"""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from typing import NamedTuple

from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.files import os_errors_as
from vadis.parsing import decode, is_text
from vadis.results import printable
from vadis.video.container import (
    HEAD_BYTES,
    is_container,
    is_ogg_without_video,
    os_video_error,
    read_part,
    regular_file,
)
from vadis.video.metadata import AnyPath

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
    *(".mkv", ".webm", ".avi", ".divx", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".gif"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".m2ts", ".mts", ".h264", ".264", ".h265", ".265", ".hevc"),
)
"""What a walk through a folder picks up, whatever the case of its letters."""

# Extensions that videos share with TypeScript, Qt's translations and sound, and what the first bytes of those fulfil
_IS_SOMETHING_ELSE = {".ts": is_text, ".mts": is_text, ".ogg": is_ogg_without_video}

ARRAY_EXTENSIONS = (".npy", ".npz")

PICTURE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

REMOTE_SCHEMES = ("s3", "gs", "https")
"""Where videos can be fetched from, if that is asked for."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Source(NamedTuple):
    """One input: its path as given (bytes that are not UTF-8 as surrogates), and why it cannot be read, if known."""

    path: str
    error: VideoError | None = None


class Stamp(NamedTuple):
    """The size of a file and its time of change in seconds since 1970, to the nanosecond; None where unknown."""

    num_bytes: int | None
    mtime: str | None


def stamp(*paths: str) -> Stamp:
    """Return the stamp of a file as it is now; of several, their size together and the latest time of change."""
    try:
        found = [os.stat(path) for path in paths]  # noqa: PTH116 (follows links; Path.stat would normalise the path)
        latest = max(each.st_mtime_ns for each in found)
    except (OSError, ValueError):
        return Stamp(None, None)
    seconds, nanoseconds = divmod(latest, 10**9)  # before 1970: -0.5 s is -1 and 500000000
    return Stamp(sum(each.st_size for each in found), f"{seconds}.{nanoseconds:09}")


def picture_names(folder: str) -> list[str]:
    """Return the pictures in a folder in natural order, 2.png before 10.png; raise OSError."""
    names = [name for name in os.listdir(folder) if name.lower().endswith(PICTURE_EXTENSIONS) and name[0] != "."]  # noqa: PTH208

    def parts(name: str) -> list[str | int]:
        return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", name))]  # text, numbers

    return sorted(names, key=lambda name: (parts(name), name))


def remote_scheme(path: str) -> str | None:
    """Return which of ``REMOTE_SCHEMES`` a path is in; None for a local one, also one that only looks like a URL."""
    match = _URL.match(path)
    scheme = match[1].lower() if match else None
    return scheme if scheme in REMOTE_SCHEMES and not os.path.lexists(path) else None


class VideoSources(tuple[Source, ...]):
    """The sources, each file once."""

    num_ignored = 0  # in folders: hidden entries, files that are not videos by name, and pipes, sockets or devices
    num_duplicates = 0  # files that were met again


def find_videos(
    inputs: Iterable[AnyPath],
    *,
    from_file: AnyPath | None = None,
    nul: bool = False,
    remote: Callable[[str], list[str]] | None = None,
    arrays: bool = False,
) -> VideoSources:
    """Return all that the inputs stand for; raise UsageError where one cannot be, NothingToDoError where there is none.

    Args:
        inputs: files, folders with all below them, patterns of ``glob`` that name no file, ``-`` for a list on stdin.
        from_file: a list of files and folders, ``-`` for the standard input.
        nul: the entries of lists end with NUL bytes instead of line feeds.
        remote: gives what a URL stands for (``vadis.video.remote.expand_url``); None: URLs are refused.
        arrays: a folder also stands for the ``ARRAY_EXTENSIONS`` in it, and one of pictures, not videos, for itself.
    """
    search, given = _Search(remote, arrays), [os.fspath(each) for each in inputs]
    if not given and from_file is None:
        raise UsageError("no input given", "name videos, folders, or a list by `from_file`")
    for path in given:
        if path == "-":
            search.add_list(path, nul)
        else:
            search.add(path, is_pattern_allowed=True)
    if from_file is not None:
        search.add_list(os.fspath(from_file), nul)
    return search.finish()


class _Search:
    def __init__(self, remote: Callable[[str], list[str]] | None, arrays: bool = False) -> None:
        self._remote, self._arrays = remote, arrays
        self._sources: dict[str, Source] = {}  # by the real path of the folder and the name: links to files stay apart
        self._real_path = cache(os.path.realpath)
        self._folders: list[str] = []
        self._missing: list[str] = []  # each once
        self._num_ignored = self._num_duplicates = 0

    def add_list(self, path: str, nul: bool) -> None:
        for each in _read_list(path, nul):
            self.add(each, is_pattern_allowed=False)

    def add(self, path: str, *, is_pattern_allowed: bool) -> None:
        if os.path.lexists(path):
            self._add_existing(path)
        elif _URL.match(path):
            self._add_url(path)
        else:
            try:  # the order is that of the names' bytes; Path.glob would drop "./"
                matches = sorted(glob.glob(path, recursive=True), key=os.fsencode) if is_pattern_allowed else []  # noqa: PTH207
            except RecursionError as error:  # glob calls itself for each level of folders
                message = f"the folders that {printable(path)} goes through are nested too deep"
                raise UsageError(message, "name the folder itself: all videos below it are taken") from error
            for match in matches:
                self._add_existing(match)
            if not matches and self._add_existing(path):
                self._missing.append(path)

    def _add_url(self, url: str) -> None:
        if self._remote is None:
            hint = "vadis classify fetches s3://, gs:// and https:// by `remote`; or download it first"
            raise UsageError(f"{printable(url)} is a URL: vadis reads local files", hint)
        self._folders += [url] if url.endswith("/") else []
        try:
            for each in self._remote(url):
                self._keep(Source(each))
        except VideoError as error:
            self._keep(Source(url, error))

    def finish(self) -> VideoSources:
        found = VideoSources(self._sources.values())
        if self._missing and len(self._missing) == len(found):
            hint = "see how it is spelled; a path that does not begin with / begins in the current folder"
            raise UsageError(f"no such file: {_enumerate(self._missing)}", hint)
        if not found and not self._folders:
            raise NothingToDoError("the list of videos is empty", "write the path of a video into each line")
        if not found:
            message = f"no video files under {_enumerate(self._folders)} (looked for {' '.join(VIDEO_EXTENSIONS)})"
            raise NothingToDoError(message, "videos with other endings are taken where they are named themselves")
        found.num_ignored, found.num_duplicates = self._num_ignored, self._num_duplicates
        return found

    def _add_existing(self, path: str) -> bool:
        """Take a file or folder; return False for a file that was there already."""
        if os.path.isdir(path):  # noqa: PTH112 (Path would drop "./" and trailing slashes from what was given)
            self._folders.append(path)
            self._walk(path)
            return True
        error = None
        try:
            regular_file(path, listed=False)
        except VideoError as refused:
            error = refused
        return self._keep(Source(path, error))

    def _keep(self, source: Source) -> bool:
        """Add a source; return False, and count it, where it is there already."""
        folder, name = os.path.split(source.path)
        key = os.path.join(self._real_path(folder), name)  # noqa: PTH118
        self._num_duplicates += key in self._sources
        return self._sources.setdefault(key, source) is source

    def _walk(self, root: str) -> None:
        """Add all videos below ``root``; a folder that several links lead to, also in a circle, is visited once."""
        pending, visited = [(root, "")], set[str]()  # by their real paths: some file systems give equal inode numbers
        while pending:
            path, above = pending.pop()
            if path != root and not os.path.isdir(path):  # noqa: PTH112
                self._keep(Source(path))
                continue
            try:
                place = real_path(path, above)
                if place not in visited:
                    visited.add(place)
                    wanted = sorted(self._list_folder(path), key=os.fsencode, reverse=True)
                    # Beside videos, pictures are no frames but a preview.
                    if self._arrays and picture_names(path) and all(map(os.path.isdir, wanted)):
                        self._keep(Source(path))
                    pending += [(each, place) for each in wanted]
            except OSError as error:
                self._keep(Source(path, os_video_error(error, what="the folder")))

    def _list_folder(self, folder: str) -> Iterator[str]:
        """Yield the folders and videos in a folder, a link in a circle being neither; count the rest."""
        with os.scandir(folder) as entries:
            for entry in entries:
                is_wanted = False
                with suppress(OSError):
                    is_shown = not entry.name.startswith(".")
                    is_array = self._arrays and entry.name.lower().endswith(ARRAY_EXTENSIONS)
                    is_video = entry.is_file() and (is_array or _is_video_by_name(entry.path))
                    is_wanted = is_shown and (entry.is_dir() or is_video)
                if is_wanted:
                    yield entry.path
                else:
                    self._num_ignored += 1


def real_path(path: str, above: str) -> str:
    """Return the real path of a folder; where that of the folder above is known, only a link is looked into.

    Or else all those above it would be, for each folder anew: 15 s where a thousand lie in one another.
    """
    if not above or os.path.islink(path):  # noqa: PTH114
        return os.path.realpath(path)
    return os.path.join(above, os.path.basename(path))  # noqa: PTH118, PTH119


def _is_video_by_name(path: str) -> bool:
    """Return whether a file has one of ``VIDEO_EXTENSIONS``, and does not begin like something else that has it too."""
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 (keeps any bytes)
    if extension not in _IS_SOMETHING_ELSE:
        return extension in VIDEO_EXTENSIONS
    try:
        head = read_part(path, 0, HEAD_BYTES)
    except VideoError:
        return True  # its record will tell
    return not head or not _IS_SOMETHING_ELSE[extension](head)


def _read_list(path: str, nul: bool) -> list[str]:
    """Return the entries of a list of paths, as bytes of the file system's names unless it begins as UTF-16."""
    shown = "the standard input" if path == "-" else printable(path)
    hint = "name the video itself; save to a file what comes through a pipe"
    with os_errors_as(UsageError, f"the list {shown} cannot be read"), ExitStack() as stack:
        file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        head = file.read(HEAD_BYTES)
        if is_container(head) and not is_text(head):
            raise UsageError(f"{shown} is a video, not a list of names", hint)
        content = head + file.read()
    if nul:
        return [os.fsdecode(entry) for entry in content.split(b"\0") if entry]
    text = decode(content)
    if "\0" in text:
        if not is_text(content.replace(b"\0", b"")):
            raise UsageError(f"{shown} is not a list of names: it holds other data", hint)
        hint = "add `nul=True`: its names end with NUL bytes, as find -print0 writes them"
        raise UsageError(f"{shown} is a list with NUL bytes in it", hint)
    return [entry for line in text.split("\n") if (entry := line.rstrip("\r"))]


def _enumerate(paths: Sequence[str]) -> str:
    named = ", ".join(map(printable, paths[:5]))
    return named if len(paths) <= 5 else f"{named} and {len(paths) - 5} more"
