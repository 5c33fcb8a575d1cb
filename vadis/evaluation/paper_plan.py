"""The commands for the cells of a table that no run has filled yet, in an order in which they can be run.

A missing cell needs a run; that needs the Kinetics model it begins from, if that is neither there nor published, the
flow of its dataset, and ImageNet's parameters. What each of them takes is estimated by rule of thumb.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from vadis.evaluation.metrics import METRICS_NAME
from vadis.evaluation.paper_tables import DATASET_TITLES, Cell, Table
from vadis.evaluation.predictions import PREDICTIONS_NAME
from vadis.evaluation.run_index import IMAGENET_MODEL, NUM_CLASSES, PUBLISHED, RunIndex
from vadis.models import BOTH, MODELS
from vadis.training.checkpoint import KEPT
from vadis.training.plan import MODEL_NAME, RUN_NAME
from vadis.training.recipes import default_recipe, find_recipe
from vadis.weights.cache import is_file, model_path

KINETICS_MODELS = {imagenet: name for name, imagenet in PUBLISHED.items()}
DATA = {"ucf101": "ucf101/", "hmdb51": "hmdb51/", "kinetics": "kinetics400/"}
"""Placeholders for the folders of the datasets."""
STAGES = ("download", "flow", "kinetics", "transfer")  # what comes before what

NUMBER_BYTES = 4  # float32
LOGIT_BYTES = 10  # in the file of predictions: 6 digits, sign, point, comma and blank
FLOW_BYTES = 5_000  # of a frame in the flow store (docs/flow-store.md)
FLOW_CORE_SECONDS = 0.037  # of one frame of 340×256: 0.0185 s on two cores (docs/performance.md)
FRAME_RATE = 25
TRAINING_PASSES = 3  # one forward; a backward pass for the gradients of inputs and weights takes twice as much
GIGA, TERA = 1e9, 1e12
SECONDS_PER_HOUR = 3600


class DatasetSize(NamedTuple):
    """How large a dataset is: videos by split, those that one split and all splits use, and a video's mean length."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    used: tuple[int, int]
    seconds: float
    num_bytes: float  # as published, about


SIZES = {
    # Soomro et al., 2012: 13,320 videos, 27 hours, 6.9 GB; splits by the official lists
    "ucf101": DatasetSize((9_537, 9_586, 9_624), (3_783, 3_734, 3_696), (13_320, 13_320), 7.3, 6.9 * GIGA),
    # Kuehne et al., 2011: 2.1 GB; a split uses 5,100 of the 6,766 videos, of some 95 frames at 30 per second
    "hmdb51": DatasetSize((3_570,) * 3, (1_530,) * 3, (5_100, 6_766), 3.2, 2.1 * GIGA),
    # paper, section 3: 240 k to train, 100 per class to test; and 50 per class for validation (Kay et al., 2017)
    "kinetics": DatasetSize((240_000,), (40_000,), (300_000, 300_000), 10.0, 450 * GIGA),
}


class Cost(NamedTuple):
    """What one network costs: 10⁹ operations for a training clip and for a video, parameters, features.

    Operations are those of convolutions and matrix products, a multiplication and an addition being two; a test counts
    them. ``body_millions`` are the parameters without the last layer, which has as many for each class as features.
    """

    clip_gflops: float
    video_gflops: float  # of the paper's test: 250 frames, in the windows of the architecture
    body_millions: float
    features: int

    def num_bytes(self, num_classes: int) -> float:
        """The size of its parameters in a model file."""
        return NUMBER_BYTES * (1e6 * self.body_millions + num_classes * (self.features + 1))


COSTS = {
    ("lstm", ("rgb",)): Cost(75.035, 150.07, 8.9978, 512),
    ("c3d", ("rgb",)): Cost(39.641, 594.62, 78.029, 4096),
    ("two-stream", ("rgb",)): Cost(2.9955, 74.888, 5.6145, 1024),
    ("two-stream", ("flow",)): Cost(4.3330, 108.33, 5.6678, 1024),
    ("fused", ("rgb",)): Cost(15.738, 78.692, 19.772, 512),
    ("fused", ("flow",)): Cost(22.426, 112.13, 19.826, 512),
    ("fused", ("rgb", "flow")): Cost(38.164, 190.82, 39.596, 512),
    ("i3d", ("rgb",)): Cost(222.31, 869.89, 12.302, 1024),
    ("i3d", ("flow",)): Cost(204.68, 801.05, 12.280, 1024),
}
"""By the architecture and the streams that the network takes."""


