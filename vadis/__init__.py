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
    from vadis.errors import VadisError as VadisError
    from vadis.flow import tvl1 as tvl1
    from vadis.inference.classify import classify as classify
    from vadis.inference.classify import classify_many as classify_many
    from vadis.inference.features import extract_features as extract_features
    from vadis.results import Label as Label
    from vadis.results import Segment as Segment
    from vadis.results import VideoResult as VideoResult
    from vadis.weights.load import load_model as load_model

__version__ = "0.1.0"

_HOMES = {
    "Label": "vadis.results",
    "Segment": "vadis.results",
    "VadisError": "vadis.errors",
    "VideoResult": "vadis.results",
    "classify": "vadis.inference.classify",
    "classify_many": "vadis.inference.classify",
    "extract_features": "vadis.inference.features",
    "load_model": "vadis.weights.load",
    "tvl1": "vadis.flow",
}
"""The public names and where they live."""

__all__ = [
    "Label",
    "Segment",
    "VadisError",
    "VideoResult",
    "__version__",
    "classify",
    "classify_many",
    "extract_features",
    "load_model",
    "tvl1",
]


def __getattr__(name: str) -> _typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
