"""Anybody's videos: class folders in one of ``layout.FOLDER_LAYOUTS``, or lists in one of ``lists.LIST_FORMS``.

Where there are lists, they decide. Where there is a training split and no validation split, ``VALIDATION_SHARE`` of the
training examples of each class become one (see ``holdout``).
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from vadis.datasets.checks import FileIndex, Listed, Lists, assemble, empty_classes, nearest
from vadis.datasets.classes import ClassList, find_class_list
from vadis.datasets.dataset import Dataset, Example, Problems, Request, class_key, counted, some
from vadis.datasets.holdout import hold_out
from vadis.datasets.lists import Row, is_video_name, read_list, unread_lists, video_lists
from vadis.datasets.places import VideoFinder
from vadis.datasets.scan import (
    PlacedLayout,
    Tree,
    folder_layout,
    folder_of,
    folders_of_videos,
    has_split_folders,
    is_no_class,
    name_of,
    parts_of,
)
from vadis.errors import UsageError
from vadis.results import printable

VALIDATION_SHARE = Fraction(1, 5)  # a small dataset needs some files of each class on both sides
MOST_COMPARED = 100  # files of equal names that are looked at: two calls for each
_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")  # a class as a number; with .0 where a spreadsheet has saved it


def detect(tree: Tree) -> bool:
    """Whether there is a list, or videos in at least two folders, or in folders of splits."""
    if video_lists(tree) or has_split_folders(tree):
        return True
    return len({names for _, names in folders_of_videos(tree) if names}) > 1


def read(tree: Tree, request: Request) -> Dataset:
    """The examples of lists or of class folders; classes in the order of a class list, else alphabetically.

    Raises:
        UsageError: as ``assemble`` does; fewer than two classes; a class that is tested but not trained; folders or
            lists that can be read in more than one way.
    """
    forms = video_lists(tree)
    dataset = _from_lists(forms, tree, request) if forms else _from_folders(tree, request)
    if len(dataset.classes) < 2:
        inside = f"{tree.root}{os.sep}{dataset.classes[0]}" if dataset.classes else ""
        hint = f"the class folders may lie deeper: try {printable(inside)}" if inside else "make one for each class"
        raise UsageError(
            f"{printable(tree.root)} holds {counted(dataset.classes, 'class folder')}: two are needed", hint
        )
    return _with_validation(dataset, tree)


def _from_lists(forms: Mapping[str, str], tree: Tree, request: Request) -> Dataset:
    finder = VideoFinder(tree)
    found: list[tuple[Row, str | None]] = []
    for path, form in forms.items():
        rows = read_list(path, form, tree.root)
        for split in dict.fromkeys(row.split for row in rows):
            of_split = [row for row in rows if row.split == split]
            found += zip(of_split, finder.find(path, of_split), strict=True)
        _refuse_header(form, found[-len(rows) :])
    classes, labels, notes = _labels(found, tree)
    splits: dict[str, list[Listed]] = {}
    for (row, file), label in zip(found, labels, strict=True):
        key = os.path.normpath(file or os.path.join(tree.root, row.path))  # noqa: PTH118
        splits.setdefault(row.split or "train", []).append(Listed(row.path, label, key))
    notes += _without_twin_split(splits)
    notes += _unread(tree, forms)
    are_numbers = any(row.label != label for (row, _), label in zip(found, labels, strict=True))
    lists = Lists("folder", classes, splits, notes=tuple(notes), are_folders_classes=are_numbers)
    files = dict.fromkeys([*tree.videos, *(file for _, file in found if file)])
    dataset = assemble(lists, tree, FileIndex(_once(files), os.path.normpath), request)
    _refuse_untrained(dataset.splits)
    return dataset


def _refuse_header(form: str, found: Sequence[tuple[Row, str | None]]) -> None:
    """Raises UsageError for a first line that is no video like the others: it names columns, in other words."""
    (first, file), *others = found
    if form != "header" and file is None and any(other for _, other in others) and not is_video_name(first.path):
        message = (
            f"{first.place} is no video, as the other lines are: {printable(first.path)}, {printable(first.label)}"
        )
        raise UsageError(message, "call the columns path and label, if it says what they hold")


def _once(files: Iterable[str]) -> list[str]:
    """Each file once, though a list may call it otherwise than the walk did."""
    return list({os.path.normpath(file): file for file in reversed(list(files))}.values())


def _labels(found: Sequence[tuple[Row, str | None]], tree: Tree) -> tuple[tuple[str, ...], list[str], list[str]]:
    """The classes of a dataset in their order, the class of each row, and what there is to say about them.

    Raises:
        UsageError: for numbers that nothing explains, names that a class list lacks, and names of splits.
    """
    written = [row.label for row, _ in found]
    class_list, notes = find_class_list(tree), list[str]()
    if all(_NUMBER.fullmatch(label) for label in written):
        names = class_list or _names_of_folders(found)
        labels = [_named(row, names) for row, _ in found]
        order = tuple(dict.fromkeys(names.names[number] for number in sorted(names.names)))
        notes.append(f"what the numbers in the lists mean is from {printable(names.path)}")
    else:
        labels = written
        order = _order(class_list, labels)
    present = set(labels)
    if wrong := sorted(label for label in present if is_no_class(label)):
        message = f"the lists have {counted(wrong, 'class')} with the name of a split or of a part: {some(wrong)}"
        raise UsageError(message, "write the label behind the path, or give the class another name")
    if absent := [name for name in order if name not in present]:
        notes.append(f"{counted(absent, 'class')} of the class list without a video, left out: {some(absent)}")
    if twins := _twins(sorted(present)):
        pairs = some(f"{one} and {other}" for one, other in twins.items())
        notes.append(f"classes that differ only in spelling: {pairs}")
    return tuple(name for name in order if name in present), labels, notes


def _order(class_list: ClassList | None, labels: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of the class list that has them; alphabetical where there is none."""
    present = set(labels)
    names = [] if class_list is None else [class_list.names[number] for number in sorted(class_list.names)]
    unknown = sorted(present - set(names))
    if len(unknown) == len(present) or class_list is None:
        return tuple(sorted(present))
    if unknown:
        meant = nearest(unknown[0], names)
        message = f"{counted(unknown, 'class')} in the lists, and not in {printable(class_list.path)}: {some(unknown)}"
        raise UsageError(message, f"did you mean {printable(meant)}?" if meant else "add what is missing to it")
    return tuple(names)


