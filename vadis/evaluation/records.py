"""What ``vadis classify`` wrote → metrics: records are found by the paths of a dataset's videos, and not asked again.

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
from vadis.evaluation.predictions import ANSWERS_NAME
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
        model, model_sha256, streams: what made the records.
        failed: examples whose record has no label, with the reason; they count as wrong.
        missing: examples without a record.
        strange: first labels that are none of the dataset's classes → how often; they count as wrong.
        repeated: records replaced by a later one of the same video.
        outside: records of videos that are not in the split.
        is_top5_known: whether every record names five labels.
    """

    rankings: tuple[Ranking, ...]
    model: str
    model_sha256: str
    streams: tuple[str, ...]
    failed: Mapping[str, str]
    missing: tuple[str, ...]
    strange: Mapping[str, int]
    repeated: int
    outside: int
    is_top5_known: bool

    @property
    def column(self) -> str:
        """As in ``metrics``: the stream, or "both"."""
        return self.streams[0] if len(self.streams) == 1 else "both"


def read_records(paths: Iterable[Path]) -> Records:
    """The records in files, and in all ``.jsonl`` and ``.json`` files below folders, in the order of their names.

    Raises:
        UsageError: for what cannot be read or holds no records, and for a damaged line other than a torn last one.
    """
    found = Records()
    for path in paths:
        for file in _files(path):
            results = results_in(file, found.torn)
            found.records += [_record(result) for result in results if result.status != "skipped"]
    return found


