"""Predictions → the timeline of a video: the most likely path through them (Viterbi's algorithm).

A path says for every moment which label holds, or that none is clear. While a label holds that the network gives the
probability p, the path earns log(FLOOR + (1 - FLOOR) p) per second; while none is clear, as much as for a label of the
constant probability CLEAR; and every change costs CHANGE. The path that earns most is the timeline. CHANGE and CLEAR
were chosen on single clips and on clips cut together at random; docs/timeline.md shows how little depends on it.
"""

import math

import numpy as np
from numpy.typing import NDArray

CHANGE = 1.5
"""The price of a change, in nat seconds: a new label pays if it is e times as likely for 1.5 s, e² times for 0.75 s."""
CLEAR = 0.1
"""The constant probability that "no clear label" has: a label that has less is not clear."""
SHORTEST_SECONDS = 0.6
"""No piece is shorter: it earns log(1 / FLOOR) per second at most, and in less time not the change that it costs."""
FLOOR = math.exp(-CHANGE / SHORTEST_SECONDS)  # 0.08: how often the network may be wrong however sure it is


class MostLikelyPath:
    """Takes the predictions of a video in order of time; keeps some 200 bytes of each, however many classes there are.

    ``clear`` is CLEAR, or what the model's card says. The state after the classes' is "no clear label".
    """

    def __init__(self, num_classes: int, clear: float = CLEAR) -> None:
        self._clear = clear
        self._earned, self._in_piece = np.zeros((2, num_classes + 1))  # by the best path to each state: in all, and
        self._steps: list[tuple[float, int, float, bytes]] = []  # in its latest piece

    def add(self, until: float, probabilities: NDArray[np.float64]) -> None:
        """Add a prediction (classes,) that stands for the time from where the one before it ended ``until`` then."""
        seconds = until - (self._steps[-1][0] if self._steps else 0.0)
        none = 1 - probabilities.max()  # against the best label, which is the score where none is clear
        logs = np.log(FLOOR + (1 - FLOOR) * np.append(probabilities, (self._clear, none)))
        best = int(self._earned.argmax())  # where every change comes from, for all cost the same
        stays = self._earned >= self._earned[best] - CHANGE
        self._steps.append((until, best, float(self._in_piece[best]), np.packbits(stays).tobytes()))
        earned = np.maximum(self._earned, self._earned[best] - CHANGE) + seconds * logs[:-1]
        self._earned = earned - earned.max()
        self._in_piece = self._in_piece * stays + seconds * np.delete(logs, -2)

    def pieces(self) -> list[tuple[float, float, int, float]]:
        """Return (start, end, state, score) of each piece, in order and without gaps.

        The score is the constant probability that would earn as much: that of a label which comes and goes is lower
        than its mean.
        """
        state, end = int(self._earned.argmax()), self._steps[-1][0]
        earned, found = float(self._in_piece[state]), list[tuple[float, float, int, float]]()
        for (start, *_), (_, best, before, stays) in zip(self._steps[-2::-1], self._steps[:0:-1], strict=True):
            if not stays[state // 8] << state % 8 & 0x80:  # the bit of this state: it begins here
                found.append((start, end, state, _score(earned / (end - start))))
                state, earned, end = best, before, start
        return [(0.0, end, state, _score(earned / end)), *reversed(found)]


def _score(rate: float) -> float:
    return min(1.0, max(0.0, (math.exp(rate) - FLOOR) / (1 - FLOOR)))
