"""Features of a video over time: what a layer of the network holds, with the second at which it lies.

By default the 1024 pooled numbers per stream that the last layer sees, one set every 8 frames (0.32 s). A number of the
pooled layer depends on 107 frames (4.28 s) around its time, most of all on those nearest.
"""

import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.files import write_atomic
from vadis.inference.classify import Progress, facts_of, reporter
from vadis.inference.predict import WHOLE_VIDEO, Batches, Sliding, outputs, outputs_together
from vadis.inference.prefetch import Preparation, Prepared, Way, each_prepared, given_or_new
from vadis.models import MODELS, Model
from vadis.models.i3d_inference import FEATURES
from vadis.parsing import parse_json
from vadis.results import VideoResult
from vadis.video.isolated.pool import Decoders
from vadis.weights.load import given_or_loaded

SETTINGS_KEY = "settings"  # of an .npz: JSON text

PathLike = str | os.PathLike[str]
AnyPath = TypeVar("AnyPath", bound=PathLike)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """A layer's outputs over a video.

    ``arrays`` has float32 (steps, channels) by network: "rgb", "flow", or "both" where one takes both streams;
    ``seconds`` float64 (steps,), the centre of each step, counted as in the segments of a record.
    ``record`` says of the video what ``classify`` would, without labels.
    """

    arrays: dict[str, NDArray[np.float32]]
    seconds: NDArray[np.float64]
    layer: str
    record: VideoResult


def extract_features(
    path: PathLike, model: Model | PathLike, **options: Any
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """Features and their times; takes the keywords of ``features_of``, and a model as ``classify`` does.

    Returns:
        By stream float32 (steps, 1024), and float64 (steps,), in seconds.
    """
    found = features_of(path, given_or_loaded(model), **options)
    return found.arrays, found.seconds


def features_of(
    path: PathLike,
    model: Model,
    *,
    layer: str = FEATURES,
    sliding: Sliding = WHOLE_VIDEO,
    flip: bool = False,
    batch_size: int = 0,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = _log.warning,
    decoders: Decoders | None = None,
) -> Features:
    """The outputs of one layer over one video; see ``features_of_many`` for the arguments.

    Raises:
        VideoError: the file cannot be read; ``code`` says why.
        UsageError: for a layer, window, stride or mirror image that cannot be.
    """
    ((_, outcome),) = features_of_many(
        [path],
        model,
        layer=layer,
        sliding=sliding,
        flip=flip,
        batch_size=batch_size,
        jobs=1,
        listed=listed,
        progress=progress,
        notify=notify,
        decoders=decoders,
    )
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome


def features_of_many(
    paths: Iterable[AnyPath],
    model: Model,
    *,
    layer: str = FEATURES,
    sliding: Sliding = WHOLE_VIDEO,
    flip: bool = False,
    batch_size: int = 0,
    jobs: int | None = None,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = _log.warning,
    decoders: Decoders | None = None,
) -> Iterator[tuple[AnyPath, Features | VideoError]]:
    """The outputs of one layer over each video, in order, or why there are none.

    Args:
        paths: of local files; at most ``jobs`` are taken ahead.
        model: from ``load_model``.
        layer: one of the architecture's ``layers``: for I3D the names of DeepMind's endpoints, of which those before
            the pooling are averaged over space.
        sliding: one set per step of the whole video (default), or one per separate window, at its centre.
        flip: averaged with the features of the mirror image.
        batch_size, jobs, listed, progress, notify, decoders: as for ``classify_many``.

    Raises:
        UsageError: for a layer, window, stride or mirror image that cannot be.
    """
    layers = MODELS[model.card.architecture].layers
    if layer not in layers:
        raise UsageError(f"there is no layer named {layer!r}", hint=f"the layers are {', '.join(layers)}")
    sliding.check(MODELS[model.card.architecture])
    model.check_flip(flip)
    batches = Batches(batch_size, model.device)
    how: dict[str, Any] = {"layer": layer, "flip": flip, "notify": notify}

    def work(path: AnyPath, prepared: Prepared) -> Way[Features]:
        streams, clips = prepared.clips(reporter(prepared, progress))
        video, found = prepared.video, []
        expected = prepared.expected_num_frames
        given = outputs_together(clips, video, model, sliding, batches, expected=expected, streams=streams, **how)
        for each in given:
            if each is None:
                yield
            else:
                found.append(each)
        arrays = {name: np.stack([output[name] for _, output in found]) for name in found[0][1]}  # (steps, channels)
        seconds = video.facts.first_seconds + np.array([float(time) for time, _ in found])
        return Features(arrays, seconds, layer, VideoResult(**facts_of(prepared.path, video, model, streams, sliding)))

    with given_or_new(decoders) as decoding:
        begin = partial(Preparation, model=model, decoders=decoding, listed=listed)
        yield from each_prepared(paths, begin, work, model, jobs=jobs, batches=batches, notify=notify)


def mean_features(
    path: PathLike,
    model: Model,
    *,
    start_frame: int = 0,
    max_frames: int | None = None,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
    notify: Callable[[str], None] = _log.warning,
    decoders: Decoders | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What the last layer sees of a video, or of a part of it, averaged over time.

    Args:
        path: a local file.
        model: from ``load_model``.
        start_frame: on the 25 fps grid.
        max_frames: how many at most; None for all to the end.
        listed, progress, notify, decoders: as for ``classify``.

    Returns:
        By network float32 (channels,), 1024 for I3D; the last layer makes the mean of the part's logits of it. One
        frame has no flow.

    Raises:
        VideoError: the file cannot be read; ``code`` says why.
    """

    def work(path: PathLike, prepared: Prepared) -> Way[dict[str, NDArray[np.float32]]]:
        yield from ()  # nothing to wait for: one video, by itself
        streams, clips = prepared.clips(reporter(prepared, progress))
        only, expected = model.only(streams), prepared.expected_num_frames
        given = outputs(clips, prepared.video, only, WHOLE_VIDEO, expected=expected, layer=FEATURES, notify=notify)
        found = list(given)
        return {name: np.mean([output[name] for _, output in found], axis=0) for name in found[0][1]}

    with given_or_new(decoders) as decoding:
        part = partial(Preparation, start_frame=start_frame, max_frames=max_frames, listed=listed)
        begin = partial(part, model=model, decoders=decoding)
        ((_, outcome),) = each_prepared([path], begin, work, model, jobs=1, notify=notify)
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome


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
    with write_atomic(path) as file:
        np.savez(file, allow_pickle=False, **found.arrays, seconds=found.seconds, **texts)


def saved_settings(path: Path) -> dict[str, Any] | None:
    """The settings of a features file; None where ``path`` is no whole features file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            settings = parse_json(str(arrays[SETTINGS_KEY]))
            complete = "seconds" in arrays and "record" in arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # absent, cut off, or another .npz
        return None
    return settings if complete and isinstance(settings, dict) else None
