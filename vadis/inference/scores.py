"""Logits → labels: the scores of a video, of the mean over all predictions (paper, section 2.5), and of its segments.

What is averaged are logits in I3D's case, and probabilities otherwise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.results import Label, Segment

Logits = NDArray[np.float32]  # (classes,)
Scores = NDArray[np.float64]  # (classes,), sums to 1
TimedOutput = tuple[Fraction, NDArray[np.floating]]  # its centre in seconds; (classes,)


def softmax(logits: NDArray[np.floating]) -> Scores:
    """Return probabilities (classes,) in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def fused(logits: Mapping[str, Logits], averages: str) -> NDArray[np.floating]:
    """Return what the networks give together, (classes,), which is then averaged over time.

    "logits": their sum (google-deepmind/kinetics-i3d, evaluate_sample.py); "probabilities": their mean (paper, 2.3).
    """
    if averages == "logits":
        return np.asarray(np.sum(list(logits.values()), axis=0))
    with np.errstate(invalid="ignore"):  # of logits that are not finite; ``Scoreboard.add`` looks at it
        return np.asarray(np.mean([softmax(each) for each in logits.values()], axis=0))


def average_scores(logits: Sequence[Logits], averages: str) -> Logits:
    """Return one set of logits (classes,) for several predictions or streams: the mean of what is averaged."""
    if averages == "logits":
        return np.asarray(np.mean(logits, axis=0))
    shifted = [each - each.max() for each in logits]
    each_log = np.stack([each - np.log(np.exp(each).sum()) for each in shifted])
    greatest = each_log.max(axis=0)
    return np.asarray(greatest + np.log(np.exp(each_log - greatest).mean(axis=0)), np.float32)


def best(labels: Sequence[str], scores: Scores, top_k: int) -> list[int]:
    """Return the indices of the ``top_k`` highest scores; of equal ones the first."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[: min(top_k, len(labels))]]


@dataclass
class Scoreboard:
    """Takes the predictions of one video in order of time, gives its labels and segments at the end.

    ``averages`` says what is given to it, and averaged: "logits" or "probabilities". Where no label has the probability
    ``threshold`` (0.5 at most), ``otherwise`` comes first, with one minus the best score.
    """

    labels: Sequence[str]
    segment_seconds: float
    top_k: int
    averages: str = "logits"
    threshold: float | None = None
    otherwise: str | None = None

    def __post_init__(self) -> None:
        self._labels = (*self.labels, *([self.otherwise] if self.otherwise else []))
        self._length = Fraction(str(self.segment_seconds))  # 2.56 is 64/25, not its binary neighbour
        self._total, self._count = np.zeros(len(self.labels)), 0  # of all predictions
        self._open, self._open_count = np.zeros(len(self.labels)), 0  # of those in the segment now open
        self._latest: TimedOutput | None = None
        self._peak, self._lead = np.zeros(len(self._labels)), np.zeros(len(self._labels))  # score; seconds
        self._segments: list[Segment] = []

    def add(self, seconds: Fraction, logits: NDArray[np.floating]) -> None:
        """Add a prediction (from ``fused``) centred at ``seconds``, not before the last; VideoError if not finite."""
        if not np.isfinite(logits).all():
            raise VideoError("not_finite", f"the network gave a score that is not a number at {float(seconds):.2f} s")
        while (len(self._segments) + 1) * self._length <= seconds:
            self._close(nearest=(seconds, logits))
        self._total += logits
        self._open += logits
        self._count, self._open_count = self._count + 1, self._open_count + 1
        self._latest = (seconds, logits)

    def finish(self, end: Fraction, first: float = 0.0) -> tuple[tuple[Label, ...], tuple[Segment, ...]]:
        """Return the labels and segments of a video that ends ``end`` seconds after its ``first`` frame is shown."""
        assert self._latest is not None
        for _ in range(math.ceil(end / self._length) - len(self._segments)):
            self._close(nearest=self._latest, end=end)
        scores = self._scores(self._total / self._count)
        labels = tuple(
            Label(self._labels[index], *(float(of[index]) for of in (scores, self._peak, self._lead)))
            for index in best(self._labels, scores, self.top_k)
        )
        return labels, tuple(replace(each, start=first + each.start, end=first + each.end) for each in self._segments)

    def _scores(self, mean: NDArray[np.floating]) -> Scores:
        """Return the scores of all labels, and of ``otherwise``, from a mean of what was averaged."""
        scores = softmax(mean) if self.averages == "logits" else np.asarray(mean)
        if not self.otherwise:
            return scores
        return np.append(scores, 1 - scores.max() if scores.max() < (self.threshold or 0.0) else 0.0)

    def _close(self, nearest: TimedOutput, end: Fraction | None = None) -> None:
        """End the open segment. One in which no prediction is centred takes the nearest of its neighbours'."""
        start = len(self._segments) * self._length
        stop = start + self._length if end is None else min(start + self._length, end)
        neighbour = min((self._latest or nearest, nearest), key=lambda each: abs(each[0] - (start + stop) / 2))[1]
        scores = self._scores(self._open / self._open_count if self._open_count else neighbour)
        chosen = best(self._labels, scores, self.top_k)
        labels = tuple(Label(self._labels[index], float(scores[index])) for index in chosen)
        self._segments.append(Segment(float(start), float(stop), labels))
        np.maximum(self._peak, scores, out=self._peak)
        self._lead[chosen[0]] += float(stop - start)
        self._open[:], self._open_count = 0, 0
