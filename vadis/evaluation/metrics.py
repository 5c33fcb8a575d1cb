"""How often predictions are right: over all, by class, and what is taken for what; metrics.json and its tables.

Also evaluations that are finished: their predictions read again, and the mean over the splits of a dataset.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, what_next
from vadis.evaluation.paper_tables import ALL_SPLITS, Cell
from vadis.evaluation.predictions import PREDICTIONS_NAME, Prediction, parse_predictions
from vadis.files import write_file
from vadis.inference.scores import fused
from vadis.models import BOTH
from vadis.parsing import parse_json
from vadis.results import printable

TOP_K = 5
FIGURES = ("top1", "top5", "mean_class")
METRICS_NAME = "metrics.json"
SETTINGS = ("dataset", "split", "part", "model", "architecture", "streams", "networks", "averages", "classes")


class Ranking(NamedTuple):
    """The true class of one example, and its most likely classes, best first: none where there is no prediction."""

    truth: str
    ranked: tuple[str, ...]


@dataclass(frozen=True)
class Metrics:
    """How often one column (rgb, flow, or both) was right. Shares are in [0, 1].

    ``confusion`` (classes, classes) counts examples by true class (row) and predicted class (column); ``totals``
    (classes,) counts all examples of a class, those without a prediction too. ``top5`` is None where it is not known.
    """

    num_examples: int
    top1: float
    top5: float | None
    mean_class: float  # accuracy averaged over classes, each counting alike
    confusion: NDArray[np.int64]
    totals: NDArray[np.int64]

    def accuracies(self) -> NDArray[np.float64]:
        """By class, (classes,); NaN for those without an example."""
        shares = np.full(self.totals.shape, np.nan)
        np.divide(np.diag(self.confusion), self.totals, out=shares, where=self.totals > 0)
        return shares

    def classes_met(self) -> NDArray[np.intp]:
        """The indices of the classes that have an example or were predicted."""
        return np.flatnonzero((self.totals > 0) | self.confusion.any(axis=0))

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The figures, without the confusion matrix; ``per_class``: class → accuracy, null without an example."""
        figures = {name: None if (value := getattr(self, name)) is None else round(value, 6) for name in FIGURES}
        accuracies = [None if np.isnan(share) else round(share, 6) for share in self.accuracies().tolist()]
        per_class = dict(zip(classes, accuracies, strict=True))
        return {"num_examples": self.num_examples, **figures, "per_class": per_class}


