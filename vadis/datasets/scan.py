"""What lies on disk: files and folders, which of them are splits and classes by their names, and lists as text.

Each folder is listed once, and no single file is looked at: Kinetics has 240,000 files and often lies on a network
disk. So a video is a video by its name; whether it can be read is found out by the reader.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vadis.datasets.dataset import some
from vadis.errors import UsageError, what_next
from vadis.files import os_errors_as
from vadis.parsing import encoding_of, open_text
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

MAX_LIST_DEPTH = 2  # folders below the root: lists lie above the videos (Kinetics: k400/annotations/train.csv)
_ENDINGS = {
    "videos": VIDEO_EXTENSIONS,
    "lists": (".txt", ".csv", ".tsv", ".jsonl", ".lst", ".list", ".json"),
    "packed": (
        *(".rar", ".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"),
        *(".parquet", ".arrow", ".tfrecord", ".h5", ".hdf5", ".mdb"),
    ),
    "pictures": (".jpg", ".jpeg", ".png", ".bmp", ".webp"),
}


@dataclass(frozen=True)
class Tree:
    """What lies under ``root``, as paths that begin with it, in the order of their bytes: the same on every machine."""

    root: str  # without a trailing separator; for a single list, the folder it lies in
    videos: tuple[str, ...] = ()  # files named as videos, at any depth
    folders: tuple[str, ...] = ()  # all below the root
    lists: tuple[str, ...] = ()  # files named as lists at most MAX_LIST_DEPTH folders below the root, the highest first
    packed: tuple[str, ...] = ()  # files that may hold videos in a form that is not read as it lies (see packed.py)
    pictures: tuple[str, ...] = ()  # one of each folder that holds pictures
    unreadable: tuple[str, ...] = ()  # folders that could not be listed, each with the reason
    beside: tuple[str, ...] = ()  # for a single list, the lists that lie beside it

    def relative(self, path: str) -> str:
        """Return ``path`` without the root before it."""
        return path.removeprefix(self.root + os.sep)

    def parts(self, path: str) -> tuple[str, ...]:
        """Return the names on the way to ``path`` from the root, and its own."""
        return tuple(self.relative(path).split(os.sep))  # noqa: PTH206 (a Path for each takes seconds)

    def lists_named(self, *names: str) -> list[str]:
        """Return the lists with one of these names (in lower case), whatever the case of their letters."""
        return [path for path in self.lists if name_of(path).lower() in names]

    def video_folders(self) -> dict[str, tuple[str, ...]]:
        """Return every folder with videos right in it → the names on the way to it from the root."""
        folders = dict.fromkeys(map(folder_of, self.videos))
        return {each: () if each == self.root else self.parts(each) for each in folders}

    def has_split_folders(self) -> bool:
        """Return whether videos lie in folders that are named after splits."""
        return any(split_of(name) for names in self.video_folders().values() for name in names)


def scan_tree(root: str | os.PathLike[str], lists: str | os.PathLike[str] | None = None) -> Tree:
    """Return what lies under ``root``, a folder or a single list; hidden entries are passed over.

    The lists in the folder ``lists`` come before those under ``root``. Beside a single list only other lists are looked
    at: one of them may name its classes.
    """
    top, endings = os.fspath(root), _ENDINGS["lists"]
    if top.lower().endswith(endings) and Path(top).is_file():
        beside = list[Path]()
        with suppress(OSError):
            others = (each for each in sorted(Path(top).parent.iterdir()) if each != Path(top))
            beside = [each for each in others if each.name.lower().endswith(endings)]
        return Tree(folder_of(top) or ".", lists=(top,), beside=tuple(map(str, beside)))
    tree = _scan_folder(top, "dataset")
    extra = () if lists is None else _scan_folder(os.fspath(lists), "folder of lists").lists
    return replace(tree, lists=extra + tree.lists)


def _scan_folder(top: str, called: str) -> Tree:
    """List every folder once: a link in a circle, or a second link to the same folder, is not followed."""
    if not Path(top).is_dir():
        what = "is not a folder" if Path(top).exists() else "does not exist"
        raise UsageError(f"the {called} {printable(top)} {what}", "name the folder that holds it")
    top = top.rstrip(os.sep) or os.sep
    files: dict[str, list[str]] = {kind: [] for kind in _ENDINGS}
    folders, unreadable, refusal = list[str](), list[str](), None
    pending, visited = [(top, os.path.realpath(top), 0)], set[str]()  # some file systems share one inode number
    while pending:
        folder, real, depth = pending.pop()
        if real in visited:
            continue
        visited.add(real)
        try:
            here, inner = _list_folder(folder, real)
        except OSError as error:
            unreadable.append(f"{printable(folder)} cannot be listed: {error.strerror}")
            refusal = refusal or error.errno
            continue
        for kind, paths in here.items():
            files[kind] += paths if kind != "lists" or depth <= MAX_LIST_DEPTH else []
        folders += inner
        pending += [(path, real_path, depth + 1) for path, real_path in inner.items()]
    if unreadable and not folders and not files["videos"]:
        raise UsageError(f"the {called} {unreadable[0]}", what_next(refusal))
    ordered = {kind: tuple(sorted(paths, key=os.fsencode)) for kind, paths in {**files, "folders": folders}.items()}
    ordered["lists"] = tuple(sorted(ordered["lists"], key=lambda path: path.count(os.sep)))
    return Tree(top, **ordered, unreadable=tuple(unreadable))


def _list_folder(folder: str, real: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the files in one folder by kind, and the folders in it, each with its real path."""
    files: dict[str, list[str]] = {kind: [] for kind in _ENDINGS}
    inner: dict[str, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                inner[entry.path] = real.rstrip(os.sep) + os.sep + entry.name
            elif kind := next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None):
                files[kind].append(entry.path)
            elif entry.is_symlink() and entry.is_dir():
                inner[entry.path] = os.path.realpath(entry.path)
    # Pictures of optical flow (flow_x_00001.jpg, x_00001.jpg) come behind the frames themselves.
    pictures = sorted(files["pictures"], key=lambda path: (name_of(path).lower().startswith(_FLOW_NAMES), path))
    return {**files, "pictures": pictures[:1]}, inner


