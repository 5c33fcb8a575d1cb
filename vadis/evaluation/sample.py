"""DeepMind's published sample: a preprocessed video, and what their own networks say of it.

kinetics-i3d publishes one video of UCF-101 as arrays (``catalog.SAMPLE``) and, in ``out/``, the norm of the logits and
the twenty best classes of each of its models. A copy of those texts is in ``sample_outputs/``: imagenet_* from the
commit that the catalog pins, no_imagenet_* from the repository's first commit, 6da69a3 (later ones repeat imagenet_*
under that name, an error there). A model that agrees with them is the published one, run as published: the arrays go
through the networks as the clips of ``vadis classify`` do, in chunks of the inference form.
"""

import io
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.errors import UsageError, WeightsError, what_next
from vadis.inference.predict import over_whole_video
from vadis.inference.prefetch import prefetch_config
from vadis.models import MODELS, STREAM_CHANNELS, Model
from vadis.preprocessing import CROP
from vadis.results import printable
from vadis.weights.cache import Notify, git_blob_id
from vadis.weights.catalog import SAMPLE, WEIGHTS
from vadis.weights.download import DownloadProgress, ensure_downloaded
from vadis.weights.load import published_name

TOP = 20  # classes in a published list
TOLERANCE = 1e-3  # of the largest published logit, and of the norm: float32 gives 1e-6, TF32 on a GPU 1e-4 and more
MAX_ARRAY_BYTES = 4 << 30  # an hour at 25 fps would be 54 GB; a preprocessed clip of 10 s has 150 MB
INPUT_SLACK = 1e-3  # beyond [-1, 1]: rounding of float16
_SCALES = {
    "rgb": "bring pixels of 0 to 255 to it by x / 127.5 - 1",
    "flow": "clip flow to 20 pixels in either direction, and divide by 20",
}

Array = npt.NDArray[np.float32]


class Line(NamedTuple):
    """A class in a list of the best."""

    label: str
    probability: float
    logit: float


class Outputs(NamedTuple):
    """What a model says of an input: its logits, averaged over time."""

    norm: float
    top: tuple[Line, ...]  # the best first
    logits: tuple[float, ...] = ()  # in the order of the labels; empty where only the best were published


class Comparison(NamedTuple):
    """Ours beside the published, for one stream or "both"; ``largest_error`` (logits) is over the published classes."""

    ours: Outputs
    published: Outputs | None
    largest_error: float | None
    passed: bool | None  # None: nothing was published for this model and input


def published_outputs(family: str, stream: str) -> Outputs:
    """Read the published text for ``imagenet`` or ``no_imagenet`` and "rgb", "flow" or "both"."""
    name = f"{family}_{'joint' if stream == 'both' else stream}.txt"
    text = (resources.files("vadis.evaluation") / "sample_outputs" / name).read_text(encoding="utf-8")
    head, _, _, *lines = text.rstrip("\n").split("\n")  # "Norm of logits: 138.468643", "", "Top classes and …"
    fields = (line.split(" ", 2) for line in lines)
    top = tuple(Line(label, float(probability), float(logit)) for probability, logit, label in fields)
    return Outputs(float(head.removeprefix("Norm of logits: ")), top)


def fetch_sample(
    streams: tuple[str, ...], *, offline: bool, progress: DownloadProgress, notify: Notify
) -> dict[str, Path]:
    """Return the sample's arrays in the cache, by stream; raises WeightsError if they cannot be had."""
    otherwise = 'give the arrays by `rgb="FILE.npy"` and `flow="FILE.npy"`'
    return {
        stream: ensure_downloaded(
            "the sample", [SAMPLE[stream]], offline=offline, progress=progress, notify=notify, fallback_hint=otherwise
        )[0]
        for stream in streams
    }


def read_array(path: Path, stream: str, min_frames: int) -> Array:
    """Read a preprocessed video (T, 224, 224, C) float32 in [-1, 1] from a ``.npy`` file, with a batch axis or without.

    Raises:
        WeightsError: if the file is no array of numbers.
        UsageError: if the array has another shape or range, or too few frames.
    """
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            hint = "give a clip of seconds, not a whole video"
            raise UsageError(f"{path} is too large (more than {MAX_ARRAY_BYTES >> 30} GiB)", hint)
        array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", what_next(error.errno)) from error
    except (ValueError, EOFError, MemoryError) as error:
        hint = "give an .npy file that numpy.save wrote, of an array of floating-point numbers"
        raise WeightsError(f"{path} is not a NumPy array of numbers, or is damaged", hint) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise UsageError(f"{path} is not an array of floating-point numbers", hint="save it as float32, in [-1, 1]")
    if array.ndim == 5 and array.shape[0] == 1:
        array = array[0]
    channels = STREAM_CHANNELS[stream]
    if array.ndim != 4 or array.shape[1:] != (CROP, CROP, channels) or array.shape[0] < min_frames:
        wanted = f"(1, T, {CROP}, {CROP}, {channels}) with at least {min_frames} frames"
        message = f"{path} has the shape {array.shape}, not {wanted}, as the {stream} network needs it"
        raise UsageError(message, hint=f"crop {CROP} × {CROP} out of each frame; the channels stand last")
    if not np.abs(array).max() <= 1 + INPUT_SLACK:  # also refuses NaN
        raise UsageError(f"the values in {path} are not all in [-1, 1]", hint=_SCALES[stream])
    return np.ascontiguousarray(array, np.float32)


