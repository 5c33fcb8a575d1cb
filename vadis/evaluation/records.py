"""Records of ``vadis classify`` as an evaluation: each is matched by its path with a video of a dataset's split."""

import logging
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from vadis.batch.results_file import files_below, results_in
from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import counted, some
from vadis.errors import UsageError
from vadis.evaluation.metrics import TOP_K, Evaluation
from vadis.evaluation.predictions import Prediction
from vadis.models import BOTH
from vadis.results import VideoResult, printable

_log = logging.getLogger(__name__)


def read_records(paths: Sequence[Path], dataset: Dataset, part: str) -> Evaluation:
    """Read files, and all ``.jsonl`` and ``.json`` files below folders; the last record of a video counts.

    A record's path is taken from the current folder, or else from the dataset's. Scores stand for logits; labels that
    are no class of the dataset are classes without an example.

    Raises:
        UsageError: for what cannot be read or is damaged, and where the records do not tell the accuracy: a video
            without one, or that is a part of a file; several models; fewer than five labels.
    """
    examples = dataset.examples(part)
    records = _by_place(paths, {_absolute(example.path) for example in examples}, dataset.root)
    missing = [example.path for example in examples if _absolute(example.path) not in records]
    _refuse(missing, "have no record", "label them too")
    found = [(example, records[_absolute(example.path)]) for example in examples]
    labelled = [(example, record) for example, record in found if record.status != "error"]
    least = min(TOP_K, len(dataset.classes))
    cut = [example.path for example, record in labelled if example.span(record.duration_seconds) != (0.0, None)]
    _refuse(cut, "are parts of files, and records are of whole files", "evaluate the videos themselves, by `model`")
    short = [example.path for example, record in labelled if len(record.labels) < least]
    _refuse(short, f"have records with fewer than {least} labels", "label them with `top_k=5` and no threshold")

    whole = [record for _, record in labelled if "no_flow" not in record.flags]  # else a frame, judged by RGB alone
    makers = dict.fromkeys((record.model or "", record.model_sha256, record.streams) for record in whole)
    if len(makers) > 1:
        named = some(f"{model} ({' and '.join(streams)}, {str(sha256)[:12]})" for model, sha256, streams in makers)
        message = f"the records were made by different models or streams: {named}"
        raise UsageError(message, hint="give the records of one model only")
    model, _, streams = next(iter(makers), ("", None, ("rgb",)))
    names = {label.label for _, record in labelled for label in record.labels}
    if labelled and names.isdisjoint(dataset.classes):
        message = f"none of the records' labels is a class of {dataset.name}: {some(names)}"
        raise UsageError(message, hint=f"its classes are such as {some(dataset.classes[:3])}")
    classes = (*dataset.classes, *sorted(names - set(dataset.classes)))
    column = streams[0] if len(streams) == 1 else BOTH
    settings = {"dataset": dataset.name, "split": dataset.split, "part": part, "model": model, "classes": classes}
    settings |= {"streams": streams, "networks": (column,), "averages": "logits"}
    predictions = [_prediction(example, record, classes, column) for example, record in found]
    return Evaluation(paths[0], settings, predictions)


def _by_place(paths: Sequence[Path], places: set[str], root: str) -> dict[str, VideoResult]:
    """Return the last record for each of the ``places`` of a split's videos."""
    records, torn = {}, list[str]()
    for path in paths:
        files = files_below(path, (".jsonl", ".json")) if path.is_dir() else [path]
        if not files:
            hint = "name what vadis classify wrote as jsonl or json"
            raise UsageError(f"{printable(str(path))} holds no results", hint)
        for result in chain.from_iterable(results_in(file, torn) for file in files):
            below = os.path.join(root, result.path)  # noqa: PTH118
            place = next((each for each in (_absolute(result.path), _absolute(below)) if each in places), None)
            if place and result.status != "skipped":
                records[place] = result
    for name in torn:
        _log.warning("%s ends within a record, which is left out", printable(name))
    return records


def _prediction(example: Example, record: VideoResult, classes: Sequence[str], column: str) -> Prediction:
    if record.status == "error":
        return Prediction(example.path, example.label, {}, f"{record.error_code}: {record.error_message}")
    scores = np.full(len(classes), -np.inf, np.float32)
    for label in record.labels:
        scores[classes.index(label.label)] = label.score
    return Prediction(example.path, example.label, {column: scores})


def _refuse(paths: Sequence[str], message: str, hint: str) -> None:
    if paths:
        raise UsageError(f"{counted(paths, 'video')} of the split {message}: {some(paths)}", hint)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (keeps symlinks)
