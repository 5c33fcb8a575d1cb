"""The paper's test: a dataset split through a model, and how often it was right.

Every video is one clip of its first 250 frames at 25 fps (10 s), centre crop, taken whole; the logits of all steps are
averaged, those of the two streams added (paper, section 2.5 and table 1). What the networks said of each video is kept
line by line, so an interrupted evaluation goes on where it stopped, and metrics can be had of it again.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.datasets import Example
from vadis.errors import UsageError, VideoError
from vadis.inference import Progress, reporter
from vadis.models import Model
from vadis.results import printable
from vadis.sliding import WHOLE_VIDEO, outputs, prepared
from vadis.video.reader import open_video

TEST_FRAMES = 250  # 10 s at 25 fps (paper, table 1)
TOP_K = 5
PAPER_TABLE_4: dict[tuple[str, str | None], float] = {
    ("ucf101", "i3d-kinetics400"): 0.980,
    ("ucf101", "i3d-kinetics400-scratch"): 0.976,
    ("ucf101", None): 0.888,
    ("hmdb51", "i3d-kinetics400"): 0.812,
    ("hmdb51", "i3d-kinetics400-scratch"): 0.813,
    ("hmdb51", None): 0.622,
}
"""Top-1 of two-stream I3D on split 1, by dataset and the model that training began from (paper, table 4, row (e)):
full fine-tuning with and without ImageNet before Kinetics, and no pretraining at all."""

Logits = NDArray[np.float32]  # (classes,)


@dataclass(frozen=True)
class Answer:
    """What the networks said of one example: logits (classes,) by stream, or why there are none."""

    path: str
    label: str
    logits: dict[str, Logits]
    error: str | None = None
    start_seconds: float | None = None

    @property
    def key(self) -> tuple[str, float | None]:
        """What tells an example from the others: several can be parts of one file."""
        return printable(self.path), self.start_seconds

    def to_json(self) -> dict[str, Any]:
        """One line of ``answers.jsonl``; logits keep 6 digits."""
        record: dict[str, Any] = {"path": printable(self.path), "label": self.label}
        if self.start_seconds is not None:
            record["start_seconds"] = self.start_seconds
        if self.error is not None:
            return record | {"error": self.error}
        return record | {"logits": {s: [float(f"{x:.6g}") for x in logits] for s, logits in self.logits.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Answer":
        """The answer that ``to_json`` gave."""
        logits = {s: np.array(values, np.float32) for s, values in record.get("logits", {}).items()}
        return cls(record["path"], record["label"], logits, record.get("error"), record.get("start_seconds"))


@dataclass(frozen=True)
class Metrics:
    """How often one column (rgb, flow, or both) was right. Shares are in [0, 1].

    ``confusion`` (classes, classes) counts examples by true class (row) and first answer (column).
    """

    num_examples: int
    top1: float
    top5: float
    mean_class: float  # accuracy averaged over classes, each counting alike
    confusion: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """The figures, without the confusion matrix."""
        figures = {"top1": self.top1, "top5": self.top5, "mean_class": self.mean_class}
        return {"num_examples": self.num_examples, **{name: round(value, 6) for name, value in figures.items()}}


def answer(
    example: Example, model: Model, *, flip: bool = False, progress: Callable[[Progress], None] | None = None
) -> Answer:
    """What ``model`` says of one example, by the paper's test; a video that cannot be read gives the reason."""
    rate = model.card.frame_rate
    start = round((example.start_seconds or 0) * rate)
    count = TEST_FRAMES
    if example.end_seconds is not None:
        count = min(count, max(1, round(example.end_seconds * rate) - start))
    try:
        with open_video(example.path, start_frame=start, listed=True) as video:
            streams, clips = prepared(video, model, reporter(example.path, video, progress), max_frames=count)
            found = list(outputs(clips, video, model.only(streams), WHOLE_VIDEO, flip=flip))
    except VideoError as error:
        return Answer(example.path, example.label, {}, f"{error.code}: {error.message}", example.start_seconds)
    logits = {stream: np.mean([output[stream] for _, output in found], axis=0) for stream in streams}
    return Answer(example.path, example.label, logits, None, example.start_seconds)


