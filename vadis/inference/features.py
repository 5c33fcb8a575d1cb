"""Features of a video over time: the outputs of a layer of the network, with the second of each.

By default the 1024 pooled numbers per stream that the last layer sees, one set every 8 frames (0.32 s). A number of the
pooled layer depends on 107 frames (4.28 s) around its time, most of all on those nearest.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vadis.errors import UsageError, VideoError
from vadis.files import write_atomic, write_file
from vadis.inference.classify import record_fields
from vadis.inference.predict import WHOLE_VIDEO, Progress, Sliding, predict, window_of
from vadis.inference.prefetch import GRID, LocalVideo, Sampling, map_videos
from vadis.models import MODELS, Model
from vadis.models.i3d import frames_per_step, receptive_field
from vadis.models.i3d_inference import FEATURES
from vadis.parsing import parse_json
from vadis.results import Part, VideoResult, part_of
from vadis.video.isolated.pool import Decoders
from vadis.video.metadata import AnyPath
from vadis.video.timegrid import GRID_FPS
from vadis.weights.load import ensure_model


@dataclass(frozen=True)
class Features:
    """A layer's outputs over a video, by network: "rgb", "flow", or "both" where one takes both streams."""

    arrays: dict[str, NDArray[np.float32]]  # (steps, channels), or (steps, crops, channels)
    seconds: NDArray[np.float64]  # (steps,), the centre of each step, counted as in the segments of a record
    record: VideoResult  # what ``classify`` would say of the video, without labels
    timing: dict[str, Any] = field(default_factory=dict)  # see ``_timing``


class Look(NamedTuple):
    """What is looked at, and how; see ``extract_features``."""

    layer: str = FEATURES
    sliding: Sliding = WHOLE_VIDEO
    flip: bool = False
    sampling: Sampling = GRID
    part: Part | None = None


class Layout(NamedTuple):
    """How features are kept: the form of the files, and the numbers in them."""

    form: str = "npz"  # one file with all of it, or "npy", arrays alone with a JSON file beside them
    join: bool = False  # RGB and flow as one array, in this order along the channels
    dtype: str = "float32"  # or "float16"


NPZ = Layout()


def extract_features(
    path: AnyPath,
    model: Model | AnyPath,
    *,
    layer: str = FEATURES,
    window: int | None = None,
    stride: int | None = None,
    flip: bool = False,
    fps: int | None = GRID_FPS,
    resize: str = "short256",
    crops: int = 1,
    start: float | None = None,
    end: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float64]]:
    """Return the outputs of one layer over one video, and their times in seconds, float64 (steps,).

    The outputs are float32 (steps, channels) by network, 1024 channels of I3D's pooled layer. ``layer`` is one of the
    architecture's ``layers``: for I3D the names of DeepMind's endpoints, of which those before the pooling are averaged
    over space. ``fps`` frames per second are seen, or with None those of the file; ``resize`` is "short256", or
    "square224" for the whole picture; of 3 or 10 ``crops`` the outputs are (steps, crops, channels). The rest is as for
    ``classify``; with ``window`` there is one step for each window, at its centre.
    """
    look = Look(layer, Sliding(window=window, stride=stride), flip, Sampling(fps, resize, crops), part_of(start, end))
    ((_, outcome),) = features_of_videos([os.fspath(path)], ensure_model(model), look, jobs=1, progress=progress)
    if isinstance(outcome, VideoError):
        raise outcome
    return outcome.arrays, outcome.seconds


