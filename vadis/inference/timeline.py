"""Predictions → the timeline of a video: the most likely path through them (Viterbi's algorithm).

A path says for every moment which label holds, or that none is clear. Where label c holds for a stretch of time t it
earns the integral of log p(c) over t, p being the network's probability; where no label is clear it earns log CLEAR per
second; and every change costs CHANGE. The path that earns most is the timeline. Both constants were chosen on single
clips and on clips cut together at random (docs/timeline.md shows how much they matter).
"""

import math

import numpy as np
from numpy.typing import NDArray

CLEAR = 0.15
"""The probability, as a geometric mean over a stretch of time, below which a label does not hold there."""
CHANGE = 2.0
"""The price of a change, in nat seconds: a new label pays if it is e times as likely for 2 s, e² times for 1 s."""
SHORTEST_SECONDS = 0.5
"""No piece is shorter: probabilities below FLOOR count as FLOOR, so none can earn in less time what a change costs."""
FLOOR = math.exp(-CHANGE / SHORTEST_SECONDS)  # 0.018


class MostLikelyPath:
    """Takes the predictions of a video in order of time; keeps some 200 bytes of each, however many classes there are.

    ``clear`` is CLEAR, or what the model's card says. The state after the classes' is "no clear label", whose score is
    one minus that of the best label.
    """

    def __init__(self, num_classes: int, clear: float = CLEAR) -> None:
        self._log_clear = math.log(clear)
        self._earned, self._mass = np.zeros((2, num_classes + 1))  # by the best path to each state; p · s in its piece
        self._steps: list[tuple[float, int, float, bytes]] = []

    def add(self, until: float, probabilities: NDArray[np.float64]) -> None:
        """Add a prediction (classes,) that stands for the time from where the one before it ended ``until`` then."""
        seconds = until - (self._steps[-1][0] if self._steps else 0.0)
        rates = np.append(np.log(np.maximum(probabilities, FLOOR)), self._log_clear)
        best = int(self._earned.argmax())  # where every change comes from, for all cost the same
        stays = self._earned >= self._earned[best] - CHANGE
        self._steps.append((until, best, float(self._mass[best]), np.packbits(stays).tobytes()))
        earned = np.maximum(self._earned, self._earned[best] - CHANGE) + seconds * rates
        self._earned = earned - earned.max()
        self._mass = self._mass * stays + seconds * np.append(probabilities, 1 - probabilities.max())

    def pieces(self) -> list[tuple[float, float, int, float]]:
        """Return (start, end, state, score) of each piece, in order and without gaps; score is its mean probability."""
        state, end, found = int(self._earned.argmax()), self._steps[-1][0], list[tuple[float, float, int, float]]()
        mass = float(self._mass[state])
        for (start, *_), (_, best, mass_before, stays) in zip(self._steps[-2::-1], self._steps[:0:-1], strict=True):
            if not stays[state // 8] << state % 8 & 0x80:  # the bit of this state: it begins here
                found.append((start, end, state, mass / (end - start)))
                state, mass, end = best, mass_before, start
        return [(0.0, end, state, mass / end), *reversed(found)]
