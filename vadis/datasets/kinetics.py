"""Kinetics-400, -600 and -700: lists of YouTube clips, of which everybody has a different part.

References: Kay et al., "The Kinetics Human Action Video Dataset", 2017; Carreira et al., "A Short Note about
Kinetics-600", 2018. A list has the columns ``label, youtube_id, time_start, time_end, split[, is_cc]``, times in
seconds of the YouTube video; without that header the columns are these in this order; or it has the names of clips with
their classes (``LIST_FORMS``). A clip is a file ``<id>_<start>_<end>`` (six digits each) in whatever folder; a file
``<id>`` is the whole YouTube video, of which the clip is ``[time_start, time_end)``, or the clip itself, as its length
tells (``Example.span``). A file in a folder ``replacement*`` counts before any other of the same clip.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from vadis.datasets.checks import Cut, FileIndex, Listed, Lists, assemble
from vadis.datasets.dataset import Dataset, Request, class_key
from vadis.datasets.scan import (
    SPLIT_NAMES,
    Tree,
    columns_of,
    is_no_class,
    is_replacement,
    is_text,
    name_of,
    read_lines,
    read_table,
    split_of_list,
    stem_of,
)
from vadis.errors import UsageError
from vadis.results import printable
from vadis.weights.labels import PUBLISHED_LISTS, published_labels

SOURCE = (
    "train.csv, val.csv and test.csv from https://github.com/cvdfoundation/kinetics-dataset, or those in "
    "https://storage.googleapis.com/deepmind-media/Datasets/kinetics400.tar.gz (or kinetics600, kinetics700_2020)"
)
HEAD_LINES = 20  # of a file without a header by which it is known
_COLUMNS = {"youtube_id", "time_start", "time_end"}
_AS_PUBLISHED = f"take the line out, or the list from {SOURCE}"
_SEPARATED = re.compile(r"[\s,;]+")
_LINE = re.compile(
    r"(?:(?P<before>.+?)[\s,;]+)?(?P<id>[\w-]{11})[\s,;]+(?P<start>\d+(?:\.\d+)?)[\s,;]+(?P<end>\d+(?:\.\d+)?)"
    r"(?:[\s,;]+(?P<behind>\S.*?))?(?:[\s,;]+\d)?"  # at the end perhaps whether the video is under Creative Commons
)
_CLIP = re.compile(r"(?P<id>[\w-]{11})_(?P<start>\d{1,6})_(?P<end>\d{1,6})")


class _Row(NamedTuple):
    split: str
    label: str  # as in the list; empty in the lists of a held-out test set
    youtube_id: str
    start: float  # seconds
    end: float


def detect(tree: Tree) -> bool:
    """Whether a list of clips is there."""
    return bool(_lists_of(tree))


def read(tree: Tree, request: Request) -> Dataset:
    """The clips of all lists that are there; "train", "val", "test" as far as they have lists, labels and files.

    Raises:
        UsageError: as ``assemble`` does, and if there is no list, or one is damaged.
    """
    paths = _lists_of(tree)
    if not paths:
        raise UsageError(
            f"no list of Kinetics under {printable(tree.root)} (looked for a CSV with the columns label, youtube_id, "
            "time_start, time_end)",
            f"put {SOURCE} into it; folders of classes without lists are the dataset 'folder'",
        )
    rows = [row for path, form in paths.items() for row in _rows(path, form)]
    labelled = [row for row in rows if row.label]
    if not labelled:
        message = f"{printable(next(iter(paths)))} has no labels: it is the list of a held-out test set"
        raise UsageError(message, f"put lists with labels beside it: {SOURCE}")
    spellings = _spellings({row.label for row in labelled})
    times = Counter(youtube_id for youtube_id, _ in {(row.youtube_id, _name(row)) for row in rows})
    splits: dict[str, list[Listed]] = {}
    for row in labelled:
        is_only = times[row.youtube_id] == 1
        splits.setdefault(row.split, []).append(_listed(row, spellings[row.label], is_only))
    splits = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    unused = {name for row in rows if not row.label for name in (_name(row), row.youtube_id)}
    notes = (f"{len(rows) - len(labelled):,} clips without a label are left out",) if unused else ()
    lists = Lists("kinetics", _in_order(set(spellings.values())), splits, unused, notes)
    names = {row.youtube_id: _name(row) for row in rows if times[row.youtube_id] == 1}
    return assemble(lists, tree, FileIndex(tree.videos, lambda path: _key(path, names)), request)


def _key(path: str, names: dict[str, str]) -> str:
    """By what a file is found: its name, as the published lists have it; a replacement also by its video alone."""
    stem = stem_of(path)
    match = _CLIP.fullmatch(stem)
    if is_replacement(path) and stem[:11] in names:
        return names[stem[:11]]
    return f"{match['id']}_{int(match['start']):06d}_{int(match['end']):06d}" if match else stem


def _lists_of(tree: Tree) -> dict[str, str]:
    """The lists of clips in a tree: path → key of ``LIST_FORMS``."""
    tables = (path for path in tree.lists if path.lower().endswith((".csv", ".tsv")) or _says_split(path))
    forms = {path: _form_of(path) for path in tables if is_text(path)}
    return {path: form for path, form in forms.items() if form is not None}


def _form_of(path: str) -> str | None:
    for name, rows in LIST_FORMS.items():
        try:
            if list(islice(rows(path), HEAD_LINES)) or name == "header":
                return name
        except ValueError:
            continue
    return None


def _with_header(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``label,youtube_id,time_start,time_end,split``, with that as its first line."""
    delimiter = next((each for each in ",\t" if set(columns_of(path, each)) >= _COLUMNS), None)
    if delimiter is None:
        raise ValueError
    return read_table(path, delimiter)


