"""Finished runs below a folder: what was trained how, by run.json, and how good it is, by metrics.json.

Tests of a published model on Kinetics count too, without a run.json: the paper's authors have done that training.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vadis.batch.results_file import folders_below
from vadis.errors import UsageError, WeightsError
from vadis.evaluation.metrics import METRICS_NAME
from vadis.evaluation.paper_tables import COLUMNS, Cell
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.linear_probe import FOLDER_NAME as FEATURES_NAME
from vadis.training.plan import MODEL_NAME, RUN_NAME, STORE_NAME
from vadis.training.recipes import RECIPES
from vadis.weights.model_file import read_header

IMAGENET_MODEL = "inception-v1-imagenet"
PUBLISHED = {"i3d-kinetics400": True, "i3d-kinetics400-scratch": False}
"""The published Kinetics models of I3D, as their tensors are known: whether they began with ImageNet."""
NUM_CLASSES = {"ucf101": 101, "hmdb51": 51, "kinetics": 400}

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """A run that was tested."""

    folder: Path
    figures: Mapping[Cell, float]  # by cell of its one split, in [0, 1]
    seconds: float  # when it was tested, since the epoch
    remarks: tuple[str, ...]  # what a person should know before comparing it with the paper


@dataclass
class RunIndex:
    """What lies below a folder: finished runs, the newest first, and ``notes`` on what does not count."""

    runs: list[FinishedRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def runs_of(self, cell: Cell, split: int) -> list[FinishedRun]:
        """Return the runs that have a figure for one split of ``cell``, the newest first."""
        return [run for run in self.runs if cell._replace(splits=(split,)) in run.figures]

    def figure(self, cell: Cell) -> float | None:
        """Return the newest run's figure, or the mean of those of all splits of ``cell``; None where one is missing."""
        if self.splits_missing(cell):
            return None
        newest = {split: self.runs_of(cell, split)[0] for split in cell.splits}
        return sum(run.figures[cell._replace(splits=(split,))] for split, run in newest.items()) / len(newest)

    def splits_missing(self, cell: Cell) -> tuple[int, ...]:
        """Return the splits of a cell that no run has a figure for."""
        return tuple(split for split in cell.splits if not self.runs_of(cell, split))


class _NotCountedError(Exception):
    """Why a test cannot be compared with the paper's."""


def find_runs(root: Path) -> RunIndex:
    """Look for finished runs in ``root`` and everywhere below it; a folder that does not exist has none."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"{printable(str(root))} is not a folder", hint="name the folder that holds the runs")
    index, tested = RunIndex(), []
    for place, folders, files in folders_below(root):
        folders[:] = set(folders) - {STORE_NAME, FEATURES_NAME, "checkpoints"}  # of many files, and no run in them
        if METRICS_NAME in files:
            tested.append((place, _json(place / METRICS_NAME), _json(place / RUN_NAME)))
    trained: dict[tuple[str, str], bool] = {}  # Kinetics models, by architecture and SHA-256: whether after ImageNet
    # Runs on Kinetics come first: others begin from their models.
    for folder, metrics, run in sorted(tested, key=lambda each: each[1].get("dataset") != "kinetics"):
        try:
            if found := _read_run(folder, metrics, run, trained):
                index.runs.append(found)
        except _NotCountedError as reason:
            index.notes.append(f"{printable(str(folder))} does not count: {reason}")
        except (KeyError, TypeError, ValueError, AttributeError):
            index.notes.append(f"{printable(str(folder))} does not count: {RUN_NAME} or {METRICS_NAME} is damaged")
    index.runs.sort(key=lambda run: (-run.seconds, str(run.folder)))
    index.notes.sort()
    return index


def _json(path: Path) -> Metrics:
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_run(folder: Path, metrics: Metrics, run: Metrics, trained: dict[tuple[str, str], bool]) -> FinishedRun | None:
    """Return the tested run in ``folder``, ``run`` empty for a published model; None for what the paper has not."""
    dataset, split = metrics["dataset"], metrics.get("split")
    columns = {name: metrics[name] for name in COLUMNS if name in metrics}
    if dataset not in NUM_CLASSES or not columns:
        return None
    architecture, mode, imagenet = _origin(metrics, run, trained)
    if metrics["part"] == "train":
        raise _NotCountedError("it was tested on what it learnt from")
    if run and (run["dataset"]["name"], run["dataset"]["split"]) != (dataset, split):
        raise _NotCountedError("it was tested on something else than it learnt from")
    num_classes = len(next(iter(columns.values()))["per_class"])
    if num_classes != NUM_CLASSES[dataset]:
        raise _NotCountedError(f"it tells {num_classes} classes apart, the paper's {NUM_CLASSES[dataset]}")
    if mode == "original" and dataset == "kinetics" and run:
        with suppress(WeightsError):  # no model begins from what cannot be read
            trained[architecture, read_header(folder / MODEL_NAME)[1]] = imagenet
    cell = Cell(architecture, dataset, mode, imagenet, "", (int(metrics["split"]),))
    figures = {
        cell._replace(column=name, figure=figure): float(column[figure])
        for name, column in columns.items()
        for figure in ("top1", "top5")
    }
    return FinishedRun(folder, figures, (folder / METRICS_NAME).stat().st_mtime, tuple(_remarks(metrics, run)))


def _origin(metrics: Metrics, run: Metrics, trained: Mapping[tuple[str, str], bool]) -> tuple[str, str, bool]:
    """Return architecture, mode, and whether it began with ImageNet."""
    if not run:
        published = metrics.get("published")
        if published not in PUBLISHED or metrics["dataset"] != "kinetics":
            raise _NotCountedError(f"it is a test of {printable(metrics['model'])} without its run")
        return metrics["architecture"], "original", PUBLISHED[published]
    architecture, mode, begun = run["architecture"], run["mode"], run["from"]
    if run["width"] != 1:
        raise _NotCountedError(f"its network is {run['width']:g} times as wide as the paper's")
    if mode == "scratch":
        return architecture, "original", begun is not None  # which is IMAGENET_MODEL
    if begun.get("published") in PUBLISHED:
        return architecture, mode, PUBLISHED[begun["published"]]
    if (architecture, begun["sha256"]) not in trained:
        name = printable(begun["model"])
        raise _NotCountedError(f"it began from {name}, which is no model of a finished run on Kinetics here")
    return architecture, mode, trained[architecture, begun["sha256"]]


def _remarks(metrics: Metrics, run: Metrics) -> Iterator[str]:
    if metrics["part"] != "test":
        yield f"tested on {metrics['part']}"
    yield from (f"tested {each}" for each in metrics.get("unlike_the_paper", ()))
    if metrics.get("failed"):
        yield f"{metrics['failed']:,} videos could not be read and count as wrong"
    if run and not run["mirror"]:
        yield "without mirrored clips"
    for recipe in run.get("recipes", {}).values():
        own = RECIPES[recipe["name"]].to_json() if recipe["name"] in RECIPES else recipe
        changed = [f"{key} {value} for {own.get(key)}" for key, value in recipe.items() if value != own.get(key)]
        if changed:
            yield f"{recipe['name']} with {', '.join(changed)}"
