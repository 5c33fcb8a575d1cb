"""Tests that have been run: their answers read again, and the mean over the splits of a dataset.

What is kept of a test: metrics.json for machines; confusion and accuracy by class, as tables.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, what_next
from vadis.evaluation.metrics import Metrics, confusion_csv, metrics, per_class_csv
from vadis.evaluation.paper_tables import paper_mean_top1
from vadis.evaluation.predictions import ANSWERS_NAME, Answer, parsed
from vadis.files import write_file
from vadis.parsing import parse_json
from vadis.results import printable

METRICS_NAME = "metrics.json"
NEEDED = ("dataset", "split", "part", "model", "architecture", "streams", "networks", "averages", "classes")
FIGURES = ("top1", "top5", "mean_class")


@dataclass(frozen=True)
class PastRun:
    """What an evaluation left in ``folder``; ``is_complete``: it came to its end."""

    folder: Path
    settings: Mapping[str, Any]
    answers: tuple[Answer, ...]
    is_complete: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.settings["classes"])

    @property
    def split(self) -> int:
        """The number of the official split."""
        return int(self.settings["split"])

    def metrics(self) -> dict[str, Metrics]:
        """Metrics by column."""
        return metrics(self.answers, self.classes, self.settings["networks"], self.settings["averages"])


def read_run(folder: Path, *, partial: bool = False) -> PastRun:
    """The evaluation in a folder of ``vadis evaluate``, ``finetune`` or ``train``; nothing in it is changed.

    A torn last line is left out.

    Raises:
        UsageError: for what cannot be read, is no answer file or damaged; and, unless ``partial``, where the evaluation
            has not come to its end, so that its metrics would be those of some videos only.
    """
    path = folder / ANSWERS_NAME
    try:
        settings, answers, _ = parsed(path, path.read_bytes())
    except OSError as error:
        message = f"{_shown(path)} cannot be read: {error.strerror}"
        raise UsageError(message, hint=what_next(error.errno)) from error
    missing = [key for key in NEEDED if key not in settings]
    strange = {answer.label for answer in answers.values()} - set(settings.get("classes", ()))
    if missing or strange:
        hint = "name the folder of a vadis evaluate, finetune or train"
        raise UsageError(f"{_shown(path)} is not a file of answers", hint)
    wanted = _num_examples(folder / METRICS_NAME)
    if wanted != len(answers) and not partial:
        so_far = f"{len(answers):,} videos have answers" + (
            "" if wanted is None else f", metrics.json is of {wanted:,}"
        )
        hint = "run the same vadis evaluate again, which goes on there; or add `partial=True`"
        raise UsageError(f"the evaluation in {_shown(folder)} is not finished: {so_far}", hint=hint)
    return PastRun(folder, settings, tuple(answers.values()), wanted == len(answers))


def _num_examples(path: Path) -> int | None:
    """The videos of the finished evaluation beside; None where there is none."""
    try:
        summary = parse_json(path.read_bytes())
        counts = {column["num_examples"] for column in summary.values() if isinstance(column, dict)}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UsageError(f"{_shown(path)} is damaged", hint="run the same vadis evaluate again") from error
    return int(counts.pop()) if len(counts) == 1 else None


def check_together(runs: Sequence[PastRun]) -> None:
    """Raise UsageError where a mean over ``runs`` would mean nothing: other datasets or classes, one split twice."""
    first = runs[0]
    for index, run in enumerate(runs):
        for key in sorted({*first.settings, *run.settings} - {"model", "model_sha256", "published", "split"}):
            if run.settings.get(key) != first.settings.get(key):
                raise UsageError(
                    f"{_shown(first.folder)} and {_shown(run.folder)} differ in their {key}: there is no mean of them",
                    hint="evaluate both in the same way, or give one of them alone",
                )
        for other in runs[:index]:
            if other.split == run.split:
                raise UsageError(
                    f"{_shown(other.folder)} and {_shown(run.folder)} are both of split {run.split}",
                    hint="give one of each split",
                )


def mean(columns: Sequence[Metrics]) -> dict[str, float | None]:
    """Top-1, top-5 and mean class accuracy, each the mean of its values on the splits (paper, table 5)."""
    found: dict[str, float | None] = {}
    for figure in FIGURES:
        values = [getattr(column, figure) for column in columns]
        found[figure] = None if None in values else round(sum(values) / len(values), 6)
    return found


def _shown(path: Path) -> str:
    return printable(str(path))


ALL_SPLITS = (1, 2, 3)


def summary(
    found: Mapping[str, Metrics],
    classes: Sequence[str],
    *,
    dataset: str,
    split: int,
    part: str,
    model: str,
    failed: int,
    **more: Any,
) -> dict[str, Any]:
    """The content of metrics.json: what was tested, and a column of figures for each of ``found``."""
    head = {"dataset": dataset, "split": split, "part": part, "model": model, "failed": failed, **more}
    return head | {name: column.to_json(classes) for name, column in found.items()}


def summary_of_run(run: PastRun, found: Mapping[str, Metrics]) -> dict[str, Any]:
    """The same of a run whose answers were read again, and whether it had come to its end."""
    return summary(
        found,
        run.classes,
        dataset=str(run.settings["dataset"]),
        split=run.split,
        part=str(run.settings["part"]),
        model=str(run.settings["model"]),
        architecture=str(run.settings["architecture"]),
        failed=sum(answer.error is not None for answer in run.answers),
        published=run.settings.get("published"),
        complete=run.is_complete,
    )


def summary_of_splits(found: Mapping[int, Mapping[str, Metrics]], summaries: Mapping[int, Any]) -> dict[str, Any]:
    """Figures of several splits, their means by column and, beside those of all three, the paper's (table 5)."""
    first = next(iter(summaries.values()))
    means = {name: mean([columns[name] for columns in found.values()]) for name in next(iter(found.values()))}
    paper = paper_means(str(first["architecture"]), str(first["dataset"]), tuple(found), tuple(means))
    return {
        "dataset": first["dataset"],
        "part": first["part"],
        "failed": sum(each["failed"] for each in summaries.values()),
        "splits": {str(split): each for split, each in summaries.items()},
        "mean": means,
        "paper_mean_top1": {name: {"imagenet": a, "scratch": b} for name, (a, b) in paper.items()},
    }


def paper_means(
    architecture: str, dataset: str, splits: Sequence[int], columns: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """The paper's mean top-1 by column, with ImageNet and without; of I3D alone, and if ``splits`` are all three."""
    if architecture != "i3d" or tuple(splits) != ALL_SPLITS:
        return {}
    pairs = {name: (paper_mean_top1(dataset, True, name), paper_mean_top1(dataset, False, name)) for name in columns}
    return {name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None}


def write_tables(folder: Path, found: Mapping[str, Metrics], classes: Sequence[str]) -> None:
    """A confusion matrix and a table of classes for each column, each whole or not at all.

    Raises:
        OSError: where the disk does not take them.
    """
    for name, column in found.items():
        _write(folder / f"confusion-{name}.csv", confusion_csv(column, classes))
        _write(folder / f"per-class-{name}.csv", per_class_csv(column, classes))


def write_summary(folder: Path, values: Mapping[str, Any]) -> None:
    """metrics.json, whole or not at all; the last thing written, so that its being there means that all is.

    Raises:
        OSError: where the disk does not take it.
    """
    _write(folder / METRICS_NAME, json.dumps(values, indent=1, allow_nan=False) + "\n")


def _write(path: Path, text: str) -> None:
    write_file(path, text.encode("utf-8", "backslashreplace"))