class CostEstimate(NamedTuple):
    """What a command takes: operations on a GPU, seconds of one CPU core, bytes on the disk by what they are.

    An upper bound where a recipe stops early or videos are short. Left out are validations (about 1 % more), and the
    flow and decoding beside the network.
    """

    flops: float = 0.0
    core_seconds: float = 0.0
    num_bytes: Mapping[str, float] = {}

    def gpu_hours(self, tflops: float) -> float:
        """Hours of a GPU that sustains so many 10¹² operations per second."""
        return self.flops / (tflops * TERA) / SECONDS_PER_HOUR

    @property
    def core_hours(self) -> float:
        """Hours of one core of a CPU."""
        return self.core_seconds / SECONDS_PER_HOUR


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
        """Of its folder."""
        words = [self.architecture, self.dataset]
        words += [self.mode] if self.dataset != "kinetics" else []
        words += ["imagenet"] if self.imagenet else []
        words += [f"split{self.split}"] if self.split != 1 else []
        words += [*self.streams] if self.streams != MODELS[self.architecture].streams else []
        return "-".join(words)


def estimate_run(run: PlannedRun) -> CostEstimate:
    """Estimate what a run and its test take."""
    row, size, num_classes = MODELS[run.architecture], SIZES[run.dataset], NUM_CLASSES[run.dataset]
    costs = [COSTS[run.architecture, streams] for streams in row.networks(run.streams).values()]
    video_flops = GIGA * sum(cost.video_gflops for cost in costs)
    train_videos, test_videos = size.train[run.split - 1], size.test[run.split - 1]
    flops = test_videos * video_flops
    answers = {"answers": float(test_videos * num_classes * len(costs) * LOGIT_BYTES)}
    if run.is_test:
        return CostEstimate(flops, num_bytes=answers)
    models = sum(cost.num_bytes(num_classes) for cost in costs)
    kept = {"models": models, **answers}
    if run.mode == "fixed":  # the features of all training videos; to train the last layer costs nothing
        features = float(train_videos * NUMBER_BYTES * sum(cost.features for cost in costs))
        return CostEstimate(flops + train_videos * video_flops, num_bytes={"features": features, **kept})
    mode = "scratch" if run.mode == "original" else "full"
    for group, streams in row.training_groups(run.streams).items():
        recipe = find_recipe(default_recipe(run.architecture, run.dataset, group, mode))
        gflops = sum(COSTS[run.architecture, each].clip_gflops for each in row.networks(streams).values())
        flops += TRAINING_PASSES * GIGA * gflops * recipe.batch_size * recipe.steps
    return CostEstimate(flops, num_bytes={"checkpoints": 2 * KEPT * models, **kept})  # each with its momentum


def estimate_flow(dataset: str, *, all_splits: bool) -> CostEstimate:
    """Estimate the flow of all videos that one split uses, or all splits, on a CPU."""
    frames = SIZES[dataset].used[all_splits] * SIZES[dataset].seconds * FRAME_RATE
    return CostEstimate(core_seconds=frames * FLOW_CORE_SECONDS, num_bytes={"flow": frames * FLOW_BYTES})


def estimate_download(names: Iterable[str]) -> CostEstimate:
    """Estimate published models: what was downloaded stays beside what it became."""
    i3d = sum(COSTS["i3d", (stream,)].num_bytes(NUM_CLASSES["kinetics"]) for stream in ("rgb", "flow"))
    original = COSTS["two-stream", ("rgb",)].num_bytes(1000)
    return CostEstimate(num_bytes={"models": 2 * sum(i3d if name in PUBLISHED else original for name in names)})


def total(jobs: "list[Job]") -> CostEstimate:
    """Add up what all jobs take, and the videos that they need."""
    videos = float(sum(SIZES[name].num_bytes for name in {job.dataset for job in jobs} if name))
    num_bytes = {"videos": videos} if videos else {}
    for job in jobs:
        for kind, number in job.estimate.num_bytes.items():
            num_bytes[kind] = num_bytes.get(kind, 0) + number
    core_seconds = sum(job.estimate.core_seconds for job in jobs)
    return CostEstimate(sum(job.estimate.flops for job in jobs), core_seconds, num_bytes)


@dataclass
class Job:
    """One command, with what follows an option in the same string: ``("vadis train", "--arch lstm", …)``."""

    title: str  # what it makes, for a person
    stage: str  # of STAGES
    command: tuple[str, ...]
    estimate: CostEstimate
    fills: tuple[Cell, ...] = ()  # that it gives a number, or one of the numbers whose mean they are
    dataset: str | None = None  # whose videos it needs


def plan(table: Table, index: RunIndex, root: Path) -> list[Job]:
    """The commands for all cells of ``table`` that are missing in ``index``, which was found below ``root``."""
    planner = _Planner(index, root)
    for run, cells in _wanted(table.cells(), index).items():
        planner.add(run, cells)
    return sorted(planner.jobs(), key=lambda job: STAGES.index(job.stage))


