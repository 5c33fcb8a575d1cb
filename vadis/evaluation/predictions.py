"""The paper's test of every video of a split, and what the networks predict there, kept line by line.

Of every video the first 250 frames at 25 fps (10 s; the 3D-ConvNet: 240), centre crop. I3D takes them whole, the other
architectures in windows of their own; the predictions over time are averaged, then those of the streams (paper,
sections 2 and 2.5, table 1).

The file of predictions is a log (``vadis.files``): a header with the settings, then a line for each video, so that an
interrupted evaluation goes on where it stopped.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.batch.journal import PASSING_ERRORS
from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import path_below, tested_part
from vadis.errors import UsageError, VideoError
from vadis.files import AppendLog, locked
from vadis.inference.predict import Progress, predict
from vadis.inference.prefetch import LocalVideo, PendingVideo, map_videos
from vadis.inference.scores import average_scores
from vadis.models import MODELS, Model
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.video.isolated.pool import Decoders
from vadis.weights.load import published_name

PREDICTIONS_NAME = "answers.jsonl"

Logits = NDArray[np.float32]  # (classes,)
Key = tuple[str, float | None]

RETRIED_ERRORS = PASSING_ERRORS | {"decoder_crash", "timeout", "permission_denied", "too_large"}
"""Codes of errors that lie in the machine, its load or its limits; the next evaluation tries such a video again."""


@dataclass(frozen=True)
class Prediction:
    """What the networks say of one example: logits (classes,) by network, or why there are none."""

    path: str
    label: str
    logits: dict[str, Logits]
    error: str | None = None
    start_seconds: float | None = None

    @property
    def key(self) -> Key:
        """What tells an example from the others: several can be parts of one file."""
        return printable(self.path), self.start_seconds

    @property
    def is_final(self) -> bool:
        """Whether trying again would give the same."""
        return self.error is None or self.error.partition(":")[0] not in RETRIED_ERRORS

    def to_json(self) -> dict[str, Any]:
        """One line of the file; logits keep 6 digits."""
        record: dict[str, Any] = {"path": printable(self.path), "label": self.label}
        if self.start_seconds is not None:
            record["start_seconds"] = self.start_seconds
        if self.error is not None:
            return record | {"error": self.error}
        return record | {"logits": {s: [float(f"{x:.6g}") for x in logits] for s, logits in self.logits.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prediction":
        """The prediction that ``to_json`` gave; raises KeyError, TypeError, ValueError or AttributeError otherwise."""
        logits = {s: np.array(values, np.float32) for s, values in record.get("logits", {}).items()}
        return cls(record["path"], record["label"], logits, record.get("error"), record.get("start_seconds"))


class PredictionFile:
    """Predictions on the disk; made by ``open_predictions``.

    Attributes:
        predictions: by their keys, what the file holds.
        num_appended: how many of them are new.
    """

    def __init__(self, log: AppendLog, settings: Mapping[str, Any], root: str | None) -> None:
        self.predictions: dict[Key, Prediction] = {}
        self.num_appended, self._log, self._root = 0, log, root
        content, header = log.path.read_bytes(), _line({"settings": settings})
        if content != header and header.startswith(content):  # new, or killed while the header was written
            log.end = 0
            log.append(header)
            return
        there, self.predictions = parse_predictions(log.path, content)
        wanted = json.loads(json.dumps(settings))
        if there != wanted:
            other = [key for key in dict.fromkeys((*wanted, *there)) if there.get(key) != wanted.get(key)]
            said = "; ".join(_change(key, there.get(key), wanted.get(key)) for key in other)
            raise UsageError(f"{log.shown} was made with other settings: {said}", hint="choose another folder")

    def append(self, prediction: Prediction) -> Prediction:
        """Write one prediction, wholly or not at all; return it as it will be read again.

        Raises:
            OSError: where the disk does not take it; the file is then as before.
            VadisError: where the file was removed or replaced.
        """
        record = replace(prediction, path=self._path_of(prediction.path)).to_json()
        self._log.append(_line(record))
        kept = Prediction.from_json(record)
        self.predictions[kept.key] = kept
        self.num_appended += 1
        return kept

    def key(self, example: Example) -> Key:
        """Return what an example's prediction is found by."""
        return printable(self._path_of(example.path)), example.start_seconds

    def _path_of(self, path: str) -> str:
        return path if self._root is None else path_below(path, self._root)


