"""What is kept of a test: metrics.json for machines; confusion and accuracy by class, as tables."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vadis.atomic import temporary_beside
from vadis.evaluation.metrics import Metrics, confusion_csv, per_class_csv
from vadis.evaluation.paper import paper_mean_top1
from vadis.evaluation.runs import METRICS_NAME, PastRun, mean

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
    with temporary_beside(path) as (temporary, file):
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(path)
