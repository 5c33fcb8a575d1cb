"""Anybody's videos: class folders in one of ``FOLDER_LAYOUTS``, or lists in one of ``LIST_FORMS``.

Where there are lists, they decide. Where there is a training split and no validation split, ``VALIDATION_SHARE`` of the
training examples of each class become one (see ``holdout``).
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vadis.datasets.checks import Listed, Lists, assemble, empty_classes, nearest
from vadis.datasets.dataset import Dataset, Request, class_key, counted, some
from vadis.datasets.holdout import hold_out
from vadis.datasets.lists import ClassList, Row, find_class_list, is_video_name, read_list, unread_lists, video_lists
from vadis.datasets.places import VideoFinder
from vadis.datasets.scan import Tree, folder_layout, folder_of, is_no_class, name_of, stem_of
from vadis.errors import UsageError
from vadis.results import printable

VALIDATION_SHARE = Fraction(1, 5)  # a small dataset needs some files of each class on both sides
MOST_COMPARED = 100  # files of equal names that are looked at: two calls for each
_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")  # a class as a number; with .0 where a spreadsheet has saved it


def is_folder(tree: Tree) -> bool:
    """Return whether there is a list, or videos in at least two folders, or in folders of splits."""
    return bool(video_lists(tree)) or tree.has_split_folders() or sum(map(bool, tree.video_folders().values())) > 1


def read_folder(tree: Tree, request: Request) -> Dataset:
    """Return the examples of lists or of class folders; classes in the order of a class list, else alphabetically."""
    forms = video_lists(tree)
    dataset = _from_lists(forms, tree, request) if forms else _from_folders(tree, request)
    _refuse_untrained(dataset)
    _refuse_few_classes(dataset.classes, tree)
    unread = unread_lists(tree, forms)
    return _with_validation(dataset, [f"not read as lists of videos: {some(unread)}"] if unread else [])


def _refuse_few_classes(classes: Sequence[str], tree: Tree) -> None:
    if len(classes) < 2:
        deeper = f"the class folders may lie deeper: try {printable('/'.join((tree.root, *classes)))}"
        message = f"{printable(tree.root)} holds {counted(classes, 'class folder')}: two are needed"
        raise UsageError(message, deeper if classes else "make one for each class")


def _from_lists(forms: Mapping[str, str], tree: Tree, request: Request) -> Dataset:
    finder = VideoFinder(tree)
    rows: list[Row] = []
    for path, form in forms.items():
        of_list = read_list(path, form, tree.root)
        found = [
            row._replace(file=file)
            for split in dict.fromkeys(row.split for row in of_list)
            for row, file in finder.find(path, [row for row in of_list if row.split == split])
        ]
        _refuse_header(form, found)
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
    lists = Lists("folder", classes, lines, os.path.normpath, notes=notes, are_folders_classes=are_numbers)
    # A list may call a file otherwise than the scan did.
    every = [*tree.videos, *(row.file for row in rows if row.file)]
    files = {os.path.normpath(file): file for file in reversed(every)}
    return assemble(lists, tree, request, files.values())


def _refuse_header(form: str, rows: Sequence[Row]) -> None:
    """Refuse a first line that is no video like the others: it names columns, in other words."""
    first = rows[0]
    if form != "header" and not first.file and any(row.file for row in rows) and not is_video_name(first.path):
        line = f"{printable(first.path)}, {printable(first.label)}"
        message = f"{first.place} is no video, as the other lines are: {line}"
        raise UsageError(message, "call the columns path and label, if it says what they hold")


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
    order = _order(class_list, present)
    if wrong := sorted(filter(is_no_class, present)):
        message = f"the lists have {counted(wrong, 'class')} with the name of a split or of a part: {some(wrong)}"
        raise UsageError(message, "write the label behind the path, or give the class another name")
    if absent := [name for name in order if name not in present]:
        notes.append(f"{counted(absent, 'class')} of the class list without a video, left out: {some(absent)}")
    if twins := _twins(sorted(present)):
        pairs = some(f"{one} and {other}" for one, other in twins.items())
        notes.append(f"classes that differ only in spelling: {pairs}")
    return tuple(name for name in order if name in present), labels, notes


def _order(class_list: ClassList | None, present: set[str]) -> Iterable[str]:
    """Return the names in the order of the class list that has them; alphabetically where there is none."""
    names = class_list.names.values() if class_list else ()
    unknown = sorted(present.difference(names))
    if class_list is None or len(unknown) == len(present):
        return sorted(present)
    if unknown:
        meant = nearest(unknown[0], names)
        message = f"{counted(unknown, 'class')} in the lists, and not in {printable(class_list.path)}: {some(unknown)}"
        raise UsageError(message, f"did you mean {printable(meant)}?" if meant else "add what is missing to it")
    return names


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


def _from_folders(tree: Tree, request: Request) -> Dataset:
    place = folder_layout(tree)
    places = {folder: place(names) for folder, names in tree.video_folders().items()}
    lines = [Listed(path, at[1], at[0], path) for path in tree.videos if (at := places[folder_of(path)])]
    classes = tuple(sorted({line.label for line in lines}))
    _refuse_few_classes(classes, tree)
    lists = Lists("folder", classes, lines, str, are_folders_classes=False)
    dataset = assemble(lists, tree, request)
    at_place = dict.fromkeys(at[1] for folder in tree.folders if (at := place(tree.parts(folder))))
    empty = [label for label in at_place if label not in classes and not is_no_class(label)]
    problems = replace(
        dataset.problems,
        empty_classes=tuple(f"{label} (no video)" for label in empty),
        misspelt_folders=_twins(classes),
        notes=(*dataset.problems.notes, *_namesakes(tree, dataset)),
    )
    return replace(dataset, problems=problems)


def _namesakes(tree: Tree, dataset: Dataset) -> list[str]:
    """Return a note on files with the same class and name in two splits, unless these are little but digits.

    One file that lies in two splits by a link is refused.
    """
    places: dict[tuple[str, str], dict[str, str]] = {}  # class and name → split → the first file
    for split, examples in dataset.splits.items():
        for each in examples:
            if sum(map(str.isalpha, stem_of(each.path))) > 2:
                places.setdefault((each.label, name_of(each.path)), {}).setdefault(split, each.path)
    twice = [list(files.values()) for files in places.values() if len(files) > 1]
    names = [tree.relative(one) for one, *_ in twice]
    linked = [name for name, (one, *rest) in zip(names[:MOST_COMPARED], twice, strict=False) if _is_any(one, rest)]
    if linked:
        message = f"{counted(linked, 'file')} in two splits, by a link: {some(linked)}"
        raise UsageError(message, "take them out of one: a test on what was learnt proves nothing")
    return [f"{counted(names, 'name')} in two splits, as of the same clips: {some(names)}"] if names else []


def _is_any(path: str, others: Iterable[str]) -> bool:
    """Return whether a file is one of the others under another name."""
    try:
        return any(Path(path).samefile(other) for other in others)
    except OSError:
        return False


def _twins(classes: Iterable[str]) -> dict[str, str | None]:
    """Return the classes that differ from another only in case, blanks or signs → that other."""
    first: dict[str, str] = {}
    return {label: first[class_key(label)] for label in classes if first.setdefault(class_key(label), label) != label}


def _refuse_untrained(dataset: Dataset) -> None:
    """Refuse a class that is only tested: it is nearly always a misspelt one, and would count as the model's errors."""
    trained = {example.label for example in dataset.splits.get("train", ())}
    for split, examples in dataset.splits.items():
        unknown = sorted({example.label for example in examples} - trained)
        if trained and unknown:
            meant = nearest(unknown[0], trained)
            hint = f"did you mean {printable(meant)}?" if meant else f"give it examples in train, or none in {split}"
            message = f"{counted(unknown, 'class')} in {split} without an example in train: {some(unknown)}"
            raise UsageError(message, hint)


def _with_validation(dataset: Dataset, notes: Collection[str]) -> Dataset:
    """Return the dataset with more notes, and a part of its training examples for validation if it has none."""
    splits, notes = dict(dataset.splits), [*dataset.problems.notes, *notes]
    if "train" in splits and "val" not in splits:
        division = hold_out(splits.pop("train"), VALIDATION_SHARE, dataset.root)
        splits = {"train": division.train, "val": division.val, **splits}
        splits = {split: examples for split, examples in splits.items() if examples}
        share = f"{float(VALIDATION_SHARE):.0%} of each class's training clips, whole recordings, are for validation"
        notes += [share, *division.notes]
    empty = dict.fromkeys((*dataset.problems.empty_classes, *empty_classes(dataset.classes, splits)))
    problems = replace(dataset.problems, empty_classes=tuple(empty), notes=tuple(notes))
    return replace(dataset, splits=splits, problems=problems)
