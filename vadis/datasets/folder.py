"""Anybody's videos: one folder for each class (``train/``, ``val/`` and ``test/`` above them or not), or a list.

A list is a CSV with the columns ``path, label[, split]`` in the folder, paths relative to it (or to the list itself, if
that is what was named). Where there is a training split and no validation split, ``VALIDATION_SHARE`` of the training
examples of each class become one (see ``holdout``).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from vadis.datasets.checks import FileIndex, Listed, Lists, assemble, empty_classes, nearest
from vadis.datasets.holdout import hold_out
from vadis.datasets.layout import SPLIT_NAMES, has_split_folders, label_lists, parts_of
from vadis.datasets.listing import Dataset, Example, Problems, Request, class_key, counted, some
from vadis.datasets.text import read_table
from vadis.datasets.tree import Tree, stem_of
from vadis.errors import UsageError
from vadis.results import printable

VALIDATION_SHARE = Fraction(1, 5)  # a small dataset needs some files of each class on both sides


def detect(tree: Tree) -> bool:
    """Whether there is a list, or videos in at least two class folders."""
    has_splits = has_split_folders(tree)
    places = {_place(tree.relative(path), has_splits) for path in tree.videos}
    return bool(label_lists(tree)) or len({place[1] for place in places if place}) > 1


def read(tree: Tree, request: Request) -> Dataset:
    """The examples of a list or of class folders; classes in alphabetical order.

    Raises:
        UsageError: as ``assemble`` does; fewer than two classes; a class that is tested but not trained.
    """
    paths = label_lists(tree)
    dataset = _from_lists(paths, tree, request) if paths else _from_folders(tree, request)
    if len(dataset.classes) < 2:
        inside = f"{tree.root}{os.sep}{dataset.classes[0]}" if dataset.classes else ""
        hint = f"the class folders may lie deeper: try {printable(inside)}" if inside else "make one for each class"
        raise UsageError(
            f"{printable(tree.root)} holds {counted(dataset.classes, 'class folder')}: two are needed", hint
        )
    return _with_validation(dataset, tree)


def _from_lists(paths: Iterable[str], tree: Tree, request: Request) -> Dataset:
    splits: dict[str, list[Listed]] = {}
    for path in paths:
        default = SPLIT_NAMES.get(stem_of(path).lower(), "train")
        for place, cells in read_table(path):
            split = SPLIT_NAMES.get(cells.get("split", "").lower() or default)
            if split is None or not cells["path"] or not cells["label"]:
                hint = "such as clips/a.mp4,wave,train; without a column split, the name of the list says which it is"
                raise UsageError(f"{place} is not a path, a label and train, val or test", hint)
            key = os.path.normpath(os.path.join(tree.root, cells["path"]))  # noqa: PTH118
            splits.setdefault(split, []).append(Listed(cells["path"], cells["label"], key))
    classes = tuple(sorted({line.label for lines in splits.values() for line in lines}))
    lists = Lists("folder", classes, splits, are_folders_classes=False)
    inside = {os.path.normpath(path): path for path in tree.videos}
    outside = [
        line.key
        for lines in splits.values()
        for line in lines
        if line.key not in inside and Path(line.key).exists()  # beyond the root, or with a name that no video has
    ]
    files = dict.fromkeys([*inside.values(), *outside])
    dataset = assemble(lists, tree, FileIndex(files, os.path.normpath), request)
    _refuse_untrained(dataset.splits)
    return dataset


def _from_folders(tree: Tree, request: Request) -> Dataset:
    splits: dict[str, list[Example]] = {split: [] for split in ("train", "val", "test")}
    unlisted = []
    has_splits = has_split_folders(tree)
    for path in tree.videos:
        place = _place(tree.relative(path), has_splits)
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
        empty_classes=_empty_folders(tree, classes, has_splits),
        misspelt_folders=_twins(classes),
        notes=tree.unreadable,
    )
    return Dataset("folder", tree.root, classes, request.split, kept, problems)


def _place(relative_path: str, has_splits: bool) -> tuple[str, str] | None:
    """The split and the class of a video or class folder, or None where it lies in no class folder."""
    first, *others = parts_of(relative_path)
    if not has_splits:
        return ("train", first) if others else None
    split = SPLIT_NAMES.get(first.lower())
    return (split, others[0]) if split and len(others) > 1 else None


def _empty_folders(tree: Tree, classes: Iterable[str], has_splits: bool) -> tuple[str, ...]:
    """Folders at the place of a class without a video in any split: nothing to learn, so they are no classes."""
    places = (_place(f"{tree.relative(folder)}{os.sep}any", has_splits) for folder in tree.folders)
    labels = dict.fromkeys(place[1] for place in places if place)
    return tuple(f"{label} (no video)" for label in labels if label not in set(classes))


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
        found = {"train": division.learnt, "val": division.held_out, **splits}
        splits = {split: examples for split, examples in found.items() if examples}
        notes.append(
            f"{float(VALIDATION_SHARE):.0%} of each class's training clips, whole recordings, are for validation"
        )
        notes += division.notes
    empty = (*dataset.problems.empty_classes, *empty_classes(dataset.classes, splits))
    problems = replace(dataset.problems, empty_classes=tuple(dict.fromkeys(empty)), notes=tuple(notes))
    return replace(dataset, splits=splits, problems=problems)