_FLOW_NAMES = ("flow", "x_", "y_", "u_", "v_")


def name_of(path: str) -> str:
    """Return the last part of a path; as text, since a Path for each file of Kinetics takes seconds."""
    return path.rpartition(os.sep)[2]


def folder_of(path: str) -> str:
    """Return the path of the folder in which ``path`` lies."""
    return path.rpartition(os.sep)[0]


def stem_of(path: str) -> str:
    """Return the name of a file without its extension."""
    name = name_of(path)
    return name.rpartition(".")[0] or name


# Names of folders and lists

SPLIT_NAMES = {  # how the three splits are called on disk and in lists
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SPLITS = ("train", "val", "test")

# Parts that are neither of the three splits nor classes.
_OTHER_SPLITS = {"trainval", "holdout", "minival", "unlabeled", "unlabelled", "replacement", "replacements"}
_CONTAINERS = {  # folders that hold class or split folders, by names that say nothing else
    *("video", "videos", "clip", "clips", "data", "dataset", "datasets", "rawframes", "frames", "rawvideos"),
    *("annotation", "annotations", "metadata"),
}
# Words that stand beside a split's name without changing what it is: kinetics400_train_list_videos.
_BESIDE_SPLITS = _CONTAINERS | {
    *("set", "list", "lists", "file", "files", "filelist", "filelists", "videofolder", "paths", "ann", "anno", "annos"),
    *("label", "labels", "kinetics", "k", "ucf", "hmdb", "minikinetics", "raw", "rgb", "px", "p", "x", "short", "side"),
    *("resized", "compress", "compressed", "cache", "dense", "all", "full", "mini", "tiny", "small", "org", "mp", "of"),
    *("part", "shard", "split", "splits"),
}

_LETTERS = re.compile(r"[^\W\d_]+")
_JOINED = re.compile(rf"({'|'.join(SPLIT_NAMES)})(set|data|list|split|videos|clips|files)")  # trainlist01, TestData


def split_of(name: str) -> str | None:
    """Return the split that a folder or list is named after ("videos_train", "Val", "test_256"), or None."""
    words = _split_words(name)
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def split_of_list(name: str) -> str | None:
    """Return the one split that a list's name says, whatever its other words ("sthv2_train", "test_final"), or None."""
    splits = {SPLIT_NAMES.get(word) for word in split_words(name)}
    return splits.pop() if len(splits) == 1 else None


def is_no_class(name: str) -> bool:
    """Return whether a folder of this name holds a split, or a dataset, rather than one class."""
    return bool(_split_words(name)) or is_generic_folder(name)


def is_generic_folder(name: str) -> bool:
    """Return whether a folder's name says only that there are videos in it."""
    words = _words(name)
    return bool(words) and _CONTAINERS.issuperset(words)


def is_replacement(path: str) -> bool:
    """Return whether a file lies in a folder of replacements for broken ones, as Kinetics-400 of CVDF has it."""
    return f"{os.sep}replacement" in folder_of(f"{os.sep}{path}")


def is_usual_name(name: str) -> bool:
    """Return whether all words of a list's name are splits' names or usual beside them: "labels", "train_list"."""
    words = set(_words(name)) - set(split_words(name))
    return bool(_words(name)) and words <= _BESIDE_SPLITS


def split_words(name: str) -> list[str]:
    """Return the words of a name that say a split, known or not, whatever the others."""
    return [word for word in _words(name) if word in SPLIT_NAMES or word in _OTHER_SPLITS]


def _split_words(name: str) -> list[str]:
    """Return the words of a name that say a split, provided that all others are usual beside them."""
    return split_words(name) if is_usual_name(name) else []


def _words(name: str) -> list[str]:
    """Return the letters of a name, word by word: "trainlist01" and "train_list_1" are the same two."""
    matches = ((word, _JOINED.fullmatch(word)) for word in _LETTERS.findall(name.lower()))
    return [part for word, match in matches for part in (match.groups() if match else (word,))]


# Layouts of folders. A name that says a split ("train", "videos_val", "test_256") or nothing but a container ("videos",
# "clips") is never a class.
# The names on the way from the root to a folder → the split and the class of what lies in it, if it has one.
Placing = Callable[[tuple[str, ...]], tuple[str, str] | None]


class FolderLayout(NamedTuple):
    """One arrangement of folders: as a person draws it, whose habit it is, and which folder is the class and split."""

    shape: str
    used_by: str
    class_at: int
    split_at: int | None  # None: all is for training

    def place(self, names: tuple[str, ...]) -> tuple[str, str] | None:
        """Return the split and the class of what lies in a folder, or None where it has none."""
        if len(names) <= max(self.class_at, self.split_at or 0):
            return None
        split = "train" if self.split_at is None else split_of(names[self.split_at])
        return (split, names[self.class_at]) if split else None


FOLDER_LAYOUTS = {
    "split/class": FolderLayout(
        "train/<class>/a.mp4, val/<class>/b.mp4, test/<class>/c.mp4",
        "torchvision, VideoFolder; videos_train/ (mmaction2, OpenDataLab), train_256/ (non-local)",
        1,
        0,
    ),
    "class/split": FolderLayout("<class>/train/a.mp4, <class>/test/b.mp4", "", 0, 1),
    "class": FolderLayout("<class>/a.mp4", "UCF-101, HMDB-51 without lists", 0, None),
}
"""The arrangements of folders that are read, by name; ``folder_layout`` chooses the one of a tree."""


def folder_layout(tree: Tree) -> Placing:
    """Return where split and class are, by a row of ``FOLDER_LAYOUTS`` below folders that all videos share.

    What can be read in more than one way is refused, and a class that is named after a split or a container.
    """
    folders = list(tree.video_folders().values())
    depth = _shared_depth(folders)
    below = [names[depth:] for names in folders if len(names) > depth]
    split_at = next((at for at in (0, 1) if any(len(names) > 1 and split_of(names[at]) for names in below)), None)
    layout = next(row for row in FOLDER_LAYOUTS.values() if row.split_at == split_at)
    no_classes = _no_classes({place[1] for names in below if (place := layout.place(names))})

    def is_odd(names: tuple[str, ...]) -> bool:
        place = layout.place(names)
        is_outside = split_at == 1 and (place is None or len(names) > 2)
        return is_outside or any(map(split_of, names[2:])) or (place is not None and place[1] in no_classes)

    if odd := sorted("/".join(names) + "/" for names in below if is_odd(names)):
        message = f"videos of {printable(tree.root)} lie in no known layout, or in a class that is named after a split"
        hint = "lay them out as train/<class>/a.mp4 or <class>/a.mp4, name the folder that holds the class folders, or "
        raise UsageError(f"{message}: {some(odd)}", hint + "add a metadata.csv with the columns file_name,label")
    if split_at == 0:
        _refuse_twin_splits(below)
    if split_at != 1:
        _refuse_deeper_classes(layout.class_at, below)
    return lambda names: layout.place(names[depth:])


def _no_classes(names: Iterable[str]) -> set[str]:
    """Return the names of splits and containers, and those that nothing but a split tells apart: my_train, my_val."""
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}  # the other words → name → split
    for name in names:
        if split := split_of_list(name):
            rest = tuple(word for word in _words(name) if word not in split_words(name))
            by_rest.setdefault(rest, {})[name] = split
    alike = {name for each in by_rest.values() if len(set(each.values())) > 1 for name in each}
    return alike | set(filter(is_no_class, names))