def matched(records: Iterable[Record], dataset: Dataset, examples: Sequence[Example]) -> Matched:
    """The record of each example: of several of the same file the last one.

    A record's path means the file it means from the current folder, or else from the dataset's. Where it means no file
    of the split, its end is compared: the name of the dataset's folder and all below it, for datasets that have moved.

    Raises:
        UsageError: for examples that are parts of files; records of different files for one example; records by
            different models or streams; no record of the split; no label that is a class of the dataset.
    """
    chosen, repeated, outside = _assigned(records, dataset, examples)
    cut = [example.path for example in examples if not _is_whole(example, chosen.get(example.path))]
    if cut:
        raise UsageError(
            f"{counted(cut, 'example')} are parts of files, and records are of whole files: {some(cut)}",
            hint="let the videos themselves be evaluated, by `model`",
        )
    if not chosen:
        raise UsageError(
            f"none of the {outside:,} records is of a video of this split in {printable(dataset.root)}",
            hint=f"its paths look like {printable(examples[0].path)}",
        )
    model, sha256, streams = _one_maker(chosen.values())
    known = [(example, chosen[example.path]) for example in examples if example.path in chosen]
    strange = Counter(record.labels[0] for _, record in known if record.labels)
    strange = Counter({label: count for label, count in strange.items() if label not in set(dataset.classes)})
    _refuse_other_classes(known, strange, dataset)
    return Matched(
        rankings=tuple(Ranking(example.label, record.labels) for example, record in known),
        model=model,
        model_sha256=sha256,
        streams=streams,
        failed={e.path: record.error or NO_LABEL for e, record in known if not record.labels},
        missing=tuple(example.path for example in examples if example.path not in chosen),
        strange=strange,
        repeated=repeated,
        outside=outside,
        is_top5_known=all(_tells_top5(record, dataset.classes) for _, record in known),
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = files_below(path, EXTENSIONS)
    if not files:
        hint = "name a folder of vadis evaluate, or of what vadis classify wrote as jsonl or json"
        raise UsageError(f"{_shown(path)} holds no results (no .jsonl or .json file)", hint)
    evaluations = [file for file in files if file.name == ANSWERS_NAME]
    if evaluations:
        raise UsageError(
            f"{_shown(path)} holds an evaluation deeper down", hint=f"name its folder: {_shown(evaluations[0].parent)}"
        )
    return files


def _record(result: VideoResult) -> Record:
    if result.status == "error":
        return Record(result.path, (), f"{result.error_code}: {result.error_message}", None)
    made_by = str(result.model), str(result.model_sha256), result.streams
    whole = None if "no_flow" in result.flags else made_by  # a single frame, judged by RGB alone
    labels = tuple(label.label for label in result.labels)
    return Record(result.path, labels, None, whole, result.duration_seconds)


def _is_whole(example: Example, record: Record | None) -> bool:
    """Whether an example is its whole file, which of one that may be trimmed only a record tells."""
    if example.may_be_trimmed:
        return record is None or record.error is not None or example.span(record.seconds) == (0.0, None)
    return example.start_seconds is None


def _assigned(
    records: Iterable[Record], dataset: Dataset, examples: Sequence[Example]
) -> tuple[dict[str, Record], int, int]:
    """Example's path → its record; how many were replaced by a later one, and how many belong to no example."""
    places = {_absolute(example.path): example.path for example in examples}
    root = _absolute(dataset.root)
    chosen: dict[str, Record] = {}
    repeated = outside = 0
    clashes: dict[str, None] = {}
    for record in records:
        found = _places_of(record.path, root, places)
        if not found:
            outside += 1
        elif len(found) > 1:
            clashes[f"{record.path} may be {' or '.join(found)}"] = None
        else:
            (example,) = found
            before = chosen.get(example)
            if before is not None and _file(before.path, root, places) != _file(record.path, root, places):
                clashes[f"{example} may be {before.path} or {record.path}"] = None
            repeated += before is not None
            chosen[example] = record
    if clashes:
        raise UsageError(
            f"{counted(clashes, 'record')} cannot be told apart: {some(clashes)}",
            hint="give the records of one place only",
        )
    return chosen, repeated, outside


def _places_of(path: str, root: str, places: Mapping[str, str]) -> list[str]:
    """The examples that a record's path may mean: one, none, or two."""
    if found := _files_meant(path, root, places):
        return [places[file] for file in found]
    name = os.sep + os.path.basename(root) + os.sep  # noqa: PTH119
    below = (os.sep + path).rpartition(name)[2] if name in os.sep + path else None
    moved = places.get(os.path.join(root, below)) if below else None  # noqa: PTH118
    return [] if moved is None else [moved]


def _files_meant(path: str, root: str, places: Mapping[str, str]) -> list[str]:
    """The files of the split that a path means from the current folder and from the dataset's."""
    below = path if os.path.isabs(path) else f"{root}{os.sep}{path}"  # noqa: PTH117
    return [file for file in dict.fromkeys(map(_absolute, (path, below))) if file in places]


def _file(path: str, root: str, places: Mapping[str, str]) -> str:
    """The file that a record is of: one of the split, or one of a dataset that has moved."""
    return next(iter(_files_meant(path, root, places)), _absolute(path))


def _one_maker(records: Iterable[Record]) -> tuple[str, str, tuple[str, ...]]:
    makers = list(dict.fromkeys(record.made_by for record in records if record.made_by is not None))
    if len(makers) > 1:
        first, second = (f"{name} ({' and '.join(streams)}, {sha256[:12]})" for name, sha256, streams in makers[:2])
        raise UsageError(
            f"the records were made by different models or streams: {printable(first)} and {printable(second)}",
            hint="give the records of one model only",
        )
    return makers[0] if makers else ("", "", ())


def _refuse_other_classes(
    known: Iterable[tuple[Example, Record]], strange: Mapping[str, int], dataset: Dataset
) -> None:
    """Raises UsageError where no label is a class of the dataset: the model was made for something else."""
    if strange and not any(set(record.labels) & set(dataset.classes) for _, record in known):
        raise UsageError(
            f"none of the records' labels is a class of {dataset.name}: {some(strange)}",
            hint=f"its classes are such as {some(dataset.classes[:3])}; the records need a model of these",
        )


def _tells_top5(record: Record, classes: Sequence[str]) -> bool:
    """Whether the five best are all there, or all classes that could be right."""
    return record.error is not None or len(record.labels) >= TOP_K or set(classes) <= set(record.labels)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (keeps symlinks)


def _shown(path: Path) -> str:
    return printable(str(path))
