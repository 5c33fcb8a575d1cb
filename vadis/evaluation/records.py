"""Records of ``vadis classify`` → rankings: each is matched by its path with a video of a dataset's split.

Classify looks at whole videos, the paper's test at their first 10 s; for clips of UCF-101, HMDB-51 and Kinetics, which
are mostly shorter, that is nearly the same.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vadis.batch.results_file import files_below, results_in
from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import counted, some
from vadis.errors import UsageError
from vadis.evaluation.metrics import TOP_K, Ranking
from vadis.evaluation.predictions import PREDICTIONS_NAME
from vadis.models import BOTH
from vadis.results import VideoResult, printable

EXTENSIONS = (".jsonl", ".json")
NO_LABEL = "no label: all were below the threshold"


@dataclass(frozen=True)
class Record:
    """What one record says of its video as a whole: labels, the best first, or why there are none."""

    path: str  # bytes that are not UTF-8 as surrogates
    labels: tuple[str, ...]
    error: str | None
    made_by: tuple[str, str, tuple[str, ...]] | None  # model, its sha256, streams; None of an error
    seconds: float | None = None  # the length of the video


@dataclass
class Records:
    """All records that were found; ``torn`` are the files that end within one, which is left out."""

    records: list[Record] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Matched:
    """Records against the examples of a split.

    Attributes:
        rankings: one for each example that has a record, in the order of the split.
        model, streams: what made the records.
        failed: examples whose record has no label, with the reason; they count as wrong.
        missing: examples without a record.
        strange: best labels that are none of the dataset's classes → how often; they count as wrong.
        repeated: records replaced by a later one of the same video.
        outside: records of videos that are not in the split.
        is_top5_known: whether every record names five labels.
    """

    rankings: tuple[Ranking, ...]
    model: str
    streams: tuple[str, ...]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    strange: Mapping[str, int]
    repeated: int
    outside: int
    is_top5_known: bool

    @property
    def column(self) -> str:
        """As in ``measure_predictions``: the stream, or "both"."""
        return self.streams[0] if len(self.streams) == 1 else BOTH


def read_records(paths: Iterable[Path]) -> Records:
    """Read files, and all ``.jsonl`` and ``.json`` files below folders, in the order of their names.

    Raises:
        UsageError: for what cannot be read or holds no records, and for a damaged line other than a torn last one.
    """
    found = Records()
    for path in paths:
        for file in _files(path) if path.is_dir() else [path]:
            results = results_in(file, found.torn)
            found.records += [_record(result) for result in results if result.status != "skipped"]
    return found


def _files(folder: Path) -> list[Path]:
    files, shown = files_below(folder, EXTENSIONS), printable(str(folder))
    if not files:
        hint = "name a folder of vadis evaluate, or of what vadis classify wrote as jsonl or json"
        raise UsageError(f"{shown} holds no results (no .jsonl or .json file)", hint)
    if evaluations := [printable(str(file.parent)) for file in files if file.name == PREDICTIONS_NAME]:
        raise UsageError(f"{shown} holds an evaluation deeper down", hint=f"name its folder: {evaluations[0]}")
    return files


def _record(result: VideoResult) -> Record:
    if result.status == "error":
        return Record(result.path, (), f"{result.error_code}: {result.error_message}", None)
    made_by = str(result.model), str(result.model_sha256), result.streams
    whole = None if "no_flow" in result.flags else made_by  # a single frame, judged by RGB alone
    labels = tuple(label.label for label in result.labels)
    return Record(result.path, labels, None, whole, result.duration_seconds)


def match(records: Iterable[Record], dataset: Dataset, examples: Sequence[Example]) -> Matched:
    """Match each example with its record: of several of the same file the last one.

    A record's path means the file it means from the current folder, or else from the dataset's. Where it means no file
    of the split, its end is compared: the name of the dataset's folder and all below it, for datasets that have moved.

    Raises:
        UsageError: for examples that are parts of files; records of different files for one example; records by
            different models or streams; no record of the split; no label that is a class of the dataset.
    """
    chosen, repeated, outside = _assign(records, dataset, examples)
    if cut := [example.path for example in examples if not _is_whole(example, chosen.get(example.path))]:
        raise UsageError(
            f"{counted(cut, 'example')} are parts of files, and records are of whole files: {some(cut)}",
            hint="let the videos themselves be evaluated, by `model`",
        )
    if not chosen:
        raise UsageError(
            f"none of the {outside:,} records is of a video of this split in {printable(dataset.root)}",
            hint=f"its paths look like {printable(examples[0].path)}",
        )
    model, streams = _one_maker(chosen.values())
    known = [(example, chosen[example.path]) for example in examples if example.path in chosen]
    classes = set(dataset.classes)
    strange = Counter(record.labels[0] for _, record in known if record.labels and record.labels[0] not in classes)
    if strange and not any(classes & set(record.labels) for _, record in known):  # a model made for something else
        raise UsageError(
            f"none of the records' labels is a class of {dataset.name}: {some(strange)}",
            hint=f"its classes are such as {some(dataset.classes[:3])}; the records need a model of these",
        )
    return Matched(
        rankings=tuple(Ranking(example.label, record.labels) for example, record in known),
        model=model,
        streams=streams,
        failed={e.path: record.error or NO_LABEL for e, record in known if not record.labels},
        missing=tuple(example.path for example in examples if example.path not in chosen),
        strange=strange,
        repeated=repeated,
        outside=outside,
        is_top5_known=all(  # or there are fewer classes that could be right
            record.error is not None or len(record.labels) >= TOP_K or classes <= set(record.labels)
            for _, record in known
        ),
    )


def _is_whole(example: Example, record: Record | None) -> bool:
    """Whether an example is its whole file, which of one that may be trimmed only a record tells."""
    if example.may_be_trimmed:
        return record is None or record.error is not None or example.span(record.seconds) == (0.0, None)
    return example.start_seconds is None


def _assign(
    records: Iterable[Record], dataset: Dataset, examples: Sequence[Example]
) -> tuple[dict[str, Record], int, int]:
    """Example's path → its record; how many were replaced by a later one, and how many belong to no example."""
    places = {_absolute(example.path): example.path for example in examples}
    root = _absolute(dataset.root)
    chosen: dict[str, Record] = {}
    file_of: dict[str, str] = {}  # by the example's path
    clashes: dict[str, None] = {}
    repeated = outside = 0
    for record in records:
        files = _files_meant(record.path, root, places)
        found = [places[file] for file in files] or _moved(record.path, root, places)
        if len(found) > 1:
            clashes[f"{record.path} may be {' or '.join(found)}"] = None
        for example in found if len(found) == 1 else ():
            file = files[0] if files else _absolute(record.path)
            if file_of.setdefault(example, file) != file:
                clashes[f"{example} may be {chosen[example].path} or {record.path}"] = None
            repeated += example in chosen
            chosen[example], file_of[example] = record, file
        outside += not found
    if clashes:
        raise UsageError(
            f"{counted(clashes, 'record')} cannot be told apart: {some(clashes)}",
            hint="give the records of one place only",
        )
    return chosen, repeated, outside


