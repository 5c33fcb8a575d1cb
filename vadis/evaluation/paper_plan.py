"""The commands for the cells of a table that no run has filled yet, in an order in which they can be run.

A missing cell needs a run; that needs the Kinetics model it begins from, if that is neither there nor published, the
flow of its dataset, and ImageNet's parameters. What each of them takes is estimated by rule of thumb.
"""

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
from vadis.weights.cache import is_file, model_path
from vadis.weights.catalog import WEIGHTS

KINETICS_MODELS = {imagenet: name for name, imagenet in PUBLISHED.items()}
DATA = {"ucf101": "ucf101/", "hmdb51": "hmdb51/", "kinetics": "kinetics400/"}
"""Placeholders for the folders of the datasets."""

FLOW_BYTES = 5_000  # of a frame in the flow store (docs/flow-store.md)
FLOW_CORE_SECONDS = 0.037  # of one frame of 340×256: 0.0185 s on two cores (docs/performance.md)
FRAME_RATE = 25
TRAINING_PASSES = 3  # one forward; a backward pass for the gradients of inputs and weights takes twice as much
GIGA = 1e9


class DatasetSize(NamedTuple):
    """How large a dataset is: videos of split 1, all videos, and their mean length."""

    train: int
    test: int
    videos: int
    seconds: float
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


class PlannedRun(NamedTuple):
    """A run that is wanted."""

    architecture: str
    dataset: str
    split: int
    mode: str
    imagenet: bool
    streams: tuple[str, ...]

    @property
    def is_test(self) -> bool:
        """Whether it has been trained by the paper's authors, and is only to be tested."""
        return self.architecture == "i3d" and self.dataset == "kinetics"

    @property
    def name(self) -> str:
        """The name of its folder."""
        mode = self.mode if self.dataset != "kinetics" else ""
        start, split = "imagenet" if self.imagenet else "", f"split{self.split}" if self.split != 1 else ""
        alone = self.streams[0] if self.streams != MODELS[self.architecture].streams else ""
        return "-".join(filter(None, (self.architecture, self.dataset, mode, start, split, alone)))


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


def estimate(run: PlannedRun) -> tuple[float, float]:
    """Return the operations that a run and its test take, and the bytes that it leaves on the disk.

    An upper bound where a recipe stops early or videos are short, without validations (about 1 %), flow and decoding.
    """
    row, size = MODELS[run.architecture], SIZES[run.dataset]
    video = GIGA * sum(GFLOPS[run.architecture, streams][1] for streams in row.networks(run.streams).values())
    flops, num_bytes = size.test * video, 0.0
    if not run.is_test:
        num_bytes = 4e6 * row.params_millions
        if run.mode == "fixed":  # the features of all training videos; to train the last layer costs nothing
            return flops + size.train * video, num_bytes
        num_bytes *= 1 + 2 * KEPT  # checkpoints, each with its momentum
        mode = "scratch" if run.mode == "original" else "full"
        for group, streams in row.training_groups(run.streams).items():
            recipe = find_recipe(default_recipe(run.architecture, run.dataset, group, mode))
            clip = GIGA * sum(GFLOPS[run.architecture, each][0] for each in row.networks(streams).values())
            flops += TRAINING_PASSES * clip * recipe.batch_size * recipe.steps
    return flops, num_bytes


def videos_bytes(jobs: Iterable[Job]) -> float:
    """Return the size of the datasets that jobs need."""
    return sum(SIZES[name].num_bytes for name in {job.dataset for job in jobs} if name)


def plan(table: Table, index: RunIndex, root: Path) -> list[Job]:
    """Return the commands for all cells of ``table`` that are missing in ``index``, which was found below ``root``."""
    planner = _Planner(index, root)
    for cell in table.cells():
        row = MODELS[cell.architecture]
        alone = row.fusion == "in_network" and cell.column != BOTH  # a network of its own
        streams = (cell.column,) if alone else row.streams
        for split in index.splits_missing(cell):
            run = PlannedRun(cell.architecture, cell.dataset, split, cell.mode, cell.imagenet, streams)
            planner.add(run).fills.append(cell)
    runs = sorted(planner.runs.values(), key=lambda job: job.dataset != "kinetics")
    return [*planner.preparations(), *runs]


