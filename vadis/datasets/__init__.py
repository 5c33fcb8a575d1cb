"""UCF-101, HMDB-51, Kinetics, plain folders: lists of examples only; decoding is video's.

tree       what lies on disk                     text      lists as they were published
listing    Example, Dataset, Problems            checks    lists against files
layout     class and split folders               lists     lists of paths and labels, in all their forms
classes    what numbers in lists mean            places    where the videos of a list lie
packed     what has to be unpacked first
holdout    clips for validation, where there is no split for it
ucf101, hmdb51, kinetics, folder                 one file for each row of ``DATASETS``
camera                                           videos that are made here: a row of ``MADE_HERE``
"""

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vadis.datasets import folder, hmdb51, kinetics, ucf101
from vadis.datasets.dataset import ALLOWED_MISSING, Dataset, Example, Problems, Request
from vadis.datasets.packed import packed_videos, with_unpacking
from vadis.datasets.scan import Tree, walk
from vadis.errors import UsageError
from vadis.results import printable

__all__ = [
    "ALLOWED_MISSING",
    "DATASETS",
    "MADE_HERE",
    "Dataset",
    "DatasetKind",
    "Example",
    "Problems",
    "find_dataset",
    "make_dataset",
]


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DatasetKind:
    """How one dataset lies on disk.

    Attributes:
        summary: one line for a person.
        detect: whether a tree looks like this dataset.
        read: the dataset in a tree.
        looked_for: what ``detect`` goes by, in words.
        source: where the official lists come from, or None where there are none.
        num_classes: None where the lists decide.
        num_splits: official splits, numbered from 1.
        counts: "train", "test" → files of each split, where they are published.
        is_last_resort: taken only where no other kind is detected.
    """

    summary: str
    detect: Callable[[Tree], bool]
    read: Callable[[Tree, Request], Dataset]
    looked_for: str
    source: str | None = None
    num_classes: int | None = None
    num_splits: int = 1
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    is_last_resort: bool = False


DATASETS: dict[str, DatasetKind] = {
    "ucf101": DatasetKind(
        summary="UCF-101: 13,320 clips of 101 actions, three splits",
        detect=ucf101.detect,
        read=ucf101.read,
        looked_for="trainlist0N.txt and testlist0N.txt, or videos named v_<Class>_g<group>_c<clip>",
        source=ucf101.SOURCE,
        num_classes=ucf101.NUM_CLASSES,
        num_splits=3,
        counts=ucf101.COUNTS,
    ),
    "hmdb51": DatasetKind(
        summary="HMDB-51: 6,766 clips of 51 actions, three splits",
        detect=hmdb51.detect,
        read=hmdb51.read,
        looked_for="<class>_test_split<N>.txt, or videos named as in HMDB-51",
        source=hmdb51.SOURCE,
        num_classes=hmdb51.NUM_CLASSES,
        num_splits=3,
        counts=hmdb51.COUNTS,
    ),
    "kinetics": DatasetKind(
        summary="Kinetics-400, -600 or -700: clips of YouTube videos, and lists of them",
        detect=kinetics.detect,
        read=kinetics.read,
        looked_for="a list with the columns label, youtube_id, time_start, time_end, or of <class>/<id>_<start>_<end>",
        source=kinetics.SOURCE,
    ),
    "folder": DatasetKind(
        summary="your own videos: one folder for each class, or lists of paths and labels",
        detect=folder.detect,
        read=folder.read,
        looked_for="two or more folders with videos (in train/ and val/ or not), or lists of paths and labels",
        is_last_resort=True,
    ),
}
"""Every dataset that vadis reads, by the name that ``--dataset`` takes."""


def _camera_motion(root: Path, videos: int, seed: int, progress: Progress) -> None:
    from vadis.datasets.camera import Amount, write_dataset

    write_dataset(root, Amount(videos, seed), progress=progress)


