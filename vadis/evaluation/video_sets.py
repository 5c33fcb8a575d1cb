"""Two sets of videos and how far they are apart: rows out of a journal, saved statistics, the result, its warnings."""

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
from vadis.batch.journal import Journal
from vadis.errors import UsageError
from vadis.evaluation.embedding import PROTOCOLS, EmbeddedVideo, Embedding
from vadis.evaluation.frechet import (
    FULL_RANK,
    USUAL_NUMBER,
    Distance,
    FrechetStatistics,
    Side,
    frechet_distance,
    kernel_distance,
    spread,
    statistics_of,
)
from vadis.evaluation.frechet import unbiased as unbiased_distance
from vadis.files import write_atomic
from vadis.models import Model
from vadis.parsing import parse_json
from vadis.preprocessing import CROP
from vadis.results import printable
from vadis.video.sources import Source
from vadis.weights.catalog import STAND_IN
from vadis.weights.load import published_name

FULL_PRECISION = "i3d-kinetics400-scratch"  # whose RGB network ``STAND_IN`` has in 16 bits
INTERVAL = 1.96  # standard deviations: 95 % of a normal distribution


@dataclass
class VideoSet:
    """One side: its videos, then their rows, in the order of ``paths``; or the statistics that were saved of them."""

    name: str
    given: str
    sources: Sequence[Source] = ()
    side: Side | None = None
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
    assert videos.side is not None
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
    sets: Sequence[VideoSet], embedding: Embedding, bootstrap: int, unbiased: bool, kernel: bool, per_class: bool
) -> dict[str, Any]:
    """Return the distance, what was asked for beside it, and all that it depends on, as JSON values."""
    rules = PROTOCOLS[embedding.protocol]
    distance = partial(FrechetStatistics.distance, over_n=rules.covariance_over == "n")
    sides = [each.side for each in sets if each.side is not None]
    result: dict[str, Any] = {"fvd": distance(*map(statistics_of, sides))}
    is_drawn = bootstrap > 1 and not all(each.is_saved for each in sets)
    if is_drawn:
        half = INTERVAL * spread(sides, distance, bootstrap, embedding.seed)
        result["interval_95"] = [max(0.0, result["fvd"] - half), result["fvd"] + half]
    if unbiased:
        result["fvd_unbiased"] = unbiased_distance(sides, distance, embedding.seed)
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
    sides: Callable[[], tuple[Iterator[NDArray[Any]], Iterator[NDArray[Any]]]]  # videos
    num_videos: int  # on both sides


def _random(seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield the videos of ``RandomState(seed).rand(128, 16, 224, 224, 3)`` as float32, one by one."""
    rng = np.random.RandomState(seed)
    return (rng.rand(16, CROP, CROP, 3).astype(np.float32) for _ in range(128))


def _of_one_colour(level: int) -> Iterator[NDArray[np.uint8]]:
    return repeat(np.full((30, 64, 64, 3), level, np.uint8), 8)


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
        lambda: (_of_one_colour(0), _of_one_colour(255)),
        16,
    ),
)


def reproduce(model: Model, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Return the published distances beside ours; ``passed`` is None for weights that nothing is published for."""
    done, results = 0, []

    def counted(videos: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        nonlocal done
        for video in videos:
            yield video
            done += 1
            progress(done)

    for each in PUBLISHED_DISTANCES:
        real, generated = each.sides()
        ours = frechet_distance(counted(real), counted(generated), model)
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