def _shared_depth(folders: Sequence[tuple[str, ...]]) -> int:
    """Return how many folders all videos share that are no class: containers, and what lies above split folders."""
    depth = 0
    while True:
        below = [names[depth:] for names in folders]
        tops = {names[0] for names in below if names}
        is_above_splits = any(len(names) > 2 and split_of(names[1]) for names in below)
        if len(tops) != 1 or split_of(*tops) or not (is_above_splits or is_generic_folder(*tops)):
            return depth
        depth += 1


def _refuse_twin_splits(folders: Iterable[tuple[str, ...]]) -> None:
    """Refuse two folders that are named after one split: often they hold the same clips, in two sizes."""
    first: dict[str | None, str] = {}
    for name in sorted({names[0] for names in folders if len(names) > 1 and split_of(names[0])}):
        if (other := first.setdefault(split_of(name), name)) != name:
            message = f"{printable(other)} and {printable(name)} are both named after the {split_of(name)} split"
            raise UsageError(message, "move one of them away, or write a list of what belongs to which split")


def _refuse_deeper_classes(level: int, folders: Iterable[tuple[str, ...]]) -> None:
    """Refuse folders of the same names in all class folders: in session1/run, session2/run the class may be run."""
    inside: dict[str, set[str]] = {}  # by class: the folders in it; "" where videos lie right in it
    for names in folders:
        if len(names) > level:
            inside.setdefault(names[level], set()).update(names[level + 1 : level + 2] or ("",))
    if any("" in deeper for deeper in inside.values()):
        return
    numbers = Counter(name for deeper in inside.values() for name in deeper if not is_no_class(name))
    shared = sorted(name for name, number in numbers.items() if number > 1)
    if len(shared) > 1 and 2 * len(shared) >= len(numbers):
        message = f"the classes may be {some(sorted(inside))}, or the folders in several of them: {some(shared)}"
        raise UsageError(message, "put the videos right into class folders, or write a CSV with the columns path,label")


