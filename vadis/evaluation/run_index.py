"""Finished runs below a folder: what was trained how, from its run.json, and how good it is, from its metrics.json.

Tests of a published model on Kinetics, which ``vadis evaluate`` leaves without a run.json, count too: that training has
been done, by the paper's authors. What does not count is said, with the reason.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vadis.batch.results_file import folders_below
from vadis.errors import UsageError
from vadis.evaluation.paper_tables import COLUMNS, DATASET_TITLES, Cell
from vadis.evaluation.summary import METRICS_NAME
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.linear_probe import FOLDER_NAME as FEATURES_NAME
from vadis.training.plan import MODEL_NAME, RUN_NAME, STORE_NAME
from vadis.training.recipes import RECIPES

NUM_CLASSES = {"ucf101": 101, "hmdb51": 51, "kinetics": 400}
IMAGENET_MODEL = "inception-v1-imagenet"
PUBLISHED = {"i3d-kinetics400": True, "i3d-kinetics400-scratch": False}
"""The published Kinetics models of I3D, as their tensors are known: whether they began with ImageNet."""
KINETICS_MODELS = {imagenet: name for name, imagenet in PUBLISHED.items()}
NOT_RUNS = {STORE_NAME, FEATURES_NAME, "checkpoints"}  # folders with many files and no run in them

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A run that was tested.

    Attributes:
        folder: where it lies.
        architecture, dataset, split, mode, imagenet: as in ``Cell``.
        figures: by column, what metrics.json has: "top1" and, where it is known, "top5", in [0, 1].
        seconds: when it was tested, since the epoch.
        remarks: what a person should know before holding it against the paper.
    """

    folder: Path
    architecture: str
    dataset: str
    split: int
    mode: str
    imagenet: bool
    figures: Mapping[str, Mapping[str, float]]
    seconds: float
    remarks: tuple[str, ...] = ()

    def answers(self, cell: Cell, split: int) -> float | None:
        """Our figure for one split of ``cell``, or None where this run says nothing of it."""
        mine = (self.architecture, self.dataset, self.mode, self.imagenet, self.split)
        if mine != (cell.architecture, cell.dataset, cell.mode, cell.imagenet, split):
            return None
        return self.figures.get(cell.column, {}).get(cell.figure)


@dataclass
class Found:
    """All that lies below a folder: finished runs, the newest first, and ``notes`` on what does not count."""

    runs: list[Finished] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def newest(self, cell: Cell, split: int) -> tuple[Finished, list[Finished]] | None:
        """The newest run that has a figure for a split of ``cell``, and the older ones; None without any."""
        having = [run for run in self.runs if run.answers(cell, split) is not None]
        return (having[0], having[1:]) if having else None


def find_runs(root: Path) -> Found:
    """Look for finished runs in ``root`` and everywhere below it; a folder that does not exist has none.

    Raises:
        UsageError: where ``root`` is not a folder.
    """
    found = Found()
    if root.exists() and not root.is_dir():
        raise UsageError(f"{_shown(root)} is not a folder", hint="name the folder that holds the runs")
    origins = _Origins()
    pairs = [(folder, _json(folder / RUN_NAME)) for folder in _folders(root)]
    # Runs on Kinetics come first: others begin from their models.
    for folder, run in sorted(pairs, key=lambda pair: _dataset_of(pair[1]) != "kinetics"):
        said = _read(folder, run, found, origins)
        if said is not None:
            found.notes.append(f"{_shown(folder)} does not count: {said}")
    found.runs.sort(key=lambda run: (-run.seconds, str(run.folder)))
    found.notes.sort()
    return found


class _Origins:
    """The Kinetics models that were trained here, by the SHA-256 of their files: did they begin with ImageNet?"""

    def __init__(self) -> None:
        self._files: list[tuple[str, bool, Path]] = []
        self._hashes: dict[Path, str] = {}

    def add(self, architecture: str, imagenet: bool, folder: Path) -> None:
        self._files.append((architecture, imagenet, folder / MODEL_NAME))

    def find(self, architecture: str, sha256: str | None) -> bool | None:
        """None for a model that is not among them."""
        for name, imagenet, path in self._files:
            if name == architecture and sha256 is not None and self._hash(path) == sha256:
                return imagenet
        return None

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = _sha256(path)
        return self._hashes[path]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return ""  # no model begins from what cannot be read
    return digest.hexdigest()


def _folders(root: Path) -> Iterator[Path]:
    """The folders with a test in them."""
    for place, folders, files in folders_below(root):
        folders[:] = sorted(set(folders) - NOT_RUNS)
        if METRICS_NAME in files:
            yield place


