"""What lies on disk: one walk that lists each folder once and asks nothing of any single file.

Kinetics has 240,000 files and often lies on a network disk: a call for each would take many minutes. So a video is a
video by its name; whether it can be read is found out by the reader.

How a folder of videos is laid out: split folders, class folders, and which of them a folder is by its name.

``FOLDER_LAYOUTS`` is the table: one row for each arrangement of folders that is read. A name that says a split
("train", "videos_val", "test_256") or nothing but a container ("videos", "clips") is never a class.

Lists as they were published: lines and tables of text, every fault told with its place.

Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark, as spreadsheets and Windows' editors save it.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from vadis.datasets.dataset import counted, some
from vadis.errors import UsageError, what_next
from vadis.parsing import encoding_of
from vadis.parsing import open_text as open_any_text
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


SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""How the three splits are called on disk and in lists."""

OTHER_SPLITS = frozenset({"trainval", "holdout", "minival", "unlabeled", "unlabelled", "replacement", "replacements"})
"""Names of parts that are neither of the three splits nor classes."""

CONTAINERS = frozenset(
    {
        *("video", "videos", "clip", "clips", "data", "dataset", "datasets", "rawframes", "frames", "rawvideos"),
        *("annotation", "annotations", "metadata"),
    }
)
"""Names of folders that hold class or split folders, and say nothing else."""

_BESIDE_SPLITS = CONTAINERS | {
    *("set", "list", "lists", "file", "files", "filelist", "filelists", "videofolder", "paths", "ann", "anno", "annos"),
    *("label", "labels", "kinetics", "k", "ucf", "hmdb", "minikinetics", "raw", "rgb", "px", "p", "x", "short", "side"),
    *("resized", "compress", "compressed", "cache", "dense", "all", "full", "mini", "tiny", "small", "org", "mp", "of"),
    *("part", "shard", "split", "splits"),
}
"""Words that stand beside a split's name without changing what it is: ``kinetics400_train_list_videos``."""

_LETTERS = re.compile(r"[^\W\d_]+")
_JOINED = re.compile(rf"({'|'.join(SPLIT_NAMES)})(set|data|list|split|videos|clips|files)")  # trainlist01, TestData


@dataclass(frozen=True)
class FolderLayout:
    """One arrangement of folders.

    Attributes:
        shape: as a person draws it.
        used_by: whose habit it is.
        place: the folders of a video below what all videos share → its split and class, or None where it has none.
    """

    shape: str
    used_by: str
    place: Callable[[tuple[str, ...]], tuple[str, str] | None]


@dataclass(frozen=True)
class PlacedLayout:
    """The layout of one tree: a row of ``FOLDER_LAYOUTS`` below ``depth`` folders that are no classes."""

    layout: FolderLayout
    depth: int

    def place(self, names: tuple[str, ...]) -> tuple[str, str] | None:
        """The split and the class of what lies in a folder, given by the names on the way to it from the root."""
        return self.layout.place(names[self.depth :])


def _split_then_class(folders: tuple[str, ...]) -> tuple[str, str] | None:
    split = split_of(folders[0]) if folders else None
    return (split, folders[1]) if split and len(folders) > 1 else None


def _class_then_split(folders: tuple[str, ...]) -> tuple[str, str] | None:
    split = split_of(folders[1]) if len(folders) > 1 else None
    return (split, folders[0]) if split else None


def _class_alone(folders: tuple[str, ...]) -> tuple[str, str] | None:
    return ("train", folders[0]) if folders else None


FOLDER_LAYOUTS = {
    "split/class": FolderLayout(
        "train/<class>/a.mp4, val/<class>/b.mp4, test/<class>/c.mp4",
        "torchvision, VideoFolder; videos_train/ (mmaction2, OpenDataLab), train_256/ (non-local)",
        _split_then_class,
    ),
    "class/split": FolderLayout("<class>/train/a.mp4, <class>/test/b.mp4", "", _class_then_split),
    "class": FolderLayout("<class>/a.mp4", "UCF-101, HMDB-51 without lists", _class_alone),
}
"""The arrangements of folders that are read, by name; ``folder_layout`` says which one a tree has."""


