"""Lists against files: which file each line means, and what is wrong with the lists, the files or the folders.

What would falsify a result is an error: two labels for one file, a file that trains and tests, too many files missing.
The rest goes into the summary.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from vadis.datasets.dataset import Dataset, Example, Problems, Request, class_key, counted, some
from vadis.datasets.scan import SPLITS, Tree, folder_of, is_replacement, name_of
from vadis.errors import UsageError
from vadis.results import printable

CLOSE = 0.75  # difflib's ratio from which on one class name is taken for a slip in another ("Archry", "Archery": 0.92)


class Listed(NamedTuple):
    """A line of a list: the file as a person would look for it, its class and split, and the key it is found by."""

    name: str
    label: str
    split: str
    key: str
    whole: str = ""  # the key of a longer file that may lie in its place: the clip is [start, end) in it
    start_seconds: float = 0.0
    end_seconds: float = 0.0
    is_only: bool = True  # no other clip is listed of the longer file, so that may be this clip alone


class Lists(NamedTuple):
    """What lists (or names) say of a dataset."""

    name: str  # a key of DATASETS
    classes: tuple[str, ...]  # in the order of a model's outputs
    lines: Sequence[Listed]  # of all splits
    key: Callable[[str], str]  # a path → what its file is found by
    unused: Collection[str] = ()  # keys of files that the lists know and that no split uses
    notes: Sequence[str] = ()
    are_folders_classes: bool = True  # whether a folder with the name of a class holds that class


def assemble(lists: Lists, tree: Tree, request: Request, files: Iterable[str] | None = None) -> Dataset:
    """Return the dataset that the lists describe, as far as it is on disk: among ``files``, or the tree's videos.

    Two labels for one file, a file in two splits or in the folder of another class, and too many missing are refused.
    """
    lines, repeated = _without_repetitions(lists.lines)
    paths: dict[str, list[str]] = {}
    for path in tree.videos if files is None else files:
        paths.setdefault(lists.key(path), []).append(path)
    found: dict[str, list[Example]] = {split: [] for split in SPLITS}
    missing: dict[str, list[str]] = {split: [] for split in SPLITS}
    copies: dict[str, None] = {}  # an ordered set
    for line in lines:
        candidates = _best_first(paths.get(line.key) or paths.get(line.whole) or [], line.label)
        copies.update(dict.fromkeys(candidates[1:]))
        if not candidates:
            missing[line.split].append(line.name)
        else:
            part = () if line.key in paths else (line.start_seconds, line.end_seconds, line.is_only)
            found[line.split].append(Example(candidates[0], line.label, *part))
    splits = {split: tuple(examples) for split, examples in found.items() if examples}
    if not splits:
        nowhere = f"is under {printable(tree.root)}: {some(line.name for line in lines)}"
        message = f"none of the {len(lines):,} files that {lists.name} lists {nowhere}"
        raise UsageError(message, "name the folder that holds the videos")
    sizes = {split: len(found[split]) + len(missing[split]) for split in SPLITS}
    for split in splits:
        refuse_missing(f"{lists.name}'s {split} split", missing[split], sizes[split], request)
    known = {line.key for line in lines} | {line.whole for line in lines} | set(lists.unused)
    left_out = [split for split in SPLITS if missing[split] and not found[split]]  # on purpose: no reason to stop
    absent = [
        f"the {each} split is left out: none of its {counted(missing[each], 'file')} is here" for each in left_out
    ]
    problems = Problems(
        num_listed=sum(sizes[split] for split in splits),
        missing=tuple(name for split in splits for name in missing[split]),
        unlisted=tuple(tree.relative(path) for key, each in paths.items() if key not in known for path in each),
        empty_classes=empty_classes(lists.classes, splits),
        misspelt_folders=_check_folders(lists.classes, tree, splits) if lists.are_folders_classes else {},
        duplicates=(*repeated, *map(tree.relative, copies)),
        notes=(*lists.notes, *absent, *tree.unreadable),
    )
    return Dataset(lists.name, tree.root, lists.classes, request.split, splits, problems)


def _best_first(paths: list[str], label: str) -> list[str]:
    """Return copies of one file: first one that replaces a broken one, then that in the folder of the class."""
    if len(paths) < 2:
        return paths
    own = class_key(label)
    return sorted(paths, key=lambda path: (not is_replacement(path), class_key(name_of(folder_of(path))) != own))


def _without_repetitions(lines: Iterable[Listed]) -> tuple[list[Listed], list[str]]:
    """Return the lines without those that say the same again, and the names of these; refuse contradictions."""
    first: dict[str, Listed] = {}
    repeated, labels, places = list[str](), list[str](), list[str]()
    for line in sorted(lines, key=lambda line: SPLITS.index(line.split)):
        other = first.setdefault(line.key, line)
        if other.label != line.label:
            labels.append(f"{line.name} ({other.label}, {line.label})")
        elif other.split != line.split:
            places.append(f"{line.name} ({other.split}, {line.split})")
        elif other is not line:
            repeated.append(line.name)
    if labels:
        message = f"the lists give two labels to {counted(labels, 'file')}: {some(labels)}"
        raise UsageError(message, "take out the lines that are wrong; one label belongs to a file")
    if places:
        message = f"the lists put {counted(places, 'file')} into two splits: {some(places)}"
        raise UsageError(message, "take them out of one: a test on what was learnt proves nothing")
    return list(first.values()), repeated


def refuse_missing(place: str, missing: Sequence[str], total: int, request: Request) -> None:
    """Refuse a dataset of which so many of ``total`` files are missing that a result would not be what it says."""
    share = len(missing) / total if total else 0.0
    if missing and share >= request.allow_missing:
        message = f"{len(missing):,} of the {total:,} files of {place} are missing ({share:.1%}): {some(missing)}"
        hint = "complete the dataset, or accept results that cannot be compared with others' by raising the share of "
        raise UsageError(message, f"{hint}files that may be missing (now {request.allow_missing:g})")


def _check_folders(
    classes: Iterable[str], tree: Tree, splits: Mapping[str, Iterable[Example]]
) -> dict[str, str | None]:
    """Refuse files in the folder of another class: one of their two labels is wrong.

    Return the folders of videos that lie beside folders of classes and are none → the class that is probably meant.
    """
    by_key = {class_key(label): label for label in classes}
    folders = {each: by_key.get(class_key(name_of(each))) for each in tree.video_folders() if each != tree.root}
    wrong = [
        f"{tree.relative(example.path)} (listed as {example.label})"
        for examples in splits.values()
        for example in examples
        if (folders.get(folder_of(example.path)) or example.label) != example.label
    ]
    if wrong:
        message = f"{counted(wrong, 'file')} with two labels, in the folder of another class: {some(wrong)}"
        raise UsageError(message, "move each file to the folder of its class")
    beside = {folder_of(folder) for folder, label in folders.items() if label is not None}
    strange = [folder for folder, label in folders.items() if label is None and folder_of(folder) in beside]
    return {tree.relative(folder): nearest(name_of(folder), by_key.values()) for folder in strange}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that ``name`` is most like, if it is like any."""
    by_key = {class_key(each): each for each in names}
    close = difflib.get_close_matches(class_key(name), by_key, n=1, cutoff=CLOSE)
    return by_key[close[0]] if close else None


def empty_classes(classes: Iterable[str], splits: Mapping[str, Iterable[Example]]) -> tuple[str, ...]:
    """Return the classes without an example, as ``class (split)``."""
    present = {split: {example.label for example in examples} for split, examples in splits.items()}
    return tuple(f"{label} ({split})" for split, labels in present.items() for label in classes if label not in labels)
