"""Features of a video over time: what a layer of the network holds, with the second at which it lies.

By default the 1024 pooled numbers per stream that the last layer sees, one set every 8 frames (0.32 s). A number of the
pooled layer depends on 107 frames (4.28 s) around its time, most of all on those nearest.
"""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.atomic import temporary_beside
from vadis.errors import UsageError
from vadis.inference import Progress, facts_of, reporter
from vadis.models import MODELS, Model
from vadis.models.folded import FEATURES
from vadis.results import VideoResult
from vadis.sliding import WHOLE_VIDEO, Sliding, outputs, prepared
from vadis.video.reader import open_video

SETTINGS_KEY = "settings"  # of an .npz: JSON text


@dataclass(frozen=True)
class Features:
    """A layer's outputs over a video.

    ``arrays`` has float32 (steps, channels) by network: "rgb", "flow", or "both" where one takes both streams;
    ``seconds`` float64 (steps,), the centre of each step.
    ``record`` says of the video what ``classify`` would, without labels.
    """

    arrays: dict[str, NDArray[np.float32]]
    seconds: NDArray[np.float64]
    layer: str
    record: VideoResult


def extract_features(
    path: str | os.PathLike[str], model: Model, **options: Any
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """Features and their times; takes the keywords of ``features_of``.

    Returns:
        By stream float32 (steps, 1024), and float64 (steps,), in seconds.
    """
    found = features_of(path, model, **options)
    return found.arrays, found.seconds


def features_of(
    path: str | os.PathLike[str],
    model: Model,
    *,
    layer: str = FEATURES,
    sliding: Sliding = WHOLE_VIDEO,
    flip: bool = False,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Features:
    """The outputs of one layer over one video.

    Args:
        path: a local file.
        model: from ``load_model``.
        layer: one of the architecture's ``layers``: for I3D the names of DeepMind's endpoints, of which those before
            the pooling are averaged over space.
        sliding: one set per step of the whole video (default), or one per separate window, at its centre.
        flip: averaged with the features of the mirror image.
        listed: as for ``classify``.
        progress: called whenever the stage changes.

    Raises:
        VideoError: the file cannot be read; ``code`` says why.
        UsageError: for a layer, window or stride that cannot be.
    """
    layers = MODELS[model.card.architecture].layers
    if layer not in layers:
        raise UsageError(f"there is no layer named {layer!r}", hint=f"the layers are {', '.join(layers)}")
    sliding.check(MODELS[model.card.architecture])
    with open_video(path, listed=listed) as video:
        streams, clips = prepared(video, model, reporter(os.fspath(path), video, progress))
        found = list(outputs(clips, video, model.only(streams), sliding, layer=layer, flip=flip))
    arrays = {name: np.stack([output[name] for _, output in found]) for name in found[0][1]}  # (steps, channels)
    seconds = np.array([float(time) for time, _ in found])
    return Features(arrays, seconds, layer, VideoResult(**facts_of(os.fspath(path), video, model, streams, sliding)))


def mean_features(
    path: str | os.PathLike[str],
    model: Model,
    *,
    start_frame: int = 0,
    max_frames: int | None = None,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What the last layer sees of a video, or of a part of it, averaged over time.

    Args:
        path: a local file.
        model: from ``load_model``.
        start_frame: on the 25 fps grid.
        max_frames: how many at most; None for all to the end.
        listed: as for ``classify``.
        progress: called whenever the stage changes.

    Returns:
        By network float32 (channels,), 1024 for I3D; the last layer makes the mean of the part's logits of it. One
        frame has no flow.

    Raises:
        VideoError: the file cannot be read; ``code`` says why.
    """
    with open_video(path, start_frame=start_frame, listed=listed) as video:
        streams, clips = prepared(video, model, reporter(os.fspath(path), video, progress), max_frames=max_frames)
        found = [output for _, output in outputs(clips, video, model.only(streams), WHOLE_VIDEO, layer=FEATURES)]
    return {name: np.mean([output[name] for output in found], axis=0) for name in found[0]}


def settings_of(model: Model, layer: str, sliding: Sliding, flip: bool) -> dict[str, Any]:
    """What decides the numbers, apart from the video: the same settings give the same file."""
    return {
        "model": model.card.name,
        "model_sha256": model.sha256,
        "streams": list(model.card.streams),
        "layer": layer,
        "sliding": sliding.to_json(),
        "flip": flip,
    }


def save_features(found: Features, path: Path, settings: dict[str, Any]) -> None:
    """Write an .npz with an array per stream, ``seconds``, and ``record`` and ``settings`` as JSON text.

    The file appears when it is complete. Raises OSError where the disk refuses.
    """
    texts = {"record": found.record.to_json_line(), SETTINGS_KEY: json.dumps(settings, sort_keys=True)}
    with temporary_beside(path) as (temporary, file):
        np.savez(file, allow_pickle=False, **found.arrays, seconds=found.seconds, **texts)
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)


def saved_settings(path: Path) -> dict[str, Any] | None:
    """The settings of a features file; None where ``path`` is no whole features file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            settings = json.loads(str(arrays[SETTINGS_KEY]))
            complete = "seconds" in arrays and "record" in arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, cut off, or another .npz
        return None
    return settings if complete and isinstance(settings, dict) else None
