"""Answers → how often they were right: over all, by class, and what was taken for what."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.evaluation.predictions import Answer
from vadis.inference.scores import fused

TOP_K = 5


class Ranking(NamedTuple):
    """The true class of one example, and its most likely classes, best first: none where there is no answer."""

    truth: str
    ranked: tuple[str, ...]


class ClassRow(NamedTuple):
    """One class: its examples, how many were right, and the class that most of the others were taken for ("": none)."""

    label: str
    videos: int
    right: int
    accuracy: float | None  # None for a class without an example
    taken_for: str


@dataclass(frozen=True)
class Metrics:
    """How often one column (rgb, flow, or both) was right. Shares are in [0, 1].

    ``confusion`` (classes, classes) counts examples by true class (row) and first answer (column); ``totals``
    (classes,) counts all examples of a class, those without an answer too. ``top5`` is None where it is not known.
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
        """The indices of the classes that have an example or were an answer."""
        return np.flatnonzero((self.totals > 0) | self.confusion.any(axis=0))

    def per_class(self, classes: Sequence[str]) -> list[ClassRow]:
        """A row for each of ``classes``; of wrong answers that are equally frequent the first counts."""
        return [self._row(index, label, classes) for index, label in enumerate(classes)]

    def _row(self, index: int, label: str, classes: Sequence[str]) -> ClassRow:
        videos, right = int(self.totals[index]), int(self.confusion[index, index])
        wrong = self.confusion[index].copy()
        wrong[index] = 0
        taken_for = classes[int(wrong.argmax())] if wrong.any() else ""
        return ClassRow(label, videos, right, right / videos if videos else None, taken_for)

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """The figures, without the confusion matrix; ``per_class``: class → accuracy, null without an example."""
        figures = {"top1": self.top1, "top5": self.top5, "mean_class": self.mean_class}
        rounded = {name: _rounded(value) for name, value in figures.items()}
        per_class = {row.label: _rounded(row.accuracy) for row in self.per_class(classes)}
        return {"num_examples": self.num_examples, **rounded, "per_class": per_class}


def metrics(
    answers: Sequence[Answer], classes: Sequence[str], networks: Sequence[str], averages: str = "logits"
) -> dict[str, Metrics]:
    """Metrics of each network (rgb, flow; or both at once) and, where there are several, of all as ``both``.

    ``averages`` is the architecture's: what is averaged over networks, see ``vadis.inference.scores.fused``.
    Videos that could not be read, and single frames in columns with flow, count as wrong answers of no class: they
    lower the accuracies and stand in no column of the confusion matrix.
    """
    columns = {name: (name,) for name in networks} | ({"both": tuple(networks)} if len(networks) > 1 else {})
    return {name: measured(_rankings(answers, classes, needed, averages), classes) for name, needed in columns.items()}


def measured(rankings: Iterable[Ranking], classes: Sequence[str], *, with_top5: bool = True) -> Metrics:
    """Metrics of what was ranked; a first answer that is none of ``classes`` is wrong, and in no column."""
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
    count = max(number, 1)
    return Metrics(
        number, float(right.sum() / count), in_top5 / count if with_top5 else None, mean_class, confusion, totals
    )


def _rankings(
    answers: Iterable[Answer], classes: Sequence[str], needed: tuple[str, ...], averages: str
) -> Iterator[Ranking]:
    for each in answers:
        if not all(name in each.logits for name in needed):
            yield Ranking(each.label, ())
            continue
        together = fused({name: each.logits[name] for name in needed}, averages)
        best = np.argsort(-together, kind="stable")[:TOP_K]
        yield Ranking(each.label, tuple(classes[index] for index in best))


def confusion_csv(found: Metrics, classes: Sequence[str]) -> str:
    """The confusion matrix with its names: a row per true class, a column per first answer."""
    rows = ([name, *map(int, row)] for name, row in zip(classes, found.confusion, strict=True))
    return _csv(["true class", *classes], rows)


def per_class_csv(found: Metrics, classes: Sequence[str]) -> str:
    """A row per class: its videos, how many were right, their share, and the most frequent wrong answer."""
    rows = (
        [row.label, row.videos, row.right, "" if row.accuracy is None else f"{row.accuracy:.6f}", row.taken_for]
        for row in found.per_class(classes)
    )
    return _csv(["class", "videos", "right", "accuracy", "most frequent wrong answer"], rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(head)
    lines.writerows(rows)
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
