"""Kinetics-400 and -600: CSV lists of YouTube clips, of which everybody has a different part.

References: Kay et al., "The Kinetics Human Action Video Dataset", 2017; Carreira et al., "A Short Note about
Kinetics-600", 2018. A list has the columns ``label, youtube_id, time_start, time_end, split[, is_cc]``, times in
seconds of the YouTube video. A clip is a file ``<id>_<start>_<end>`` (six digits each) in whatever folder; a file
``<id>`` is taken for the whole YouTube video, of which the clip is ``[time_start, time_end)``.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vadis.datasets.checks import Cut, FileIndex, Listed, Lists, assemble
from vadis.datasets.layout import SPLIT_NAMES
from vadis.datasets.listing import Dataset, Request, class_key
from vadis.datasets.text import columns_of, read_table
from vadis.datasets.tree import Tree, stem_of
from vadis.errors import UsageError
from vadis.results import printable
from vadis.weights.labels import PUBLISHED_LISTS, published_labels

SOURCE = "train.csv, val.csv and test.csv from https://github.com/cvdfoundation/kinetics-dataset"
_COLUMNS = {"youtube_id", "time_start", "time_end"}
_AS_PUBLISHED = f"take the line out, or the list from {SOURCE}"


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
    rows = [row for path in paths for row in _rows(path)]
    labelled = [row for row in rows if row.label]
    if not labelled:
        message = f"{printable(paths[0])} has no labels: it is the list of a held-out test set"
        raise UsageError(message, f"put lists with labels beside it: {SOURCE}")
    spellings = _spellings({row.label for row in labelled})
    splits: dict[str, list[Listed]] = {}
    for row in labelled:
        splits.setdefault(row.split, []).append(_listed(row, spellings[row.label]))
    splits = {split: splits[split] for split in ("train", "val", "test") if split in splits}
    unused = {name for row in rows if not row.label for name in (_name(row), row.youtube_id)}
    notes = (f"{len(rows) - len(labelled):,} clips without a label are left out",) if unused else ()
    lists = Lists("kinetics", _in_order(set(spellings.values())), splits, unused, notes)
    return assemble(lists, tree, FileIndex(tree.videos, stem_of), request)


def _lists_of(tree: Tree) -> list[str]:
    return [path for path in tree.lists if path.lower().endswith(".csv") and set(columns_of(path)) >= _COLUMNS]


def _rows(path: str) -> Iterator[_Row]:
    for place, cells in read_table(path):
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
        yield _Row(split, cells.get("label", ""), cells["youtube_id"], start, end)


def _split_in(stem: str) -> str:
    """The split in the name of a list ("kinetics400_val": "val"), for lists without that column; else the name."""
    words = stem.lower().replace("-", "_").split("_")
    return next((word for word in reversed(words) if word in SPLIT_NAMES), stem)


def _name(row: _Row) -> str:
    return f"{row.youtube_id}_{int(row.start):06d}_{int(row.end):06d}"


def _listed(row: _Row, label: str) -> Listed:
    name = _name(row)
    return Listed(f"{label}/{name}.mp4", label, name, Cut(row.youtube_id, row.start, row.end))


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
