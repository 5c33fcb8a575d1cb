"""The paper's test of every video of a split (sections 2 and 2.5, table 1), and how often it is right.

Predictions are records in a journal (``vadis.batch``), so that an interrupted test goes on; metrics.json and its tables
say how often they are right over all, by class, and what is taken for what.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vadis.batch import HEADER_KEY, TRANSIENT_ERRORS, Journal, open_journal, results_files, results_in
from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import counted, map_examples, path_below, shorten
from vadis.errors import UsageError, VideoError
from vadis.evaluation.paper_tables import ALL_SPLITS, Cell
from vadis.files import os_errors_as, write_file
from vadis.formats import csv_line
from vadis.inference.classify import record_fields
from vadis.inference.predict import WHOLE_VIDEO, Progress, predict
from vadis.inference.prefetch import PendingVideo
from vadis.inference.scores import average_scores, fuse_streams
from vadis.models import BOTH, MODELS, Model
from vadis.models.card import separate_clips
from vadis.parsing import parse_json
from vadis.results import VideoResult, printable
from vadis.weights.load import published_name

PREDICTIONS_NAME = "answers.jsonl"

Logits = NDArray[np.float32]  # (classes,)

RETRIED_ERRORS = TRANSIENT_ERRORS | {"decoder_crash", "timeout", "permission_denied", "too_large"}
"""Codes of errors that lie in the machine, its load or its limits; the next evaluation tries such a video again."""

TOP_K = 5
FIGURES = ("top1", "top5", "mean_class")
METRICS_NAME = "metrics.json"
TEST_SETTINGS = ("dataset", "split", "part", "model", "architecture", "streams", "networks", "averages", "classes")


@dataclass(frozen=True)
class Prediction(VideoResult):
    """A record of an example, by ``name_of`` it, with its class and the logits (classes,) of each network."""

    label: str = ""
    logits: dict[str, Logits] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return one line of the file; logits keep 6 digits."""
        logits = {name: [float(f"{x:.6g}") for x in row] for name, row in self.logits.items()}
        return super().to_json() | {"label": self.label} | ({"logits": logits} if logits else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Prediction":
        """Return what ``to_json`` gave; raise ValueError, TypeError or AttributeError for anything else."""
        logits = {name: np.array(row, np.float32) for name, row in record.get("logits", {}).items()}
        if not all(row.ndim == 1 and np.isfinite(row).all() for row in logits.values()):
            raise ValueError("not a finite number for each class")
        return cls(**vars(super().from_json(record)) | {"label": str(record.get("label")), "logits": logits})


def name_of(example: Example, root: str) -> str:
    """Return what an example is known by: its path below the folder of the dataset, and where it begins in the file."""
    name = path_below(example.path, root)
    return name if example.start_seconds is None else f"{name}#t={example.start_seconds}"


@contextmanager
def open_predictions(path: Path, settings: Mapping[str, Any], *, go_on: bool = True) -> Iterator[Journal]:
    """Open the journal of an evaluation; one of other ``settings`` is refused, or with ``go_on=False`` begun anew.

    Raises UsageError for a file with other settings, or of another kind, neither of which is changed; and as
    ``open_journal``.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(path))
        try:
            journal.begin(settings, {})
        except UsageError as error:
            if go_on:
                raise UsageError(error.message, "choose another folder") from error
            stack.close()
            journal = stack.enter_context(open_journal(path, overwrite=True))
            journal.begin(settings, {})
        yield journal


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of an evaluation; raise UsageError for a file of another kind."""
    shown = printable(str(path))
    with os_errors_as(UsageError, f"{shown} cannot be read"), path.open("rb") as file:
        header = file.readline()
    try:
        return dict(parse_json(header)[HEADER_KEY]["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{shown} is not a file of predictions", "choose another folder") from error


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Return the last prediction for each name; raise UsageError for a damaged line; a torn last one is left out."""
    return {each.path: each for each in results_in(path, Prediction) if isinstance(each, Prediction)}


def pending(examples: Iterable[Example], journal: Journal, root: str) -> list[Example]:
    """Return the examples without a prediction that counts, each once: one that failed for a moment does not."""
    known = {name for name, entry in journal.entries.items() if entry.error_code not in RETRIED_ERRORS}
    missing = {name_of(example, root): example for example in examples}
    return [example for name, example in missing.items() if name not in known]


def predict_all(
    examples: Iterable[Example],
    model: Model,
    root: str = "",
    *,
    flip: bool = False,
    whole: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Generator[Prediction, None, None]:
    """Yield the prediction for every example of a dataset in ``root``, in order, or why there is none.

    ``flip``: averaged with the mirror image; ``whole``: of all frames, not of those alone that the paper's test sees.
    """
    row = MODELS[model.card.architecture]

    def average(video: PendingVideo) -> Prediction:
        how: dict[str, Any] = {"flip": flip, "snapshots": row.snapshots, "progress": progress}
        found = [outputs for _, outputs in predict(video, model, **how)]
        logits = {name: average_scores([each[name] for each in found], row.score_fusion) for name in found[0]}
        if not all(np.isfinite(scores).all() for scores in logits.values()):
            raise VideoError("not_finite", "the network gave a score that is not a number")
        return Prediction(**record_fields(video, model, WHOLE_VIDEO), logits=logits)

    for example, found in map_examples(examples, model, average, whole=whole):
        name = name_of(example, root)
        if isinstance(found, VideoError):
            error: dict[str, Any] = {"error_code": found.code, "error_message": found.message}
            found = Prediction(name, "error", **error)
        yield replace(found, path=name, label=example.label)


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
            f"the model {model.card.name} does not know {len(unknown)} classes of the dataset: {shorten(unknown)}",
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


# --- how often they are right -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metrics:
    """How often one column (rgb, flow, or both) was right. Shares are in [0, 1]."""

    num_examples: int
    top1: float
    top5: float
    mean_class: float  # accuracy averaged over classes, each counting alike
    confusion: NDArray[np.int64]  # (classes, classes): examples by true class (row) and predicted class (column)
    totals: NDArray[np.int64]  # (classes,): all examples of a class, those without a prediction too

    def accuracies(self) -> NDArray[np.float64]:
        """Return them by class, (classes,); NaN for those without an example."""
        shares = np.full(self.totals.shape, np.nan)
        return np.asarray(np.divide(np.diag(self.confusion), self.totals, out=shares, where=self.totals > 0))

    def classes_met(self) -> NDArray[np.intp]:
        """Return the indices of the classes that have an example or were predicted."""
        return np.flatnonzero((self.totals > 0) | self.confusion.any(axis=0))

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the figures, without the confusion matrix; ``per_class``: accuracies, null without an example."""
        figures = {name: round(getattr(self, name), 6) for name in FIGURES}
        accuracies = [None if np.isnan(share) else round(share, 6) for share in self.accuracies().tolist()]
        per_class = dict(zip(classes, accuracies, strict=True))
        return {"num_examples": self.num_examples, **figures, "per_class": per_class}


def measure(
    predictions: Sequence[Prediction], classes: Sequence[str], networks: Sequence[str], averages: str = "logits"
) -> dict[str, Metrics]:
    """Measure each network (rgb, flow; or both at once) and, where there are several, all of them as ``both``.

    ``averages`` is that of ``vadis.inference.scores.fuse_streams``. Videos that could not be read, and single frames in
    columns with flow, count as wrong, and stand in no column of the confusion matrix.
    """
    columns = {name: (name,) for name in networks} | ({BOTH: tuple(networks)} if len(networks) > 1 else {})
    return {name: _measure(predictions, classes, needed, averages) for name, needed in columns.items()}


def _measure(
    predictions: Sequence[Prediction], classes: Sequence[str], networks: tuple[str, ...], averages: str
) -> Metrics:
    place = {label: index for index, label in enumerate(classes)}
    truths = np.array([place[each.label] for each in predictions], np.intp)  # (N,)
    scores = np.full((len(truths), len(classes)), -np.inf)
    for row, each in zip(scores, predictions, strict=True):
        if each.logits.keys() >= set(networks):
            row[:] = fuse_streams({name: each.logits[name] for name in networks}, averages)
    answered = np.isfinite(scores).any(axis=1)
    ranked = np.argsort(-scores, kind="stable")[:, :TOP_K]  # (N, 5)
    in_top5 = (ranked == truths[:, None]).any(axis=1) & np.isfinite(scores[np.arange(len(truths)), truths])
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (truths[answered], ranked[answered, 0]), 1)
    totals = np.bincount(truths, minlength=len(classes))
    right, there, number = np.diag(confusion), totals > 0, max(len(truths), 1)
    mean_class = float((right[there] / totals[there]).mean()) if there.any() else 0.0
    top1, top5 = float(right.sum() / number), float(in_top5.sum() / number)
    return Metrics(len(truths), top1, top5, mean_class, confusion, totals)


def confusion_csv(column: Metrics, classes: Sequence[str]) -> str:
    """Return the confusion matrix with its names: a row per true class, a column per predicted class."""
    rows = zip(classes, column.confusion.tolist(), strict=True)
    return "".join(map(csv_line, [["true class", *classes], *([name, *row] for name, row in rows)]))


def per_class_csv(column: Metrics, classes: Sequence[str]) -> str:
    """Return a row per class: its videos, how many were right, their share, and the most frequent wrong answer, if any.

    Of wrong answers that are equally frequent the first is named.
    """
    wrong, right = column.confusion.copy(), np.diag(column.confusion).tolist()
    np.fill_diagonal(wrong, 0)
    rows = (
        [label, videos, hits, f"{hits / videos:.6f}" if videos else "", classes[row.argmax()] if row.any() else ""]
        for label, videos, hits, row in zip(classes, column.totals.tolist(), right, wrong, strict=True)
    )
    head = ["class", "videos", "right", "accuracy", "most frequent wrong answer"]
    return "".join(map(csv_line, [head, *rows]))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write metrics.json, the last thing written: where it is, all is. Raises OSError."""
    write_file(folder / METRICS_NAME, json.dumps(summary, indent=1, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Evaluation:
    """Predictions for the videos of a split, and what they were made by (``evaluation_settings``)."""

    folder: Path  # where they lie
    settings: Mapping[str, Any]
    predictions: list[Prediction]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return tuple(self.settings["classes"])

    @property
    def split(self) -> int:
        return int(self.settings["split"])

    @property
    def num_failed(self) -> int:
        return sum(prediction.status == "error" for prediction in self.predictions)

    @cached_property
    def columns(self) -> dict[str, Metrics]:
        """The metrics, as ``measure`` gives them."""
        return measure(self.predictions, self.classes, self.settings["networks"], self.settings["averages"])

    @property
    def figures(self) -> dict[str, dict[str, Any]]:
        return {name: column.to_json(self.classes) for name, column in self.columns.items()}

    def summary(self, **more: Any) -> dict[str, Any]:
        """Return the content of metrics.json, with ``more`` of what was tested."""
        head = {key: self.settings.get(key) for key in ("dataset", "split", "part", "model", "architecture")}
        if unlike := self.settings.get("unlike_the_paper"):
            head["unlike_the_paper"] = unlike
        head |= {key: value for key, value in self.settings.items() if key == "precision"}  # where it is not exact
        return head | {"failed": self.num_failed, "published": self.settings.get("published")} | more | self.figures

    def write_tables(self, folder: Path) -> None:
        """Write a confusion matrix and a table of classes for each column; raises OSError."""
        for name, column in self.columns.items():
            for kind, text in (("confusion", confusion_csv), ("per-class", per_class_csv)):
                content = text(column, self.classes).encode("utf-8", "backslashreplace")
                write_file(folder / f"{kind}-{name}.csv", content)


def read_evaluation(folder: Path) -> Evaluation:
    """Read the evaluation in a folder of ``vadis evaluate``, ``finetune`` or ``train``.

    Raises UsageError for what cannot be read, is no file of predictions, is damaged, or has not come to its end.
    """
    path = folder / PREDICTIONS_NAME
    settings, predictions = read_settings(path), list(read_predictions(path).values())
    classes = settings.get("classes", ())
    is_whole = all(each.label in classes for each in predictions) and settings.keys() >= set(TEST_SETTINGS)
    if not is_whole or any(len(row) != len(classes) for each in predictions for row in each.logits.values()):
        hint = "name the folder of a vadis evaluate, finetune or train"
        raise UsageError(f"{_shown(path)} is not a file of predictions", hint)
    try:
        wanted = parse_json((folder / METRICS_NAME).read_bytes())[settings["networks"][0]]["num_examples"]
    except (OSError, ValueError, LookupError, TypeError):
        wanted = "an unknown number"
    if wanted != len(predictions):
        found = f"{len(predictions):,} videos have predictions, {METRICS_NAME} is of {wanted}"
        message = f"the evaluation in {_shown(folder)} is not finished: {found}"
        raise UsageError(message, "run the same vadis evaluate again, which goes on there")
    return Evaluation(folder, settings, predictions)


def read_records(paths: Sequence[Path], dataset: Dataset, part: str) -> Evaluation:
    """Read records of ``vadis classify`` in files, and in all ``.jsonl`` and ``.json`` files below folders.

    The last record of a video counts; its path is taken from the current folder, or else from the dataset's. Scores
    stand for logits; labels that are no class of the dataset are classes without an example. Raises UsageError for what
    cannot be read or is damaged, and where the records do not tell the accuracy: a video without one, or that is a part
    of a file; several models; fewer than five labels.
    """
    examples = dataset.examples(part)
    records = _by_path(paths, examples, dataset.root)
    missing = [example.path for example in examples if example.path not in records]
    _refuse(missing, "have no record", "label them too")
    found = [(example, records[example.path]) for example in examples]
    labelled = [(example, record) for example, record in found if record.status != "error"]
    least = min(TOP_K, len(dataset.classes))
    whole_span = (0.0, None)
    cut = [each.path for each, record in labelled if record.part or each.span(record.duration_seconds) != whole_span]
    _refuse(cut, "are parts of files, or their records are", "evaluate the videos themselves, by `model`")
    short = [example.path for example, record in labelled if len(record.clip_score) < least]
    _refuse(short, f"have records with fewer than {least} labels", "label them with `top_k=5` and no threshold")

    whole = [record for _, record in labelled if "no_flow" not in record.flags]  # else a frame, judged by RGB alone
    makers = dict.fromkeys((record.model or "", record.model_sha256, record.streams) for record in whole)
    if len(makers) > 1:
        named = shorten(f"{model} ({' and '.join(streams)}, {str(sha256)[:12]})" for model, sha256, streams in makers)
        message = f"the records were made by different models or streams: {named}"
        raise UsageError(message, hint="give the records of one model only")
    model, _, streams = next(iter(makers), ("", None, ("rgb",)))
    names = {label.label for _, record in labelled for label in record.clip_score}
    if labelled and names.isdisjoint(dataset.classes):
        message = f"none of the records' labels is a class of {dataset.name}: {shorten(names)}"
        raise UsageError(message, hint=f"its classes are such as {shorten(dataset.classes[:3])}")
    classes = (*dataset.classes, *sorted(names - set(dataset.classes)))
    column = streams[0] if len(streams) == 1 else BOTH
    settings = {"dataset": dataset.name, "split": dataset.split, "part": part, "model": model, "classes": classes}
    settings |= {"streams": streams, "networks": (column,), "averages": "logits"}
    predictions = [_prediction(example, record, classes, column) for example, record in found]
    return Evaluation(paths[0], settings, predictions)


def _by_path(paths: Sequence[Path], examples: Iterable[Example], root: str) -> dict[str, VideoResult]:
    """Return the last record for each path of a split's videos."""
    absolute = os.path.abspath  # which keeps symlinks
    records, known = {}, {absolute(example.path): example.path for example in examples}
    for result in chain.from_iterable(map(results_in, results_files(paths, (".jsonl", ".json")))):
        places = absolute(result.path), absolute(os.path.join(root, result.path))  # noqa: PTH118
        path = next((known[place] for place in places if place in known), None)
        if path and result.status != "skipped":
            records[path] = result
    return records


def _prediction(example: Example, record: VideoResult, classes: Sequence[str], column: str) -> Prediction:
    if record.status == "error":
        error: dict[str, Any] = {"error_code": record.error_code, "error_message": record.error_message}
        return Prediction(example.path, "error", **error, label=example.label)
    scores = np.full(len(classes), -np.inf, np.float32)
    for label in record.clip_score:
        scores[classes.index(label.label)] = label.score
    return Prediction(example.path, "ok", label=example.label, logits={column: scores})


def _refuse(paths: Sequence[str], message: str, hint: str) -> None:
    if paths:
        raise UsageError(f"{counted(paths, 'video')} of the split {message}: {shorten(paths)}", hint)


def summarize_splits(runs: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the figures of several splits, their means and, beside those of all three, the paper's (table 5).

    Raises UsageError where a mean would mean nothing: other datasets or classes, one split twice.
    """
    first = runs[0]
    for run in runs[1:]:
        for key in sorted({*first.settings, *run.settings} - {"model", "model_sha256", "published", "split"}):
            if run.settings.get(key) != first.settings.get(key):
                both = f"{_shown(first.folder)} and {_shown(run.folder)}"
                message = f"{both} differ in their {key}: there is no mean of them"
                raise UsageError(message, "evaluate both in the same way, or give one of them alone")
    splits = tuple(run.split for run in runs)
    if twice := [split for split in splits if splits.count(split) > 1]:
        folders = " and ".join(_shown(run.folder) for run in runs if run.split == twice[0])
        raise UsageError(f"{folders} are all of split {twice[0]}", hint="give one of each split")
    paper = {}
    for name in first.columns if first.settings["architecture"] == "i3d" and splits == ALL_SPLITS else ():
        cells = [Cell("i3d", first.settings["dataset"], "full", start, name, ALL_SPLITS) for start in (True, False)]
        if cells[0].paper is not None:
            paper[name] = {"imagenet": cells[0].paper, "scratch": cells[1].paper}

    def mean(columns: Sequence[Metrics]) -> dict[str, float]:
        figures = {name: round(float(np.mean([getattr(each, name) for each in columns])), 6) for name in FIGURES}
        return {"num_examples": sum(each.num_examples for each in columns), **figures}

    return {
        **{key: first.settings[key] for key in ("dataset", "part")},
        "failed": sum(run.num_failed for run in runs),
        "splits": {str(run.split): run.summary() for run in runs},
        "mean": {name: mean([run.columns[name] for run in runs]) for name in first.columns},
        "paper_mean_top1": paper,
    }


def _shown(path: Path) -> str:
    return printable(str(path))