def features_of_videos(
    paths: Iterable[str],
    model: Model,
    look: Look = Look(),  # noqa: B008 (a tuple)
    *,
    batch_size: int = 0,
    jobs: int | None = None,
    listed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[tuple[str, Features | VideoError]]:
    """Yield the outputs of one layer over each video, in order, or why there are none."""
    layer, sliding, flip, sampling, part = look
    layers = MODELS[model.card.architecture].layers
    if layer not in layers:
        raise UsageError(f"there is no layer named {layer!r}", hint=f"the layers are {', '.join(layers)}")
    sliding.check(model.card, batch_size)
    sampling.check()
    model.check_flip(flip or sampling.crops == 10)
    if flip and sampling.crops == 10:
        raise UsageError("ten crops have the mirror images among them", "leave `flip` out")
    how: dict[str, Any] = {"layer": layer, "flip": flip, "crops": sampling.crops, "batch_size": batch_size}

    def stack(video: LocalVideo) -> Features:
        times, outputs = zip(*predict(video, model, sliding, **how, progress=progress), strict=True)
        arrays = {name: np.stack([each[name] for each in outputs]) for name in outputs[0]}  # (steps, channels)
        frames = np.array([float(time * model.card.frame_rate) for time in times])  # the centres
        seconds = video.facts.first_seconds + video.seconds_of(frames)
        record = VideoResult(**record_fields(video, model, sliding), part=part)
        return Features(arrays, seconds, record, _timing(video, model, look))

    with Decoders() as decoders:
        begin = partial(LocalVideo, model=model, decoders=decoders, listed=listed, sampling=sampling, part=part)
        for path, _, outcome in map_videos(paths, begin, stack, model, jobs=jobs):
            yield path, outcome


def settings_of(model: Model, look: Look = Look(), layout: Layout = NPZ) -> dict[str, Any]:  # noqa: B008
    """Return what decides the numbers, apart from the video: the same settings give the same file."""
    layer, sliding, flip, sampling, part = look
    about = {**sampling._asdict(), "fps": sampling.fps or "native", **layout._asdict(), **(part or Part())._asdict()}
    return {**model.settings, "layer": layer, "sliding": sliding.to_json(), "flip": flip, **about}


def save_features(features: Features, target: Path, settings: dict[str, Any], layout: Layout = NPZ) -> None:
    """Write features, each file whole; raise OSError, and VideoError for what this layout does not hold.

    An .npz has an array for each stream, or ``joined``, ``seconds``, ``timing``, ``record`` and
    ``settings``, the last three as JSON text. An .npy has one array; beside them lies the rest as JSON, written last.
    Not joined, they are named as video_features names them, with ``fps``, and ``timestamps_ms`` where windows end.
    """
    arrays = {name: _as_type(array, layout.dtype) for name, array in features.arrays.items()}
    if layout.join:
        if list(features.record.streams) != settings["streams"]:
            raise VideoError("too_short", "the video has one frame, without optical flow that could be joined")
        arrays = {"joined": np.concatenate(list(arrays.values()), axis=-1)}
    timing, record = features.timing, features.record.to_json()
    if layout.form == "npz":
        texts = {"timing": json.dumps(timing), "record": json.dumps(record, allow_nan=False)}
        texts["settings"] = json.dumps(settings, sort_keys=True)
        with write_atomic(target) as file:
            np.savez(file, allow_pickle=False, **arrays, seconds=features.seconds, **texts)
        return
    if not layout.join:
        ends = features.seconds + timing["receptive_field"] / 2 / timing["frame_rate"]
        arrays |= {"fps": np.array(timing["frame_rate"]), "timestamps_ms": 1000 * ends}
    files = {target.with_name(target.stem + f"_{name}" * (not layout.join) + ".npy"): name for name in arrays}
    target.unlink(missing_ok=True)  # which may describe arrays of other settings
    for path, name in files.items():
        with write_atomic(path) as file:
            np.save(file, arrays[name], allow_pickle=False)
    described = {"seconds": features.seconds.tolist(), **timing, "record": record, "settings": settings}
    described["files"] = sorted(path.name for path in files)
    write_file(target, json.dumps(described, allow_nan=False) + "\n")


def _timing(video: LocalVideo, model: Model, look: Look) -> dict[str, Any]:
    """Return the frames per second, and in frames the distance of steps and how many a step depends on."""
    facts, fps, window = video.facts, look.sampling.fps, window_of(model, look.sliding)
    rate = float(fps or facts.source_fps or (facts.num_frames or 1) / (facts.duration_seconds or 1))
    if window is not None:
        return {"frame_rate": rate, "stride": look.sliding.stride or window, "receptive_field": window}
    depends = receptive_field(look.layer)[0]
    return {"frame_rate": rate, "stride": frames_per_step(look.layer), "receptive_field": depends}


def _as_type(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    if not np.isfinite(found).all():
        raise VideoError("not_finite", f"its features have numbers that {dtype} does not hold", "take float32")
    return found


def saved_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of features, by their .npz, or the JSON beside an .npy; None where there are none, whole."""
    try:
        if path.suffix == ".json":
            described = parse_json(path.read_text(encoding="utf-8"))
            settings = described["settings"]
            complete = "seconds" in described and all(path.with_name(name).is_file() for name in described["files"])
        else:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                settings = parse_json(str(arrays["settings"]))
                complete = "seconds" in arrays and "record" in arrays
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):  # absent, cut off, another file
        return None
    return settings if complete and isinstance(settings, dict) else None