@contextmanager
def open_predictions(
    path: Path, settings: Mapping[str, Any], root: str | None = None
) -> Generator[PredictionFile, None, None]:
    """A file of predictions, made with its folder if need be, for this process alone.

    Args:
        path: of the file.
        settings: what decides the predictions; a file made with others is refused.
        root: the folder of the dataset; a video is known by its path below it, however that folder was named. None:
            by its path as it is.

    Raises:
        UsageError: for a file with other settings, with a damaged line, or of another kind, none of which is changed.
        OutputLockedError: where another process has it.
        VadisError, OSError: where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path), AppendLog(path) as log:
        yield PredictionFile(log, settings, root)


def parse_predictions(path: Path, content: bytes) -> tuple[dict[str, Any], dict[Key, Prediction]]:
    """Return a file's settings and its predictions by key, of equal ones the last; a torn last line is left out.

    Raises:
        UsageError: for a file of another kind, and for a damaged line.
    """
    header, *lines = content[: content.rfind(b"\n") + 1].splitlines() or [b""]
    try:
        settings = parse_json(header)["settings"]
        num_classes = len(settings["classes"]) if "classes" in settings else None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{printable(str(path))} is not a file of predictions", hint="choose another folder"
        ) from error
    predictions = {}
    for number, line in enumerate(lines, 2):
        try:
            found = Prediction.from_json(parse_json(line))
            is_sound = all(_is_finite_row(row, num_classes) for row in found.logits.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            is_sound = False
        if not is_sound:
            hint = "delete this line and evaluate again: its video is then tried once more"
            raise UsageError(f"{printable(str(path))}, line {number}, is damaged", hint=hint)
        predictions[found.key] = found
    return settings, predictions


def _is_finite_row(logits: Logits, length: int | None) -> bool:
    return logits.ndim == 1 and length in (None, len(logits)) and bool(np.isfinite(logits).all())


def discard_of_other_model(path: Path, settings: Mapping[str, Any]) -> None:
    """Remove a file of predictions that differs from ``settings`` in the model file alone: it has been replaced.

    Raises:
        UsageError: as ``parse_predictions``.
        OSError: where the file cannot be removed.
    """
    if path.exists():
        there, wanted = parse_predictions(path, path.read_bytes())[0], json.loads(json.dumps(settings))
        if {**there, "model_sha256": None} == {**wanted, "model_sha256": None} and there != wanted:
            path.unlink()


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, allow_nan=False) + "\n").encode("ascii")


def _change(key: str, before: object, now: object) -> str:
    if key == "classes":
        return f"{key} were others"
    was, is_ = (", ".join(map(str, each)) if isinstance(each, list) else str(each) for each in (before, now))
    return printable(f"{key} was {was}, is {is_}")


def evaluate(
    examples: Sequence[Example],
    model: Model,
    file: PredictionFile,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction for every example, in order; those that ``file`` lacks are made and written into it.

    A video that failed with one of ``RETRIED_ERRORS`` is tried again. ``jobs`` as for ``classify_many``.

    Raises:
        UsageError: for examples of classes that the model does not know.
        VadisError: where the disk does not take a prediction.
    """
    check_classes(examples, model)
    missing: dict[Key, Example] = {}
    for example in examples:
        known = file.predictions.get(file.key(example))
        if known is None or not known.is_final:
            missing.setdefault(file.key(example), example)
    with closing(predict_all(tuple(missing.values()), model, flip=flip, progress=progress, jobs=jobs)) as made:
        for example in examples:
            key = file.key(example)
            yield file.predictions[key] if missing.pop(key, None) is None else file.append(next(made))


