"""What lies on disk: files and folders, and which of them are splits and classes by their names.

Each folder is listed once, and no single file is looked at: Kinetics has 240,000 files and often lies on a network
disk. So a video is a video by its name; whether it can be read is found out by the reader.
"""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vadis.errors import UsageError, what_next
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS, real_path

MAX_LIST_DEPTH = 2  # folders below the root: lists lie above the videos (Kinetics: k400/annotations/train.csv)

# name | endings, and the command in the folder of the first such file: NAME, and PREFIX what is before its number
_PACKED = r"""
rar | .rar
    for f in *.rar; do unrar x -o- "$f"; done
zip | .zip
    for f in *.zip; do unzip -n "$f"; done
parquet | .parquet
    python -c "import glob, os, pyarrow.parquet as q; [(os.makedirs(d, exist_ok=True),
    open(f'{d}/{f[:-8]}-{i:06}.mp4', 'wb').write(r['video']['bytes'])) for f in glob.glob('*.parquet')
    for i, r in enumerate(q.read_table(f).to_pylist()) for d in [f.split('-')[0] + '/' + str(r['label'])]]"
class archive | .tar.gz .tgz .tar
    for f in *.tar* *.tgz; do if [ -f "$f" ]; then mkdir -p "${f%%.t*}" && tar -xf "$f" -C "${f%%.t*}"; fi; done
shards | .tar
    for f in *.tar; do d="${f%%[-_.0-9]*}"; d="${d:-shards}"; mkdir -p "$d"; tar -xf "$f" -C "$d"; done;
    for c in */*.cls; do m="${c%/*}/metadata.csv"; [ -e "$m" ] || echo file_name,label > "$m"; b="${c##*/}";
    echo "${b%.cls}.mp4,$(cat "$c")" >> "$m"; done
tar | .tar .tar.gz .tgz .tar.bz2 .tar.xz .tar.zst
    for f in *.tar* *.tgz; do if [ -f "$f" ]; then tar -xf "$f"; fi; done
frames | .jpg .jpeg .png .bmp .webp
    find . -name NAME -printf '%h\n' | while read -r d; do ffmpeg -nostdin -f image2 -framerate 25 -pattern_type
    glob -i "$d/PREFIX*" -vf 'pad=ceil(iw/2)*2:ceil(ih/2)*2' -crf 18 -pix_fmt yuv420p "$d.mp4"; done
other | .h5 .hdf5 .arrow .tfrecord .mdb
"""

PACKED: dict[str, tuple[tuple[str, ...], str]] = {
    name: (tuple(endings.split()), " ".join(command.split()))
    for name, endings, command in re.findall(r"(.+) \| (.+)\n((?: .+\n)*)", _PACKED)
}
"""The forms that are not read: the endings of their files' names, and what unpacks them; the first that fits counts."""

_ENDINGS = {
    "videos": VIDEO_EXTENSIONS,
    "lists": (".txt", ".csv", ".tsv", ".jsonl", ".lst", ".list", ".json"),
    "packed": tuple(ending for name, (endings, _) in PACKED.items() if name != "frames" for ending in endings),
    "pictures": PACKED["frames"][0],
}
_FLOW_NAMES = ("flow", "x_", "y_", "u_", "v_")


@dataclass(frozen=True)
class Tree:
    """What lies under ``root``, as paths that begin with it, in the order of their bytes: the same on every machine."""

    root: str  # without a trailing separator; for a single list, the folder it lies in
    videos: tuple[str, ...] = ()  # files named as videos, at any depth
    folders: tuple[str, ...] = ()  # all below the root
    lists: tuple[str, ...] = ()  # files named as lists at most MAX_LIST_DEPTH folders below the root, the highest first
    packed: tuple[str, ...] = ()  # files that may hold videos in a form of ``PACKED``
    pictures: tuple[str, ...] = ()  # one of each folder that holds pictures
    unreadable: tuple[str, ...] = ()  # folders that could not be listed, each with the reason
    beside: tuple[str, ...] = ()  # for a single list, the lists that lie beside it

    def relative(self, path: str) -> str:
        """Return ``path`` without the root before it."""
        return path.removeprefix(self.root.rstrip(os.sep) + os.sep)

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


