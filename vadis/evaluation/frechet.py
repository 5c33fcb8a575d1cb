"""Fréchet video distance (Unterthiner et al., arXiv:1812.01717): how far two sets of videos are apart, seen by I3D.

    videos → rows (``embedding``) → mean and covariance of each set → distance, and how far to trust it

As the authors' TensorFlow code computes it (google-research, frechet_video_distance), whose network is DeepMind's
``rgb_scratch``, the model ``i3d-kinetics400-rgb`` here. Axes: N videos, D classes.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vadis
from vadis.batch import Journal
from vadis.errors import UsageError, VideoError
from vadis.evaluation.embedding import (
    PROTOCOLS,
    EmbeddedVideo,
    Embedding,
    check_length,
    check_model,
    embed_clip,
    network_frames,
)
from vadis.files import write_atomic
from vadis.models import Model
from vadis.parsing import parse_json
from vadis.preprocessing import CROP
from vadis.results import printable
from vadis.video.sources import Source
from vadis.weights.catalog import STAND_IN
from vadis.weights.load import ensure_model, published_name

Rows = NDArray[Any]  # (N, D), a video each; perhaps mapped from the disk

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
    model: Model | str | os.PathLike[str] = STAND_IN,
) -> float:
    """Return the Fréchet video distance of two sets of videos, which may be of different numbers.

    Each is an array (N, T, H, W, 3), videos (T, H, W, 3) of at least 9 frames, or statistics. uint8 frames are resized
    to 224×224; float ones are what the network takes, 224×224 in [-1, 1]. ``model`` is an I3D with an RGB network.
    Raise UsageError for other shapes or types, numbers that are not finite, or fewer than two videos.
    """
    model = ensure_model(model)
    sides = [side if isinstance(side, FrechetStatistics) else embed(side, model) for side in (real, generated)]
    return sides[0].distance(sides[1])


def _array_of(video: Any) -> NDArray[Any]:
    if isinstance(video, str | os.PathLike):
        hint = "`vadis.read_frames` reads one; `vadis fvd` takes files and folders"
        raise UsageError("a video is an array (T, H, W, 3), not the name of a file", hint)
    try:
        return np.asarray(video)
    except ValueError as error:
        raise UsageError("a video is an array (T, H, W, 3); its frames differ in size", "give each its own") from error


def embed(videos: Iterable[NDArray[Any]], model: Model) -> FrechetStatistics:
    """Return the statistics of videos, of which one at a time is in memory; see ``frechet_distance``."""
    model, statistics = check_model(model.only(("rgb",))), FrechetStatistics()
    for video in videos:
        try:
            frames = network_frames(_array_of(video))
            check_length(len(frames))
            statistics.add(embed_clip({"rgb": frames}, model)[None])
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


def bootstrap_deviation(sides: Sequence[Side], distance: Distance, repeats: int, seed: int = 0) -> float:
    """Return the standard deviation of the distance over bootstrap samples: both sets drawn anew from themselves.

    It is for an interval around the distance of the sets: a sample has videos twice, and so a larger distance.
    """
    rng, sides = np.random.default_rng(seed), _reduced(sides)
    samples = [_parts(sides, lambda count: rng.integers(count, size=count)) for _ in range(repeats)]
    return float(np.std([distance(*each) for each in samples], ddof=1))


def extrapolate_distance(sides: Sequence[Side], distance: Distance, seed: int = 0) -> float:
    """Return the distance extrapolated to infinitely many videos (Chong and Forsyth, arXiv:1911.07023).

    The bias of a distance falls as 1 / n: it is computed of random parts of the sets, and continued in a straight line.
    A side given as statistics cannot be subsampled, so its contribution to the bias remains.
    """
    rng, sides, found = np.random.default_rng(seed), _reduced(sides), list[float]()
    for factor in _SIZES:
        parts = _parts(sides, lambda count, factor=factor: rng.permutation(count)[: max(2, round(count / factor))])  # type: ignore[misc]
        found.append(distance(*parts))
    slope, _ = np.polyfit(_SIZES, found, 1)
    return float(distance(*map(statistics_of, sides)) - slope)


def _parts(sides: Sequence[Side], choose: Callable[[int], NDArray[np.int64]]) -> Iterator[FrechetStatistics]:
    """Yield each side's statistics: of the rows that ``choose(count)`` selects, or as given if it is statistics."""
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


# --- two sets of videos -----------------------------------------------------------------------------------------------

FULL_PRECISION = "i3d-kinetics400-scratch"  # whose RGB network ``STAND_IN`` has in 16 bits
INTERVAL = 1.96  # standard deviations: 95 % of a normal distribution


