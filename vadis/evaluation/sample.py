"""DeepMind's published sample: a preprocessed video of UCF-101, and what their own networks say of it.

``sample_outputs/`` has copies of the texts in ``out/`` of kinetics-i3d, the norm of the logits and the twenty best
classes of each model: imagenet_* from the commit that the catalog pins, no_imagenet_* from the repository's first one,
6da69a3 (later ones repeat imagenet_* under that name, an error there).
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vadis.errors import UsageError, WeightsError
from vadis.files import os_errors_as
from vadis.inference.predict import over_whole_video
from vadis.inference.prefetch import chunk_frames
from vadis.inference.scores import best, softmax
from vadis.models import MODELS, STREAM_CHANNELS, Model
from vadis.preprocessing import CROP
from vadis.results import printable
from vadis.weights.cache import DownloadProgress, ensure_downloaded, git_blob_id
from vadis.weights.catalog import SAMPLE, WEIGHTS
from vadis.weights.load import published_name

TOP = 20  # classes in a published list
TOLERANCE = 1e-3  # of the largest published logit, and of the norm: float32 gives 1e-6, TF32 on a GPU 1e-4 and more

SampleArray = npt.NDArray[np.float32]


Outputs = dict[str, Any]
"""What a model says of an input, averaged over time, as JSON values: the ``norm`` of its logits, the ``top`` classes
(``label``, ``probability``, ``logit``), and all ``logits`` by label, which are not published."""


def published_outputs(family: str, stream: str) -> Outputs:
    """Read the published text for ``imagenet`` or ``no_imagenet`` and "rgb", "flow" or "both"."""
    name = f"{family}_{'joint' if stream == 'both' else stream}.txt"
    text = (resources.files("vadis.evaluation") / "sample_outputs" / name).read_text(encoding="utf-8")
    head, _, _, *lines = text.rstrip("\n").split("\n")  # "Norm of logits: 138.468643", "", "Top classes and …"
    fields = (line.split(" ", 2) for line in lines)
    top = [_line(label, probability, logit) for probability, logit, label in fields]
    return {"norm": float(head.removeprefix("Norm of logits: ")), "top": top}


def fetch_sample(streams: tuple[str, ...], *, offline: bool, progress: DownloadProgress) -> dict[str, Path]:
    """Return the sample's arrays in the cache, by stream; raises WeightsError if they cannot be had."""
    hint = 'give the arrays by `rgb="FILE.npy"` and `flow="FILE.npy"`'
    files = [SAMPLE[stream] for stream in streams]
    paths = ensure_downloaded("the sample", files, offline=offline, progress=progress, fallback_hint=hint)
    return dict(zip(streams, paths, strict=True))


def read_array(path: Path, stream: str, min_frames: int) -> SampleArray:
    """Read a preprocessed video (T, 224, 224, C) float32 in [-1, 1] from a ``.npy`` file, with a batch axis or without.

    Raises WeightsError if the file is no array of numbers, and UsageError for another shape or range.
    """
    with os_errors_as(UsageError, f"{path} cannot be read"), path.open("rb") as file:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, MemoryError) as error:
            hint = "give an .npy file that numpy.save wrote, of an array of floating-point numbers"
            raise WeightsError(f"{path} is not a NumPy array of numbers, or is damaged", hint) from error
    if array.ndim == 5 and len(array) == 1:
        array = array[0]
    frame = (CROP, CROP, STREAM_CHANNELS[stream])
    if array.dtype.kind != "f" or array.shape[1:] != frame or len(array) < min_frames:
        raise UsageError(
            f"{path} has {array.dtype} of the shape {array.shape}; the {stream} network needs floating-point numbers "
            f"of the shape (1, T, {', '.join(map(str, frame))}) with at least {min_frames} frames",
            hint=f"crop {CROP} × {CROP} out of each frame; the channels stand last",
        )
    if not np.abs(array).max() <= 1 + 1e-3:  # room for the rounding of float16; also refuses NaN
        hint = "divide pixels by 127.5 and subtract 1; clip flow to 20 pixels and divide by 20"
        raise UsageError(f"the values in {path} are not all in [-1, 1]", hint)
    return np.ascontiguousarray(array, np.float32)