def run_sample(model: Model, arrays: Mapping[str, Array]) -> dict[str, Outputs]:
    """Return what ``model``, an I3D, says of preprocessed arrays: for each stream, and for "both" if there are two."""
    least, size = MODELS[model.card.architecture].min_frames, prefetch_config(model.device).chunk_frames

    def to_input(array: Array, stream: str) -> Tensor:  # (T, 224, 224, C) → (1, C, T, 224, 224)
        return torch.from_numpy(array).permute(3, 0, 1, 2)[None]

    logits = {}
    for stream, array in arrays.items():
        clips = ({stream: array[start : start + size]} for start in range(0, len(array), size))
        steps = over_whole_video(clips, model.only((stream,)), len(array), least=least, to_input=to_input)
        rows = np.stack([found[stream] for _, found in steps])  # (steps, classes)
        logits[stream] = rows.mean(axis=0, dtype=np.float64)
    if len(logits) > 1:
        logits["both"] = np.sum(list(logits.values()), axis=0)
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise WeightsError("the network gave a score that is not a number", hint="the model file may be damaged")
    return {stream: _outputs(values, model.card.labels) for stream, values in logits.items()}


def reproduce(model: Model, paths: Mapping[str, Path]) -> dict[str, Comparison]:
    """Run a model on preprocessed arrays and compare the outputs with those published, where there are any.

    There are for the sample's own files, recognised by their content, and a published model with known outputs.

    Raises:
        UsageError: as ``read_array``, or for a model that does not see a video as one clip.
        WeightsError: as ``read_array``.
    """
    row = MODELS[model.card.architecture]
    if row.test_window is not None:
        message = f"the sample is for I3D, and {printable(model.card.name)} is {row.title}"
        raise UsageError(message, hint="name another `model`")
    outputs = run_sample(model, {stream: read_array(path, stream, row.min_frames) for stream, path in paths.items()})
    is_sample = all(git_blob_id(path) == SAMPLE[stream].git_blob for stream, path in paths.items())
    name = published_name(model) or model.card.name
    family = WEIGHTS[name].sample_outputs if is_sample and name in WEIGHTS else None
    return {
        stream: compare(ours, published_outputs(family, stream) if family else None, model.card.labels)
        for stream, ours in outputs.items()
    }


def compare(ours: Outputs, published: Outputs | None, labels: tuple[str, ...]) -> Comparison:
    """Compare outputs: the norm and all published classes' logits agree, and no other class belongs among these."""
    if published is None:
        return Comparison(ours, None, None, None)
    logits = dict(zip(labels, ours.logits, strict=True))
    largest_error = float(max(abs(logits.get(line.label, -np.inf) - line.logit) for line in published.top))
    tolerance, names = TOLERANCE * published.top[0].logit, {line.label for line in published.top}
    best_other = max((line.logit for line in ours.top if line.label not in names), default=-np.inf)
    norm_agrees = abs(ours.norm - published.norm) <= TOLERANCE * published.norm
    others_agree = best_other <= published.top[-1].logit + tolerance
    return Comparison(ours, published, largest_error, largest_error <= tolerance and norm_agrees and others_agree)


def to_json(model: Model, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """The outcome as plain JSON values, all logits included; "passed" is None where nothing was published."""
    verdicts = [comparison.passed for comparison in comparisons.values()]
    streams = {}
    for stream, (ours, published, largest_error, passed) in comparisons.items():
        theirs = published and {"norm": published.norm, "top": [line._asdict() for line in published.top]}
        streams[stream] = {
            "norm": ours.norm,
            "top": [line._asdict() for line in ours.top],
            "logits": list(ours.logits),
            "published": theirs,
            "largest_error": largest_error,
            "passed": passed,
        }
    return {
        "model": model.card.name,
        "model_sha256": model.sha256,
        "passed": None if None in verdicts else all(verdicts),
        "tolerance": TOLERANCE,
        "streams": streams,
    }


def _outputs(logits: npt.NDArray[np.float64], labels: tuple[str, ...]) -> Outputs:
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    best = np.argsort(-logits, kind="stable")[:TOP]
    top = tuple(Line(labels[index], float(probabilities[index]), float(logits[index])) for index in best)
    return Outputs(float(np.linalg.norm(logits)), top, tuple(logits.tolist()))
