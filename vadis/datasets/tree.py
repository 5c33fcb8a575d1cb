"""What lies on disk: one walk that lists each folder once and asks nothing of any single file.

Kinetics has 240,000 files and often lies on a network disk: a call for each would take many minutes. So a video is a
video by its name; whether it can be read is found out by the reader.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

LIST_EXTENSIONS = (".txt", ".csv")
MAX_LIST_DEPTH = 2  # folders below the root: lists lie above the videos (Kinetics: k400/annotations/train.csv)


@dataclass(frozen=True)
class Tree:
    """The videos, folders and lists under ``root``, as paths that begin with it, in the order of their bytes.

    Attributes:
        root: without a trailing separator; for a single list, the folder it lies in.
        videos: files with one of ``VIDEO_EXTENSIONS``, at any depth.
        folders: all folders below the root.
        lists: ``.txt`` and ``.csv`` files at most ``MAX_LIST_DEPTH`` folders below the root, the highest first.
        unreadable: folders that could not be listed, each with the reason.
    """

    root: str
    videos: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def relative(self, path: str) -> str:
        """``path`` without the root before it."""
        return path.removeprefix(self.root + os.sep)

    def lists_named(self, *names: str) -> list[str]:
        """The lists with one of these names (in lower case), whatever the case of their letters."""
        return [path for path in self.lists if name_of(path).lower() in names]


def walk(root: str | os.PathLike[str], lists: str | os.PathLike[str] | None = None) -> Tree:
    """What lies under ``root``, a folder or a single CSV list; hidden entries are passed over.

    Args:
        root: the dataset.
        lists: another folder whose lists belong to it; they come before those under ``root``.

    Raises:
        UsageError: if one of the two does not exist, is of the wrong kind, or cannot be listed.
    """
    top = os.fspath(root)
    if top.lower().endswith(".csv") and Path(top).is_file():
        return Tree(folder_of(top) or ".", lists=(top,))
    tree = _Walk(top).finish()
    if lists is None:
        return tree
    extra = _Walk(os.fspath(lists)).finish("folder of lists")
    return Tree(tree.root, tree.videos, tree.folders, extra.lists + tree.lists, tree.unreadable)


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition(os.sep)[2]


def folder_of(path: str) -> str:
    """The path of the folder in which ``path`` lies."""
    return path.rpartition(os.sep)[0]


def stem_of(path: str) -> str:
    """The name of a file without its extension."""
    name = name_of(path)
    return name.rpartition(".")[0] or name


def by_bytes(paths: Iterable[str]) -> tuple[str, ...]:
    """``paths`` in the order of their bytes: the same on every machine, whatever its language."""
    return tuple(sorted(paths, key=os.fsencode))


@dataclass
class _Walk:
    """The walk itself: fills its lists folder by folder."""

    top: str
    videos: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    lists: list[tuple[int, str]] = field(default_factory=list)  # (depth, path)
    unreadable: list[str] = field(default_factory=list)
    _refusal: int | None = None  # why the first of them is

    def finish(self, called: str = "dataset") -> Tree:
        shown = printable(self.top)
        self.top = self.top.rstrip(os.sep) or os.sep
        if not Path(self.top).is_dir():
            what = "is not a folder" if Path(self.top).exists() else "does not exist"
            raise UsageError(f"the {called} {shown} {what}", "name the folder that holds it")
        self._walk()
        if self.unreadable and not self.folders and not self.videos:
            raise UsageError(f"the {called} {self.unreadable[0]}", what_next(self._refusal))
        lists = tuple(path for _, path in sorted(self.lists))
        return Tree(self.top, by_bytes(self.videos), by_bytes(self.folders), lists, tuple(self.unreadable))

    def _walk(self) -> None:
        """Every folder once: a link in a circle, or a second link to the same folder, is not followed."""
        pending, visited = [(self.top, 0)], set[str]()  # real paths: some file systems give equal inode numbers
        while pending:
            folder, depth = pending.pop()
            try:
                place = os.path.realpath(folder)
                if place in visited:
                    continue
                visited.add(place)
                inner = self._take(folder, depth)
            except OSError as error:
                self.unreadable.append(f"{printable(folder)} cannot be listed: {error.strerror}")
                self._refusal = self._refusal or error.errno
                continue
            pending += [(path, depth + 1) for path in inner]
            self.folders += inner

    def _take(self, folder: str, depth: int) -> list[str]:
        """Keep the files of one folder; returns the folders in it."""
        inner: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
                elif name.endswith(VIDEO_EXTENSIONS):
                    self.videos.append(entry.path)
                elif name.endswith(LIST_EXTENSIONS):
                    if depth <= MAX_LIST_DEPTH:
                        self.lists.append((depth, entry.path))
                elif entry.is_symlink() and entry.is_dir():
                    inner.append(entry.path)
        return inner
