"""Fréchet video distance (Unterthiner et al., arXiv:1812.01717): how far two sets of videos are apart, seen by I3D.

    videos → frames of 224×224 → I3D's logits, averaged over time → mean and covariance of each set → distance

As the authors' TensorFlow code computes it (google-research, frechet_video_distance), whose network is DeepMind's
``rgb_scratch``, the model ``i3d-kinetics400-rgb`` here.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.errors import UsageError
from vadis.models import Model
from vadis.models.i3d import MIN_FRAMES
from vadis.preprocessing import CROP, rgb_input
from vadis.weights.load import given_or_loaded

Embeddings = NDArray[np.float64]  # (N, classes): a video each

FVD_MODEL = "i3d-kinetics400-rgb"


class FrechetStatistics:
    """Number, mean and covariance of embeddings, which may be added in parts and in any order."""

    def __init__(self, rows: Embeddings | None = None) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(0)  # (D,)
        self._scatter: NDArray[np.float64] = np.zeros((0, 0))  # (D, D), the sum of (x - mean) (x - mean)ᵀ
        if rows is not None:
            self.add(rows)

    def add(self, rows: Embeddings) -> None:
        """Add embeddings (N, D); raises UsageError if a number is not finite."""
        if not np.isfinite(rows).all():
            raise UsageError("an embedding has numbers that are not finite", "the model file may be damaged")
        part = FrechetStatistics()
        part.count, part.mean = len(rows), rows.mean(axis=0, dtype=np.float64)
        part._scatter = (rows - part.mean).T @ (rows - part.mean)
        self.merge(part)

    def merge(self, other: "FrechetStatistics") -> None:
        """Add what ``other`` has seen (Chan, Golub and LeVeque 1983, equation 2.1)."""
        if self.count == 0:
            self.mean, self._scatter = np.zeros_like(other.mean), np.zeros_like(other._scatter)
        count, difference = self.count + other.count, other.mean - self.mean
        between = self.count * other.count / count
        self._scatter = self._scatter + other._scatter + between * np.outer(difference, difference)
        self.mean = self.mean + difference * (other.count / count)
        self.count = count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), over n - 1; raises UsageError below two videos."""
        if self.count < 2:
            message = f"a distance takes two videos at least on either side, got {self.count}"
            raise UsageError(message, "give more videos")
        return self._scatter / (self.count - 1)

    def distance(self, other: "FrechetStatistics") -> float:
        """Return |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 √(Σ₁ Σ₂)), which is never below 0 but for rounding.

        The trace of the root is that of the symmetric √(√Σ₁ Σ₂ √Σ₁), whose eigenvalues are those of √(Σ₁ Σ₂).
        """
        root = _symmetric_root(self.covariance)
        eigenvalues = np.linalg.eigvalsh(root @ other.covariance @ root)
        trace_of_root = np.sqrt(eigenvalues.clip(min=0)).sum()
        traces = np.trace(self.covariance) + np.trace(other.covariance)
        return float(np.sum((self.mean - other.mean) ** 2) + traces - 2 * trace_of_root)


def _symmetric_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def frechet_distance(
    real: Iterable[NDArray[Any]] | FrechetStatistics,
    generated: Iterable[NDArray[Any]] | FrechetStatistics,
    model: Model | str | os.PathLike[str] = FVD_MODEL,
) -> float:
    """Return the Fréchet video distance of two sets of videos.

    Args:
        real: videos (T, H, W, 3) of at least 9 frames, in an array (N, T, H, W, 3) or one after the other; or their
            statistics. uint8 frames are resized to 224×224; float ones are what the network takes, 224×224 in [-1, 1].
        generated: likewise; the numbers of videos may differ.
        model: an I3D with an RGB network.

    Raises:
        UsageError: for another shape or type, numbers that are not finite, or fewer than two videos.
    """
    model = given_or_loaded(model)
    sides = [side if isinstance(side, FrechetStatistics) else embed(side, model) for side in (real, generated)]
    return sides[0].distance(sides[1])


def embed(videos: Iterable[NDArray[Any]], model: Model) -> FrechetStatistics:
    """Return the statistics of videos, of which one at a time is in memory; see ``frechet_distance``."""
    # The training form: the inference form's logits are right to 1e-5 of the largest, and a distance is less than they.
    network, statistics = model.module("rgb"), FrechetStatistics()
    for video in videos:
        with torch.inference_mode():
            logits = network(_network_input(video).to(model.device))  # (1, 3, T, 224, 224) → (1, classes, steps)
        statistics.add(logits.mean(dim=2).double().cpu().numpy())
    return statistics


def _network_input(video: NDArray[Any]) -> torch.Tensor:
    """Return a video (T, H, W, 3) as (1, 3, T, 224, 224); raises UsageError if it cannot be one."""
    video = np.asarray(video)
    if video.ndim != 4 or video.shape[-1] != 3 or len(video) < MIN_FRAMES or 0 in video.shape:
        message = f"a video has the shape (T, H, W, 3) with at least {MIN_FRAMES} frames, got {video.shape}"
        raise UsageError(message, "the channels stand last")
    if video.dtype == np.uint8:
        return rgb_input(resize_as_tensorflow1(video, CROP))
    if video.dtype.kind != "f" or video.shape[1:3] != (CROP, CROP):
        message = f"frames are uint8 of any size, or float of {CROP}×{CROP}, got {video.dtype} {video.shape}"
        raise UsageError(message, "give uint8 frames of 0 to 255")
    if not np.isfinite(video).all():
        raise UsageError("a video has numbers that are not finite", "give uint8 frames of 0 to 255")
    return torch.from_numpy(np.ascontiguousarray(video, np.float32)).permute(3, 0, 1, 2)[None]


def resize_as_tensorflow1(frames: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Return frames (T, H, W, 3) as float32 (T, size, size, 3), as ``tf.image.resize_bilinear`` of TensorFlow 1 does.

    Pixel ``i`` lies at ``i * H / size``, without half-pixel centres and antialiasing; the aspect is not kept.
    """
    rows = _interpolate(frames.astype(np.float32), 2, size)  # (T, H, size, 3)
    return _interpolate(rows, 1, size)


def _interpolate(x: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    length = x.shape[axis]
    position = np.arange(size, dtype=np.float32) * np.float32(length / size)
    low = position.astype(np.int64)
    weight = (position - low).reshape([-1 if each == axis else 1 for each in range(x.ndim)])
    first, second = x.take(low, axis), x.take(np.minimum(low + 1, length - 1), axis)
    between: NDArray[np.float32] = first + (second - first) * weight
    return between
