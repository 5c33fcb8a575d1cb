"""Anybody's videos: class folders, or lists in one of ``LIST_FORMS``, which decide (docs/datasets.md)."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import takewhile
from typing import NamedTuple

from vadis.datasets import scan
from vadis.datasets.dataset import Dataset, Listed, Request, assemble, class_key, counted, did_you_mean, note_of, some
from vadis.datasets.holdout import hold_out
from vadis.datasets.lists import find_class_list, is_video_name, read_list, unread_lists, video_lists
from vadis.datasets.scan import Tree, folder_of, is_no_class, name_of, split_of, stem_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.video.sources import VIDEO_EXTENSIONS

VALIDATION_SHARE = Fraction(1, 5)  # a small dataset needs some files of each class on both sides
_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")  # a class as a number; with .0 where a spreadsheet has saved it


def is_folder(tree: Tree) -> bool:
    """Return whether there is a list, or videos in at least two folders, or in folders of splits."""
    return bool(video_lists(tree)) or tree.has_split_folders() or sum(map(bool, tree.video_folders().values())) > 1


def read_folder(tree: Tree, request: Request) -> Dataset:
    """Return the examples of lists or of class folders; classes in the order of a class list, else alphabetically."""
    forms = video_lists(tree)
    dataset = _from_lists(forms, tree, request) if forms else _from_folders(tree, request)
    splits, classes = dict(dataset.splits), dataset.classes
    _refuse_few_classes(classes, tree)
    trained = {example.label for example in splits.get("train", ())}
    tested = {example.label for examples in splits.values() for example in examples}
    if trained and (unknown := sorted(tested - trained)):  # nearly always misspelt, and counted as the model's errors
        message = f"{counted(unknown, 'class')} of val or test without an example in train: {some(unknown)}"
        raise UsageError(message, f"give it examples in train, or none elsewhere{did_you_mean(unknown[0], trained)}")
    first: dict[str, str] = {}
    alike = [(first[key], each) for each in sorted(classes) if first.setdefault(key := class_key(each), each) != each]
    notes = note_of("not read as lists of videos", unread_lists(tree, forms), "file")
    notes += note_of("differ only in spelling", [" and ".join(pair) for pair in alike], "class")
    if "train" in splits and "val" not in splits:
        division = hold_out(splits.pop("train"), VALIDATION_SHARE, dataset.root)
        splits = {"train": division.train, "val": division.val, **splits}
        share = f"{float(VALIDATION_SHARE):.0%} of each class's training clips, whole recordings, are for validation"
        notes += [share, *division.notes]
    splits = {split: examples for split, examples in splits.items() if examples}
    return replace(dataset, splits=splits, notes=(*dataset.notes, *notes))


def _refuse_few_classes(classes: Sequence[str], tree: Tree) -> None:
    if len(classes) < 2:
        deeper = f"the class folders may lie deeper: try {printable('/'.join((tree.root, *classes)))}"
        message = f"{printable(tree.root)} holds {counted(classes, 'class folder')}: two are needed"
        raise UsageError(message, deeper if classes else "make one for each class")


# Class folders


def _from_folders(tree: Tree, request: Request) -> Dataset:
    places = _places(tree)
    lines = [Listed(path, at[1], at[0], path) for path in tree.videos if (at := places[folder_of(path)])]
    classes = tuple(sorted({line.label for line in lines}))
    _refuse_few_classes(classes, tree)
    others = dict.fromkeys(at[1] for at in places.values() if at and at[1] not in classes and not is_no_class(at[1]))
    notes = note_of("no video", others, "class")
    # Files with the same class and name in two splits are probably the same clips, unless these are little but digits.
    splits: dict[str, set[str]] = {}
    for line in lines:
        if sum(map(str.isalpha, stem_of(line.name))) > 2:
            splits.setdefault(f"{line.label}/{name_of(line.name)}", set()).add(line.split)
    twice = [name for name, of_name in splits.items() if len(of_name) > 1]
    notes += note_of("in two splits, as of the same clips", twice, "name")
    return assemble(tree, request, "folder", classes, lines, str, notes=notes, are_folders_classes=False)


def _places(tree: Tree) -> dict[str, tuple[str, str] | None]:
    """Return every folder → the split and class of what lies in it, if any; refuse what can be read in several ways."""
    folders = list(tree.video_folders().values())
    depth = _shared_depth(folders)
    below = [names[depth:] for names in folders if len(names) > depth]
    has_splits = any(len(names) > 1 and split_of(names[0]) for names in below)
    level = 1 if has_splits else 0  # of the class folders

    def place(names: tuple[str, ...]) -> tuple[str, str] | None:
        split = split_of(names[0]) if names and has_splits else "train"
        return (split, names[level]) if split and len(names) > level else None

    no_classes = _no_classes({at[1] for names in below if (at := place(names))})
    of_split: dict[str, set[str]] = {}  # often the same clips in two sizes: train, train_256
    for names in below:
        if has_splits and (at := place(names)):
            of_split.setdefault(at[0], set()).add(names[0])

    def is_odd(names: tuple[str, ...]) -> bool:
        split, label = place(names) or ("", "")
        return label in no_classes or len(of_split.get(split, ())) > 1 or any(map(split_of, names[level + 1 :]))

    if odd := sorted("/".join(names) + "/" for names in below if is_odd(names)):
        faults = "in no known layout, in two folders of one split, or in a class that is named after a split"
        hint = "lay them out as train/<class>/a.mp4 or <class>/a.mp4, name the folder that holds the class folders, or "
        hint += "add a metadata.csv with the columns file_name,label"
        raise UsageError(f"videos of {printable(tree.root)} lie {faults}: {some(odd)}", hint)
    _refuse_deeper_classes(level, below)
    return {folder: place(tree.parts(folder)[depth:]) for folder in (tree.root, *tree.folders)}


def _no_classes(names: Iterable[str]) -> set[str]:
    """Return the names of splits and containers, and those that nothing but a split tells apart: my_train, my_val."""
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}  # the other words → name → split
    for name in names:
        if split := scan.split_of_list(name):
            rest = tuple(word for word in scan.words_of(name) if word not in scan.split_words(name))
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
        if len(tops) != 1 or split_of(*tops) or not (is_above_splits or scan.is_generic_folder(*tops)):
            return depth
        depth += 1


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


# Lists


def _from_lists(forms: Mapping[str, str], tree: Tree, request: Request) -> Dataset:
    finder, rows = _VideoFinder(tree), list[Listed]()
    for path, form in forms.items():
        of_list = read_list(path, form, tree.root)
        found = [
            row
            for split in dict.fromkeys(row.split for row in of_list)
            for row in finder.find(path, [row for row in of_list if row.split == split])
        ]
        first = found[0]
        if form != "header" and not first.file and any(row.file for row in found) and not is_video_name(first.name):
            message = f"{first.place} is no video, as the other lines are: {printable(f'{first.name}, {first.label}')}"
            raise UsageError(message, "call the columns path and label, if it says what they hold")
        rows += found
    classes, labels, notes = _labels(rows, tree)
    keys = [os.path.normpath(row.file or os.path.join(tree.root, row.name)) for row in rows]  # noqa: PTH118
    lines = [row._replace(label=label, key=key) for row, label, key in zip(rows, labels, keys, strict=True)]
    val, test = ({(line.key, line.label) for line in lines if line.split == split} for split in ("val", "test"))
    if val and val == test:  # as test.csv often copies val.csv
        lines = [line for line in lines if line.split != "test"]
        notes.append("the test list has the videos of the validation list; they are read as validation only")
    are_numbers = labels != [row.label for row in rows]
    # A list may call a file otherwise than the scan did.
    every = [*tree.videos, *(row.file for row in rows if row.file)]
    files = {os.path.normpath(file): file for file in reversed(every)}.values()
    arguments = (tree, request, "folder", classes, lines, os.path.normpath)
    return assemble(*arguments, files=files, notes=notes, are_folders_classes=are_numbers)


def _labels(rows: Sequence[Listed], tree: Tree) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Return the classes of a dataset in their order, the class of each row, and what there is to say about them."""
    class_list, notes = find_class_list(tree), list[str]()
    labels = [row.label for row in rows]
    if all(map(_NUMBER.fullmatch, labels)):
        if class_list is None:
            message = f"{rows[0].place} has a number for its class, as all lines have, and nothing says what it means"
            hint = "put a classes.txt beside the lists: one name in a line, counted from 0, or a number and a name"
            raise UsageError(message, hint)
        path, names, numbers = printable(class_list.path), class_list.names, [int(float(label)) for label in labels]
        if unknown := [at for at, number in enumerate(numbers) if number not in names]:
            message = f"{rows[unknown[0]].place} has the class {numbers[unknown[0]]}"
            hint = "write the number before each name, as in classInd.txt, if they do not count from 0"
            raise UsageError(f"{message}, and {path} has {min(names)} to {max(names)}", hint)
        labels = [names[number] for number in numbers]
        notes.append(f"what the numbers in the lists mean is from {path}")
    present = set(labels)
    if wrong := sorted(filter(is_no_class, present)):
        message = f"the lists have {counted(wrong, 'class')} with the name of a split or of a part: {some(wrong)}"
        raise UsageError(message, "write the label behind the path, or give the class another name")
    order = list(class_list.names.values()) if class_list else []
    unknown_names = sorted(present.difference(order))
    if class_list is None or len(unknown_names) == len(present):
        order = sorted(present)
    elif unknown_names:
        place, count = printable(class_list.path), counted(unknown_names, "class")
        message = f"{count} in the lists, and not in {place}: {some(unknown_names)}"
        raise UsageError(message, f"add what is missing to it{did_you_mean(unknown_names[0], order)}")
    absent = [name for name in order if name not in present]
    notes += note_of("of the class list without a video, left out", absent, "class")
    return tuple(name for name in order if name in present), labels, notes


