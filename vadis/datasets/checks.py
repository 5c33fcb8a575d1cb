"""Lists against files: which file each line means, and what is wrong with the lists, the files or the folders.

What would falsify a result is an error: two labels for one file, a file that trains and tests, too many files missing.
The rest goes into the summary.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vadis.datasets.dataset import Dataset, Example, Problems, Request, class_key, counted, some
from vadis.datasets.scan import Tree, folder_of, is_replacement, name_of
from vadis.errors import UsageError
from vadis.results import printable

CLOSE = 0.75  # difflib's ratio from which on one class name is taken for a slip in another ("Archry", "Archery": 0.92)


class Cut(NamedTuple):
    """A clip of a longer file: the key of that file, and ``[start, end)``."""

    key: str
    start_seconds: float
    end_seconds: float
    is_only: bool = True  # no other clip is listed of that file, so the file may be this clip alone


class Listed(NamedTuple):
    """A line of a list: the file as a person would look for it, its class, and the key that it is found by."""

    name: str
    label: str
    key: str
    cut: Cut | None = None  # where the whole file may lie in place of the clip


@dataclass(frozen=True)
class Lists:
    """What lists (or names) say of a dataset.

    Attributes:
        name: of the dataset, a key of ``DATASETS``.
        classes: in the order of a model's outputs.
        splits: "train", "val", "test" → lines.
        unused: keys of files that the lists know and that no split uses.
        notes: for the summary.
        are_folders_classes: whether a folder with the name of a class holds that class.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Listed]]
    unused: Collection[str] = ()
    notes: tuple[str, ...] = ()
    are_folders_classes: bool = True


class FileIndex:
    """Files by a key made of their paths; ``copies`` are those of which another copy is used."""

    def __init__(self, paths: Iterable[str], key: Callable[[str], str]) -> None:
        self.copies: dict[str, None] = {}  # an ordered set
        self._paths: dict[str, list[str]] = {}
        for path in paths:
            self._paths.setdefault(key(path), []).append(path)

    def find(self, listed: Listed) -> Example | None:
        """The clip, or the clip's times in the whole file, or None."""
        path = self._path(listed.key, listed.label)
        if path is not None:
            return Example(path, listed.label)
        if listed.cut is None:
            return None
        path = self._path(listed.cut.key, listed.label)
        if path is None:
            return None
        cut = listed.cut
        return Example(path, listed.label, cut.start_seconds, cut.end_seconds, may_be_trimmed=cut.is_only)

    def others(self, known: Collection[str]) -> list[str]:
        """The files whose keys are not among ``known``."""
        return [path for key, paths in self._paths.items() if key not in known for path in paths]

    def _path(self, key: str, label: str) -> str | None:
        """Of several copies one that replaces a broken one, else that in the folder of the class, else the first."""
        paths = self._paths.get(key)
        if paths is None:
            return None
        if len(paths) > 1:
            own = class_key(label)
            paths = sorted(paths, key=lambda path: class_key(name_of(folder_of(path))) != own)
            paths.sort(key=lambda path: not is_replacement(path))
            self.copies.update(dict.fromkeys(paths[1:]))
        return paths[0]


@dataclass
class _Matched:
    """One split: the lines that have a file, and those that have none."""

    examples: list[Example] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.examples) + len(self.missing)


def assemble(lists: Lists, tree: Tree, index: FileIndex, request: Request) -> Dataset:
    """The dataset that the lists describe, as far as it is on disk.

    Raises:
        UsageError: two labels for one file, a file in two splits, a file in the folder of another class, or too many
            files missing.
    """
    listed, repeated = without_repetitions(lists.splits)
    matched = {split: _match(lines, index) for split, lines in listed.items()}
    kept = _present(lists.name, tree, matched, request)
    splits = {split: tuple(each.examples) for split, each in kept.items()}
    misspelt: dict[str, str | None] = {}
    if lists.are_folders_classes:
        by_folder = _classes_of_folders(lists.classes, tree)
        refuse_wrong_folders(tree, splits, by_folder)
        misspelt = misspelt_folders(tree, lists.classes, by_folder)
    problems = Problems(
        num_listed=sum(map(len, kept.values())),
        missing=tuple(name for each in kept.values() for name in each.missing),
        unlisted=tuple(tree.relative(path) for path in index.others(_known(lists))),
        empty_classes=empty_classes(lists.classes, splits),
        misspelt_folders=misspelt,
        duplicates=(*repeated, *map(tree.relative, index.copies)),
        notes=(*lists.notes, *_absent(matched, kept), *tree.unreadable),
    )
    return Dataset(lists.name, tree.root, lists.classes, request.split, splits, problems)


