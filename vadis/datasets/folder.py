"""Anybody's videos: class folders in one of ``FOLDER_LAYOUTS``, or lists in one of ``LIST_FORMS``, which decide.

Where there is a training split and no validation split, ``VALIDATION_SHARE`` of the training examples of each class
become one (see ``holdout``).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from vadis.datasets.checks import Listed, assemble, did_you_mean
from vadis.datasets.dataset import Dataset, Request, class_key, counted, note_of, some
from vadis.datasets.holdout import hold_out
from vadis.datasets.lists import ClassList, Row, find_class_list, is_video_name, read_list, unread_lists, video_lists
from vadis.datasets.places import VideoFinder
from vadis.datasets.scan import (
    Tree,
    folder_of,
    is_generic_folder,
    is_no_class,
    name_of,
    split_of,
    split_of_list,
    split_words,
    stem_of,
    words_of,
)
from vadis.errors import UsageError
from vadis.results import printable

VALIDATION_SHARE = Fraction(1, 5)  # a small dataset needs some files of each class on both sides
_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")  # a class as a number; with .0 where a spreadsheet has saved it


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
        class_at=1,
        split_at=0,
    ),
    "class/split": FolderLayout("<class>/train/a.mp4, <class>/test/b.mp4", "", class_at=0, split_at=1),
    "class": FolderLayout("<class>/a.mp4", "UCF-101, HMDB-51 without lists", class_at=0, split_at=None),
}
"""The arrangements of folders that are read, by name; ``folder_layout`` chooses the one of a tree."""


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
    spellings = [each for each in sorted(classes) if first.setdefault(class_key(each), each) != each]
    notes = note_of("not read as lists of videos", unread_lists(tree, forms), "file")
    spellings = [f"{first[class_key(each)]} and {each}" for each in spellings]
    notes += note_of("differ only in spelling", spellings, "class")
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
    place = folder_layout(tree)
    places = {folder: place(names) for folder, names in tree.video_folders().items()}
    lines = [Listed(path, at[1], at[0], path) for path in tree.videos if (at := places[folder_of(path)])]
    classes = tuple(sorted({line.label for line in lines}))
    _refuse_few_classes(classes, tree)
    at_place = dict.fromkeys(at[1] for folder in tree.folders if (at := place(tree.parts(folder))))
    notes = note_of("no video", [each for each in at_place if each not in classes and not is_no_class(each)], "class")
    # Files with the same class and name in two splits are probably the same clips, unless these are little but digits.
    splits: dict[str, set[str]] = {}
    for line in lines:
        if sum(map(str.isalpha, stem_of(line.name))) > 2:
            splits.setdefault(f"{line.label}/{name_of(line.name)}", set()).add(line.split)
    notes += note_of(
        "in two splits, as of the same clips", [name for name, of in splits.items() if len(of) > 1], "name"
    )
    return assemble(tree, request, "folder", classes, lines, str, notes=notes, are_folders_classes=False)


def folder_layout(tree: Tree) -> Callable[[tuple[str, ...]], tuple[str, str] | None]:
    """Return what gives the split and class of a folder, by the names on the way to it from the root.

    It is a row of ``FOLDER_LAYOUTS`` below folders that all videos share. What can be read in more than one way is
    refused, and a class that is named after a split or a container.
    """
    folders = list(tree.video_folders().values())
    depth = _shared_depth(folders)
    below = [names[depth:] for names in folders if len(names) > depth]
    split_at = next((at for at in (0, 1) if any(len(names) > 1 and split_of(names[at]) for names in below)), None)
    layout = next(row for row in FOLDER_LAYOUTS.values() if row.split_at == split_at)
    no_classes = _no_classes({place[1] for names in below if (place := layout.place(names))})
    of_split: dict[str | None, set[str]] = {}  # often the same clips in two sizes: train, train_256
    for names in below:
        of_split.setdefault(split_of(names[0]) if split_at == 0 and len(names) > 1 else None, set()).add(names[0])

    def is_odd(names: tuple[str, ...]) -> bool:
        place = layout.place(names)
        is_outside = split_at == 1 and (place is None or len(names) > 2)
        is_twin = place is not None and split_at == 0 and len(of_split[place[0]]) > 1
        return is_outside or is_twin or any(map(split_of, names[2:])) or (place is not None and place[1] in no_classes)

    if odd := sorted("/".join(names) + "/" for names in below if is_odd(names)):
        message = (
            f"videos of {printable(tree.root)} lie in no known layout, in two folders of one split, or in a class "
        )
        hint = "lay them out as train/<class>/a.mp4 or <class>/a.mp4, name the folder that holds the class folders, or "
        raise UsageError(
            f"{message}that is named after a split: {some(odd)}",
            hint + "add a metadata.csv with the columns file_name,label",
        )
    if split_at != 1:
        _refuse_deeper_classes(layout.class_at, below)
    return lambda names: layout.place(names[depth:])


def _no_classes(names: Iterable[str]) -> set[str]:
    """Return the names of splits and containers, and those that nothing but a split tells apart: my_train, my_val."""
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}  # the other words → name → split
    for name in names:
        if split := split_of_list(name):
            rest = tuple(word for word in words_of(name) if word not in split_words(name))
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
    finder, rows = VideoFinder(tree), list[Row]()
    for path, form in forms.items():
        of_list = read_list(path, form, tree.root)
        found = [
            row
            for split in dict.fromkeys(row.split for row in of_list)
            for row in finder.find(path, [row for row in of_list if row.split == split])
        ]
        first = found[0]
        if form != "header" and not first.file and any(row.file for row in found) and not is_video_name(first.path):
            line = f"{printable(first.path)}, {printable(first.label)}"
            message = f"{first.place} is no video, as the other lines are: {line}"
            raise UsageError(message, "call the columns path and label, if it says what they hold")
        rows += found
    classes, labels, notes = _labels(rows, tree)
    lines = [
        Listed(row.path, label, row.split, os.path.normpath(row.file or os.path.join(tree.root, row.path)))  # noqa: PTH118
        for row, label in zip(rows, labels, strict=True)
    ]
    val, test = ({(line.key, line.label) for line in lines if line.split == split} for split in ("val", "test"))
    if val and val == test:  # as test.csv often copies val.csv
        lines = [line for line in lines if line.split != "test"]
        notes.append("the test list has the videos of the validation list; they are read as validation only")
    are_numbers = labels != [row.label for row in rows]
    # A list may call a file otherwise than the scan did.
    every = [*tree.videos, *(row.file for row in rows if row.file)]
    files = {os.path.normpath(file): file for file in reversed(every)}.values()
    key = os.path.normpath
    return assemble(
        tree, request, "folder", classes, lines, key, files=files, notes=notes, are_folders_classes=are_numbers
    )


def _labels(rows: Sequence[Row], tree: Tree) -> tuple[tuple[str, ...], list[str], list[str]]:
    """Return the classes of a dataset in their order, the class of each row, and what there is to say about them."""
    class_list, notes = find_class_list(tree), list[str]()
    labels = [row.label for row in rows]
    if all(map(_NUMBER.fullmatch, labels)):
        class_list = class_list or _names_of_folders(rows)
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
    notes += note_of(
        "of the class list without a video, left out", [each for each in order if each not in present], "class"
    )
    return tuple(name for name in order if name in present), labels, notes


def _names_of_folders(rows: Sequence[Row]) -> ClassList:
    """Return what numbers mean where no class list says it: the folders of the videos, if each has one of its own."""
    pairs = {(int(float(row.label)), name_of(folder_of(row.file))) for row in rows if row.file and row.label[0] != "-"}
    names = dict(sorted(pairs))
    is_clear = 1 < len(names) == len(pairs) == len(set(names.values()))
    if not is_clear or any(map(is_no_class, names.values())):
        message = f"{rows[0].place} has a number for its class, as all lines have, and nothing says what it means"
        hint = "put a classes.txt beside the lists: one name in a line, counted from 0, or a number and a name"
        raise UsageError(message, hint)
    return ClassList("the names of the folders", names)