MADE_HERE: dict[str, Callable[[Path, int, int, Progress], None]] = {"camera-motion": _camera_motion}
"""What vadis makes itself, by name: (root, videos of each class, seed, progress) → videos in folders."""


def make_dataset(name: str, root: Path, videos: int, seed: int, progress: Progress) -> None:
    """Write what is missing of a dataset that vadis makes itself; ``find_dataset`` reads it.

    Args:
        name: a key of ``MADE_HERE``.
        root: where to; a folder of its own.
        videos: of each class, in all splits.
        seed: of everything random in them.
        progress: called with the videos that are there, and all that will be.

    Raises:
        UsageError: for a name that is none, too few videos, or a folder that holds others.
        VadisError: where the disk does not take them.
    """
    if name not in MADE_HERE:
        raise UsageError(f"vadis makes no dataset {printable(name)!r}", hint=f"it makes {', '.join(MADE_HERE)}")
    MADE_HERE[name](root, videos, seed, progress)


def find_dataset(
    root: str | os.PathLike[str],
    name: str | None = None,
    split: int = 1,
    *,
    lists: str | os.PathLike[str] | None = None,
    allow_missing: float = ALLOWED_MISSING,
    needs: tuple[str, ...] | None = None,
) -> Dataset:
    """The dataset that lies in a folder; one walk through it, no file opened but lists.

    Args:
        root: the folder, or a single list of paths and labels.
        name: a key of ``DATASETS``, or None to go by what is there.
        split: the number of the official split.
        lists: a folder with the official lists, if they are not under ``root``.
        allow_missing: the share of a split's files in [0, 1] from which on it is an error that they are missing.
        needs: the splits that will be used, each of which must be there; None checks all that are.

    Raises:
        UsageError: nothing or several datasets recognised, no such split, or lists and files that would falsify a
            result (see ``checks``).
    """
    if not 0 <= allow_missing <= 1:
        message = f"the share of files that may be missing is between 0 and 1, not {allow_missing:g}"
        raise UsageError(message, "0.1, as by default, stops where a tenth of a split is missing")
    if name is not None and name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(DATASETS)}"
        raise UsageError(f"unknown dataset {printable(name)!r}", hint)
    tree = walk(root, lists)
    try:
        dataset = _read(tree, name or _detected(tree), Request(split, allow_missing, needs))
    except UsageError as error:
        raise with_unpacking(error, tree) from error
    for each in needs or ():
        dataset.examples(each)
    return dataset


def _read(tree: Tree, name: str, request: Request) -> Dataset:
    """One split of the dataset of this kind in a tree."""
    kind, split = DATASETS[name], request.split
    if not 1 <= split <= kind.num_splits:
        there = "only split 1" if kind.num_splits == 1 else f"splits 1 to {kind.num_splits}"
        raise UsageError(f"{name} has no split {split}", f"it has {there}")
    dataset, packed = kind.read(tree, request), packed_videos(tree)
    if packed is None:
        return dataset
    notes = (*dataset.problems.notes, f"not read: {packed[0]}; if its videos are not here yet, {packed[1]}")
    return replace(dataset, problems=replace(dataset.problems, notes=notes))


def _detected(tree: Tree) -> str:
    """The kind of dataset in a tree, by name."""
    names = [name for name, kind in DATASETS.items() if not kind.is_last_resort and kind.detect(tree)]
    names = names or [name for name, kind in DATASETS.items() if kind.is_last_resort and kind.detect(tree)]
    if len(names) == 1:
        return names[0]
    if names:
        raise UsageError(
            f"{printable(tree.root)} looks like {' and like '.join(names)}",
            "say which by `name`, or name the folder of one of them",
        )
    looked_for = "; ".join(f"{name}: {kind.looked_for}" for name, kind in DATASETS.items())
    raise UsageError(f"no dataset was recognised in {printable(tree.root)}", f"looked for {looked_for}")