def without_repetitions(splits: Mapping[str, Sequence[Listed]]) -> tuple[dict[str, list[Listed]], list[str]]:
    """The lines without those that say the same again, and the names of these.

    Raises:
        UsageError: where two lines contradict each other.
    """
    first: dict[str, tuple[str, Listed]] = {}
    kept: dict[str, list[Listed]] = {split: [] for split in splits}
    repeated, labels, places = [], [], []
    for split, lines in splits.items():
        for line in lines:
            other_split, other = first.setdefault(line.key, (split, line))
            if other is line:
                kept[split].append(line)
            elif other.label != line.label:
                labels.append(f"{line.name} ({other.label}, {line.label})")
            elif other_split != split:
                places.append(f"{line.name} ({other_split}, {split})")
            else:
                repeated.append(line.name)
    if labels:
        message = f"the lists give two labels to {counted(labels, 'file')}: {some(labels)}"
        raise UsageError(message, "take out the lines that are wrong; one label belongs to a file")
    if places:
        message = f"the lists put {counted(places, 'file')} into two splits: {some(places)}"
        raise UsageError(message, "take them out of one: a test on what was learnt proves nothing")
    return kept, repeated


def refuse_missing(place: str, missing: Sequence[str], total: int, request: Request) -> None:
    """Raises UsageError if so many of the ``total`` files are missing that a result would not be what it says."""
    share = len(missing) / total if total else 0.0
    if missing and share >= request.allow_missing:
        raise UsageError(
            f"{len(missing):,} of the {total:,} files of {place} are missing ({share:.1%}): {some(missing)}",
            f"complete the dataset, or accept results that cannot be compared with others' by raising the share of "
            f"files that may be missing (now {request.allow_missing:g})",
        )


def refuse_wrong_folders(
    tree: Tree, splits: Mapping[str, Sequence[Example]], by_folder: Mapping[str, str | None]
) -> None:
    """Raises UsageError if a file lies in the folder of a class that is not its own: one of its two labels is wrong."""
    wrong = [
        f"{tree.relative(example.path)} (listed as {example.label})"
        for examples in splits.values()
        for example in examples
        if (by_folder.get(folder_of(example.path)) or example.label) != example.label
    ]
    if wrong:
        raise UsageError(
            f"{counted(wrong, 'file')} with two labels, in the folder of another class: {some(wrong)}",
            "move each file to the folder of its class",
        )


def misspelt_folders(tree: Tree, classes: Iterable[str], by_folder: Mapping[str, str | None]) -> dict[str, str | None]:
    """Folders of videos that lie beside folders of classes and are none → the class that is probably meant, if any."""
    beside = {folder_of(folder) for folder, label in by_folder.items() if label is not None}
    strange = [folder for folder, label in by_folder.items() if label is None and folder_of(folder) in beside]
    return {tree.relative(folder): nearest(name_of(folder), classes) for folder in strange}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``name`` is most like, if it is like any."""
    by_key = {class_key(each): each for each in names}
    close = difflib.get_close_matches(class_key(name), by_key, n=1, cutoff=CLOSE)
    return by_key[close[0]] if close else None


def empty_classes(classes: Iterable[str], splits: Mapping[str, Iterable[Example]]) -> tuple[str, ...]:
    """Classes without an example, as ``class (split)``."""
    present = {split: {example.label for example in examples} for split, examples in splits.items()}
    return tuple(f"{label} ({split})" for split, labels in present.items() for label in classes if label not in labels)


def _match(lines: Iterable[Listed], index: FileIndex) -> _Matched:
    matched = _Matched()
    for line in lines:
        example = index.find(line)
        if example is None:
            matched.missing.append(line.name)
        else:
            matched.examples.append(example)
    return matched


def _present(name: str, tree: Tree, matched: Mapping[str, _Matched], request: Request) -> dict[str, _Matched]:
    """The splits that are on disk; one of which nothing is there was left out on purpose, and is no reason to stop."""
    kept = {split: each for split, each in matched.items() if each.examples}
    if not kept:
        missing = [missed for each in matched.values() for missed in each.missing]
        raise UsageError(
            f"none of the {len(missing):,} files that {name} lists is under {printable(tree.root)}: {some(missing)}",
            "name the folder that holds the videos",
        )
    for split in request.needs if request.needs is not None else kept:
        if split in matched:
            refuse_missing(f"{name}'s {split} split", matched[split].missing, len(matched[split]), request)
    return kept


def _absent(matched: Mapping[str, _Matched], kept: Collection[str]) -> list[str]:
    return [
        f"the {split} split is left out: none of its {counted(each.missing, 'file')} is here"
        for split, each in matched.items()
        if split not in kept and each.missing
    ]


def _known(lists: Lists) -> set[str]:
    """The keys of all files that the lists speak of."""
    lines = [line for each in lists.splits.values() for line in each]
    return {line.key for line in lines} | {line.cut.key for line in lines if line.cut} | set(lists.unused)


def _classes_of_folders(classes: Iterable[str], tree: Tree) -> dict[str, str | None]:
    """Every folder below the root in which videos lie → the class it is named after, or None."""
    by_key = {class_key(label): label for label in classes}
    folders = dict.fromkeys(map(folder_of, tree.videos))
    return {folder: by_key.get(class_key(name_of(folder))) for folder in folders if folder != tree.root}
