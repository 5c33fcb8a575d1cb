"""Finished runs below a folder: what was trained how, by its run.json, and how good it is, by its metrics.json.

Tests of a published model on Kinetics, which ``vadis evaluate`` leaves without a run.json, count too: that training has
been done, by the paper's authors. What does not count is noted, with the reason.
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
NOT_RUNS = {STORE_NAME, FEATURES_NAME, "checkpoints"}  # folders with many files and no run in them

Values = Mapping[str, Any]


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
        """The runs that have a figure for one split of ``cell``, the newest first."""
        return [run for run in self.runs if cell._replace(splits=(split,)) in run.figures]

    def figure(self, cell: Cell) -> float | None:
        """The newest run's figure, or the mean of those of all splits of ``cell``; None where one is missing."""
        if self.splits_missing(cell):
            return None
        newest = {split: self.runs_of(cell, split)[0] for split in cell.splits}
        return sum(run.figures[cell._replace(splits=(split,))] for split, run in newest.items()) / len(newest)

    def splits_missing(self, cell: Cell) -> tuple[int, ...]:
        """The splits of a cell that no run has a figure for."""
        return tuple(split for split in cell.splits if not self.runs_of(cell, split))


class _NotCountedError(Exception):
    """Why a test cannot be compared with the paper's."""


def find_runs(root: Path) -> RunIndex:
    """Look for finished runs in ``root`` and everywhere below it; a folder that does not exist has none.

    Raises:
        UsageError: where ``root`` is not a folder.
    """
    if root.exists() and not root.is_dir():
        raise UsageError(f"{printable(str(root))} is not a folder", hint="name the folder that holds the runs")
    index, trained = RunIndex(), _KineticsModels()
    pairs = [(folder, _json(folder / RUN_NAME)) for folder in _tested_folders(root)]
    # Runs on Kinetics come first: others begin from their models.
    for folder, run in sorted(pairs, key=lambda pair: _dataset_of(pair[1]) != "kinetics"):
        try:
            if found := _read_run(folder, run, trained):
                index.runs.append(found)
        except _NotCountedError as reason:
            index.notes.append(f"{printable(str(folder))} does not count: {reason}")
    index.runs.sort(key=lambda run: (-run.seconds, str(run.folder)))
    index.notes.sort()
    return index


class _KineticsModels:
    """The Kinetics models that were trained here, known by the SHA-256 in their files."""

    def __init__(self) -> None:
        self._models: list[tuple[str, bool, Path]] = []

    def add(self, architecture: str, imagenet: bool, path: Path) -> None:
        self._models.append((architecture, imagenet, path))

    def began_with_imagenet(self, architecture: str, sha256: str | None) -> bool | None:
        """Whether the training of a model did; None for a model that is not among them."""
        for name, imagenet, path in self._models:
            with suppress(WeightsError):  # no model begins from what cannot be read
                if name == architecture and read_header(path)[1] == sha256:
                    return imagenet
        return None


def _tested_folders(root: Path) -> Iterator[Path]:
    for place, folders, files in folders_below(root):
        folders[:] = sorted(set(folders) - NOT_RUNS)
        if METRICS_NAME in files:
            yield place


def _read_run(folder: Path, run: Values, trained: _KineticsModels) -> FinishedRun | None:
    """The tested run in ``folder``; None for what the paper says nothing of; raises _NotCountedError."""
    metrics = _json(folder / METRICS_NAME)
    dataset = metrics.get("dataset")
    if not isinstance(dataset, str):
        raise _NotCountedError(f"{METRICS_NAME} is damaged")
    columns = {name: metrics[name] for name in COLUMNS if isinstance(metrics.get(name), dict)}
    if dataset not in NUM_CLASSES or "splits" in metrics or not columns:  # or the mean over several evaluations
        return None
    try:
        architecture, mode, imagenet = _origin(run, trained) if run else _published_origin(metrics)
        _check(metrics, run, next(iter(columns.values())))
        split, seconds = int(metrics["split"]), (folder / METRICS_NAME).stat().st_mtime
        remarks = tuple(_remarks(metrics, run))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _NotCountedError(f"{RUN_NAME} or {METRICS_NAME} is damaged") from error
    if mode == "original" and dataset == "kinetics" and run:
        trained.add(architecture, imagenet, folder / MODEL_NAME)
    figures = {
        Cell(architecture, dataset, mode, imagenet, name, (split,), figure): column[figure]
        for name, column in columns.items()
        for figure in ("top1", "top5")
        if isinstance(column.get(figure), int | float)
    }
    return FinishedRun(folder, figures, seconds, remarks)


def _origin(run: Values, trained: _KineticsModels) -> tuple[str, str, bool]:
    """Architecture, mode, and whether it began with ImageNet."""
    architecture, mode, begun = str(run["architecture"]), str(run["mode"]), run["from"]
    if run["width"] != 1:
        raise _NotCountedError(f"its network is {run['width']:g} times as wide as the paper's")
    if mode == "scratch":
        if begun is not None and begun["model"] != IMAGENET_MODEL:
            raise _NotCountedError(f"it began from {printable(str(begun['model']))}")
        return architecture, "original", begun is not None
    name, published = printable(str(begun["model"])), begun.get("published")
    if published in PUBLISHED:
        return architecture, mode, PUBLISHED[published]
    imagenet = trained.began_with_imagenet(architecture, begun["sha256"])
    if imagenet is None:
        raise _NotCountedError(f"it began from {name}, which is no model of a finished run on Kinetics here")
    return architecture, mode, imagenet


def _published_origin(metrics: Values) -> tuple[str, str, bool]:
    """The same of a test without a run."""
    name, published = printable(str(metrics["model"])), metrics.get("published")
    if published not in PUBLISHED or metrics["dataset"] != "kinetics":
        raise _NotCountedError(f"it is a test of {name} without its run")
    return str(metrics["architecture"]), "original", PUBLISHED[published]


def _check(metrics: Values, run: Values, column: Values) -> None:
    if metrics.get("complete") is False:
        raise _NotCountedError("its test did not come to its end")
    if metrics["part"] == "train":
        raise _NotCountedError("it was tested on what it learnt from")
    if run and (run["dataset"]["name"], run["dataset"]["split"]) != (metrics["dataset"], metrics["split"]):
        raise _NotCountedError("it was tested on something else than it learnt from")
    num_classes, wanted = len(column["per_class"]), NUM_CLASSES[metrics["dataset"]]
    if num_classes != wanted:
        raise _NotCountedError(f"it tells {num_classes} classes apart, the paper's {wanted}")


def _remarks(metrics: Values, run: Values) -> Iterator[str]:
    """What differs from the paper's way of doing it."""
    if metrics["part"] != "test":
        yield f"tested on {metrics['part']}"
    if metrics.get("failed"):
        yield f"{metrics['failed']:,} videos could not be read and count as wrong"
    if run and not run["mirror"]:
        yield "without mirrored clips"
    for recipe in run.get("recipes", {}).values():
        if recipe["name"] in RECIPES:
            own = RECIPES[recipe["name"]].to_json()
            changed = [f"{key} {value} for {own.get(key)}" for key, value in recipe.items() if value != own.get(key)]
            if changed:
                yield f"{recipe['name']} with {', '.join(changed)}"


def _dataset_of(run: Values) -> object:
    data = run.get("dataset")
    return data.get("name") if isinstance(data, dict) else None


def _json(path: Path) -> Values:
    """An object from a file; empty where there is none."""
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
