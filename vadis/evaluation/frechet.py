"""Fréchet video distance (Unterthiner et al., arXiv:1812.01717): how far two sets of videos are apart, seen by I3D.

    videos → rows (``embedding``) → mean and covariance of each set → distance, and how far to trust it

As the authors' TensorFlow code computes it (google-research, frechet_video_distance), whose network is DeepMind's
``rgb_scratch``, the model ``i3d-kinetics400-rgb`` here. Axes: N videos, D classes.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.evaluation.embedding import check_length, check_model, network_frames, row_of
from vadis.models import Model
from vadis.weights.load import given_or_loaded

Rows = NDArray[Any]  # (N, D), a video each; perhaps mapped from the disk

FVD_MODEL = "i3d-kinetics400-rgb"
FULL_RANK = 400  # classes: with so few videos or fewer a covariance is singular
USUAL_NUMBER = 2048  # of videos, on either side, in papers since StyleGAN-V
_AT_ONCE = 4096  # rows that are held in 64 bits
_SIZES = np.linspace(1, 2, 15)  # by which sets are thinned out for ``unbiased``: from all to half


class FrechetStatistics:
    """Number, mean and covariance of embeddings, which may be added in parts and in any order."""

    def __init__(self, rows: Rows | None = None) -> None:
        rows = np.zeros((0, 0)) if rows is None else np.asarray(rows)
        if rows.ndim != 2:
            raise UsageError(f"embeddings have the shape (N, D), got {rows.shape}", "a row for each video")
        if not np.isfinite(rows).all():
            raise UsageError("an embedding has numbers that are not finite", "the model file may be damaged")
        self.count = len(rows)
        self.mean: NDArray[np.float64] = rows.sum(axis=0, dtype=np.float64) / max(self.count, 1)  # (D,)
        self._scatter: NDArray[np.float64] = (rows - self.mean).T @ (rows - self.mean)  # (D, D)

    @classmethod
    def of(cls, count: int, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> "FrechetStatistics":
        """Return statistics of this number, mean (D,) and covariance (D, D) over n - 1."""
        found = cls()
        found.count, found.mean, found._scatter = count, mean, covariance * (count - 1)
        return found

    def add(self, rows: Rows) -> None:
        """Add embeddings (N, D); raises UsageError as the constructor."""
        self.merge(FrechetStatistics(rows))

    def merge(self, other: "FrechetStatistics") -> None:
        """Add what ``other`` has seen (Chan, Golub and LeVeque 1983, equation 2.1); raises UsageError for other D."""
        if not self.count:
            self.count, self.mean, self._scatter = other.count, other.mean, other._scatter
        elif other.count:
            self._check_dimensions(other)
            count, difference = self.count + other.count, other.mean - self.mean
            between = self.count * other.count / count * np.outer(difference, difference)
            self._scatter = self._scatter + other._scatter + between
            self.count, self.mean = count, self.mean + difference * (other.count / count)

    def _check_dimensions(self, other: "FrechetStatistics") -> None:
        if self.mean.shape != other.mean.shape:
            sizes = f"{len(self.mean)} and {len(other.mean)}"
            raise UsageError(f"embeddings of {sizes} numbers do not compare", "take the same model for both")

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), over n - 1; raises UsageError below two videos."""
        if self.count < 2:
            message = f"a distance takes two videos at least on either side, got {self.count}"
            raise UsageError(message, "give more videos")
        return self._scatter / (self.count - 1)

    def distance(self, other: "FrechetStatistics", *, over_n: bool = False) -> float:
        """Return |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 √(Σ₁ Σ₂)), which only rounding would take below 0.

        The trace of the root is the sum of the singular values of √Σ₁ √Σ₂, whose squares are the eigenvalues of Σ₁ Σ₂.
        Roots of the small eigenvalues themselves would be rounding errors: with few videos 1e-6 of the distance.
        ``over_n``: of covariances over n, as some tools have them, instead of n - 1.
        """
        first, second = (each.covariance * (1 - over_n / each.count) for each in (self, other))
        self._check_dimensions(other)
        trace_of_root = np.linalg.norm(_symmetric_root(first) @ _symmetric_root(second), "nuc")
        traces = np.trace(first) + np.trace(second)
        return max(0.0, float(np.sum((self.mean - other.mean) ** 2) + traces - 2 * trace_of_root))


def _symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def frechet_distance(
    real: Iterable[NDArray[Any]] | FrechetStatistics,
    generated: Iterable[NDArray[Any]] | FrechetStatistics,
    model: Model | str | os.PathLike[str] = FVD_MODEL,
) -> float:
    """Return the Fréchet video distance of two sets of videos, which may be of different numbers.

    Each is an array (N, T, H, W, 3), videos (T, H, W, 3) of at least 9 frames, or statistics. uint8 frames are resized
    to 224×224; float ones are what the network takes, 224×224 in [-1, 1]. ``model`` is an I3D with an RGB network.
    Raise UsageError for other shapes or types, numbers that are not finite, or fewer than two videos.
    """
    model = given_or_loaded(model)
    sides = [side if isinstance(side, FrechetStatistics) else embed(side, model) for side in (real, generated)]
    return sides[0].distance(sides[1])