# Where the videos of a list lie, whatever its paths are relative to: lists are made on one machine, used on another.
# For each list and split one *base* is looked for: what to take away at the beginning of its paths and what to put
# there instead, the same for all. The base that finds most videos is taken; two that find others are an error.

_MOST_BASES = 16  # that are tried on all rows, those first that fit most of 200 of them


class _Base(NamedTuple):
    """What paths of a list begin with, and what they begin with below the root instead: "", or ending in "/"."""

    written: str = ""
    real: str = ""

    def applied(self, path: str) -> str | None:
        """Return the path below the root, or None for one that does not begin as written."""
        return self.real + path.removeprefix(self.written) if path.startswith(self.written) else None

    def exchanges_splits(self) -> bool:
        """Return whether one split's folder comes in the place of another's."""
        written, real = ({split_of(name) for name in path.split("/")} - {None} for path in self)
        return bool(written and real) and written.isdisjoint(real)


class _VideoFinder:
    """Finds the videos of a tree by the paths in lists."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._videos = {tree.relative(path): path for path in tree.videos}
        self._by_stem: dict[str, list[str]] = {}  # without the ending, which lists leave out or state otherwise
        self._by_tail: dict[str, list[str]] = {}  # by the name, and by the name with its folder
        for video in self._videos:
            stem = _without_ending(video)
            self._by_stem.setdefault(stem, []).append(video)
            for tail in _tails(stem):
                self._by_tail.setdefault(tail, []).append(video)

    def find(self, path: str, rows: Sequence[Listed]) -> Iterator[Listed]:
        """Yield the rows of one split in the list at ``path``, with their files; paths that fit several are refused."""
        # A path is written with "/" between its parts, however Windows did it, and with nothing that is no part.
        written = [os.path.normpath(row.name if "/" in row.name else row.name.replace("\\", "/")) for row in rows]
        for row, file in zip(rows, self._find(path, written, rows[0]), strict=True):
            yield row._replace(file=file or self._elsewhere(path, row.name))

    def _find(self, path: str, written: Sequence[str], first: Listed) -> Sequence[str | None]:
        inside = self._tree.parts(folder_of(path)) if path.startswith(self._tree.root + os.sep) else ()
        root = os.path.join(os.path.abspath(self._tree.root), "")  # noqa: PTH100, PTH118
        natural = [_Base(), _Base(real="".join(f"{name}/" for name in inside)), _Base(written=root)]
        if self._elsewhere(path, first.name) and not any(self._at(base.applied(written[0])) for base in natural):
            return [None] * len(written)
        bases = list(dict.fromkeys([*natural, *self._likely_bases(written[:: -(-len(written) // 200)])]))
        found = {base: [self._at(base.applied(each)) for each in written] for base in bases}
        ranks = {
            base: (
                files.count(None),
                0 if base in natural else 1 + base.written.count("/"),  # the more of a path is kept, the surer it is
                split_of(base.real.partition("/")[0]) != first.split,
            )
            for base, files in found.items()
        }
        best = min(ranks.values())
        by_name = [self._by_tail.get(_without_ending(each), []) for each in written]
        are_names = not any("/" in each for each in written) and max(map(len, by_name)) == 1
        if best[0] and are_names:  # in folders that the list does not tell
            return [self._videos[videos[0]] if videos else None for videos in by_name]
        tied = [base for base in bases if ranks[base] == best]
        if any(found[base] != found[tied[0]] for base in tied):
            places = [base.real or "the folder itself" for base in tied]
            message = f"the paths in {printable(path)} fit videos in several places: {some(places)}"
            raise UsageError(message, "remove one of them, or write the paths from the dataset's folder on")
        return found[tied[0]]

    def _likely_bases(self, written: Sequence[str]) -> list[_Base]:
        """Return the bases that the names of files suggest, without those that exchange one split for another."""
        fits: Counter[_Base] = Counter()
        for each in written:
            alike = next((self._by_tail[tail] for tail in _tails(_without_ending(each)) if tail in self._by_tail), [])
            fits.update(_base(each, video) for video in alike[: 4 * _MOST_BASES])
        return [base for base, _ in fits.most_common(_MOST_BASES) if not base.exchanges_splits()]

    def _at(self, relative: str | None) -> str | None:
        """Return the video at a path below the root, with this ending or another."""
        if relative is None:
            return None
        videos = [relative] if relative in self._videos else self._by_stem.get(_without_ending(relative), [])
        if len(videos) > 1:
            message = f"{printable(relative)} may be any of {some(videos)}"
            raise UsageError(message, "write the ending of the file into the list, or remove all but one")
        return self._videos[videos[0]] if videos else None

    def _elsewhere(self, path: str, written: str) -> str | None:
        """Return a file beyond the root, or with a name that no video has, by its path from the root or the list."""
        for folder in (self._tree.root, folder_of(path) or "."):
            place = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
            if os.path.isfile(place):  # noqa: PTH113 (unlike a Path, it takes names that cannot be)
                return place
        return None


def _base(written: str, real: str) -> _Base:
    """Return what two paths begin with before the folders that they have in common at their ends."""
    parts, folders = written.split("/")[:-1], real.split("/")[:-1]
    pairs = zip(parts[::-1], folders[::-1], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return _Base(*("".join(f"{part}/" for part in each[: len(each) - common]) for each in (parts, folders)))


def _tails(path: str) -> list[str]:
    parts = path.split("/")
    return list(dict.fromkeys(("/".join(parts[-2:]), parts[-1])))


def _without_ending(path: str) -> str:
    """Return a path without the ending of a video, whatever the case of its letters."""
    ending = next((each for each in VIDEO_EXTENSIONS if path.lower().endswith(each)), "")
    return path[: len(path) - len(ending)]