def run_sample(model: Model, arrays: Mapping[str, SampleArray]) -> dict[str, Outputs]:
    """Return what ``model``, an I3D, says of preprocessed arrays: for each stream, and for "both" if there are two."""
    min_frames, size = MODELS[model.card.architecture].min_frames, chunk_frames(model.device)

    def to_input(array: SampleArray, stream: str) -> Tensor:  # (T, 224, 224, C) → (1, C, T, 224, 224)
        return torch.from_numpy(array).permute(3, 0, 1, 2)[None]

    logits = {}
    for stream, array in arrays.items():
        clips = ({stream: array[start : start + size]} for start in range(0, len(array), size))
        steps = over_whole_video(clips, model.only((stream,)), len(array), min_frames=min_frames, to_input=to_input)
        rows = np.stack([found[stream] for _, found in steps])  # (steps, classes)
        logits[stream] = rows.mean(axis=0, dtype=np.float64)
    if len(logits) > 1:
        logits["both"] = np.sum(list(logits.values()), axis=0)
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise WeightsError("the network gave a score that is not a number", hint="the model file may be damaged")
    return {stream: _outputs(values, model.card.labels) for stream, values in logits.items()}


def reproduce_sample(model: Model, paths: Mapping[str, Path]) -> dict[str, Any]:
    """Run a model on preprocessed arrays; return the outcome as plain JSON values, with a ``compare`` for each stream.

    Outputs are published for the sample's own files, recognised by their content, and for some published models.
    Raises UsageError and WeightsError as ``read_array``, or for a model that does not see a video as one clip.
    """
    row = MODELS[model.card.architecture]
    if row.test_window is not None:
        message = f"the sample is for I3D, and {printable(model.card.name)} is {row.title}"
        raise UsageError(message, hint="name another `model`")
    outputs = run_sample(model, {stream: read_array(path, stream, row.min_frames) for stream, path in paths.items()})
    is_sample = all(git_blob_id(path) == SAMPLE[stream].git_blob for stream, path in paths.items())
    name = published_name(model) or model.card.name
    family = WEIGHTS[name].sample_outputs if is_sample and name in WEIGHTS else None
    streams = {
        stream: compare_outputs(ours, published_outputs(family, stream) if family else None, model.card.labels)
        for stream, ours in outputs.items()
    }
    verdicts = [values["passed"] for values in streams.values()]
    passed = None if None in verdicts else all(verdicts)
    about = {"model": model.card.name, "model_sha256": model.sha256, "passed": passed, "tolerance": TOLERANCE}
    return about | {"streams": streams}


def compare_outputs(ours: Outputs, published: Outputs | None, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return ours beside the published, as plain JSON values; "passed" is None where nothing was published.

    It passes where the norm and all published classes' logits agree, and no other class belongs among these.
    """
    values = {**ours, "published": published, "largest_error": None, "passed": None}
    if published is None:
        return values
    logits = dict(zip(labels, ours["logits"], strict=True))
    largest_error = float(max(abs(logits.get(line["label"], -np.inf) - line["logit"]) for line in published["top"]))
    tolerance, names = TOLERANCE * published["top"][0]["logit"], {line["label"] for line in published["top"]}
    best_other = max((line["logit"] for line in ours["top"] if line["label"] not in names), default=-np.inf)
    norm_agrees = abs(ours["norm"] - published["norm"]) <= TOLERANCE * published["norm"]
    others_agree = best_other <= published["top"][-1]["logit"] + tolerance
    passed = largest_error <= tolerance and norm_agrees and others_agree
    return values | {"largest_error": largest_error, "passed": passed}


def _outputs(logits: npt.NDArray[np.float64], labels: tuple[str, ...]) -> Outputs:
    probabilities = softmax(logits)
    top = [_line(labels[index], probabilities[index], logits[index]) for index in best(logits, TOP)]
    return {"norm": float(np.linalg.norm(logits)), "top": top, "logits": logits.tolist()}


def _line(label: str, probability: Any, logit: Any) -> dict[str, Any]:
    return {"label": label, "probability": float(probability), "logit": float(logit)}