# Text of lists; a "place" in it is for messages: "a.txt, line 3,"

_MAX_LINE = 4096  # characters: a table of features may have lines of megabytes
_MAX_HEAD = 1 << 16  # bytes by which a file is known for text


def is_list_text(path: str) -> bool:
    """Return whether a file begins as lines of text: it can be read, is not empty or binary, and has ends of lines."""
    try:
        with open(path, "rb") as file:
            head = file.read(_MAX_HEAD)
    except OSError:
        return False
    is_wide = encoding_of(head)[0] != "utf-8"
    return bool(head) and (is_wide or b"\0" not in head) and max(map(len, head.splitlines())) < _MAX_LINE


def read_rows(path: str, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of a list that are not empty, each with its place, as cells without blanks at their ends.

    Without a delimiter a line is a cell. Bytes that are not text are kept as surrogates, as in the names of files.
    """
    rows: Iterator[tuple[int, list[str]]]
    try:
        with os_errors_as(UsageError, f"the list {printable(path)} cannot be read"), open_text(path) as file:
            reader = csv.reader(file, delimiter=delimiter or ",", skipinitialspace=True)
            rows = ((reader.line_num, cells) for cells in reader) if delimiter else enumerate(([x] for x in file), 1)
            for number, cells in rows:
                if any(map(str.strip, cells)):
                    yield f"{printable(path)}, line {number},", [cell.strip() for cell in cells]
    except (csv.Error, UnicodeError) as error:
        raise UsageError(f"the list {printable(path)} cannot be read: {error}", "save it as CSV again") from error


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of a list that are not empty, without blanks at their ends, each with its place."""
    return ((place, cells[0]) for place, cells in read_rows(path, ""))


def columns_of(path: str, delimiter: str = ",") -> list[str]:
    """Return the names of a table's columns, in lower case; none if its first line cannot be read as names."""
    try:
        return [name.lower() for _, names in islice(read_rows(path, delimiter), 1) for name in names]
    except UsageError:
        return []


def read_table(path: str, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with a header, as column → cell, each with its place; all have as many cells."""
    columns = columns_of(path, delimiter)
    for place, cells in islice(read_rows(path, delimiter), 1, None):
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            hint = printable(f"write all of {','.join(columns)}; a cell may be empty; quote one with a comma in it")
            raise UsageError(f"{place} has {len(cells)} cells instead of {len(columns)}", hint)
        yield place, dict(zip(columns, cells, strict=False))