def _without_header(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``abseiling,0wR5jVB-WPk,417,427,val``, or ``0wR5jVB-WPk 417 427 abseiling``, without names of columns before."""
    for place, line in read_lines(path):
        match = _LINE.fullmatch(line)
        before, *behind = [] if match is None else [match["before"] or "", *_SEPARATED.split(match["behind"] or "")]
        split = behind.pop() if behind and behind[-1].lower() in SPLIT_NAMES else ""
        label = before or " ".join(behind)
        if match is None or not label or label.isdecimal():
            raise ValueError
        yield (
            place,
            {
                "label": label.strip("\"' "),
                "youtube_id": match["id"],
                "time_start": match["start"],
                "time_end": match["end"],
                "split": split,
            },
        )


def _clip_names(path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``abseiling/0wR5jVB-WPk_000417_000427.mp4``, or that name without its folder and the class behind it."""
    if not _says_split(path):
        raise ValueError
    for place, line in read_lines(path):
        file, label = _file_and_label(line)
        match = _CLIP.fullmatch(stem_of(file) if "." in name_of(file) else name_of(file))
        if match is None or not label or label.isdecimal() or is_no_class(label):
            raise ValueError
        yield (
            place,
            {
                "label": label,
                "youtube_id": match["id"],
                "time_start": match["start"],
                "time_end": match["end"],
            },
        )


def _file_and_label(line: str) -> tuple[str, str]:
    """The name of a clip and its class: the folder before the name, or what stands behind it."""
    match = re.match(r"(?:(?P<folder>.*)/)?(?P<file>[\w-]{11}_\d+_\d+(?:\.\w+)?)(?:[\s,;]+(?P<label>.*))?$", line)
    if match is None:
        return line, ""
    return match["file"], (match["label"] or name_of(match["folder"] or "")).strip("\"' ")


LIST_FORMS: dict[str, Callable[[str], Iterator[tuple[str, dict[str, str]]]]] = {
    "header": _with_header,
    "columns": _without_header,
    "clip names": _clip_names,
}
"""The forms of lists that are read, by name, in the order in which they are tried."""


def _rows(path: str, form: str) -> Iterator[_Row]:
    rows = LIST_FORMS[form](path)
    while True:
        try:
            place, cells = next(rows)
        except StopIteration:
            return
        except ValueError as error:
            message = f"{printable(path)} has a line that is not like its first ones"
            raise UsageError(message, _AS_PUBLISHED) from error
        yield _row(path, place, cells)


def _row(path: str, place: str, cells: dict[str, str]) -> _Row:
    given = cells.get("split") or _split_in(stem_of(path))
    split = SPLIT_NAMES.get(given.lower())
    if split is None:
        hint = "correct it; the split of a list without such a column is in its name: train.csv, val.csv, test.csv"
        raise UsageError(f"{place} is of the split {printable(given)!r}: not train, val or test", hint)
    try:
        start, end = float(cells["time_start"]), float(cells["time_end"])
    except ValueError:
        raise UsageError(f"{place} has times that are no numbers", _AS_PUBLISHED) from None
    if not cells["youtube_id"] or not 0 <= start < end < float("inf"):
        message = f"{place} is not a clip: it needs an id, and a start before its end"
        raise UsageError(message, _AS_PUBLISHED)
    return _Row(split, cells.get("label", ""), cells["youtube_id"], start, end)


def _says_split(path: str) -> bool:
    return path.lower().endswith((".csv", ".tsv", ".txt")) and _split_in(stem_of(path)) in SPLIT_NAMES


def _split_in(stem: str) -> str:
    """The split in the name of a list ("kinetics400_val": "val"), for lists without that column; else the name.

    DeepMind's list of Kinetics-600 for its challenge is called holdout_test: the test split.
    """
    return split_of_list(stem.lower().replace("holdout", "")) or stem


def _name(row: _Row) -> str:
    return f"{row.youtube_id}_{int(row.start):06d}_{int(row.end):06d}"


def _listed(row: _Row, label: str, is_only: bool) -> Listed:
    name = _name(row)
    return Listed(f"{label}/{name}.mp4", label, name, Cut(row.youtube_id, row.start, row.end, is_only))


def _spellings(labels: Iterable[str]) -> dict[str, str]:
    """Label in a list → class: lists of different years, and copies of them, differ in blanks and capitals."""
    first: dict[str, str] = {}
    for label in sorted(labels):
        first.setdefault(class_key(label), label)
    for name in PUBLISHED_LISTS:
        published = {class_key(label): label for label in published_labels(name)}
        if published.keys() == first.keys():
            first = published
    return {label: first[class_key(label)] for label in labels}


def _in_order(classes: set[str]) -> tuple[str, ...]:
    """The classes in the order of the published models' outputs where they are theirs, else alphabetically."""
    for name in PUBLISHED_LISTS:
        if classes == set(published_labels(name)):
            return published_labels(name)
    return tuple(sorted(classes))