@dataclass
class VideoSet:
    """One side: its videos, then their rows, in the order of ``paths``; or the statistics that were saved of them."""

    name: str
    given: str
    sources: Sequence[Source] = ()
    side: Side = field(default_factory=lambda: np.zeros((0, 0)))
    settings: dict[str, Any] = field(default_factory=dict)
    inputs_sha256: str = ""
    clip_frames: list[int] = field(default_factory=list)  # the fewest and the most that were seen of a video
    paths: list[str] = field(default_factory=list)
    failed: int = 0

    @property
    def is_saved(self) -> bool:
        return isinstance(self.side, FrechetStatistics)

    def to_json(self) -> dict[str, Any]:
        """Return what a result says of this side."""
        count = self.side.count if isinstance(self.side, FrechetStatistics) else len(self.paths)
        about = {"given": printable(self.given), "n": count, "failed": self.failed, **self.settings}
        return about | {"clip_frames": self.clip_frames, "inputs_sha256": self.inputs_sha256}

    def read_rows(self, journal: Journal) -> None:
        """Take the rows out of a journal into a file without a name, which is mapped: 1.6 kB per video."""
        digests, lengths = list[bytes](), set[int]()
        with tempfile.TemporaryFile() as file:
            for record in journal.results({source.path for source in self.sources}, EmbeddedVideo):
                assert isinstance(record, EmbeddedVideo)
                if record.status == "ok":
                    file.write(record.numbers.tobytes())
                    self.paths.append(record.path)
                    lengths.add(record.sliding["frames"])
                    digests.append(bytes.fromhex(record.frames_sha256))
            if len(digests) < 2:
                message = f"{printable(self.given)} has fewer than two videos that can be seen"
                raise UsageError(message, "a distance takes two at least on either side")
            file.flush()
            self.side = np.memmap(file, np.float32, "r").reshape(len(digests), -1)
        self.clip_frames = [min(lengths), max(lengths)]
        self.inputs_sha256 = sha256(b"".join(sorted(digests))).hexdigest()


def save(path: Path, videos: VideoSet) -> None:
    """Write an .npz, whole: count, mean, covariance over n - 1, settings in JSON, and the hash of the inputs."""
    found = statistics_of(videos.side)
    texts = {"settings": json.dumps(videos.settings), "inputs_sha256": videos.inputs_sha256}
    texts["clip_frames"] = json.dumps(videos.clip_frames)
    arrays = {"count": np.int64(found.count), "mean": found.mean, "covariance": found.covariance}
    with write_atomic(path) as file:
        np.savez(file, allow_pickle=False, **arrays, **texts)


