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
from vadis.results import NO_CLEAR_LABEL, Label, Piece, Segment

Logits = NDArray[np.float32]  # (classes,)
Scores = NDArray[np.float64]  # (classes,), sums to 1
TimedOutput = tuple[Fraction, NDArray[np.floating]]  # its centre in seconds; (classes,)


def softmax(logits: NDArray[np.floating]) -> Scores:
    """Return probabilities (classes,) in float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def fuse_streams(logits: Mapping[str, Logits], score_fusion: str) -> NDArray[np.floating]:
    """Return the networks' outputs for one moment as one, (classes,), to be averaged over time.

    "logits": their sum (google-deepmind/kinetics-i3d, evaluate_sample.py); "probabilities": their mean (paper, 2.3).
    """
    if score_fusion == "logits":
        return np.asarray(np.sum(list(logits.values()), axis=0))
    with np.errstate(invalid="ignore"):  # of logits that are not finite; ``Scoreboard.add`` looks at it
        return np.asarray(np.mean([softmax(each) for each in logits.values()], axis=0))


def average_scores(logits: Sequence[Logits], score_fusion: str) -> Logits:
    """Return one set of logits (classes,) for several predictions or streams: the mean of what is averaged."""
    if score_fusion == "logits":
        return np.asarray(np.mean(logits, axis=0))
    shifted = [each - each.max() for each in logits]
    each_log = np.stack([each - np.log(np.exp(each).sum()) for each in shifted])
    greatest = each_log.max(axis=0)
    return np.asarray(greatest + np.log(np.exp(each_log - greatest).mean(axis=0)), np.float32)


def best(scores: Scores, top_k: int) -> list[int]:
    """Return the indices of the ``top_k`` highest scores; of equal ones the first."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[:top_k]]


# --- the timeline ----------------------------------------------------------------------------------------------------

CHANGE = 1.5
"""The price of a change, in nat seconds: a new label pays if it is e times as likely for 1.5 s, e² times for 0.75 s."""
CLEAR = 0.1
"""The constant probability that "no clear label" has: a label that has less is not clear."""
SHORTEST_SECONDS = 0.6
"""No piece is shorter: it earns log(1 / FLOOR) per second at most, and in less time not the change that it costs."""
FLOOR = math.exp(-CHANGE / SHORTEST_SECONDS)  # 0.08: how often the network may be wrong however sure it is