def _wanted(cells: Iterable[Cell], index: RunIndex) -> dict[PlannedRun, tuple[Cell, ...]]:
    """The runs that give the missing cells, one run for all cells that it gives."""
    groups: dict[tuple[PlannedRun, str], dict[str, list[Cell]]] = {}
    for cell in cells:
        for split in index.splits_missing(cell):
            run = PlannedRun(cell.architecture, cell.dataset, split, cell.mode, cell.imagenet, ())
            alone = cell.column if MODELS[cell.architecture].fusion == "in_network" else ""  # each column is a network
            groups.setdefault((run, alone), {}).setdefault(cell.column, []).append(cell)
    wanted = {}
    for (run, _), columns in groups.items():
        is_single = len(columns) == 1 and BOTH not in columns
        streams = tuple(columns) if is_single else MODELS[run.architecture].streams
        wanted[run._replace(streams=streams)] = tuple(chain(*columns.values()))
    return wanted


class _Planner:
    """Gathers jobs, each once, with all that they need."""

    def __init__(self, index: RunIndex, root: Path) -> None:
        self._index, self._root = index, root
        self._runs: dict[str, Job] = {}
        self._flow: dict[str, set[int]] = {}  # dataset → splits
        self._models: dict[str, None] = {}  # to be downloaded

    def add(self, run: PlannedRun, cells: tuple[Cell, ...] = ()) -> str:
        """Plan ``run`` and all before it; return the path of the model that it makes."""
        name = self._free_name(run.name)
        if run.name in self._runs:
            self._runs[run.name].fills += cells
        else:
            command = self._command(run, name)
            stage = "kinetics" if run.dataset == "kinetics" else "transfer"
            self._runs[run.name] = Job(name, stage, command, estimate_run(run), cells, run.dataset)
        return str(self._root / name / MODEL_NAME)

    def jobs(self) -> Iterator[Job]:
        """All of them, with downloads and flow."""
        missing = [name for name in self._models if not is_file(model_path(name))]
        if missing:
            command = ("vadis weights download", *missing)
            yield Job("the published models", "download", command, estimate_download(missing))
        for dataset, splits in self._flow.items():
            what = f"--data {DATA[dataset]}" if splits == {1} else DATA[dataset]
            command = ("vadis flow", what, f"-o {self._quoted('flow', dataset)}")
            taken = estimate_flow(dataset, all_splits=splits != {1})
            yield Job(f"flow of {DATASET_TITLES[dataset]}", "flow", command, taken, (), dataset)
        yield from self._runs.values()

    def _command(self, run: PlannedRun, name: str) -> tuple[str, ...]:
        words = [f"--data {DATA[run.dataset]}"]
        words += [f"--split {run.split}"] if run.split != 1 else []
        words += [f"--streams {run.streams[0]}"] if run.streams != MODELS[run.architecture].streams else []
        words += [f"-o {self._quoted(name)}"]
        if run.is_test:
            return "vadis evaluate", f"--model {self._published(KINETICS_MODELS[run.imagenet])}", *words
        if run.mode == "original":
            start = self._published(IMAGENET_MODEL) and "imagenet" if run.imagenet else "scratch"
            begin = ["vadis train", f"--arch {run.architecture}", f"--init {start}"]
        else:
            begin = ["vadis finetune", f"--from {self._kinetics_model(run)}", f"--mode {run.mode}"]
        if "flow" in run.streams and run.mode != "fixed":
            self._flow.setdefault(run.dataset, set()).add(run.split)
            begin += [f"--flow-store {self._quoted('flow', run.dataset)}"]
        is_interrupted = (self._root / name / RUN_NAME).exists()  # and no metrics
        return *begin, *words, *(["--resume"] if is_interrupted else [])

    def _kinetics_model(self, run: PlannedRun) -> str:
        """The name or path of the Kinetics model to begin from; planned where there is none."""
        before = run._replace(dataset="kinetics", split=1, mode="original")
        if before.is_test:
            return self._published(KINETICS_MODELS[run.imagenet])
        column = BOTH if len(run.streams) > 1 else run.streams[0]
        cell = Cell(run.architecture, "kinetics", "original", run.imagenet, column)
        there = (each.folder / MODEL_NAME for each in self._index.runs_of(cell, 1))
        return shlex.quote(next((str(path) for path in there if path.exists()), None) or self.add(before))

    def _published(self, name: str) -> str:
        """``name``, of a model that has to be there."""
        self._models[name] = None
        return name

    def _free_name(self, name: str) -> str:
        """``name``, or with a number where a folder of that name holds something else than an interrupted run."""
        number, folder = 1, self._root / name
        while folder.exists():
            is_finished = (folder / METRICS_NAME).exists()  # but of another kind, or it would not be missing
            if not is_finished and any((folder / each).exists() for each in (RUN_NAME, PREDICTIONS_NAME)):
                break
            number += 1
            folder = self._root / f"{name}-{number}"
        return folder.name

    def _quoted(self, *names: str) -> str:
        return shlex.quote(str(self._root.joinpath(*names)))
