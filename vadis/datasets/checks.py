"""Lists against files: which file each line means, and what is wrong with the lists, the files or the folders."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from vadis.datasets.dataset import Dataset, Example, Request, class_key, counted, note_of, some
from vadis.datasets.lists import Listed
from vadis.datasets.scan import SPLITS, Tree, folder_of, is_replacement, name_of
from vadis.errors import UsageError
from vadis.results import printable


def assemble(
    tree: Tree,
    request: Request,
    name: str,  # a key of DATASETS
    classes: tuple[str, ...],  # in the order of a model's outputs
    lines: Sequence[Listed],  # of all splits; "" for those that the lists know and that no split uses
    key: Callable[[str], str],  # a path → what its file is found by
    *,
    files: Iterable[str] | None = None,  # by default the tree's videos
    notes: Iterable[str] = (),
    are_folders_classes: bool = True,  # whether a folder with the name of a class holds that class
) -> Dataset:
    """Return the dataset that lists describe, as far as it is on disk.

    Two labels for one file, a file in two splits or in the folder of another class, and too many missing are refused.
    """
    kept, repeated = _without_repetitions(line for line in lines if line.split)
    paths: dict[str, list[str]] = {}
    for path in tree.videos if files is None else files:
        paths.setdefault(key(path), []).append(path)
    found: dict[str, list[Example]] = {split: [] for split in SPLITS}
    missing: dict[str, list[str]] = {split: [] for split in SPLITS}
    copies: dict[str, None] = {}  # an ordered set
    for line in kept:
        candidates = _best_first(paths.get(line.key) or paths.get(line.whole) or [], line.label)
        copies.update(dict.fromkeys(candidates[1:]))
        if candidates:
            part = () if line.key in paths else (line.start_seconds, line.end_seconds, line.is_only)
            found[line.split].append(Example(candidates[0], line.label, *part))
        else:
            missing[line.split].append(line.name)
    splits = {split: tuple(examples) for split, examples in found.items() if examples}
    if not splits:
        nowhere = f"is under {printable(tree.root)}: {some(line.name for line in kept)}"
        message = f"none of the {len(kept):,} files that {name} lists {nowhere}"
        raise UsageError(message, "name the folder that holds the videos")
    told = list(notes)
    for split, names in missing.items():
        if split in splits:
            total = len(names) + len(found[split])
            told += check_missing(f"{name}'s {split} split", len(names), total, request, names)
        elif names:  # on purpose: no reason to stop
            told.append(f"the {split} split is left out: none of its {counted(names, 'file')} is here")
    known = {key for line in lines for key in (line.key, line.whole)}
    of_no_split = [tree.relative(path) for key, each in paths.items() if key not in known for path in each]
    told += note_of("in no split", of_no_split, "file")
    told += note_of("more than once, used once", (*repeated, *map(tree.relative, copies)), "file")
    if are_folders_classes:
        told += _check_folders(classes, tree, splits)
    return Dataset(name, tree.root, classes, request.split, splits, (*told, *tree.unreadable))


def _best_first(paths: list[str], label: str) -> list[str]:
    """Return copies of one file: first one that replaces a broken one, then that in the folder of the class."""
    if len(paths) < 2:
        return paths
    own = class_key(label)
    return sorted(paths, key=lambda path: (not is_replacement(path), class_key(name_of(folder_of(path))) != own))


def _without_repetitions(lines: Iterable[Listed]) -> tuple[list[Listed], list[str]]:
    """Return the lines without those that say the same again, and the names of these; refuse contradictions."""
    first: dict[str, Listed] = {}
    repeated, wrong = list[str](), list[str]()
    for line in sorted(lines, key=lambda line: SPLITS.index(line.split)):
        other = first.setdefault(line.key, line)
        if other.label != line.label:
            wrong.append(f"{line.name} ({other.label}, {line.label})")
        elif other.split != line.split:
            wrong.append(f"{line.name} ({other.split}, {line.split})")
        elif other is not line:
            repeated.append(line.name)
    if wrong:
        message = f"the lists give two labels or two splits to {counted(wrong, 'file')}: {some(wrong)}"
        raise UsageError(message, "take out the lines that are wrong; a test on what was learnt proves nothing")
    return list(first.values()), repeated


def check_missing(place: str, number: int, total: int, request: Request, names: Collection[str] = ()) -> list[str]:
    """Return a note on missing files, if any; refuse so many that a result would not be what it says."""
    if not number:
        return []
    message = f"{number:,} of the {total:,} files of {place} are missing ({number / total:.1%})"
    message += f": {some(names)}" if names else ""
    if number / total >= request.allow_missing:
        hint = "complete the dataset, or accept results that cannot be compared with others' by raising the share of "
        raise UsageError(message, f"{hint}files that may be missing (now {request.allow_missing:g})")
    return [message]


def _check_folders(classes: Iterable[str], tree: Tree, splits: Mapping[str, Iterable[Example]]) -> list[str]:
    """Refuse files in the folder of another class; return notes on folders that lie beside those of classes."""
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
    return [f"folder {tree.relative(each)}: no such class{did_you_mean(name_of(each), classes)}" for each in strange]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the one of ``names`` that ``name`` is most like; "" if it is like none."""
    by_key = {class_key(each): each for each in names}
    close = difflib.get_close_matches(class_key(name), by_key, n=1, cutoff=0.75)  # "Archry", "Archery": 0.92
    return f"; did you mean {printable(by_key[close[0]])}?" if close else ""