def scan_tree(root: str | os.PathLike[str]) -> Tree:
    """Return what lies under ``root``, a folder, or a single list: beside that, other lists may name its classes.

    Hidden entries are passed over; every folder is listed once, so circular and repeated links are not followed.
    """
    top, endings = os.fspath(root), _ENDINGS["lists"]
    if top.lower().endswith(endings) and Path(top).is_file():
        beside = list[str]()
        with suppress(OSError):
            beside = [str(each) for each in sorted(Path(top).parent.iterdir()) if each.name.lower().endswith(endings)]
        return Tree(str(Path(top).parent), lists=(top,), beside=tuple(beside))
    if not Path(top).is_dir():
        what = "is not a folder" if Path(top).exists() else "does not exist"
        raise UsageError(f"the dataset {printable(top)} {what}", "name the folder that holds it")
    top = top.rstrip(os.sep) or os.sep
    found: dict[str, list[str]] = {kind: [] for kind in (*_ENDINGS, "folders", "unreadable")}
    pending, visited, refusal = [(top, "", 0)], set[str](), None
    while pending:
        folder, above, depth = pending.pop()
        if (real := real_path(folder, above)) in visited:  # not by inode numbers, which some disks repeat
            continue
        visited.add(real)
        try:
            for kind, path in _list_folder(folder):
                if kind != "lists" or depth <= MAX_LIST_DEPTH:
                    found[kind].append(path)
                if kind == "folders":
                    pending.append((path, real, depth + 1))
        except OSError as error:
            found["unreadable"].append(f"{printable(folder)} cannot be listed: {error.strerror}")
            refusal = refusal or error.errno
    if found["unreadable"] and not found["folders"] and not found["videos"]:
        raise UsageError(f"the dataset {found['unreadable'][0]}", what_next(refusal))
    ordered = {kind: sorted(paths, key=os.fsencode) for kind, paths in found.items()}
    ordered["lists"].sort(key=lambda path: path.count(os.sep))
    return Tree(top, **{kind: tuple(paths) for kind, paths in ordered.items()})


def _list_folder(folder: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and path of what is in one folder; of its pictures only one."""
    pictures = list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.lower()
            kind = next((kind for kind, endings in _ENDINGS.items() if name.endswith(endings)), None)
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=kind is None):  # a link that is named as a file is not looked at
                yield "folders", entry.path
            elif kind == "pictures":
                pictures.append(entry.path)
            elif kind is not None:
                yield kind, entry.path
    if pictures:  # the frames themselves before pictures of optical flow: flow_x_00001.jpg, x_00001.jpg
        yield "pictures", min(pictures, key=lambda path: (name_of(path).lower().startswith(_FLOW_NAMES), path))


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


def class_key(name: str) -> str:
    """Return what is the same in all spellings of a class on disk: its letters and digits, without case."""
    return "".join(filter(str.isalnum, name.casefold()))


def is_replacement(path: str) -> bool:
    """Return whether a file lies in a folder of replacements for broken ones, as Kinetics-400 of CVDF has it."""
    return f"{os.sep}replacement" in folder_of(f"{os.sep}{path}")


# Videos that have to be unpacked

_NUMBERED = re.compile(r"(?P<prefix>.*?)\d+(\.[a-z0-9]+)+", re.IGNORECASE)


def packed_videos(tree: Tree) -> tuple[str, str] | None:
    """Return the files of a tree in which videos are packed, in words, and how to unpack them; None without any."""
    paths = tree.packed or (() if tree.videos else tree.pictures)  # beside videos pictures are previews
    if not paths:
        return None
    names, first = list(map(_form_of, paths)), paths[0]
    name, (_, command) = names[0], PACKED[names[0]]
    number, what = names.count(name), "picture folder" if name == "frames" else "file"
    shown = f"{number:,} {what}{'s' if number > 1 else ''} like {printable(tree.relative(first))}"
    if not command:
        return shown, "write the videos out with the program that packed them: one file for each clip"
    match = _NUMBERED.fullmatch(name_of(first))
    command = command.replace("NAME", shlex.quote(name_of(first))).replace("PREFIX", match["prefix"] if match else "")
    folder = shlex.quote(printable(tree.root if name == "frames" else folder_of(first)))
    again = "; again, where that gives archives" if name in ("rar", "zip", "tar") else ""
    return shown, f"unpack them: cd {folder} && {command}{again}"


def _form_of(path: str) -> str:
    """Return the key of ``PACKED`` for a file; archives are told apart by numbers in their names, and their folders."""
    is_numbered = _NUMBERED.fullmatch(name_of(path)) is not None
    is_in_split = split_of(name_of(folder_of(path))) is not None
    excluded = {"class archive" if is_numbered or not is_in_split else "", "" if is_numbered else "shards"}
    forms = ((name, endings) for name, (endings, _) in PACKED.items() if name not in excluded)
    return next(name for name, endings in forms if path.lower().endswith(endings))
