"""Finished runs below a folder, and the commands for the cells of a table that none has filled, in order.

What was trained how is told by run.json, how good it is by metrics.json. Tests of a published model on Kinetics count
too, without a run.json: the paper's authors have done that training.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vadis.batch import folders_below
from vadis.errors import UsageError, WeightsError
from vadis.evaluation.metrics import METRICS_NAME
from vadis.evaluation.paper_tables import COLUMNS, DATASET_TITLES, Cell, Table
from vadis.models import BOTH, MODELS
from vadis.parsing import parse_json
from vadis.results import printable
from vadis.training.checkpoint import KEPT
from vadis.training.linear_probe import FOLDER_NAME as FEATURES_NAME
from vadis.training.plan import MODEL_NAME, RUN_NAME, STORE_NAME
from vadis.training.recipes import RECIPES, default_recipe, find_recipe
from vadis.video.timegrid import GRID_FPS
from vadis.weights.cache import is_file, model_path
from vadis.weights.catalog import WEIGHTS
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


# --- what is missing --------------------------------------------------------------------------------------------------

KINETICS_MODELS = {imagenet: name for name, imagenet in PUBLISHED.items()}
DATA_FOLDERS = {"ucf101": "ucf101/", "hmdb51": "hmdb51/", "kinetics": "kinetics400/"}
"""Placeholders for the folders of the datasets."""

FLOW_BYTES = 5_000  # of a frame in the flow store (docs/flow-store.md)
FLOW_CORE_SECONDS = 0.037  # of one frame of 340×256: 0.0185 s on two cores (docs/performance.md)
GIGA = 1e9


class DatasetSize(NamedTuple):
    """How large a dataset is."""

    train: int  # videos of split 1
    test: int
    videos: int
    seconds: float  # of a video, in the mean
    num_bytes: float  # as published, about


SIZES = {
    # Soomro et al., 2012: 13,320 videos, 27 hours, 6.9 GB; splits by the official lists
    "ucf101": DatasetSize(9_537, 3_783, 13_320, 7.3, 6.9 * GIGA),
    # Kuehne et al., 2011: 2.1 GB; 6,766 videos of some 95 frames at 30 per second
    "hmdb51": DatasetSize(3_570, 1_530, 6_766, 3.2, 2.1 * GIGA),
    # paper, section 3: 240 k to train, 100 per class to test; and 50 per class for validation (Kay et al., 2017)
    "kinetics": DatasetSize(240_000, 40_000, 300_000, 10.0, 450 * GIGA),
}

GFLOPS = {
    ("lstm", ("rgb",)): (75.035, 150.07),
    ("c3d", ("rgb",)): (39.641, 594.62),
    ("two-stream", ("rgb",)): (2.9955, 74.888),
    ("two-stream", ("flow",)): (4.3330, 108.33),
    ("fused", ("rgb",)): (15.738, 78.692),
    ("fused", ("flow",)): (22.426, 112.13),
    ("fused", ("rgb", "flow")): (38.164, 190.82),
    ("i3d", ("rgb",)): (222.31, 869.89),
    ("i3d", ("flow",)): (204.68, 801.05),
}
"""By architecture and streams, 10⁹ operations of a network for a training clip and for the paper's test of a video.