def _read(folder: Path, run: Values, found: Found, origins: _Origins) -> str | None:
    """Add the run in ``folder`` to those that were ``found``; returns why it does not count, if it does not."""
    metrics = _json(folder / METRICS_NAME)
    dataset = metrics.get("dataset")
    if dataset not in DATASET_TITLES:
        return None if isinstance(dataset, str) else f"{METRICS_NAME} is damaged"
    figures = _figures(metrics)
    if "splits" in metrics or not figures:
        return None  # the mean over several evaluations, which are counted themselves
    try:
        begun = _of_run(run, origins) if run else _of_published(metrics)
        why = begun if isinstance(begun, str) else _fault(metrics, run)
        if isinstance(begun, str) or why is not None:
            return why
        architecture, mode, imagenet = begun
        split, seconds = int(metrics["split"]), (folder / METRICS_NAME).stat().st_mtime
        remarks = tuple(_remarks(metrics, run))
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{RUN_NAME} or {METRICS_NAME} is damaged"
    if mode == "original" and dataset == "kinetics" and run:
        origins.add(architecture, imagenet, folder)
    kept = Finished(folder, architecture, dataset, split, mode, imagenet, figures, seconds, remarks)
    found.runs.append(kept)
    return None


def _of_run(run: Values, origins: _Origins) -> tuple[str, str, bool] | str:
    """Architecture, mode and whether it began with ImageNet; or why that is not known."""
    architecture, mode, begun = str(run["architecture"]), str(run["mode"]), run["from"]
    if run["width"] != 1:
        return f"its network is {run['width']:g} times as wide as the paper's"
    if mode == "scratch":
        if begun is not None and begun["model"] != IMAGENET_MODEL:
            return f"it began from {printable(str(begun['model']))}"
        return architecture, "original", begun is not None
    name, published = str(begun["model"]), begun.get("published")
    imagenet = PUBLISHED[published] if published in PUBLISHED else origins.find(architecture, begun["sha256"])
    if imagenet is None:
        return f"it began from {printable(name)}, which is no model of a finished run on Kinetics here"
    return architecture, mode, imagenet


def _of_published(metrics: Values) -> tuple[str, str, bool] | str:
    """The same of a test without a run."""
    name, published = str(metrics["model"]), metrics.get("published")
    if published not in PUBLISHED or metrics["dataset"] != "kinetics":
        return f"it is a test of {printable(name)} without its run"
    return str(metrics["architecture"]), "original", PUBLISHED[published]


def _fault(metrics: Values, run: Values) -> str | None:
    """Why a test cannot be held against the paper's."""
    if metrics.get("complete") is False:
        return "its test did not come to its end"
    if metrics["part"] == "train":
        return "it was tested on what it learnt from"
    if run and (run["dataset"]["name"], run["dataset"]["split"]) != (metrics["dataset"], metrics["split"]):
        return "it was tested on something else than it learnt from"
    classes = len(next(iter(_columns(metrics).values()))["per_class"])
    wanted = NUM_CLASSES[metrics["dataset"]]
    return None if classes == wanted else f"it tells {classes} classes apart, the paper's {wanted}"


def _remarks(metrics: Values, run: Values) -> Iterator[str]:
    """What differs from the paper's way of doing it."""
    if metrics["part"] != "test":
        yield f"tested on {metrics['part']}"
    if metrics.get("failed"):
        yield f"{metrics['failed']:,} videos could not be read and count as wrong"
    if run and not run["mirror"]:
        yield "without mirrored clips"
    for recipe in run.get("recipes", {}).values():
        known = RECIPES.get(recipe["name"])
        if known is None:
            continue
        own = known.to_json()
        changed = [f"{key} {value} for {own.get(key)}" for key, value in recipe.items() if value != own.get(key)]
        if changed:
            yield f"{recipe['name']} with {', '.join(changed)}"


def _figures(metrics: Values) -> dict[str, dict[str, float]]:
    """By column top-1 and top-5, as far as they are numbers."""
    found = {}
    for name, column in _columns(metrics).items():
        figures = {figure: column.get(figure) for figure in ("top1", "top5")}
        found[name] = {figure: value for figure, value in figures.items() if isinstance(value, int | float)}
    return found


def _columns(metrics: Values) -> dict[str, Values]:
    return {name: metrics[name] for name in COLUMNS if isinstance(metrics.get(name), dict)}


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


def our_figure(cell: Cell, found: Found) -> float | None:
    """Our figure for a cell: the newest run's, or the mean of those of all its splits; None where one is missing."""
    known = []
    for split in cell.splits:
        newest = found.newest(cell, split)
        if newest is None:
            return None
        known.append(newest[0].answers(cell, split) or 0.0)
    return sum(known) / len(known)


def splits_missing(cell: Cell, found: Found) -> tuple[int, ...]:
    """The splits of a cell that no run has a figure for."""
    return tuple(split for split in cell.splits if found.newest(cell, split) is None)


def _shown(path: Path) -> str:
    return printable(str(path))
