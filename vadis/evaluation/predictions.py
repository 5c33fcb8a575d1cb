"""The paper's test of every video of a split (sections 2 and 2.5, table 1), and what the networks predict there.

Predictions are kept in a log, a header with the settings and a line per video, so that an interrupted test goes on.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.batch import PASSING_ERRORS, changes
from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import map_examples, path_below, some
from vadis.errors import UsageError, VideoError
from vadis.files import AppendLog, locked
from vadis.inference.predict import predict
from vadis.inference.prefetch import PendingVideo
from vadis.inference.scores import average_scores
from vadis.models import MODELS, Model
from vadis.models.card import separate_clips
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.weights.load import published_name

PREDICTIONS_NAME = "answers.jsonl"

Logits = NDArray[np.float32]  # (classes,)
VideoPart = tuple[str, float | None]  # path and start: several examples can be parts of one file

RETRIED_ERRORS = PASSING_ERRORS | {"decoder_crash", "timeout", "permission_denied", "too_large"}
"""Codes of errors that lie in the machine, its load or its limits; the next evaluation tries such a video again."""


@dataclass(frozen=True)
class Prediction:
    """What the networks say of one example: logits (classes,) by network, or why there are none."""

    path: str
    label: str
    logits: dict[str, Logits]
    error: str | None = None  # its code, a colon and its message
    start_seconds: float | None = None

    @property
    def key(self) -> VideoPart:
        return printable(self.path), self.start_seconds

    def to_json(self) -> dict[str, Any]:
        """Return one line of the file; logits keep 6 digits."""
        record: dict[str, Any] = {"path": printable(self.path), "label": self.label}
        if self.start_seconds is not None:
            record["start_seconds"] = self.start_seconds
        if self.error is not None:
            return record | {"error": self.error}
        return record | {"logits": {s: [float(f"{x:.6g}") for x in logits] for s, logits in self.logits.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prediction":
        """Return what ``to_json`` gave; raise KeyError, TypeError, ValueError or AttributeError for anything else."""
        logits = {s: np.array(values, np.float32) for s, values in record.get("logits", {}).items()}
        return cls(record["path"], record["label"], logits, record.get("error"), record.get("start_seconds"))


@dataclass
class PredictionFile:
    """Predictions on the disk, by key; made by ``open_predictions``."""

    log: AppendLog
    root: str
    predictions: dict[VideoPart, Prediction] = field(default_factory=dict)
    num_appended: int = 0

    def append(self, prediction: Prediction) -> Prediction:
        """Write one prediction, wholly or not at all, or raise VadisError; return it as it will be read again."""
        record = replace(prediction, path=path_below(prediction.path, self.root)).to_json()
        self.log.append(_line(record))
        kept = Prediction.from_json(record)
        self.predictions[kept.key] = kept
        self.num_appended += 1
        return kept

    def key(self, example: Example) -> VideoPart:
        return printable(path_below(example.path, self.root)), example.start_seconds


@contextmanager
def open_predictions(
    path: Path, settings: Mapping[str, Any], root: str = "", *, go_on: bool = True
) -> Generator[PredictionFile, None, None]:
    """Open a file of predictions, made with its folder if need be, for this process alone.

    A file made with other ``settings`` is refused, or with ``go_on=False`` begun anew. Videos are known by their paths
    below ``root``, the folder of the dataset, however that was named.

    Raises UsageError for a file with other settings, with a damaged line, or of another kind, none of which is changed;
    OutputLockedError where another process has it; VadisError and OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path), AppendLog(path) as log:
        file, content, header = PredictionFile(log, root), path.read_bytes(), _line({"settings": settings})
        is_new = content != header and header.startswith(content)  # or was killed while the header was written
        if not is_new:
            there, file.predictions = parse_predictions(path, content)
            others = changes(there, json.loads(json.dumps(settings)))
            if others and go_on:
                message = f"{log.shown} was made with other settings: {printable(others)}"
                raise UsageError(message, hint="choose another folder")
            is_new = bool(others)
        if is_new:
            file.predictions.clear()
            log.end = 0
            log.append(header)
        yield file


def parse_predictions(path: Path, content: bytes) -> tuple[dict[str, Any], dict[VideoPart, Prediction]]:
    """Return a file's settings and its predictions by key, of equal ones the last; a torn last line is left out.

    Raises UsageError for a file of another kind, and for a damaged line.
    """
    header, *lines = content[: content.rfind(b"\n") + 1].splitlines() or [b""]
    shown = printable(str(path))
    try:
        settings = parse_json(header)["settings"]
        num_classes = len(settings["classes"]) if "classes" in settings else None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{shown} is not a file of predictions", "choose another folder") from error
    predictions = {}
    for number, line in enumerate(lines, 2):
        try:
            found = Prediction.from_json(parse_json(line))
            for row in found.logits.values():
                if row.ndim != 1 or num_classes not in (None, len(row)) or not np.isfinite(row).all():
                    raise ValueError("not a finite number for each class")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "delete this line and evaluate again: its video is then tried once more"
            raise UsageError(f"{shown}, line {number}, is damaged", hint) from error
        predictions[found.key] = found
    return settings, predictions


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode("ascii")