def embed(videos: Iterable[NDArray[Any]], model: Model) -> FrechetStatistics:
    """Return the statistics of videos, of which one at a time is in memory; see ``frechet_distance``."""
    model, statistics = check_model(model.only(("rgb",))), FrechetStatistics()
    for video in videos:
        try:
            frames = network_frames(np.asarray(video))
            check_length(len(frames))
            statistics.add(row_of({"rgb": frames}, model)[None])
        except VideoError as error:
            raise UsageError(error.message, error.own_hint or "give uint8 frames (T, H, W, 3)") from error
    return statistics


# --- how far to trust it ---------------------------------------------------------------------------------------------

Side = Rows | FrechetStatistics  # a set of videos, or all that is known of it
Distance = Callable[[FrechetStatistics, FrechetStatistics], float]


def statistics_of(side: Side, chosen: NDArray[np.int64] | None = None) -> FrechetStatistics:
    """Return the statistics of rows, or of those that are ``chosen``, with few of them in memory at once."""
    if isinstance(side, FrechetStatistics):
        return side
    chosen, found = np.arange(len(side)) if chosen is None else np.sort(chosen), FrechetStatistics()
    for start in range(0, len(chosen), _AT_ONCE):
        found.add(side[chosen[start : start + _AT_ONCE]].astype(np.float64))
    return found


def _reduced(sides: Sequence[Side]) -> Sequence[Side]:
    """Return the same sets in the space that they span, where that is smaller: distances stay, and take less."""
    rows = [each for each in sides if not isinstance(each, FrechetStatistics)]
    if len(rows) < len(sides) or sum(map(len, rows)) >= rows[0].shape[1]:
        return sides
    basis, _ = np.linalg.qr(np.concatenate(rows).astype(np.float64).T)  # (D, N)
    return [each @ basis for each in rows]


def spread(sides: Sequence[Side], distance: Distance, repeats: int, seed: int = 0) -> float:
    """Return the standard deviation of the distance over bootstrap samples: both sets drawn anew from themselves.

    It is for an interval around the distance of the sets: a sample has videos twice, and so a larger distance.
    """
    rng, sides = np.random.default_rng(seed), _reduced(sides)
    samples = [_parts(sides, lambda count: rng.integers(count, size=count)) for _ in range(repeats)]
    return float(np.std([distance(*each) for each in samples], ddof=1))


def unbiased(sides: Sequence[Side], distance: Distance, seed: int = 0) -> float:
    """Return the distance extrapolated to infinitely many videos (Chong and Forsyth, arXiv:1911.07023).

    The bias of a distance falls as 1 / n: it is computed of random parts of the sets, and continued in a straight line.
    Of a side of statistics there are no parts, so what it adds to the bias stays.
    """
    rng, sides, found = np.random.default_rng(seed), _reduced(sides), list[float]()
    for factor in _SIZES:
        parts = _parts(sides, lambda count, factor=factor: rng.permutation(count)[: max(2, round(count / factor))])  # type: ignore[misc]
        found.append(distance(*parts))
    slope, _ = np.polyfit(_SIZES, found, 1)
    return float(distance(*map(statistics_of, sides)) - slope)


def _parts(sides: Sequence[Side], choose: Callable[[int], NDArray[np.int64]]) -> Iterator[FrechetStatistics]:
    """Yield the statistics of the rows that ``choose`` names of so many; of statistics themselves."""
    for side in sides:
        yield side if isinstance(side, FrechetStatistics) else statistics_of(side, choose(len(side)))


def kernel_distance(real: Rows, generated: Rows) -> float:
    """Return the squared maximum mean discrepancy by the kernel (x·y / D + 1)³, without bias."""

    def total(first: Rows, second: Rows) -> float:
        found = 0.0
        for start in range(0, len(first), _AT_ONCE):
            part = first[start : start + _AT_ONCE].astype(np.float64)
            for begin in range(0, len(second), _AT_ONCE):
                other = second[begin : begin + _AT_ONCE].astype(np.float64)
                found += float(((part @ other.T / part.shape[1] + 1) ** 3).sum())
        return found

    def within(rows: Rows) -> float:
        squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64) / rows.shape[1]
        return (total(rows, rows) - float(((squares + 1) ** 3).sum())) / (len(rows) * (len(rows) - 1))

    return within(real) + within(generated) - 2 * total(real, generated) / (len(real) * len(generated))