def _named(row: Row, names: ClassList) -> str:
    """The class of a row whose label is a number."""
    number = int(float(row.label))
    if number in names.names:
        return names.names[number]
    known = sorted(names.names)
    raise UsageError(
        f"{row.place} has the class {number}, and {printable(names.path)} has {known[0]} to {known[-1]}",
        "write the number before each name, as in classInd.txt, if they do not count from 0",
    )


def _names_of_folders(found: Sequence[tuple[Row, str | None]]) -> ClassList:
    """What numbers mean where no class list says it: the folders of the videos, if each number has one of its own."""
    folders: dict[int, set[str]] = {}
    for row, file in found:
        if file is not None and int(float(row.label)) >= 0:
            folders.setdefault(int(float(row.label)), set()).add(name_of(folder_of(file)))
    names = {number: next(iter(each)) for number, each in folders.items() if len(each) == 1}
    is_clear = len(names) == len(folders) > 1 and len(set(names.values())) == len(names)
    if not is_clear or any(is_no_class(name) for name in names.values()):
        raise UsageError(
            f"{found[0][0].place} has a number for its class, as all lines have, and nothing says what it means",
            "put a classes.txt beside the lists: one name in a line, counted from 0, or a number and a name",
        )
    return ClassList("the names of the folders", names)


def _without_twin_split(splits: dict[str, list[Listed]]) -> list[str]:
    """Take away a test split that lists the very videos of the validation split, as test.csv often copies val.csv."""
    val, test = ({(line.key, line.label) for line in splits.get(split, ())} for split in ("val", "test"))
    if not val or val != test:
        return []
    del splits["test"]
    return ["the test list has the videos of the validation list; they are read as validation only"]