def evaluate(
    examples: Sequence[Example], model: Model, file: PredictionFile, *, flip: bool = False, whole: bool = False
) -> Iterator[Prediction]:
    """Yield a prediction for every example, in order; those that ``file`` lacks are made and written into it.

    ``flip`` and ``whole`` as for ``predict_all``. A video that failed with one of ``RETRIED_ERRORS`` is tried again.
    """
    missing: dict[VideoPart, Example] = {}
    for example in examples:
        known = file.predictions.get(file.key(example))
        if known is None or (known.error or "").partition(":")[0] in RETRIED_ERRORS:
            missing.setdefault(file.key(example), example)
    with closing(predict_all(tuple(missing.values()), model, flip=flip, whole=whole)) as made:
        for example in examples:
            key = file.key(example)
            yield file.predictions[key] if missing.pop(key, None) is None else file.append(next(made))


def predict_all(
    examples: Iterable[Example], model: Model, *, flip: bool = False, whole: bool = False
) -> Generator[Prediction, None, None]:
    """Yield the prediction for every example, in order, or why there is none.

    ``flip``: averaged with the mirror image; ``whole``: of all frames, not of those alone that the paper's test sees.
    """
    row = MODELS[model.card.architecture]

    def average(video: PendingVideo) -> dict[str, Logits]:
        found = [outputs for _, outputs in predict(video, model, flip=flip, snapshots=row.snapshots)]
        logits = {name: average_scores([each[name] for each in found], row.score_fusion) for name in found[0]}
        if not all(np.isfinite(scores).all() for scores in logits.values()):
            raise VideoError("not_finite", "the network gave a score that is not a number")
        return logits

    for example, found in map_examples(examples, model, average, whole=whole):
        error = f"{found.code}: {found.message}" if isinstance(found, VideoError) else None
        logits = {} if isinstance(found, VideoError) else found
        yield Prediction(example.path, example.label, logits, error, example.start_seconds)


def on_whole_frames(model: Model) -> Model:
    """Return the model as it sees frames up to their short side, 256×256 instead of 224×224, fully convolutionally.

    Raise UsageError for what is no I3D: the other networks take one size.
    """
    row = MODELS[model.card.architecture]
    if row.fold is separate_clips:
        message = f"{row.title} sees {row.crop}×{row.crop} and nothing larger"
        raise UsageError(message, "only I3D is convolutional to its end: leave `spatial` out")
    return replace(model, card=replace(model.card, crop=model.card.short_side))


def check_classes(examples: Iterable[Example], model: Model) -> None:
    """Raise UsageError for examples of classes that the model does not know."""
    known = model.card.labels
    if unknown := sorted({example.label for example in examples} - set(known)):
        raise UsageError(
            f"the model {model.card.name} does not know {len(unknown)} classes of the dataset: {some(unknown)}",
            hint=f"it has {len(known)} classes, such as {', '.join(known[:3])}; fine-tune it to these",
        )


def overlap_warning(model: Model, dataset: Dataset) -> str | None:
    """Return a warning where ``model`` learnt from another split of ``dataset``: training and test videos overlap."""
    learnt = model.card.provenance.get("dataset")
    if not isinstance(learnt, dict) or learnt.get("name") != dataset.name or learnt.get("split") == dataset.split:
        return None
    return (
        f"{printable(model.card.name)} was trained on split {learnt.get('split')}, whose training videos include test "
        f"videos of split {dataset.split}: these figures are too good"
    )


def evaluation_settings(
    model: Model, dataset: str, split: int, flip: bool, part: str = "test", *, whole: bool = False
) -> dict[str, Any]:
    """Return what decides the predictions of an evaluation, apart from the videos."""
    architecture = MODELS[model.card.architecture]
    size = model.card.crop
    unlike = [f"on {size}×{size}"] * (size != architecture.crop) + ["on all frames"] * whole
    return {
        **({"unlike_the_paper": unlike} if unlike else {}),
        **({"snapshots": architecture.snapshots} if architecture.snapshots else {}),
        "schema": 2,  # 1 knew videos by their paths as they were typed
        "model": model.card.name,
        "model_sha256": model.sha256,
        "published": published_name(model),
        "architecture": model.card.architecture,
        **{key: value for key, value in model.settings.items() if key in ("streams", "precision")},
        "networks": list(architecture.networks(model.card.streams)),
        "averages": architecture.score_fusion,
        "dataset": dataset,
        "split": split,
        "part": part,
        "frames": None if whole else architecture.test_frames,
        "flip": flip,
        "classes": list(model.card.labels),
    }