def split_of(name: str) -> str | None:
    """The split that a folder or list is named after ("videos_train", "Val", "test_256"), or None."""
    words = _split_words(name)
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def split_of_list(name: str) -> str | None:
    """The one split that a list's name says, whatever its other words ("sthv2_train", "test_final"), or None."""
    said = {SPLIT_NAMES.get(word) for word in _said(name)}
    return said.pop() if len(said) == 1 else None


def says_split(name: str) -> bool:
    """Whether some word of a name is that of a split, known or not."""
    return bool(_said(name))


def is_no_class(name: str) -> bool:
    """Whether a folder of this name holds a split, or a dataset, rather than one class."""
    return bool(_split_words(name)) or is_container(name)


def is_container(name: str) -> bool:
    """Whether a folder's name says only that there are videos in it."""
    words = _words(name)
    return bool(words) and all(word in CONTAINERS for word in words)


def is_replacement(path: str) -> bool:
    """Whether a file lies in a folder of replacements for broken ones, as Kinetics-400 of CVDF has it."""
    folder = folder_of(path)
    return "replacement" in folder and any(name.startswith("replacement") for name in parts_of(folder))


def is_usual_name(name: str) -> bool:
    """Whether all words of a list's name are splits' names or usual beside them: "labels", "train_list"."""
    words = _words(name)
    known = _BESIDE_SPLITS | SPLIT_NAMES.keys() | OTHER_SPLITS
    return bool(words) and all(word in known for word in words)


def _split_words(name: str) -> list[str]:
    """The words of a name that say a split, provided that all others are usual beside them."""
    said = _said(name)
    is_usual = all(word in _BESIDE_SPLITS for word in _words(name) if word not in said)
    return said if is_usual else []


def _said(name: str) -> list[str]:
    """The words of a name that say a split, whatever the others."""
    return [word for word in _words(name) if word in SPLIT_NAMES or word in OTHER_SPLITS]


def _words(name: str) -> list[str]:
    """The letters of a name, word by word: "trainlist01" and "train_list_1" are the same two."""
    matches = ((word, _JOINED.fullmatch(word)) for word in _LETTERS.findall(name.lower()))
    return [part for word, match in matches for part in (match.groups() if match else (word,))]


def parts_of(relative_path: str) -> list[str]:
    """The names in a path."""
    return relative_path.split(os.sep)  # noqa: PTH206 (as text: a Path for each file takes seconds)


def folders_of_videos(tree: Tree) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every folder with videos right in it, and the names on the way to it from the root."""
    for folder in dict.fromkeys(map(folder_of, tree.videos)):
        yield folder, () if folder == tree.root else tuple(parts_of(tree.relative(folder)))


def has_split_folders(tree: Tree) -> bool:
    """Whether videos lie in folders that are named after splits."""
    return any(split_of(name) for _, names in folders_of_videos(tree) for name in names)


def folder_layout(tree: Tree) -> PlacedLayout:
    """The row of ``FOLDER_LAYOUTS`` for a tree.

    Raises:
        UsageError: where the folders can be read in more than one way, or a class would be named after a split.
    """
    folders = [names for _, names in folders_of_videos(tree)]
    depth = _depth(folders)
    below = [names[depth:] for names in folders]
    key = _key(tree, below)
    _refuse_deeper_splits(below)
    layout = FOLDER_LAYOUTS[key]
    _refuse_no_classes(tree, [layout.place(names) for names in below])
    if key == "split/class":
        _refuse_twin_splits(below)
    _refuse_deeper_classes(key, below)
    return PlacedLayout(layout, depth)


def _depth(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders all videos share that are no class: containers, and what lies above split folders."""
    depth = 0
    while True:
        below = [names[depth:] for names in folders]
        tops = {names[0] for names in below if names}
        is_above_splits = any(len(names) > 2 and split_of(names[1]) for names in below)
        if len(tops) != 1 or split_of(*tops) or not (is_above_splits or is_container(*tops)):
            return depth
        depth += 1


