"""Features of a video over time: the outputs of a layer of the network, with the second of each.

By default the 1024 pooled numbers per stream that the last layer sees, one set every 8 frames (0.32 s). A number of the
pooled layer depends on 107 frames (4.28 s) around its time, most of all on those nearest.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.files import write_atomic
from vadis.inference.classify import record_fields
from vadis.inference.predict import WHOLE_VIDEO, Progress, Sliding, predict
from vadis.inference.prefetch import LocalVideo, PendingVideo, map_videos
from vadis.models import MODELS, Model
from vadis.models.i3d_inference import FEATURES
from vadis.parsing import parse_json
from vadis.results import VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import AnyPath
from vadis.weights.load import given_or_loaded


@dataclass(frozen=True)
class Features:
    """A layer's outputs over a video, by network: "rgb", "flow", or "both" where one takes both streams."""

    arrays: dict[str, NDArray[np.float32]]  # (steps, channels)
    seconds: NDArray[np.float64]  # (steps,), the centre of each step, counted as in the segments of a record
    record: VideoResult  # what ``classify`` would say of the video, without labels


def extract_features(
    path: AnyPath,
    model: Model | AnyPath,
    *,
    layer: str = FEATURES,
    window: int | None = None,
    stride: int | None = None,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """Return the outputs of one layer over one video, and their times in seconds, float64 (steps,).

    The outputs are float32 (steps, channels) by network, 1024 channels of I3D's pooled layer. ``layer`` is one of the
    architecture's ``layers``: for I3D the names of DeepMind's endpoints, of which those before the pooling are averaged
    over space. The rest is as for ``classify``; with ``window`` there is one step for each window, at its centre. Raise
    VideoError if the file cannot be read, UsageError for a layer, window, stride or mirror image that cannot be.
    """
    model, sliding = given_or_loaded(model), Sliding(window=window, stride=stride)
    how: dict[str, Any] = {"layer": layer, "sliding": sliding, "flip": flip, "progress": progress}
    ((_, outcome),) = features_of_videos([os.fspath(path)], model, jobs=1, **how)
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome.arrays, outcome.seconds


def features_of_videos(
    paths: Iterable[str],
    model: Model,
    *,
    layer: str = FEATURES,
    sliding: Sliding = WHOLE_VIDEO,
    flip: bool = False,
    batch_size: int = 0,
    jobs: int | None = None,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[str, Features | VideoError]]:
    """Yield the outputs of one layer over each video, in order, or why there are none; see ``extract_features``."""
    layers = MODELS[model.card.architecture].layers
    if layer not in layers:
        raise UsageError(f"there is no layer named {layer!r}", hint=f"the layers are {', '.join(layers)}")
    sliding.check(model.card, batch_size)
    model.check_flip(flip)

    def stack(video: PendingVideo) -> Features:
        steps = predict(video, model, sliding, layer=layer, flip=flip, batch_size=batch_size, progress=progress)
        times, outputs = zip(*steps, strict=True)
        arrays = {name: np.stack([each[name] for each in outputs]) for name in outputs[0]}  # (steps, channels)
        seconds = video.facts.first_seconds + np.array([float(time) for time in times])
        return Features(arrays, seconds, VideoResult(**record_fields(video, model, sliding)))

    with Decoders() as decoders:
        begin = partial(LocalVideo, model=model, decoders=decoders, listed=listed)
        for path, _, outcome in map_videos(paths, begin, stack, model, jobs=jobs):
            yield path, outcome


def settings_of(model: Model, layer: str, sliding: Sliding, flip: bool) -> dict[str, Any]:
    """Return what decides the numbers, apart from the video: the same settings give the same file."""
    return {**model.settings, "layer": layer, "sliding": sliding.to_json(), "flip": flip}


def save_features(features: Features, path: Path, settings: dict[str, Any]) -> None:
    """Write an .npz, whole: an array per stream, ``seconds``, ``record`` and ``settings`` in JSON; raise OSError."""
    texts = {"record": features.record.to_json_line(), "settings": json.dumps(settings, sort_keys=True)}
    with write_atomic(path) as file:
        np.savez(file, allow_pickle=False, **features.arrays, seconds=features.seconds, **texts)


def saved_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of a features file; None where ``path`` is no whole features file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            settings = parse_json(str(arrays["settings"]))
            complete = "seconds" in arrays and "record" in arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, cut off, or another .npz
        return None
    return settings if complete and isinstance(settings, dict) else None