def measure(rankings: Iterable[Ranking], classes: Sequence[str], *, with_top5: bool = True) -> Metrics:
    """Measure rankings; a best class that is none of ``classes`` is wrong, and in no column of the confusion matrix."""
    place = {label: index for index, label in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    totals, in_top5 = np.zeros(len(classes), np.int64), 0
    for truth, ranked in rankings:
        totals[place[truth]] += 1
        if ranked and ranked[0] in place:
            confusion[place[truth], place[ranked[0]]] += 1
        in_top5 += truth in ranked[:TOP_K]
    right, there, number = np.diag(confusion), totals > 0, int(totals.sum())
    mean_class = float((right[there] / totals[there]).mean()) if number else 0.0
    top1, top5 = (float(count / max(number, 1)) for count in (right.sum(), in_top5))
    return Metrics(number, top1, top5 if with_top5 else None, mean_class, confusion, totals)


def measure_predictions(
    predictions: Sequence[Prediction], classes: Sequence[str], networks: Sequence[str], averages: str = "logits"
) -> dict[str, Metrics]:
    """Measure each network (rgb, flow; or both at once) and, where there are several, all of them as ``both``.

    ``averages`` is the architecture's: what is averaged over networks, see ``vadis.inference.scores.fused``.
    Videos that could not be read, and single frames in columns with flow, count as wrong: they lower the accuracies and
    stand in no column of the confusion matrix.
    """
    columns = {name: (name,) for name in networks} | ({BOTH: tuple(networks)} if len(networks) > 1 else {})

    def rankings(needed: tuple[str, ...]) -> Iterator[Ranking]:
        for each in predictions:
            ranked: tuple[str, ...] = ()
            if all(name in each.logits for name in needed):
                together = fused({name: each.logits[name] for name in needed}, averages)
                ranked = tuple(classes[index] for index in np.argsort(-together, kind="stable")[:TOP_K])
            yield Ranking(each.label, ranked)

    return {name: measure(rankings(needed), classes) for name, needed in columns.items()}


def confusion_csv(column: Metrics, classes: Sequence[str]) -> str:
    """The confusion matrix with its names: a row per true class, a column per predicted class."""
    rows = ([name, *row] for name, row in zip(classes, column.confusion.tolist(), strict=True))
    return _csv(["true class", *classes], rows)


def per_class_csv(column: Metrics, classes: Sequence[str]) -> str:
    """A row per class: its videos, how many were right, their share, and the most frequent wrong answer, if any.

    Of wrong answers that are equally frequent the first is named.
    """
    wrong, right = column.confusion.copy(), np.diag(column.confusion).tolist()
    np.fill_diagonal(wrong, 0)
    rows = (
        [label, videos, hits, f"{hits / videos:.6f}" if videos else "", classes[row.argmax()] if row.any() else ""]
        for label, videos, hits, row in zip(classes, column.totals.tolist(), right, wrong, strict=True)
    )
    return _csv(["class", "videos", "right", "accuracy", "most frequent wrong answer"], rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def summarize(columns: Mapping[str, Metrics], classes: Sequence[str], **head: Any) -> dict[str, Any]:
    """The content of metrics.json: ``head`` says what was tested, and each of ``columns`` has its figures."""
    return head | {name: column.to_json(classes) for name, column in columns.items()}


def write_tables(folder: Path, columns: Mapping[str, Metrics], classes: Sequence[str]) -> None:
    """Write a confusion matrix and a table of classes for each column; raises OSError."""
    for name, column in columns.items():
        _write(folder / f"confusion-{name}.csv", confusion_csv(column, classes))
        _write(folder / f"per-class-{name}.csv", per_class_csv(column, classes))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write metrics.json, the last thing written: where it is, all is. Raises OSError."""
    _write(folder / METRICS_NAME, json.dumps(summary, indent=1, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class StoredEvaluation:
    """What an evaluation left in ``folder``; ``is_complete``: it came to its end."""

    folder: Path
    settings: Mapping[str, Any]
    predictions: tuple[Prediction, ...]
    is_complete: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.settings["classes"])

    @property
    def split(self) -> int:
        """The number of the official split."""
        return int(self.settings["split"])

    def measure(self) -> dict[str, Metrics]:
        """Metrics by column."""
        settings = self.settings
        return measure_predictions(self.predictions, self.classes, settings["networks"], settings["averages"])

    def summarize(self, columns: Mapping[str, Metrics]) -> dict[str, Any]:
        """The content of its metrics.json, and whether it had come to its end."""
        head = {key: self.settings[key] for key in ("dataset", "split", "part", "model")}
        failed = sum(prediction.error is not None for prediction in self.predictions)
        more = {"architecture": self.settings["architecture"], "published": self.settings.get("published")}
        return summarize(columns, self.classes, **head, failed=failed, **more, complete=self.is_complete)


def read_evaluation(folder: Path, *, partial: bool = False) -> StoredEvaluation:
    """Read the evaluation in a folder of ``vadis evaluate``, ``finetune`` or ``train``, but for a torn last line.

    Raises:
        UsageError: for what cannot be read, is no file of predictions or damaged; and, unless ``partial``, where the
            evaluation has not come to its end, so that its metrics would be those of some videos only.
    """
    path = folder / PREDICTIONS_NAME
    try:
        settings, predictions = parse_predictions(path, path.read_bytes())
    except OSError as error:
        message = f"{_shown(path)} cannot be read: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    is_of_its_classes = {each.label for each in predictions.values()} <= set(settings.get("classes", ()))
    if not is_of_its_classes or any(key not in settings for key in SETTINGS):
        hint = "name the folder of a vadis evaluate, finetune or train"
        raise UsageError(f"{_shown(path)} is not a file of predictions", hint)
    wanted = _num_examples(folder / METRICS_NAME)
    if wanted != len(predictions) and not partial:
        there = "" if wanted is None else f", metrics.json is of {wanted:,}"
        raise UsageError(
            f"the evaluation in {_shown(folder)} is not finished: {len(predictions):,} videos have predictions{there}",
            hint="run the same vadis evaluate again, which goes on there; or add `partial=True`",
        )
    return StoredEvaluation(folder, settings, tuple(predictions.values()), wanted == len(predictions))


def _num_examples(path: Path) -> int | None:
    """The videos of the finished evaluation beside; None where there is none."""
    try:
        summary = parse_json(path.read_bytes())
        counts = {column["num_examples"] for column in summary.values() if isinstance(column, dict)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{_shown(path)} is damaged", hint="run the same vadis evaluate again") from error
    return int(counts.pop()) if len(counts) == 1 else None


def check_together(runs: Sequence[StoredEvaluation]) -> None:
    """Raise UsageError where a mean over ``runs`` would mean nothing: other datasets or classes, one split twice."""
    first, by_split = runs[0], dict[int, Path]()
    for run in runs:
        for key in sorted({*first.settings, *run.settings} - {"model", "model_sha256", "published", "split"}):
            if run.settings.get(key) != first.settings.get(key):
                raise UsageError(
                    f"{_shown(first.folder)} and {_shown(run.folder)} differ in their {key}: there is no mean of them",
                    hint="evaluate both in the same way, or give one of them alone",
                )
        if run.split in by_split:
            message = f"{_shown(by_split[run.split])} and {_shown(run.folder)} are both of split {run.split}"
            raise UsageError(message, hint="give one of each split")
        by_split[run.split] = run.folder


def summarize_splits(columns: Mapping[int, Mapping[str, Metrics]], summaries: Mapping[int, Any]) -> dict[str, Any]:
    """Figures of several splits, their means by column and, beside those of all three, the paper's (table 5)."""
    first, names = next(iter(summaries.values())), next(iter(columns.values()))
    paper = {}
    if first["architecture"] == "i3d" and tuple(columns) == ALL_SPLITS:
        for name in names:
            cells = [Cell("i3d", first["dataset"], "full", start, name, ALL_SPLITS) for start in (True, False)]
            if all(cell.paper is not None for cell in cells):
                paper[name] = {"imagenet": cells[0].paper, "scratch": cells[1].paper}
    return {
        "dataset": first["dataset"],
        "part": first["part"],
        "failed": sum(each["failed"] for each in summaries.values()),
        "splits": {str(split): each for split, each in summaries.items()},
        "mean": {name: _mean([each[name] for each in columns.values()]) for name in names},
        "paper_mean_top1": paper,
    }


def _mean(columns: Sequence[Metrics]) -> dict[str, float | None]:
    """Each figure's mean over the splits; None where one is not known."""
    values = {figure: [getattr(column, figure) for column in columns] for figure in FIGURES}
    return {name: None if None in each else round(sum(each) / len(each), 6) for name, each in values.items()}


def _shown(path: Path) -> str:
    return printable(str(path))