def metrics(answers: Sequence[Answer], classes: Sequence[str], streams: tuple[str, ...]) -> dict[str, Metrics]:
    """Metrics of each stream and, where there are several, of their sum as ``both``.

    Videos that could not be read, and single frames in columns with flow, count as wrong answers of no class: they
    lower the accuracies and stand in no column of the confusion matrix.
    """
    columns: dict[str, tuple[str, ...]] = {stream: (stream,) for stream in streams}
    if len(streams) > 1:
        columns["both"] = streams
    return {name: _metrics(answers, classes, needed) for name, needed in columns.items()}


def _metrics(answers: Sequence[Answer], classes: Sequence[str], needed: tuple[str, ...]) -> Metrics:
    place = {label: index for index, label in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    totals, in_top5 = np.zeros(len(classes), np.int64), 0
    for each in answers:
        truth = place[each.label]
        totals[truth] += 1
        if all(stream in each.logits for stream in needed):
            logits = np.sum([each.logits[stream] for stream in needed], axis=0)
            ranked = np.argsort(-logits, kind="stable")
            confusion[truth, ranked[0]] += 1
            in_top5 += int(truth in ranked[:TOP_K])
    right, there = np.diag(confusion), totals > 0
    mean_class = float((right[there] / totals[there]).mean()) if there.any() else 0.0
    count = max(len(answers), 1)
    return Metrics(len(answers), float(right.sum() / count), in_top5 / count, mean_class, confusion)


def confusion_csv(found: Metrics, classes: Sequence[str]) -> str:
    """The confusion matrix with its names: a row per true class, a column per first answer."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["true class", *classes])
    lines.writerows([name, *map(int, row)] for name, row in zip(classes, found.confusion, strict=True))
    return text.getvalue()


def check_classes(examples: Iterable[Example], model: Model) -> None:
    """Raise UsageError for examples of classes that the model does not know."""
    known = set(model.card.labels)
    unknown = sorted({example.label for example in examples} - known)
    if unknown:
        named = ", ".join(map(printable, unknown[:5]))
        raise UsageError(
            f"the model {model.card.name} has no class for {len(unknown)} classes of the dataset: {named}",
            hint=f"it has {len(known)} classes, such as {', '.join(model.card.labels[:3])}; fine-tune it to these",
        )


class AnswerFile:
    """Answers on the disk, line by line after a header with the settings; a torn last line is cut off and done again.

    Args:
        path: appears with the first answer.
        settings: what decides the answers; a file made with others is refused.

    Raises:
        UsageError: for a file with other settings, or that is no answer file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, dict(settings)
        self.answers = {answer.key: answer for answer in self._read()}

    def append(self, found: Answer) -> None:
        """Write one answer, whole."""
        self._write(found.to_json())
        self.answers[found.key] = found

    def _read(self) -> Iterator[Answer]:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"settings": self._settings})
            return
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(self._path, len(whole))
        header, *lines = whole.splitlines() or [b"{}"]
        self._check(header)
        yield from (Answer.from_json(json.loads(line)) for line in lines)

    def _check(self, header: bytes) -> None:
        try:
            there = json.loads(header)["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{self._path} is not a file of answers", hint="choose another folder") from error
        wanted = json.loads(json.dumps(self._settings))
        if there != wanted:
            other = [key for key in wanted if there.get(key) != wanted[key]]
            said = "; ".join(f"{key} was {there.get(key)}, is {wanted[key]}" for key in other)
            raise UsageError(f"{self._path} was made with other settings: {said}", hint="choose another folder")

    def _write(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(record, allow_nan=False) + "\n").encode("ascii")
        with self._path.open("ab", buffering=0) as file:
            file.write(line)


def evaluate(
    examples: Sequence[Example],
    model: Model,
    file: AnswerFile,
    *,
    flip: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Answer]:
    """An answer for every example, in order; those that ``file`` holds are not asked for again, new ones go into it."""
    check_classes(examples, model)
    for example in examples:
        known = file.answers.get((printable(example.path), example.start_seconds))
        if known is None:
            known = answer(example, model, flip=flip, progress=progress)
            file.append(known)
        yield known


def settings_of(model: Model, dataset: str, split: int, flip: bool) -> dict[str, Any]:
    """What decides the answers of an evaluation, apart from the videos."""
    return {
        "schema": 1,
        "model": model.card.name,
        "model_sha256": model.sha256,
        "streams": list(model.card.streams),
        "dataset": dataset,
        "split": split,
        "frames": TEST_FRAMES,
        "flip": flip,
        "classes": list(model.card.labels),
    }