def load_statistics(name: str, path: str) -> VideoSet | None:
    """Return the set whose statistics are in a file; None for an .npz of another kind; raise UsageError for damage."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if "covariance" not in arrays:
                return None
            found = FrechetStatistics.of(int(arrays["count"]), arrays["mean"], arrays["covariance"])
            settings, frames = (parse_json(str(arrays[key])) for key in ("settings", "clip_frames"))
            inputs, (_, _) = str(arrays["inputs_sha256"]), frames
            settings.keys()
            if not np.isfinite(found.mean @ found.covariance).all():  # shapes that do not fit raise ValueError
                raise ValueError("not finite")
    except Exception as error:  # of damaged files: ValueError, KeyError, BadZipFile, zlib.error, OSError, …
        message = f"{printable(path)} is not a whole file of statistics or arrays"
        raise UsageError(message, "make the statistics again by `save`") from error
    return VideoSet(name, path, (), found, settings, inputs, frames)


def compare(
    sets: Sequence[VideoSet], embedding: Embedding, bootstrap: int, extrapolate: bool, kernel: bool, per_class: bool
) -> dict[str, Any]:
    """Return the distance, what was asked for beside it, and all that it depends on, as JSON values."""
    rules = PROTOCOLS[embedding.protocol]
    distance = partial(FrechetStatistics.distance, over_n=rules.covariance_over == "n")
    sides = [each.side for each in sets]
    result: dict[str, Any] = {"fvd": distance(*map(statistics_of, sides))}
    is_drawn = bootstrap > 1 and not all(each.is_saved for each in sets)
    if is_drawn:
        half = INTERVAL * bootstrap_deviation(sides, distance, bootstrap, embedding.seed)
        result["interval_95"] = [max(0.0, result["fvd"] - half), result["fvd"] + half]
    if extrapolate:
        result["fvd_unbiased"] = extrapolate_distance(sides, distance, embedding.seed)
    if kernel:
        result["kvd"] = kernel_distance(*(side for side in sides if not isinstance(side, FrechetStatistics)))
    if per_class:
        result["per_class"] = _by_class(sets, sides, distance)
    bits, is_comparable = weights_of(embedding.model)
    result |= {"real": sets[0].to_json(), "generated": sets[1].to_json()}
    result |= {"covariance_over": rules.covariance_over, "bootstrap_samples": bootstrap * is_drawn}
    result |= {"seed": embedding.seed, "weights": f"{bits} bits", "comparable": is_comparable}
    result |= {"device": str(embedding.model.device), "vadis": vadis.__version__, "source": rules.source}
    return result | {"warnings": list(_warnings(result))}


def _by_class(sets: Sequence[VideoSet], sides: Sequence[Side], distance: Distance) -> dict[str, Any]:
    """Return the distance for each class that both sides have: the first folder below the one that was given."""
    places: list[dict[str, list[int]]] = [{}, {}]
    for found, each in zip(places, sets, strict=True):
        for index, path in enumerate(each.paths):
            found.setdefault(class_of(each.given, path), []).append(index)
    result = {}
    for name in sorted(places[0].keys() | places[1].keys()):
        real, generated = (np.array(found.get(name, []), np.int64) for found in places)
        both = map(statistics_of, sides, (real, generated))
        value = distance(*both) if min(len(real), len(generated)) > 1 else None
        result[printable(name)] = {"fvd": value, "real": len(real), "generated": len(generated)}
    return result


def class_of(given: str, path: str) -> str:
    """Return the class of a video in a set; raise UsageError where it is in no folder of one."""
    parts = Path(os.path.relpath(path, given)).parts
    if len(parts) < 2 or parts[0] == "..":
        hint = "give REAL/class/video.mp4 and GENERATED/class/video.mp4"
        raise UsageError(f"{printable(path)} is not in the folder of a class", hint)
    return parts[0]


def _warnings(result: dict[str, Any]) -> Iterator[str]:
    fewest = min(result["real"]["n"], result["generated"]["n"])
    if fewest <= FULL_RANK:
        yield (
            f"{fewest:,} videos on one side: a covariance of {FULL_RANK} classes has no full rank, so the number "
            "says more about how many videos there are than about them; compare it with none of another number"
        )
    elif fewest < USUAL_NUMBER:
        yield f"{fewest:,} videos on one side, and papers take {USUAL_NUMBER:,}: fewer videos make a larger distance"
    if result["real"]["clip_frames"] != result["generated"]["clip_frames"]:
        yield "the clips of the two sides are not equally long, which makes a distance of its own"
    if not result["comparable"]:
        yield "not comparable with published FVD, which is of DeepMind's RGB network: this is of another, or of motion"
    elif result["weights"] == "16 bits":
        yield "computed with weights of 16 bits; docs/frechet.md says by how much that differs, and how to get 32"


# --- published values ------------------------------------------------------------------------------------------------


class PublishedDistance(NamedTuple):
    """A distance that was published for the TensorFlow code, and what it is of."""

    title: str
    source: str
    value: float
    tolerance: float
    sides: Callable[[], Iterable[Iterator[NDArray[Any]]]]  # the videos of both
    num_videos: int  # on both sides


def _random(seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield the videos of ``RandomState(seed).rand(128, 16, 224, 224, 3)`` as float32, one by one."""
    rng = np.random.RandomState(seed)
    return (rng.rand(16, CROP, CROP, 3).astype(np.float32) for _ in range(128))


PUBLISHED_DISTANCES = (
    PublishedDistance(
        "128 random videos of 16 frames and 128 others",
        "https://github.com/universome/fvd-comparison",
        10.13808536529541,
        1e-5,
        lambda: (_random(1), _random(2)),
        256,
    ),
    PublishedDistance(
        "8 black videos of 30 frames, 64×64, and 8 white ones",
        "https://github.com/JunyaoHu/common_metrics_on_video_quality",
        151.39244,
        1e-3,  # in 32 bits 3e-6 of it changes with the number of threads
        lambda: (repeat(np.full((30, 64, 64, 3), level, np.uint8), 8) for level in (0, 255)),
        16,
    ),
)


def reproduce(model: Model, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Return the published distances beside ours; ``passed`` is None for weights that nothing is published for.

    ``progress`` is called whenever a video is taken.
    """

    def taken(video: NDArray[Any]) -> NDArray[Any]:
        progress()
        return video

    results = []
    for each in PUBLISHED_DISTANCES:
        real, generated = (map(taken, side) for side in each.sides())
        ours = frechet_distance(real, generated, model)
        row = {"input": each.title, "source": each.source, "published": each.value, "ours": ours}
        results.append(row | {"difference": ours - each.value, "within": abs(ours - each.value) <= each.tolerance})
    passed = all(row["within"] for row in results) if weights_of(model) == (32, True) else None
    about = {"model": model.card.name, "model_sha256": model.sha256, "weights": f"{weights_of(model)[0]} bits"}
    return {**about, "values": results, "passed": passed}


def weights_of(model: Model) -> tuple[int, bool]:
    """Return the bits of a model's weights, and whether they are DeepMind's that published distances are of."""
    rounded = "rounded_to_16_bits_from_sha256" in model.card.provenance
    is_deepminds = model.card.name == STAND_IN if rounded else published_name(model) == FULL_PRECISION
    return 16 if rounded else 32, is_deepminds and model.card.streams == ("rgb",)