class MostLikelyPath:
    """The timeline: the most likely path through the predictions of a video (Viterbi's algorithm).

    A path says for every moment which label holds, or that none is clear. While a label holds that the network gives
    the probability p, the path earns log(FLOOR + (1 - FLOOR) p) per second; while none is clear, as much as for a label
    of the constant probability ``clear`` (CLEAR, or what the model's card says); and every change costs CHANGE. The
    path that earns most is the timeline. CHANGE and CLEAR were chosen on single clips and on clips cut together at
    random; docs/timeline.md shows how little depends on it. The state after the classes' is "no clear label".

    Takes predictions in order of time; keeps some 200 bytes of each, however many classes there are.
    """

    def __init__(self, num_classes: int, clear: float = CLEAR) -> None:
        self._clear = clear
        self._path_scores = np.zeros(num_classes + 1)  # of the best path to each state
        self._piece_scores = np.zeros(num_classes + 1)  # of its latest piece alone
        self._steps: list[tuple[float, int, float, bytes]] = []

    def add(self, until: float, probabilities: NDArray[np.float64]) -> None:
        """Add a prediction (classes,) that stands for the time from where the one before it ended ``until`` then."""
        seconds = until - (self._steps[-1][0] if self._steps else 0.0)
        none = 1 - probabilities.max()  # against the best label, which is the score where none is clear
        logs = np.log(FLOOR + (1 - FLOOR) * np.append(probabilities, (self._clear, none)))
        best = int(self._path_scores.argmax())  # where every change comes from, for all cost the same
        stays = self._path_scores >= self._path_scores[best] - CHANGE
        self._steps.append((until, best, float(self._piece_scores[best]), np.packbits(stays).tobytes()))
        earned = np.maximum(self._path_scores, self._path_scores[best] - CHANGE) + seconds * logs[:-1]
        self._path_scores = earned - earned.max()
        self._piece_scores = self._piece_scores * stays + seconds * np.delete(logs, -2)

    def pieces(self) -> list[tuple[float, float, int, float]]:
        """Return (start, end, state, score) of each piece, in order and without gaps.

        The score is the constant probability that would earn as much: that of a label which comes and goes is lower
        than its mean.
        """
        state, end = int(self._path_scores.argmax()), self._steps[-1][0]
        earned, found = float(self._piece_scores[state]), list[tuple[float, float, int, float]]()
        for (start, *_), (_, best, before, stays) in zip(self._steps[-2::-1], self._steps[:0:-1], strict=True):
            if not stays[state // 8] << state % 8 & 0x80:  # the bit of this state: it begins here
                found.append((start, end, state, _score(earned / (end - start))))
                state, earned, end = best, before, start
        return [(0.0, end, state, _score(earned / end)), *reversed(found)]


def _score(rate: float) -> float:
    return min(1.0, max(0.0, (math.exp(rate) - FLOOR) / (1 - FLOOR)))


# --- the record ------------------------------------------------------------------------------------------------------


@dataclass
class Scoreboard:
    """Takes the predictions of one video in order of time, gives what its record says of it at the end.

    ``score_fusion``: whether ``add`` takes, and averages, "logits" or "probabilities". ``clear`` is the probability
    below which no label is clear (``CLEAR``).
    """

    labels: Sequence[str]
    segment_seconds: float
    top_k: int
    score_fusion: str = "logits"
    clear: float = CLEAR
    label_mask: Sequence[bool] = ()  # by label, whether the record may name it; empty for all

    def __post_init__(self) -> None:
        self._label_mask = np.array(self.label_mask or [True] * len(self.labels))
        self._length = Fraction(str(self.segment_seconds))  # 2.56 is 64/25, not its binary neighbour
        self._total, self._count = np.zeros(len(self.labels)), 0  # of all predictions
        self._segment_sum, self._segment_count = np.zeros(len(self.labels)), 0  # of those in the segment now open
        self._latest: TimedOutput | None = None
        self._segments: list[Segment] = []
        self._path, self._until = MostLikelyPath(len(self.labels), self.clear), Fraction(0)
        self._integral, self._peak = np.zeros((2, len(self.labels)))  # of the probabilities, over time

    def add(self, seconds: Fraction, logits: NDArray[np.floating]) -> None:
        """Add a prediction of ``fuse_streams`` centred at ``seconds``, not before the last; VideoError: not finite."""
        if not np.isfinite(logits).all():
            raise VideoError("not_finite", f"the network gave a score that is not a number at {float(seconds):.2f} s")
        while (len(self._segments) + 1) * self._length <= seconds:
            self._finish_segment(nearest=(seconds, logits))
        if self._latest is not None:
            self._extend_timeline((self._latest[0] + seconds) / 2)
        self._total += logits
        self._segment_sum += logits
        self._count, self._segment_count = self._count + 1, self._segment_count + 1
        self._latest = (seconds, logits)

    def finish(self, end: Fraction, first: float = 0.0) -> dict[str, Any]:
        """Return the fields of a ``VideoResult`` for a video that ends ``end`` seconds after its ``first`` frame."""
        assert self._latest is not None
        for _ in range(math.ceil(end / self._length) - len(self._segments)):
            self._finish_segment(nearest=self._latest, end=end)
        self._extend_timeline(end)
        path = self._path.pieces()
        names, label_mask = (*self.labels, NO_CLEAR_LABEL), (*self._label_mask, self._label_mask.all())
        return {
            "labels": self._headline(path),
            "timeline": tuple(
                Piece(first + a, first + b, names[state], score) for a, b, state, score in path if label_mask[state]
            ),
            "clip_score": self._best(self._scores(self._total / self._count)),
            "segments": tuple(replace(each, start=first + each.start, end=first + each.end) for each in self._segments),
        }

    def _extend_timeline(self, until: Fraction) -> None:
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
        if share >= 0.5 and self._label_mask.all():
            labels.append(Label(NO_CLEAR_LABEL, float(share), seconds=float(seconds[-1])))
        return tuple(sorted(labels, key=lambda label: -label.score)[: self.top_k])

    def _scores(self, mean: NDArray[np.floating]) -> Scores:
        """Return the scores of all labels from a mean of what was averaged."""
        return softmax(mean) if self.score_fusion == "logits" else np.asarray(mean, np.float64)

    def _best(self, scores: Scores) -> tuple[Label, ...]:
        return tuple(Label(self.labels[index], float(scores[index])) for index in self._top(scores))

    def _top(self, scores: Scores) -> list[int]:
        return best(np.where(self._label_mask, scores, -1), min(self.top_k, int(self._label_mask.sum())))

    def _finish_segment(self, nearest: TimedOutput, end: Fraction | None = None) -> None:
        """End the open segment. One in which no prediction is centred takes the nearest of its neighbours'."""
        start = len(self._segments) * self._length
        stop = start + self._length if end is None else min(start + self._length, end)
        neighbour = min((self._latest or nearest, nearest), key=lambda each: abs(each[0] - (start + stop) / 2))[1]
        scores = self._scores(self._segment_sum / self._segment_count if self._segment_count else neighbour)
        self._segments.append(Segment(float(start), float(stop), self._best(scores)))
        self._segment_sum[:], self._segment_count = 0, 0