class _Planner:
    """Gathers jobs, each once, with all that they need."""

    def __init__(self, index: RunIndex, root: Path) -> None:
        self._index, self._root = index, root
        self.runs: dict[PlannedRun, Job] = {}
        self._flow: dict[str, None] = {}  # datasets
        self._models: dict[str, None] = {}  # published ones that are needed

    def add(self, run: PlannedRun) -> Job:
        """Plan ``run`` and all before it."""
        if run not in self.runs:
            folder = self._root / run.name
            command = (*self._begin(run), f"-o {shlex.quote(str(folder))}")
            if (folder / RUN_NAME).exists():  # and no metrics that count: it was interrupted
                command += ("--resume",)
            flops, num_bytes = estimate(run)
            self.runs[run] = Job(run.name, command, flops, 0.0, num_bytes, run.dataset)
        return self.runs[run]

    def preparations(self) -> Iterator[Job]:
        """Yield what comes before all runs: downloads and flow."""
        if missing := [name for name in self._models if not is_file(model_path(name))]:
            num_bytes = sum(2 * WEIGHTS[name].num_bytes for name in missing)  # as downloaded, and as a model
            yield Job("the published models", ("vadis weights download", *missing), num_bytes=num_bytes)
        for dataset in self._flow:
            command = ("vadis flow", DATA[dataset], f"-o {self._flow_store(dataset)}")
            frames = SIZES[dataset].videos * SIZES[dataset].seconds * FRAME_RATE
            title, seconds = f"flow of {DATASET_TITLES[dataset]}", frames * FLOW_CORE_SECONDS
            yield Job(title, command, 0.0, seconds, frames * FLOW_BYTES, dataset)

    def _begin(self, run: PlannedRun) -> list[str]:
        """Return the command of a run up to its folder."""
        row = MODELS[run.architecture]
        if run.is_test:
            words = [f"vadis evaluate --model {self._published(KINETICS_MODELS[run.imagenet])}"]
        elif run.mode == "original":
            start = self._published(IMAGENET_MODEL) and "imagenet" if run.imagenet else "scratch"
            words = ["vadis train", f"--arch {run.architecture}", f"--init {start}"]
        else:
            words = ["vadis finetune", f"--from {self._kinetics_model(run)}", f"--mode {run.mode}"]
        if "flow" in run.streams and run.mode != "fixed" and not run.is_test:
            self._flow[run.dataset] = None
            words.append(f"--flow-store {self._flow_store(run.dataset)}")
        words.append(f"--data {DATA[run.dataset]}")
        words += [f"--split {run.split}"] if run.split != 1 else []
        return words + ([f"--streams {run.streams[0]}"] if run.streams != row.streams else [])

    def _kinetics_model(self, run: PlannedRun) -> str:
        """Return the name or path of the Kinetics model to begin from; planned where there is none."""
        before = run._replace(dataset="kinetics", split=1, mode="original")
        if before.is_test:
            return self._published(KINETICS_MODELS[run.imagenet])
        column = BOTH if len(run.streams) > 1 else run.streams[0]
        cell = Cell(run.architecture, "kinetics", "original", run.imagenet, column)
        there = (each.folder / MODEL_NAME for each in self._index.runs_of(cell, 1))
        path = next((path for path in there if path.exists()), None)
        return shlex.quote(str(path or self._root / self.add(before).title / MODEL_NAME))

    def _published(self, name: str) -> str:
        """Return ``name``, of a model that has to be there."""
        self._models[name] = None
        return name

    def _flow_store(self, dataset: str) -> str:
        return shlex.quote(str(self._root / "flow" / dataset))
