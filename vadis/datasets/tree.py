"""What lies on disk: one walk that lists each folder once and asks nothing of any single file.

Kinetics has 240,000 files and often lies on a network disk: a call for each would take many minutes. So a video is a
video by its name; whether it can be read is found out by the reader.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

LIST_EXTENSIONS = (".txt", ".csv", ".tsv", ".jsonl", ".lst", ".list", ".json")
MAX_LIST_DEPTH = 2  # folders below the root: lists lie above the videos (Kinetics: k400/annotations/train.csv)
PACKED_EXTENSIONS = (
    *(".rar", ".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
    *(".parquet", ".arrow", ".tfrecord", ".h5", ".hdf5", ".mdb"),
)
"""Files that may hold videos in a form that is not read as it lies (see ``packed``)."""
PICTURE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Tree:
    """The videos, folders and lists under ``root``, as paths that begin with it, in the order of their bytes.

    Attributes:
        root: without a trailing separator; for a single list, the folder it lies in.
        videos: files with one of ``VIDEO_EXTENSIONS``, at any depth.
        folders: all folders below the root.
        lists: files with one of ``LIST_EXTENSIONS`` at most ``MAX_LIST_DEPTH`` folders below the root, the highest
            first.
        unreadable: folders that could not be listed, each with the reason.
        packed: files with one of ``PACKED_EXTENSIONS``.
        pictures: one picture of each folder that holds pictures.
        beside: for a single list, the lists that lie beside it; empty otherwise.
    """

    root: str
    videos: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    def relative(self, path: str) -> str:
        """``path`` without the root before it."""
        return path.removeprefix(self.root + os.sep)

    def lists_named(self, *names: str) -> list[str]:
        """The lists with one of these names (in lower case), whatever the case of their letters."""
        return [path for path in self.lists if name_of(path).lower() in names]


def walk(root: str | os.PathLike[str], lists: str | os.PathLike[str] | None = None) -> Tree:
    """What lies under ``root``, a folder or a single list; hidden entries are passed over.

    Of the folder of a single list, only the lists beside it are looked at: one of them may name its classes.

    Args:
        root: the dataset.
        lists: another folder whose lists belong to it; they come before those under ``root``.

    Raises:
        UsageError: if one of the two does not exist, is of the wrong kind, or cannot be listed.
    """
    top = os.fspath(root)
    if top.lower().endswith(LIST_EXTENSIONS) and Path(top).is_file():
        return Tree(folder_of(top) or ".", lists=(top,), beside=_lists_beside(top))
    tree = _Walk(top).finish()
    if lists is None:
        return tree
    extra = _Walk(os.fspath(lists)).finish("folder of lists")
    return replace(tree, lists=extra.lists + tree.lists)


def _lists_beside(path: str) -> tuple[str, ...]:
    """The lists in the folder of a list, without it; none where the folder cannot be listed."""
    folder = folder_of(path)
    try:
        names = sorted(os.listdir(folder or "."))  # noqa: PTH208
    except OSError:
        return ()
    lists = (os.path.join(folder, name) for name in names if name.lower().endswith(LIST_EXTENSIONS))  # noqa: PTH118
    return tuple(each for each in lists if each != path)


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


def _is_flow(path: str) -> tuple[bool, str]:
    """A key that puts pictures of optical flow (``flow_x_00001.jpg``, ``x_00001.jpg``) behind the frames themselves."""
    return name_of(path).lower().startswith(("flow", "x_", "y_", "u_", "v_")), path


@dataclass
class _Walk:
    """The walk itself: fills its lists folder by folder."""

    top: str
    videos: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    lists: list[tuple[int, str]] = field(default_factory=list)  # (depth, path)
    unreadable: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
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
        videos, folders = by_bytes(self.videos), by_bytes(self.folders)
        packed, pictures = by_bytes(self.packed), by_bytes(self.pictures)
        return Tree(self.top, videos, folders, lists, tuple(self.unreadable), packed, pictures)

    def _walk(self) -> None:
        """Every folder once: a link in a circle, or a second link to the same folder, is not followed.

        A folder is known again by its real path; some file systems give several folders one inode number.
        """
        pending, visited = [(self.top, os.path.realpath(self.top), 0)], set[str]()
        while pending:
            folder, real, depth = pending.pop()
            if real in visited:
                continue
            visited.add(real)
            try:
                inner = self._take(folder, real, depth)
            except OSError as error:
                self.unreadable.append(f"{printable(folder)} cannot be listed: {error.strerror}")
                self._refusal = self._refusal or error.errno
                continue
            pending += [(path, real_path, depth + 1) for path, real_path in inner.items()]
            self.folders += inner

    def _take(self, folder: str, real: str, depth: int) -> dict[str, str]:
        """Keep the files of one folder; returns the folders in it, each with its real path."""
        inner: dict[str, str] = {}
        picture: str | None = None
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner[entry.path] = real.rstrip(os.sep) + os.sep + entry.name
                elif name.endswith(VIDEO_EXTENSIONS):
                    self.videos.append(entry.path)
                elif name.endswith(LIST_EXTENSIONS):
                    if depth <= MAX_LIST_DEPTH:
                        self.lists.append((depth, entry.path))
                elif name.endswith(PACKED_EXTENSIONS):
                    self.packed.append(entry.path)
                elif name.endswith(PICTURE_EXTENSIONS):
                    picture = min(picture or entry.path, entry.path, key=_is_flow)
                elif entry.is_symlink() and entry.is_dir():
                    inner[entry.path] = os.path.realpath(entry.path)
        if picture is not None:
            self.pictures.append(picture)
        return inner