def _files_meant(path: str, root: str, places: Mapping[str, str]) -> list[str]:
    """The files of the split that a path means from the current folder and from the dataset's."""
    below = path if os.path.isabs(path) else f"{root}{os.sep}{path}"  # noqa: PTH117
    return [file for file in dict.fromkeys(map(_absolute, (path, below))) if file in places]


def _moved(path: str, root: str, places: Mapping[str, str]) -> list[str]:
    """The example that a path means in a dataset that has moved, if any."""
    _, name, below = (os.sep + path).rpartition(os.sep + os.path.basename(root) + os.sep)  # noqa: PTH119
    moved = places.get(os.path.join(root, below)) if name and below else None  # noqa: PTH118
    return [] if moved is None else [moved]


def _one_maker(records: Iterable[Record]) -> tuple[str, tuple[str, ...]]:
    """The model and its streams; raises UsageError where there are several."""
    makers = list(dict.fromkeys(record.made_by for record in records if record.made_by is not None))
    if len(makers) > 1:
        first, second = (f"{name} ({' and '.join(streams)}, {sha256[:12]})" for name, sha256, streams in makers[:2])
        raise UsageError(
            f"the records were made by different models or streams: {printable(first)} and {printable(second)}",
            hint="give the records of one model only",
        )
    return (makers[0][0], makers[0][2]) if makers else ("", ())


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (keeps symlinks)
