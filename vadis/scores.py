"""Logits → labels: the scores of a video and of its segments, gathered while the video runs.

The video's scores are the softmax of the mean logits over all predictions: the paper's test (section 2.5). A segment's
are the same over the predictions centred in it. Only running sums are kept, so memory does not grow with the video,
apart from the segments that the record itself will hold.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vadis.errors import VideoError
from vadis.results import Label, Segment

Logits = NDArray[np.float32]  # (classes,)
Scores = NDArray[np.float64]  # (classes,), sums to 1


def softmax(logits: NDArray[np.floating]) -> Scores:
    """Probabilities (classes,) in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    probabilities: Scores = exponentials / exponentials.sum()
    return probabilities


def best(labels: Sequence[str], scores: Scores, top_k: int) -> list[int]:
    """The indices of the ``top_k`` highest scores; of equal ones the first."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[: min(top_k, len(labels))]]


class Scoreboard:
    """Takes the predictions of one video in order of time, gives its labels and segments at the end.

    Args:
        labels: the class names.
        segment_seconds: length of a segment; the last one ends with the video.
        top_k: how many labels to keep, of the video and of each segment.
    """

    def __init__(self, labels: Sequence[str], segment_seconds: float, top_k: int) -> None:
        self._labels, self._top_k = labels, top_k
        self._segment_seconds = Fraction(str(segment_seconds))  # 2.56 is 64/25, not its binary neighbour
        self._total = np.zeros(len(labels))  # of all logits
        self._count = 0
        self._open = np.zeros(len(labels))  # of the logits in the segment now open
        self._open_count = 0
        self._latest: tuple[Fraction, Logits] | None = None
        self._peak = np.zeros(len(labels))
        self._lead = np.zeros(len(labels))  # seconds in which a label leads
        self._segments: list[Segment] = []

    def add(self, seconds: Fraction, logits: Logits) -> None:
        """A prediction centred at ``seconds``, not before the one added last.

        Raises:
            VideoError: ``not_finite`` for logits that no score can be made of.
        """
        if not np.isfinite(logits).all():
            raise VideoError("not_finite", f"the network gave a score that is not a number at {float(seconds):.2f} s")
        while (len(self._segments) + 1) * self._segment_seconds <= seconds:
            self._close(nearest=(seconds, logits))
        self._total += logits
        self._open += logits
        self._count, self._open_count = self._count + 1, self._open_count + 1
        self._latest = (seconds, logits)

    def finish(self, end: Fraction) -> tuple[tuple[Label, ...], tuple[Segment, ...]]:
        """The labels and the segments of a video that ends at ``end`` seconds; at least one prediction was added."""
        assert self._latest is not None
        for _ in range(math.ceil(end / self._segment_seconds) - len(self._segments)):
            self._close(nearest=self._latest, end=end)
        scores = softmax(self._total / self._count)
        labels = tuple(
            Label(self._labels[index], float(scores[index]), float(self._peak[index]), float(self._lead[index]))
            for index in best(self._labels, scores, self._top_k)
        )
        return labels, tuple(self._segments)

    def _close(self, nearest: tuple[Fraction, Logits], end: Fraction | None = None) -> None:
        """Ends the open segment. One in which no prediction is centred takes the nearest of its neighbours'."""
        start = len(self._segments) * self._segment_seconds
        stop = start + self._segment_seconds if end is None else min(start + self._segment_seconds, end)
        mean = self._open / self._open_count if self._open_count else self._neighbour(nearest, (start + stop) / 2)
        scores = softmax(mean)
        chosen = best(self._labels, scores, self._top_k)
        labels = tuple(Label(self._labels[index], float(scores[index])) for index in chosen)
        self._segments.append(Segment(float(start), float(stop), labels))
        np.maximum(self._peak, scores, out=self._peak)
        self._lead[chosen[0]] += float(stop - start)
        self._open[:], self._open_count = 0, 0

    def _neighbour(self, following: tuple[Fraction, Logits], middle: Fraction) -> Logits:
        latest = self._latest or following
        return min((latest, following), key=lambda prediction: abs(prediction[0] - middle))[1]