def _key(tree: Tree, folders: Sequence[tuple[str, ...]]) -> str:
    """Which layout it is, by where folders are named after splits."""
    splits = {names[:2] for names in folders if names and split_of(names[0])}
    if any(len(names) > 1 for names in splits):
        return "split/class"
    if splits:
        shown = sorted({names[0] for names in splits})
        raise UsageError(
            f"videos lie right in {' and '.join(f'{printable(name)}/' for name in shown)} of {printable(tree.root)}, "
            "and no list says of which classes they are",
            f"put them into class folders ({printable(shown[0])}/<class>/a.mp4), or a list beside them: a metadata.csv "
            "with the columns file_name,label; a class cannot have the name of a split",
        )
    inside = [names for names in folders if len(names) > 1 and split_of(names[1])]
    if not inside:
        return "class"
    if any(len(names) > 2 for names in inside):
        tops = sorted({names[0] for names in inside})
        message = (
            f"{printable(tree.root)} holds {counted(tops, 'folder')} with split folders of their own: {some(tops)}"
        )
        raise UsageError(message, "name one of them")
    outside = ["/".join(names) for names in folders if names and names not in inside]
    if outside:
        message = f"{counted(outside, 'folder')} of videos beside split folders in no split: {some(outside)}"
        raise UsageError(message, "lay all classes out alike: <class>/train/a.mp4, <class>/test/b.mp4")
    return "class/split"


def _refuse_no_classes(tree: Tree, places: Iterable[tuple[str, str] | None]) -> None:
    """Raises UsageError where a folder at the place of a class is named after a split or a container."""
    names = {place[1] for place in places if place}
    wrong = sorted({name for name in names if is_no_class(name)} | _told_apart_by_split(names))
    if wrong:
        raise UsageError(
            f"{printable(tree.root)} has {counted(wrong, 'folder')} at the place of a class with the name of a split "
            f"or of a part of a dataset: {some(wrong)}",
            "name the folder that holds the class folders, or move away what is no class",
        )


def _told_apart_by_split(names: Iterable[str]) -> set[str]:
    """Those of the names that differ from another one in nothing but the split that they say: sthv2_train, sthv2_val.

    "training dog" alone is a class.
    """
    by_rest: dict[tuple[str, ...], dict[str, list[str]]] = {}  # the other words → split → names
    for name in names:
        if split := split_of_list(name):
            said = _said(name)
            rest = tuple(word for word in _words(name) if word not in said)
            by_rest.setdefault(rest, {}).setdefault(split, []).append(name)
    return {name for splits in by_rest.values() if len(splits) > 1 for each in splits.values() for name in each}


def _refuse_deeper_splits(folders: Iterable[tuple[str, ...]]) -> None:
    """Raises UsageError where a folder below those that say split and class is named after a split."""
    deeper = sorted({"/".join(names) for names in folders if any(map(split_of, names[2:]))})
    if deeper:
        message = f"{counted(deeper, 'folder')} named after a split, deeper than splits lie: {some(deeper)}"
        raise UsageError(message, "lay the videos out as train/<class>/a.mp4, or write a list")


def _refuse_twin_splits(folders: Iterable[tuple[str, ...]]) -> None:
    """Raises UsageError where two folders are named after one split: often the same clips, in two sizes."""
    named: dict[str, set[str]] = {}
    for names in folders:
        if len(names) > 1 and (split := split_of(names[0])):
            named.setdefault(split, set()).add(names[0])
    for split, twins in named.items():
        if len(twins) > 1:
            message = f"{' and '.join(map(printable, sorted(twins)))} are both named after the {split} split"
            raise UsageError(message, "move one of them away, or write a list of what belongs to which split")


