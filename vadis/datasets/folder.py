"""Anybody's videos: class folders, or lists in one of ``LIST_FORMS``, which decide (docs/datasets.md)."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial

from vadis.datasets import scan
from vadis.datasets.dataset import (
    Dataset,
    ListRow,
    Request,
    assemble,
    counted,
    did_you_mean,
    hold_out,
    make_note,
    shorten,
)
from vadis.datasets.lists import find_class_list, is_video_name, read_list, unread_lists, video_lists
from vadis.datasets.scan import Tree, class_key, folder_of, is_no_class, name_of, split_of, stem_of
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
        message = f"{counted(unknown, 'class')} of val or test without an example in train: {shorten(unknown)}"
        raise UsageError(message, f"give it examples in train, or none elsewhere{did_you_mean(unknown[0], trained)}")
    first: dict[str, str] = {}
    alike = [(first[key], each) for each in sorted(classes) if first.setdefault(key := class_key(each), each) != each]
    notes = make_note("not read as lists of videos", unread_lists(tree, forms), "file")
    notes += make_note("differ only in spelling", [" and ".join(pair) for pair in alike], "class")
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
    lines = [ListRow(path, at[1], at[0], path) for path in tree.videos if (at := places[folder_of(path)])]
    classes = tuple(sorted({line.label for line in lines}))
    _refuse_few_classes(classes, tree)
    others = dict.fromkeys(at[1] for at in places.values() if at and at[1] not in classes and not is_no_class(at[1]))
    notes = make_note("no video", others, "class")
    # Files with the same class and name in two splits are probably the same clips, unless these are little but digits.
    splits: dict[str, set[str]] = {}
    for line in lines:
        if sum(map(str.isalpha, stem_of(line.name))) > 2:
            splits.setdefault(f"{line.label}/{name_of(line.name)}", set()).add(line.split)
    twice = [name for name, of_name in splits.items() if len(of_name) > 1]
    notes += make_note("in two splits, as of the same clips", twice, "name")
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
    tops = {names[0] for names in below if has_splits}
    num_folders = Counter(map(split_of, tops))  # two of a split are often the same clips in two sizes: train, train_256

    def is_odd(names: tuple[str, ...]) -> bool:
        split, label = place(names) or ("", "")
        return label in no_classes or num_folders[split] > 1 or any(map(split_of, names[level + 1 :]))

    odd = sorted("/".join(names) + "/" for names in below if is_odd(names))
    if odd := odd or _classes_within_classes(names[level:] for names in below if len(names) > level):
        faults = "in no known layout, in two folders of one split, in a class that is named after a split, or in "
        faults += "folders of the same names in several classes"
        hint = "lay them out as train/<class>/a.mp4 or <class>/a.mp4, name the folder that holds the class folders, or "
        hint += "add a metadata.csv with the columns file_name,label"
        raise UsageError(f"videos of {printable(tree.root)} lie {faults}: {shorten(odd)}", hint)
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


def _classes_within_classes(folders: Iterable[tuple[str, ...]]) -> list[str]:
    """Return names of folders that lie in all class folders: in session1/run, session2/run the class may be run."""
    inside: dict[str, set[str]] = {}  # by class: the folders in it; "" where videos lie right in it
    for label, *names in folders:
        inside.setdefault(label, set()).update(names[:1] or ("",))
    numbers = Counter(name for deeper in inside.values() for name in deeper if not is_no_class(name))
    shared = sorted(name for name, number in numbers.items() if number > 1)
    has_videos = any("" in deeper for deeper in inside.values())
    return shared if len(shared) > 1 and 2 * len(shared) >= len(numbers) and not has_videos else []


# Lists


def _from_lists(forms: Mapping[str, str], tree: Tree, request: Request) -> Dataset:
    finder, rows = _VideoFinder(tree), list[ListRow]()
    for path, form in forms.items():
        found = finder.find(path, read_list(path, form, tree.root))
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


def _labels(rows: Sequence[ListRow], tree: Tree) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Return the classes of a dataset in their order, the class of each row, and what there is to say about them."""
    place, names = find_class_list(tree)
    labels, notes = [row.label for row in rows], list[str]()
    if all(map(_NUMBER.fullmatch, labels)):
        if not names:
            message = f"{rows[0].place} has a number for its class, as all lines have, and nothing says what it means"
            hint = "put a classes.txt beside the lists: one name in a line, counted from 0, or a number and a name"
            raise UsageError(message, hint)
        numbers = [int(float(label)) for label in labels]
        if unknown := [at for at, number in enumerate(numbers) if number not in names]:
            message = f"{rows[unknown[0]].place} has the class {numbers[unknown[0]]}"
            hint = "write the number before each name, as in classInd.txt, if they do not count from 0"
            raise UsageError(f"{message}, and {place} has {min(names)} to {max(names)}", hint)
        labels = [names[number] for number in numbers]
        notes.append(f"what the numbers in the lists mean is from {place}")
    present = set(labels)
    if wrong := sorted(filter(is_no_class, present)):
        message = f"the lists have {counted(wrong, 'class')} with the name of a split or of a part: {shorten(wrong)}"
        raise UsageError(message, "write the label behind the path, or give the class another name")
    order = list(names.values())
    unknown_names = sorted(present.difference(order))
    if len(unknown_names) == len(present):
        order = sorted(present)
    elif unknown_names:
        message = f"{counted(unknown_names, 'class')} in the lists, and not in {place}: {shorten(unknown_names)}"
        raise UsageError(message, f"add what is missing to it{did_you_mean(unknown_names[0], order)}")
    absent = [name for name in order if name not in present]
    notes += make_note("of the class list without a video, left out", absent, "class")
    return tuple(name for name in order if name in present), labels, notes


