"""Logits → what a record says: labels, the timeline, the paper's score of the whole (section 2.5), and raw segments.

The paper's score and the segments' are of the mean over predictions, of logits in I3D's case, of probabilities
otherwise. Labels and the timeline look at every prediction's own probabilities, and at the time that it stands for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.inference.timeline import CLEAR, MostLikelyPath
from vadis.results import NO_CLEAR_LABEL, Label, Piece, Segment

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


def best(scores: Scores, top_k: int) -> list[int]:
    """Return the indices of the ``top_k`` highest scores; of equal ones the first."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:top_k]]


@dataclass
class Scoreboard:
    """Takes the predictions of one video in order of time, gives what its record says of it at the end.

    ``averages`` says what is given to it, and averaged: "logits" or "probabilities". ``clear`` is the probability below
    which no label is clear (``vadis.inference.timeline``).
    """

    labels: Sequence[str]
    segment_seconds: float
    top_k: int
    averages: str = "logits"
    clear: float = CLEAR
    told: Sequence[bool] = ()  # by label, whether the record may name it; empty for all

    def __post_init__(self) -> None:
        self._told = np.array(self.told or [True] * len(self.labels))
        self._length = Fraction(str(self.segment_seconds))  # 2.56 is 64/25, not its binary neighbour
        self._total, self._count = np.zeros(len(self.labels)), 0  # of all predictions
        self._open, self._open_count = np.zeros(len(self.labels)), 0  # of those in the segment now open
        self._latest: TimedOutput | None = None
        self._segments: list[Segment] = []
        self._path, self._until = MostLikelyPath(len(self.labels), self.clear), Fraction(0)
        self._integral, self._peak = np.zeros((2, len(self.labels)))  # of the probabilities, over time

    def add(self, seconds: Fraction, logits: NDArray[np.floating]) -> None:
        """Add a prediction (from ``fused``) centred at ``seconds``, not before the last; VideoError if not finite."""
        if not np.isfinite(logits).all():
            raise VideoError("not_finite", f"the network gave a score that is not a number at {float(seconds):.2f} s")
        while (len(self._segments) + 1) * self._length <= seconds:
            self._close(nearest=(seconds, logits))
        if self._latest is not None:
            self._hold((self._latest[0] + seconds) / 2)
        self._total += logits
        self._open += logits
        self._count, self._open_count = self._count + 1, self._open_count + 1
        self._latest = (seconds, logits)

    def finish(self, end: Fraction, first: float = 0.0) -> dict[str, Any]:
        """Return the fields of a ``VideoResult`` for a video that ends ``end`` seconds after its ``first`` frame."""
        assert self._latest is not None
        for _ in range(math.ceil(end / self._length) - len(self._segments)):
            self._close(nearest=self._latest, end=end)
        self._hold(end)
        path = self._path.pieces()
        names, told = (*self.labels, NO_CLEAR_LABEL), (*self._told, self._told.all())
        return {
            "labels": self._headline(path),
            "timeline": tuple(
                Piece(first + a, first + b, names[state], score) for a, b, state, score in path if told[state]
            ),
            "clip_score": self._best(self._scores(self._total / self._count)),
            "segments": tuple(replace(each, start=first + each.start, end=first + each.end) for each in self._segments),
        }

    def _hold(self, until: Fraction) -> None:
        """Let the latest prediction stand for the time up to ``until``: midway to the next one, or the end."""
        assert self._latest is not None
        probabilities, until = self._scores(self._latest[1]), max(until, self._until)
        self._path.add(float(until), probabilities)
        self._integral += float(until - self._until) * probabilities
        np.maximum(self._peak, probabilities, out=self._peak)
        self._until = until

    def _headline(self, path: Sequence[tuple[float, float, int, float]]) -> tuple[Label, ...]:
        """Return the labels by how much of the video they explain: the mean of their probabilities over time.

        "No clear label" is among them where it holds for as long as all others together; its score is this share.
        """
        seconds = np.zeros(len(self.labels) + 1)
        for start, end, state, _ in path:
            seconds[state] += end - start
        share, means = seconds[-1] / seconds.sum(), self._integral / float(self._until)
        labels = [
            Label(self.labels[index], *(float(each[index]) for each in (means, self._peak, seconds)))
            for index in self._top(means)
        ]
        if share >= 0.5 and self._told.all():
            labels.append(Label(NO_CLEAR_LABEL, float(share), seconds=float(seconds[-1])))
        return tuple(sorted(labels, key=lambda label: -label.score)[: self.top_k])

    def _scores(self, mean: NDArray[np.floating]) -> Scores:
        """Return the scores of all labels from a mean of what was averaged."""
        return softmax(mean) if self.averages == "logits" else np.asarray(mean, np.float64)

    def _best(self, scores: Scores) -> tuple[Label, ...]:
        return tuple(Label(self.labels[index], float(scores[index])) for index in self._top(scores))

    def _top(self, scores: Scores) -> list[int]:
        return best(np.where(self._told, scores, -1), min(self.top_k, int(self._told.sum())))

    def _close(self, nearest: TimedOutput, end: Fraction | None = None) -> None:
        """End the open segment. One in which no prediction is centred takes the nearest of its neighbours'."""
        start = len(self._segments) * self._length
        stop = start + self._length if end is None else min(start + self._length, end)
        neighbour = min((self._latest or nearest, nearest), key=lambda each: abs(each[0] - (start + stop) / 2))[1]
        scores = self._scores(self._open / self._open_count if self._open_count else neighbour)
        self._segments.append(Segment(float(start), float(stop), self._best(scores)))
        self._open[:], self._open_count = 0, 0