def _refuse_deeper_classes(key: str, folders: Iterable[tuple[str, ...]]) -> None:
    """Raises UsageError where the classes may be a level deeper: folders of the same names in all class folders.

    ``session1/run/a.mp4, session2/run/b.mp4``: run is the class, though session1 lies at its place.
    """
    if key == "class/split":
        return
    level = 1 if key == "split/class" else 0
    inside: dict[str, set[str]] = {}  # by class: the folders in it; "" where videos lie right in it
    for names in folders:
        if len(names) > level:
            inside.setdefault(names[level], set()).update(names[level + 1 : level + 2] or ("",))
    if any("" in deeper for deeper in inside.values()):
        return
    numbers = Counter(name for deeper in inside.values() for name in deeper if not is_no_class(name))
    shared = sorted(name for name, number in numbers.items() if number > 1)
    if len(shared) > 1 and 2 * len(shared) >= len(numbers):
        raise UsageError(
            f"the classes may be {some(sorted(inside))}, or the folders in several of them: {some(shared)}",
            "put the videos right into class folders, or write a list: a CSV with the columns path,label",
        )


_MAX_HEADER = 4096  # characters of a first line looked at: a table of features may have one of megabytes
_MAX_HEAD = 1 << 16  # bytes by which a file is known for text


@contextmanager
def open_text(path: str) -> Iterator[TextIO]:
    """A list, open for reading; bytes that are not text are kept as surrogates, as in the names of files.

    Raises:
        UsageError: if the list cannot be read.
    """
    try:
        with open_any_text(path) as file:
            yield file
    except OSError as error:
        message = f"the list {printable(path)} cannot be read: {error.strerror}"
        raise UsageError(message, what_next(error.errno)) from error
    except (csv.Error, UnicodeError) as error:
        raise UsageError(f"the list {printable(path)} cannot be read: {error}", "save it as CSV again") from error


def is_text(path: str) -> bool:
    """Whether a file begins as a list of lines: it can be read, is not empty or binary, and its lines have an end."""
    try:
        with open(path, "rb") as file:
            head = file.read(_MAX_HEAD)
    except OSError:
        return False
    is_wide = encoding_of(head)[0] != "utf-8"
    return bool(head) and (is_wide or b"\0" not in head) and max(map(len, head.splitlines())) < _MAX_HEADER


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """The lines of a list that are not empty, without blanks at their ends, each with its place ("a.txt, line 3").

    Raises:
        UsageError: if the list cannot be read.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if stripped := line.strip():
                yield f"{printable(path)}, line {number},", stripped


def columns_of(path: str, delimiter: str = ",") -> tuple[str, ...]:
    """The names of a table's columns, in lower case; empty if its first line cannot be read as names."""
    try:
        with open_text(path) as file:
            line = file.readline(_MAX_HEADER)
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
            return tuple(name.strip().lower() for name in cells)
    except UsageError:
        return ()


def read_rows(path: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """The rows of a table that are not empty, as cells without blanks at their ends, each row with its place.

    Raises:
        UsageError: if the table cannot be read.
    """
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
        for cells in reader:
            if any(cells):
                yield f"{printable(path)}, line {reader.line_num},", [cell.strip() for cell in cells]


def read_table(path: str, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, as column → cell, each with its place.

    Raises:
        UsageError: if the table cannot be read, or a row has fewer cells than the header.
    """
    columns = columns_of(path, delimiter)
    rows = read_rows(path, delimiter)
    next(rows, None)
    for place, cells in rows:
        if len(cells) < len(columns):
            hint = f"write all of {','.join(columns)}; a cell may be empty"
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", printable(hint))
        if any(cells[len(columns) :]):
            hint = "put a cell with a comma in it between quotation marks"
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", hint)
        yield place, dict(zip(columns, cells, strict=False))