# Where the videos of a list lie, whatever its paths are relative to: lists are made on one machine, used on another.
# A path from the dataset's folder or from the list's is taken as it is written. Any other means the video with which it
# has most names in common at its end, those of the file and its folder at least, or that of the file alone where no
# path of the list fits better; never one in the folder of another split.


class _VideoFinder:
    """Finds the videos of a tree by the paths in lists."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._videos = {tree.relative(path): path for path in tree.videos}
        self._stems = {video: _stem(video) for video in self._videos}
        self._by_end: dict[str, list[str]] = {}
        for video, stem in self._stems.items():
            for end in _ends(stem):
                self._by_end.setdefault(end, []).append(video)

    def find(self, path: str, rows: Sequence[ListRow]) -> list[ListRow]:
        """Return the rows of the list at ``path`` with their files; a path that fits several videos is refused."""
        # A path is written with "/" between its parts, however Windows did it, and with nothing that is no part.
        root = os.path.join(os.path.abspath(self._tree.root), "")  # noqa: PTH100, PTH118
        names = [os.path.normpath(row.name if "/" in row.name else row.name.replace("\\", "/")) for row in rows]
        names = [name.removeprefix(root) for name in names]
        files: list[str | None] = [None] * len(rows)
        first, folder = self._elsewhere(path, rows[0].name), os.path.join(folder_of(path), "")  # noqa: PTH118
        if first is None or os.path.relpath(first, self._tree.root) in self._videos:
            look = partial(self._video, self._tree.relative(folder))
            files = [look(row, name) for row, name in zip(rows, names, strict=True)]
            if not any(files) and len(set(map(name_of, names))) == len(set(names)):
                files = [look(row, name, by_name=True) for row, name in zip(rows, names, strict=True)]
        found = zip(rows, files, strict=True)
        return [row._replace(file=file or self._elsewhere(path, row.name)) for row, file in found]

    def _video(self, inside: str, row: ListRow, name: str, by_name: bool = False) -> str | None:
        """Return the video whose path ends as ``name`` of a list in ``inside``, with this ending or another."""
        stem = _stem(name)
        ends = (end for end in _ends(stem) if by_name or "/" in end or end == stem)
        videos = next((self._by_end[end] for end in ends if end in self._by_end), [])
        splits = _splits_of(folder_of(name)) or {row.split}
        fitting = [video for video in videos if self._stems[video] in (stem, inside + stem)]
        fitting = fitting or [video for video in videos if _splits_of(folder_of(video)) <= splits]
        fitting = [video for video in fitting if name_of(video) == name_of(name)] or fitting
        if len(fitting) > 1:
            message = f"{row.place} fits several videos: {shorten(fitting)}"
            raise UsageError(message, "write its path from the dataset's folder on, with its ending")
        return self._videos[fitting[0]] if fitting else None

    def _elsewhere(self, path: str, written: str) -> str | None:
        """Return a file beyond the root, or with a name that no video has, by its path from the root or the list."""
        for folder in (self._tree.root, folder_of(path) or "."):
            place = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
            if os.path.isfile(place):  # noqa: PTH113 (unlike a Path, it takes names that cannot be)
                return place
        return None


def _stem(path: str) -> str:
    """Return a path without the ending of a video: lists leave it out, or have another."""
    stem, ending = os.path.splitext(path)  # noqa: PTH122 (as text, which is faster)
    return stem if ending.lower() in VIDEO_EXTENSIONS else path


def _ends(path: str) -> Iterator[str]:
    """Yield a path from each of its names on, the longest first."""
    while path:
        yield path
        path = path.partition("/")[2]


@cache
def _splits_of(folder: str) -> set[str]:
    return {split for name in folder.split("/") if (split := split_of(name))}
