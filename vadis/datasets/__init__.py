"""UCF-101, HMDB-51, Kinetics, plain folders: lists of examples only; no video is opened.

``scan`` lists what lies on disk, ``lists`` reads lists of paths and labels, ``dataset`` joins both, as ``published``
and ``folder`` ask for it.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from vadis.datasets import folder, published
from vadis.datasets.dataset import ALLOWED_MISSING, Dataset, Example, Request, make_note
from vadis.datasets.scan import Tree, packed_videos, scan_tree
from vadis.errors import UsageError
from vadis.results import printable

__all__ = ["DATASETS", "Dataset", "DatasetKind", "Example", "find_dataset"]


@dataclass(frozen=True)
class DatasetKind:
    """How one dataset lies on disk."""

    summary: str  # one line for a person
    detect: Callable[[Tree], object]  # whether a tree looks like this dataset
    read: Callable[[Tree, Request], Dataset]
    looked_for: str  # what ``detect`` goes by, in words
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by part: files of each official split


DATASETS: dict[str, DatasetKind] = {
    "ucf101": DatasetKind(
        "UCF-101: 13,320 clips of 101 actions, three splits",
        published.is_ucf101,
        published.read_ucf101,
        "trainlist0N.txt and testlist0N.txt, or videos named v_<Class>_g<group>_c<clip>",
        counts=published.UCF101_COUNTS,
    ),
    "hmdb51": DatasetKind(
        "HMDB-51: 6,766 clips of 51 actions, three splits",
        published.is_hmdb51,
        published.read_hmdb51,
        "<class>_test_split<N>.txt, or videos named as in HMDB-51",
        counts=published.HMDB51_COUNTS,
    ),
    "kinetics": DatasetKind(
        "Kinetics-400, -600 or -700: clips of YouTube videos, and lists of them",
        published.clip_lists,
        published.read_kinetics,
        "a list with the columns label, youtube_id, time_start, time_end, or of <class>/<id>_<start>_<end>",
    ),
    "folder": DatasetKind(
        "your own videos: one folder for each class, or lists of paths and labels",
        folder.is_folder,
        folder.read_folder,
        "two or more folders with videos (in train/ and val/ or not), or lists of paths and labels",
    ),
}
"""Every dataset that vadis reads, by the name that ``--dataset`` takes; "folder" where no other is detected."""


def find_dataset(
    root: str | os.PathLike[str], name: str | None = None, split: int = 1, *, allow_missing: float = ALLOWED_MISSING
) -> Dataset:
    """Return the dataset that lies in the folder ``root``, or that a single list names.

    ``name`` is a key of ``DATASETS``, or None to go by what is there; ``split`` the number of the official split. Raise
    UsageError where nothing or several datasets are recognised, where there is no such split, where a share
    ``allow_missing`` of its files is missing, and for all else that would falsify a result.
    """
    if not 0 <= allow_missing <= 1:
        message = f"the share of files that may be missing is between 0 and 1, not {allow_missing:g}"
        raise UsageError(message, "0.1, as by default, stops where a tenth of a split is missing")
    if name is not None and name not in DATASETS:
        raise UsageError(f"unknown dataset {printable(name)!r}", f"there are {', '.join(DATASETS)}")
    tree = scan_tree(root)
    packed = packed_videos(tree)
    try:
        name = name or _detect(tree)
        num_splits = max(map(len, DATASETS[name].counts.values()), default=1)
        if not 1 <= split <= num_splits:
            raise UsageError(f"{name} has no split {split}", f"the last one is {num_splits}")
        dataset = DATASETS[name].read(tree, Request(split, allow_missing))
    except UsageError as error:
        if packed is None:
            raise
        files, how = packed
        if not tree.videos:
            message = f"{printable(tree.root)} holds its videos packed, in {files}, and so they are not read"
            raise UsageError(message, how) from error
        raise UsageError(error.message, f"{error.hint}; it also holds {files}: {how}") from error
    present = {part: {example.label for example in examples} for part, examples in dataset.splits.items()}
    empty = [f"{label} ({part})" for part in present for label in dataset.classes if label not in present[part]]
    notes = [*dataset.notes, *make_note("no example", empty, "class")]
    if packed:
        notes.append(f"not read: {packed[0]}; if its videos are not here yet, {packed[1]}")
    return replace(dataset, notes=tuple(notes))


def _detect(tree: Tree) -> str:
    names = [name for name, kind in DATASETS.items() if name != "folder" and kind.detect(tree)]
    if len(names) > 1:
        message = f"{printable(tree.root)} looks like {' and like '.join(names)}"
        raise UsageError(message, "say which by `name`, or name the folder of one of them")
    if not names and not DATASETS["folder"].detect(tree):
        looked_for = "; ".join(f"{name}: {kind.looked_for}" for name, kind in DATASETS.items())
        raise UsageError(f"no dataset was recognised in {printable(tree.root)}", f"looked for {looked_for}")
    return names[0] if names else "folder"