def predict_all(
    examples: Iterable[Example],
    model: Model,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> Generator[Prediction, None, None]:
    """Yield the prediction for every example, in order; ``jobs`` as for ``classify_many``.

    Of a video that cannot be read it gives the reason.
    """
    averages = MODELS[model.card.architecture].score_fusion

    def average(video: PendingVideo) -> dict[str, Logits]:
        found = [outputs for _, outputs in predict(video, model, flip=flip, progress=progress)]
        logits = {name: average_scores([each[name] for each in found], averages) for name in found[0]}
        if not all(np.isfinite(row).all() for row in logits.values()):
            raise VideoError("not_finite", "the network gave a score that is not a number")
        return logits

    with Decoders() as decoders:
        begin = partial(_begin, model, decoders)
        for example, _, found in map_videos(examples, begin, average, model, jobs=jobs):
            error = f"{found.code}: {found.message}" if isinstance(found, VideoError) else None
            logits = {} if isinstance(found, VideoError) else found
            yield Prediction(example.path, example.label, logits, error, example.start_seconds)


def _begin(model: Model, decoders: Decoders, example: Example) -> LocalVideo:
    """The part of an example's video that the test looks at, begun."""
    rate, count = model.card.frame_rate, MODELS[model.card.architecture].test_frames
    start, count = tested_part(example, decoders, rate, count)
    return LocalVideo(example.path, model, decoders, listed=True, start_frame=start, max_frames=count)


def check_classes(examples: Iterable[Example], model: Model) -> None:
    """Raise UsageError for examples of classes that the model does not know."""
    unknown = sorted({example.label for example in examples} - set(model.card.labels))
    if unknown:
        named = ", ".join(map(printable, unknown[:5]))
        raise UsageError(
            f"the model {model.card.name} does not know {len(unknown)} classes of the dataset: {named}",
            hint=f"it has {len(model.card.labels)} classes, such as {', '.join(model.card.labels[:3])}; "
            "fine-tune it to these",
        )


def part_warning(dataset: Dataset, part: str) -> str | None:
    """What has to be said of figures of a split that is not "test"."""
    if part == "test":
        return None
    chosen = "" if "test" in dataset.splits else f"{dataset.name} has no test split here: "
    warning = {
        "val": "training may have chosen its learning rate by these videos",
        "train": "a model knows the videos that it learnt from, so this is no test",
    }
    return f"{chosen}tested on {part}; {warning.get(part, 'not the test split')}"


def overlap_warning(model: Model, dataset: Dataset) -> str | None:
    """A warning where ``model`` learnt from another split of ``dataset``: their training and test videos overlap."""
    learnt = model.card.provenance.get("dataset")
    if not isinstance(learnt, dict) or learnt.get("name") != dataset.name or learnt.get("split") == dataset.split:
        return None
    return (
        f"{printable(model.card.name)} was trained on split {learnt.get('split')}, whose training videos include test "
        f"videos of split {dataset.split}: these figures are too good"
    )


def evaluation_settings(model: Model, dataset: str, split: int, flip: bool, part: str = "test") -> dict[str, Any]:
    """What decides the predictions of an evaluation, apart from the videos."""
    architecture = MODELS[model.card.architecture]
    return {
        "schema": 2,  # 1 knew videos by their paths as they were typed
        "model": model.card.name,
        "model_sha256": model.sha256,
        "published": published_name(model),
        "architecture": model.card.architecture,
        "streams": list(model.card.streams),
        "networks": list(architecture.networks(model.card.streams)),
        "averages": architecture.score_fusion,
        "dataset": dataset,
        "split": split,
        "part": part,
        "frames": architecture.test_frames,
        "flip": flip,
        "classes": list(model.card.labels),
    }