Those of convolutions and matrix products; a multiplication and an addition are two. A test counts them.
"""


@dataclass
class Job:
    """One command, with what follows an option in the same string: ``("vadis train", "--arch lstm", …)``."""

    title: str  # what it makes, for a person
    command: tuple[str, ...]
    flops: float = 0.0
    core_seconds: float = 0.0  # of one core of a CPU
    num_bytes: float = 0.0  # on the disk, beside the videos
    dataset: str | None = None  # whose videos it needs
    fills: list[Cell] = field(default_factory=list)  # that it gives a number, or one of those whose mean they are


def estimate_run(run: Cell) -> tuple[float, float]:
    """Return the operations that a run and its test take, and the bytes that it leaves on the disk.

    An upper bound where a recipe stops early or videos are short, without validations (about 1 %), flow and decoding.
    """
    row, size, streams = MODELS[run.architecture], SIZES[run.dataset], _streams(run)
    video = GIGA * sum(GFLOPS[run.architecture, each][1] for each in row.networks(streams).values())
    flops, num_bytes = size.test * video, 4e6 * row.params_millions
    if _uses_published_model(run):
        return flops, 0.0
    if run.mode == "fixed":  # the features of all training videos; to train the last layer costs nothing
        return flops + size.train * video, num_bytes
    mode = "scratch" if run.mode == "original" else "full"
    for group, trained in row.training_groups(streams).items():
        recipe = find_recipe(default_recipe(run.architecture, run.dataset, group, mode))
        clip = GIGA * sum(GFLOPS[run.architecture, each][0] for each in row.networks(trained).values())
        flops += 3 * clip * recipe.batch_size * recipe.steps  # the backward pass takes twice the forward one
    return flops, num_bytes * (1 + 2 * KEPT)  # checkpoints, each with its momentum


def videos_bytes(jobs: Iterable[Job]) -> float:
    """Return the size of the datasets that jobs need."""
    return sum(SIZES[name].num_bytes for name in {job.dataset for job in jobs} if name)


def plan(table: Table, index: RunIndex, root: Path) -> list[Job]:
    """Return the commands for all cells of ``table`` that are missing in ``index``, which was found below ``root``."""
    planner = _Planner(index, root)
    for cell in table.cells():
        for split in index.splits_missing(cell):
            planner.add(run_for(cell, split)).fills.append(cell)
    runs = sorted(planner.runs.values(), key=lambda job: job.dataset != "kinetics")
    return [*planner.preparations(), *runs]


def run_for(cell: Cell, split: int) -> Cell:
    """Return the run that gives a cell for one split, as the cell of all its networks."""
    row = MODELS[cell.architecture]
    column = cell.column if row.fusion == "in_network" or len(row.streams) == 1 else BOTH  # or each is a network
    return cell._replace(column=column, splits=(split,), figure="top1")


def _streams(run: Cell) -> tuple[str, ...]:
    return MODELS[run.architecture].streams if run.column == BOTH else (run.column,)


def _uses_published_model(run: Cell) -> bool:
    return run.architecture == "i3d" and run.dataset == "kinetics"  # which the paper's authors have trained


class _Planner:
    def __init__(self, index: RunIndex, root: Path) -> None:
        self._index, self._root = index, root
        self.runs: dict[Cell, Job] = {}
        self._flow: dict[str, str] = {}  # stores by dataset
        self._models: dict[str, str] = {}  # published ones that are needed, each by its name

    def add(self, run: Cell) -> Job:
        if run not in self.runs:
            mode, split = run.mode if run.dataset != "kinetics" else "", run.splits[0]
            words = [run.architecture, run.dataset, mode, "imagenet" if run.imagenet else ""]
            words += [f"split{split}" if split != 1 else "", self._alone(run)]
            folder = self._root / "-".join(filter(None, words))
            command = (*self._begin(run), f"-o {shlex.quote(str(folder))}")
            if (folder / RUN_NAME).exists():  # and no metrics that count: it was interrupted
                command += ("--resume",)
            flops, num_bytes = estimate_run(run)
            self.runs[run] = Job(folder.name, command, flops, 0.0, num_bytes, run.dataset)
        return self.runs[run]

    def preparations(self) -> Iterator[Job]:
        """Yield what comes before all runs: downloads and flow."""
        if missing := [name for name in self._models if not is_file(model_path(name))]:
            num_bytes = sum(2 * WEIGHTS[name].num_bytes for name in missing)  # as downloaded, and as a model
            yield Job("the published models", ("vadis weights download", *missing), num_bytes=num_bytes)
        for dataset, store in self._flow.items():
            command = ("vadis flow", DATA_FOLDERS[dataset], f"-o {store}")
            frames = SIZES[dataset].videos * SIZES[dataset].seconds * GRID_FPS
            title, seconds = f"flow of {DATASET_TITLES[dataset]}", frames * FLOW_CORE_SECONDS
            yield Job(title, command, 0.0, seconds, frames * FLOW_BYTES, dataset)

    def _begin(self, run: Cell) -> list[str]:
        if _uses_published_model(run):
            words = [f"vadis evaluate --model {self._kinetics_model(run)}"]
        elif run.mode == "original":
            words = ["vadis train", f"--arch {run.architecture}", f"--from {'imagenet' if run.imagenet else 'scratch'}"]
            self._models |= {IMAGENET_MODEL: IMAGENET_MODEL} if run.imagenet else {}
        else:
            words = ["vadis finetune", f"--from {self._kinetics_model(run)}", f"--mode {run.mode}"]
        if "flow" in _streams(run) and run.mode != "fixed" and not _uses_published_model(run):
            self._flow[run.dataset] = store = shlex.quote(str(self._root / "flow" / run.dataset))
            words.append(f"--flow-store {store}")
        words.append(f"--data {DATA_FOLDERS[run.dataset]}")
        words += [f"--split {run.splits[0]}"] if run.splits != (1,) else []
        return words + ([f"--streams {self._alone(run)}"] if self._alone(run) else [])

    def _alone(self, run: Cell) -> str:
        """Return the only stream of a run of an architecture that has several, else nothing."""
        return run.column if _streams(run) != MODELS[run.architecture].streams else ""

    def _kinetics_model(self, run: Cell) -> str:
        """Return the name or path of the Kinetics model to begin from; planned where there is none."""
        before = run._replace(dataset="kinetics", splits=(1,), mode="original")
        if _uses_published_model(before):
            published = KINETICS_MODELS[run.imagenet]
            return self._models.setdefault(published, published)
        there = (each.folder / MODEL_NAME for each in self._index.runs_of(before, 1))
        path = next((path for path in there if path.exists()), None)
        return shlex.quote(str(path or self._root / self.add(before).title / MODEL_NAME))
