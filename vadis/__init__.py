"""vadis: find out what happens in a video. The paper's networks (Carreira & Zisserman, 2017), from file to labels.

A video walks through these rooms, in this order:

    errors, device, parsing, notebook, results, atomic, text, memory
                 the floor: what can go wrong, where to compute, JSON from files, what is said of a video (and how a
                 notebook shows it), files whole or not at all, text in the encodings of other systems, memory that
                 runs out
    video        a file on disk → frames in time
    flow         frames → TV-L1 optical flow
    streams      clips → what a network eats
    models       the networks of the paper as tables of rows
    batching     separate windows through the networks, several in one pass
    preparing    videos → cropped clips with their flow, made ahead of the networks
    sliding      how networks move over a video: clips → outputs in time
    weights      where the networks' parameters come from, and DeepMind's published sample
    scores       predictions in time → labels and segments
    inference    the road itself: video → results
    features     what the network holds of a video over time
    formats      results → a row in a file
    batch        many files: the journal by which a run goes on after any end, shards, counts
    cluster      the same on a Ray cluster: what is prepared where, networks in actors
    report       looking at results: a page of an archive, pictures of training runs and of evaluations
    datasets     UCF-101, HMDB-51, Kinetics, plain folders: lists of examples
    training     recipes, clips with augmentation, the loop, checkpoints
    evaluation   the paper's test on a dataset, and its metrics
    cli          the only room that knows the terminal

A room imports from rooms above it, never from below. The names here are loaded when they are first used, because
PyTorch takes seconds to import.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from vadis.errors import VadisError as VadisError
    from vadis.features import extract_features as extract_features
    from vadis.flow import tvl1 as tvl1
    from vadis.inference import classify as classify
    from vadis.inference import classify_many as classify_many
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
    "classify": "vadis.inference",
    "classify_many": "vadis.inference",
    "extract_features": "vadis.features",
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
