"""vadis: find out what happens in a video. The networks of Carreira & Zisserman (2017), from file to labels.

The package is laid out in the order in which a video passes through it:

    errors, device, parsing, results, files
                   what every package uses: errors, the device, JSON and text from files, the record of a video, files
                   that appear whole or not at all
    video          a file on disk → frames in time
    flow           frames → TV-L1 optical flow
    preprocessing  clips → what a network takes
    models         the networks of the paper as tables of rows
    weights        where the networks' parameters come from
    inference      videos → labels or features
    formats        results → a row in a file
    batch          many files: the journal by which a run goes on after any end, shards, counts
    datasets       UCF-101, HMDB-51, Kinetics, plain folders: lists of examples
    training       recipes, clips with augmentation, the loop, checkpoints
    evaluation     the paper's test on a dataset, and its metrics
    report         pages of results and of training runs, annotated videos, plots
    cli            the command line

A package imports from those above it, never from those below. The names here are loaded when they are first used,
because PyTorch takes seconds to import.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from vadis import models as models
    from vadis.errors import DeviceError as DeviceError
    from vadis.errors import UsageError as UsageError
    from vadis.errors import VadisError as VadisError
    from vadis.errors import VideoError as VideoError
    from vadis.errors import WeightsError as WeightsError
    from vadis.flow import to_gray as to_gray
    from vadis.flow import tvl1 as tvl1
    from vadis.inference.classify import classify as classify
    from vadis.inference.classify import classify_many as classify_many
    from vadis.inference.features import extract_features as extract_features
    from vadis.inference.predict import Progress as Progress
    from vadis.models import Model as Model
    from vadis.models import ModelCard as ModelCard
    from vadis.results import Label as Label
    from vadis.results import Segment as Segment
    from vadis.results import VideoResult as VideoResult
    from vadis.video.isolated.pool import read_frames as read_frames
    from vadis.weights.load import available_models as available_models
    from vadis.weights.load import load_model as load_model

__version__ = "0.1.0"

_HOMES = {
    "vadis": ["models"],
    "vadis.errors": ["DeviceError", "UsageError", "VadisError", "VideoError", "WeightsError"],
    "vadis.flow": ["to_gray", "tvl1"],
    "vadis.inference.classify": ["classify", "classify_many"],
    "vadis.inference.features": ["extract_features"],
    "vadis.inference.predict": ["Progress"],
    "vadis.models": ["Model", "ModelCard"],
    "vadis.results": ["Label", "Segment", "VideoResult"],
    "vadis.video.isolated.pool": ["read_frames"],
    "vadis.weights.load": ["available_models", "load_model"],
}
"""The public names and the modules they are in."""

__all__ = sorted(["__version__", *(name for names in _HOMES.values() for name in names)])


def __getattr__(name: str) -> _typing.Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == __name__:
        return _importlib.import_module(f"{home}.{name}")
    return getattr(_importlib.import_module(home), name)


def __dir__() -> list[str]:
    return __all__