def _from_folders(tree: Tree, request: Request) -> Dataset:
    layout = folder_layout(tree)
    places = {folder: layout.place(names) for folder, names in folders_of_videos(tree)}
    splits: dict[str, list[Example]] = {split: [] for split in ("train", "val", "test")}
    unlisted = []
    for path in tree.videos:
        place = places[folder_of(path)]
        if place is None:
            unlisted.append(tree.relative(path))
        else:
            splits[place[0]].append(Example(path, place[1]))
    kept = {split: tuple(examples) for split, examples in splits.items() if examples}
    _refuse_untrained(kept)
    classes = tuple(sorted({example.label for examples in kept.values() for example in examples}))
    problems = Problems(
        num_listed=len(tree.videos) - len(unlisted),
        unlisted=tuple(unlisted),
        empty_classes=_empty_folders(tree, classes, layout),
        misspelt_folders=_twins(classes),
        notes=(*tree.unreadable, *_namesakes(tree, kept), *_unread(tree)),
    )
    return Dataset("folder", tree.root, classes, request.split, kept, problems)


def _empty_folders(tree: Tree, classes: Iterable[str], layout: PlacedLayout) -> tuple[str, ...]:
    """Folders at the place of a class without a video in any split: nothing to learn, so they are no classes."""
    places = (layout.place(tuple(parts_of(tree.relative(folder)))) for folder in tree.folders)
    labels = dict.fromkeys(place[1] for place in places if place and not is_no_class(place[1]))
    return tuple(f"{label} (no video)" for label in labels if label not in set(classes))


def _unread(tree: Tree, forms: Mapping[str, str] | None = None) -> list[str]:
    paths = unread_lists(tree, forms or {})
    return [f"not read as lists of videos: {some(paths)}"] if paths else []


def _namesakes(tree: Tree, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """What there is to say of files with the same class and name in two splits; names of little but digits are usual.

    Raises:
        UsageError: for one file that lies in two splits by a link.
    """
    first: dict[tuple[str, str], tuple[str, str]] = {}
    twice: list[tuple[str, str]] = []
    for split, examples in splits.items():
        for example in examples:
            name = name_of(example.path)
            other_split, other = first.setdefault((example.label, name), (split, example.path))
            if other_split != split and sum(map(str.isalpha, name.rpartition(".")[0])) > 2:
                twice.append((other, example.path))
    linked = [tree.relative(one) for one, other in twice[:MOST_COMPARED] if _are_one(one, other)]
    if linked:
        message = f"{counted(linked, 'file')} in two splits, by a link: {some(linked)}"
        raise UsageError(message, "take them out of one: a test on what was learnt proves nothing")
    if not twice:
        return []
    names = some(tree.relative(one) for one, _ in twice)
    return [f"{counted(twice, 'name')} in two splits, as of the same clips: {names}"]


def _are_one(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except OSError:
        return False


def _twins(classes: Iterable[str]) -> dict[str, str | None]:
    """Classes that differ from another only in case, blanks or signs → that other."""
    first: dict[str, str] = {}
    return {label: first[class_key(label)] for label in classes if first.setdefault(class_key(label), label) != label}


def _refuse_untrained(splits: Mapping[str, Iterable[Example]]) -> None:
    """A class that is only tested is nearly always a misspelt one, and would count as errors of the model."""
    if "train" not in splits:
        return
    trained = {example.label for example in splits["train"]}
    for split, examples in splits.items():
        unknown = sorted({example.label for example in examples} - trained)
        if unknown:
            meant = nearest(unknown[0], trained)
            raise UsageError(
                f"{counted(unknown, 'class')} in {split} without an example in train: {some(unknown)}",
                f"did you mean {printable(meant)}?" if meant else f"give it examples in train, or none in {split}",
            )


def _with_validation(dataset: Dataset, tree: Tree) -> Dataset:
    """``dataset``, a part of its training examples for validation if it has none."""
    splits, notes = dict(dataset.splits), list(dataset.problems.notes)
    if "train" in splits and "val" not in splits:
        division = hold_out(splits.pop("train"), VALIDATION_SHARE, tree.root)
        found = {"train": division.train, "val": division.val, **splits}
        splits = {split: examples for split, examples in found.items() if examples}
        notes.append(
            f"{float(VALIDATION_SHARE):.0%} of each class's training clips, whole recordings, are for validation"
        )
        notes += division.notes
    empty = (*dataset.problems.empty_classes, *empty_classes(dataset.classes, splits))
    problems = replace(dataset.problems, empty_classes=tuple(dict.fromkeys(empty)), notes=tuple(notes))
    return replace(dataset, splits=splits, problems=problems)
