"""vadis: find out what happens in a video. The networks of Carreira & Zisserman (2017), from file to labels.

A package imports from those before it, never from those behind, in the order in which a video passes through them:
errors, device, parsing, results, files, video, flow, preprocessing, models, weights, inference, formats, batch,
datasets, training, evaluation, report, cli. docs/architecture.md says what each is for. The names here are loaded when
they are first used, because PyTorch takes seconds to import.
"""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from vadis import models as models
    from vadis.batch import read_results
    from vadis.errors import DeviceError, UsageError, VadisError, VideoError, WeightsError
    from vadis.evaluation.frechet import FrechetStatistics, frechet_distance
    from vadis.flow import to_gray, tvl1
    from vadis.inference.classify import classify, classify_many
    from vadis.inference.features import extract_features
    from vadis.inference.predict import Progress
    from vadis.models import Model, ModelCard
    from vadis.results import Label, Part, Piece, Segment, VideoResult
    from vadis.video.isolated.pool import read_frames
    from vadis.weights.load import available_models, load_model

__version__ = "0.1.0"
__all__ = ["DeviceError", "FrechetStatistics", "Label", "Model", "ModelCard", "Part", "Piece", "Progress", "Segment"]
__all__ += ["UsageError", "VadisError", "VideoError", "VideoResult", "WeightsError", "__version__", "available_models"]
__all__ += ["classify", "classify_many", "extract_features", "frechet_distance", "load_model", "models", "read_frames"]
__all__ += ["read_results", "to_gray", "tvl1"]

_HOMES = {
    "batch": {"read_results"},
    "errors": {"DeviceError", "UsageError", "VadisError", "VideoError", "WeightsError"},
    "evaluation.frechet": {"FrechetStatistics", "frechet_distance"},
    "flow": {"to_gray", "tvl1"},
    "inference.classify": {"classify", "classify_many"},
    "inference.features": {"extract_features"},
    "inference.predict": {"Progress"},
    "models": {"Model", "ModelCard"},
    "results": {"Label", "Part", "Piece", "Segment", "VideoResult"},
    "video.isolated.pool": {"read_frames"},
    "weights.load": {"available_models", "load_model"},
}
"""The modules of the public names."""


def __getattr__(name: str) -> _typing.Any:
    if name == "models":
        return _importlib.import_module("vadis.models")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_importlib.import_module(f"vadis.{home}"), name)


def __dir__() -> list[str]:
    return __all__
