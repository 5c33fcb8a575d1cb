"""What lies on disk: files and folders, and which of them are splits and classes by their names.

Each folder is listed once, and no single file is looked at: Kinetics has 240,000 files and often lies on a network
disk. So a video is a video by its name; whether it can be read is found out by the reader.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vadis.errors import UsageError, what_next
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
_FLOW_NAMES = ("flow", "x_", "y_", "u_", "v_")


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
        """Return the names on the way to ``path`` from the root, and its own; none for the root."""
        return () if path == self.root else tuple(self.relative(path).split(os.sep))  # noqa: PTH206 (Paths are slow)

    def lists_named(self, *names: str) -> list[str]:
        """Return the lists with one of these names (in lower case), whatever the case of their letters."""
        return [path for path in self.lists if name_of(path).lower() in names]

    def video_folders(self) -> dict[str, tuple[str, ...]]:
        """Return every folder with videos right in it → the names on the way to it from the root."""
        return {folder: self.parts(folder) for folder in dict.fromkeys(map(folder_of, self.videos))}

    def has_split_folders(self) -> bool:
        """Return whether videos lie in folders that are named after splits."""
        return any(split_of(name) for names in self.video_folders().values() for name in names)


def scan_tree(root: str | os.PathLike[str], lists: str | os.PathLike[str] | None = None) -> Tree:
    """Return what lies under ``root``, a folder or a single list, with the lists in the folder ``lists`` before others.

    Hidden entries are passed over. Beside a single list only other lists are looked at: one may name its classes.
    """
    top, endings = os.fspath(root), _ENDINGS["lists"]
    if top.lower().endswith(endings) and Path(top).is_file():
        beside = list[str]()
        with suppress(OSError):
            beside = [str(each) for each in sorted(Path(top).parent.iterdir()) if each.name.lower().endswith(endings)]
        return Tree(folder_of(top) or ".", lists=(top,), beside=tuple(beside))
    tree = _scan_folder(top, "dataset")
    extra = () if lists is None else _scan_folder(os.fspath(lists), "folder of lists").lists
    return replace(tree, lists=extra + tree.lists)


def _scan_folder(top: str, called: str) -> Tree:
    """List every folder once: a link in a circle, or a second link to the same folder, is not followed."""
    if not Path(top).is_dir():
        what = "is not a folder" if Path(top).exists() else "does not exist"
        raise UsageError(f"the {called} {printable(top)} {what}", "name the folder that holds it")
    top = top.rstrip(os.sep) or os.sep
    found: dict[str, list[str]] = {kind: [] for kind in (*_ENDINGS, "folders", "unreadable")}
    pending, visited, refusal = [(top, os.path.realpath(top), 0)], set[str](), None  # some disks repeat inode numbers
    while pending:
        folder, real, depth = pending.pop()
        if real in visited:
            continue
        visited.add(real)
        try:
            for kind, path, real_path in _list_folder(folder, real):
                if kind != "lists" or depth <= MAX_LIST_DEPTH:
                    found[kind].append(path)
                if kind == "folders":
                    pending.append((path, real_path, depth + 1))
        except OSError as error:
            found["unreadable"].append(f"{printable(folder)} cannot be listed: {error.strerror}")
            refusal = refusal or error.errno
    if found["unreadable"] and not found["folders"] and not found["videos"]:
        raise UsageError(f"the {called} {found['unreadable'][0]}", what_next(refusal))
    ordered = {kind: sorted(paths, key=os.fsencode) for kind, paths in found.items()}
    ordered["lists"].sort(key=lambda path: path.count(os.sep))
    return Tree(top, **{kind: tuple(paths) for kind, paths in ordered.items()})


def _list_folder(folder: str, real: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind and path of the files and folders in one folder, with the real paths of these folders."""
    pictures = list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            kind = next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None)
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield "folders", entry.path, f"{real.rstrip(os.sep)}{os.sep}{entry.name}"
            elif kind == "pictures":
                pictures.append(entry.path)
            elif kind is not None:
                yield kind, entry.path, ""
            elif entry.is_symlink() and entry.is_dir():
                yield "folders", entry.path, os.path.realpath(entry.path)
    if pictures:  # the frames themselves before pictures of optical flow: flow_x_00001.jpg, x_00001.jpg
        yield "pictures", min(pictures, key=lambda path: (name_of(path).lower().startswith(_FLOW_NAMES), path)), ""


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
# Words in the names of lists and of folders of splits: kinetics400_train_list_videos.
_USUAL = {
    *(*SPLIT_NAMES, *_OTHER_SPLITS, *_CONTAINERS),
    *("set", "list", "lists", "file", "files", "filelist", "filelists", "videofolder", "paths", "ann", "anno", "annos"),
    *("label", "labels", "kinetics", "k", "ucf", "hmdb", "minikinetics", "raw", "rgb", "px", "p", "x", "short", "side"),
    *("resized", "compress", "compressed", "cache", "dense", "all", "full", "mini", "tiny", "small", "org", "mp", "of"),
    *("part", "shard", "split", "splits"),
}
_LETTERS = re.compile(r"[^\W\d_]+")
_JOINED = re.compile(rf"({'|'.join(SPLIT_NAMES)})(set|data|list|split|videos|clips|files)")  # trainlist01, TestData


def words_of(name: str) -> list[str]:
    """Return the letters of a name, word by word: "trainlist01" and "train_list_1" are the same two."""
    matches = ((word, _JOINED.fullmatch(word)) for word in _LETTERS.findall(name.lower()))
    return [part for word, match in matches for part in (match.groups() if match else (word,))]


def split_words(name: str) -> list[str]:
    """Return the words of a name that say a split, known or not, whatever the others."""
    return [word for word in words_of(name) if word in SPLIT_NAMES or word in _OTHER_SPLITS]


def split_of_list(name: str) -> str | None:
    """Return the one split that a list's name says, whatever its other words ("sthv2_train", "test_final"), or None."""
    splits = {SPLIT_NAMES.get(word) for word in split_words(name)}
    return splits.pop() if len(splits) == 1 else None


def split_of(name: str) -> str | None:
    """Return the split that a folder or list is named after ("videos_train", "Val", "test_256"), or None."""
    return split_of_list(name) if is_usual_name(name) else None


def is_usual_name(name: str) -> bool:
    """Return whether all words of a name are splits' names or usual beside them: "labels", "train_list"."""
    words = words_of(name)
    return bool(words) and _USUAL.issuperset(words)


def is_generic_folder(name: str) -> bool:
    """Return whether a folder's name says only that there are videos in it."""
    words = words_of(name)
    return bool(words) and _CONTAINERS.issuperset(words)


def is_no_class(name: str) -> bool:
    """Return whether a folder of this name holds a split, or a dataset, rather than one class."""
    return is_generic_folder(name) or (is_usual_name(name) and bool(split_words(name)))


def is_replacement(path: str) -> bool:
    """Return whether a file lies in a folder of replacements for broken ones, as Kinetics-400 of CVDF has it."""
    return f"{os.sep}replacement" in folder_of(f"{os.sep}{path}")
