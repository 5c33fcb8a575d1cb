"""The commands for the cells of a table that no run has filled yet, in an order in which they can be run."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vadis.evaluation.paper_tables import DATASET_TITLES, Cell, Table
from vadis.evaluation.run_index import IMAGENET_MODEL, PUBLISHED, RunIndex
from vadis.models import BOTH, MODELS
from vadis.training.checkpoint import KEPT
from vadis.training.plan import MODEL_NAME, RUN_NAME
from vadis.training.recipes import default_recipe, find_recipe
from vadis.video.timegrid import GRID_FPS
from vadis.weights.cache import is_file, model_path
from vadis.weights.catalog import WEIGHTS

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
        self._flow: dict[str, None] = {}  # datasets
        self._models: dict[str, None] = {}  # published ones that are needed

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
        for dataset in self._flow:
            command = ("vadis flow", DATA_FOLDERS[dataset], f"-o {self._flow_store(dataset)}")
            frames = SIZES[dataset].videos * SIZES[dataset].seconds * GRID_FPS
            title, seconds = f"flow of {DATASET_TITLES[dataset]}", frames * FLOW_CORE_SECONDS
            yield Job(title, command, 0.0, seconds, frames * FLOW_BYTES, dataset)

    def _begin(self, run: Cell) -> list[str]:
        if _uses_published_model(run):
            words = [f"vadis evaluate --model {self._published(KINETICS_MODELS[run.imagenet])}"]
        elif run.mode == "original":
            start = self._published(IMAGENET_MODEL) and "imagenet" if run.imagenet else "scratch"
            words = ["vadis train", f"--arch {run.architecture}", f"--from {start}"]
        else:
            words = ["vadis finetune", f"--from {self._kinetics_model(run)}", f"--mode {run.mode}"]
        if "flow" in _streams(run) and run.mode != "fixed" and not _uses_published_model(run):
            self._flow[run.dataset] = None
            words.append(f"--flow-store {self._flow_store(run.dataset)}")
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
            return self._published(KINETICS_MODELS[run.imagenet])
        there = (each.folder / MODEL_NAME for each in self._index.runs_of(before, 1))
        path = next((path for path in there if path.exists()), None)
        return shlex.quote(str(path or self._root / self.add(before).title / MODEL_NAME))

    def _published(self, name: str) -> str:
        self._models[name] = None
        return name

    def _flow_store(self, dataset: str) -> str:
        return shlex.quote(str(self._root / "flow" / dataset))
