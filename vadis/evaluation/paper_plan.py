"""Which commands fill the cells of a table that no run has filled yet, in an order in which they can be run.

a missing cell → the run that gives it → the Kinetics model that this begins from, if it is not there or published
                                       → the flow of its dataset, ImageNet's parameters
"""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from vadis.evaluation.effort import (
    NUMBER_BYTES,
    SIZES,
    Effort,
    evaluation_effort,
    flow_effort,
    last_layer_effort,
    network_sizes,
    training_effort,
)
from vadis.evaluation.paper_tables import DATASET_TITLES, Cell, Table
from vadis.evaluation.run_index import IMAGENET_MODEL, KINETICS_MODELS, NUM_CLASSES, Finished, Found, splits_missing
from vadis.evaluation.summary import METRICS_NAME
from vadis.models import BOTH, MODELS
from vadis.training.plan import MODEL_NAME, RUN_NAME
from vadis.weights.cache import is_file, model_path

DATA = {"ucf101": "ucf101/", "hmdb51": "hmdb51/", "kinetics": "kinetics400/"}
"""Placeholders for the folders of the datasets."""
STAGES = ("download", "flow", "kinetics", "transfer")  # what comes before what


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
        title: what it makes, for a person.
        stage: of ``STAGES``.
        command: with what follows an option in the same string: ``("vadis train", "--arch lstm", …)``.
        estimate: what it takes, as a function: counting takes seconds, and not everybody wants to know.
        fills: the cells that it gives a number, or one of the numbers whose mean they are.
        dataset: whose videos it needs, or None.
    """

    title: str
    stage: str
    command: tuple[str, ...]
    estimate: Callable[[], Effort]
    fills: tuple[Cell, ...] = ()
    dataset: str | None = None

    @property
    def effort(self) -> Effort:
        """What it takes."""
        return self.estimate()


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which they can be run."""

    jobs: tuple[Job, ...]

    def num_bytes(self) -> dict[str, float]:
        """What everything takes on the disk, by what it is; the videos too."""
        total = {"videos": float(sum(SIZES[name].num_bytes for name in {job.dataset for job in self.jobs} if name))}
        for job in self.jobs:
            for kind, number in job.effort.num_bytes.items():
                total[kind] = total.get(kind, 0) + number
        return {kind: number for kind, number in total.items() if number}

    def gpu_hours(self, tflops: float) -> float:
        """Of all jobs, see ``Effort.gpu_hours``."""
        return sum(job.effort.gpu_hours(tflops) for job in self.jobs)

    def core_hours(self) -> float:
        """Of all jobs."""
        return sum(job.effort.core_hours for job in self.jobs)


@dataclass(frozen=True)
class _Work:
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


def plan(table: Table, found: Found, root: Path) -> Plan:
    """The commands for all cells of ``table`` that are missing in ``found``, which was found below ``root``."""
    planner = _Planner(found, root)
    for work, cells in _wanted(table.cells(), found).items():
        planner.add(work, cells)
    return Plan(tuple(sorted(planner.jobs(), key=lambda job: STAGES.index(job.stage))))


def _wanted(cells: Iterable[Cell], found: Found) -> dict[_Work, tuple[Cell, ...]]:
    """The runs that give the missing cells, one run for all cells that it gives."""
    groups: dict[tuple[_Work, str], dict[str, list[Cell]]] = {}
    for cell in cells:
        for split in splits_missing(cell, found):
            work = _Work(cell.architecture, cell.dataset, split, cell.mode, cell.imagenet, ())
            alone = cell.column if MODELS[cell.architecture].fusion == "in_network" else ""  # each column is a network
            groups.setdefault((work, alone), {}).setdefault(cell.column, []).append(cell)
    return {
        replace(work, streams=_streams(work.architecture, tuple(columns))): tuple(chain(*columns.values()))
        for (work, _), columns in groups.items()
    }


def _streams(architecture: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The streams of the model that gives these columns."""
    return columns if len(columns) == 1 and columns != (BOTH,) else MODELS[architecture].streams


class _Planner:
    """Gathers jobs, each once, with all that they need."""

    def __init__(self, found: Found, root: Path) -> None:
        self._found, self._root = found, root
        self._jobs: dict[str, Job] = {}
        self._flow: dict[str, set[int]] = {}  # dataset → splits
        self._models: dict[str, None] = {}  # to be downloaded

    def add(self, work: _Work, cells: tuple[Cell, ...] = ()) -> str:
        """The job for ``work`` and all before it; returns the path of the model that it makes."""
        name = _free_name(work.name, self._root)
        if work.name in self._jobs:
            before = self._jobs[work.name]
            self._jobs[work.name] = replace(before, fills=(*before.fills, *cells))
        elif work.is_test:
            self._jobs[work.name] = self._test(work, name, cells)
        else:
            self._jobs[work.name] = self._training(work, name, cells)
        return str(self._root / name / MODEL_NAME)

    def jobs(self) -> list[Job]:
        """All of them, with flow and downloads."""
        flow = [self._flow_job(dataset, splits) for dataset, splits in self._flow.items()]
        missing = [name for name in self._models if not is_file(model_path(name))]
        return [*([_download(missing)] if missing else []), *flow, *self._jobs.values()]

    def _test(self, work: _Work, name: str, cells: tuple[Cell, ...]) -> Job:
        model = KINETICS_MODELS[work.imagenet]
        self._models[model] = None
        command = ("vadis evaluate", f"--model {model}", *self._common(work, name))
        estimate = partial(evaluation_effort, work.architecture, work.dataset, work.split, work.streams)
        return Job(name, "kinetics", command, estimate, cells, work.dataset)

    def _training(self, work: _Work, name: str, cells: tuple[Cell, ...]) -> Job:
        begun = self._beginning(work)
        if "flow" in work.streams and work.mode != "fixed":
            self._flow.setdefault(work.dataset, set()).add(work.split)
            begun += (f"--flow-store {self._quoted('flow', work.dataset)}",)
        command = (*begun, *self._common(work, name))
        if (self._root / name / RUN_NAME).exists():  # and no metrics: it was interrupted
            command += ("--resume",)
        stage = "kinetics" if work.dataset == "kinetics" else "transfer"
        return Job(name, stage, command, partial(_effort, work), cells, work.dataset)

    def _beginning(self, work: _Work) -> tuple[str, ...]:
        """The command, up to what it begins from."""
        if work.mode == "original":
            if work.imagenet:
                self._models[IMAGENET_MODEL] = None
            start = "imagenet" if work.imagenet else "scratch"
            return "vadis train", f"--arch {work.architecture}", f"--init {start}"
        return "vadis finetune", f"--from {self._kinetics_model(work)}", f"--mode {work.mode}"

    def _kinetics_model(self, work: _Work) -> str:
        """The name or path of the Kinetics model to begin from; planned where there is none."""
        before = replace(work, dataset="kinetics", split=1, mode="original")
        if before.is_test:
            name = KINETICS_MODELS[work.imagenet]
            self._models[name] = None
            return name
        return shlex.quote(next((str(path) for path in _models_of(before, self._found.runs)), None) or self.add(before))

    def _common(self, work: _Work, name: str) -> tuple[str, ...]:
        row = MODELS[work.architecture]
        words = [f"--data {DATA[work.dataset]}"]
        words += [f"--split {work.split}"] if work.split != 1 else []
        words += [f"--streams {work.streams[0]}"] if work.streams != row.streams else []
        return (*words, f"-o {self._quoted(name)}")

    def _flow_job(self, dataset: str, splits: set[int]) -> Job:
        one = splits == {1}
        what = f"--data {DATA[dataset]}" if one else DATA[dataset]
        command = ("vadis flow", what, f"-o {self._quoted('flow', dataset)}")
        estimate = partial(flow_effort, dataset, all_splits=not one)
        return Job(f"flow of {DATASET_TITLES[dataset]}", "flow", command, estimate, (), dataset)

    def _quoted(self, *names: str) -> str:
        return shlex.quote(str(self._root.joinpath(*names)))


def _effort(work: _Work) -> Effort:
    key = work.architecture, work.dataset, work.split
    if work.mode == "fixed":
        return last_layer_effort(*key, work.streams)
    return training_effort(*key, "scratch" if work.mode == "original" else "full", work.streams)


def _download(names: list[str]) -> Job:
    """One command for all models that are not in the cache."""
    return Job("the published models", "download", ("vadis weights download", *names), partial(_cache_effort, names))


def _cache_effort(names: list[str]) -> Effort:
    """Of fetching models: what was downloaded stays beside what it became."""
    num_bytes = 0.0
    for name in names:
        kind, classes = ("two-stream", 1000) if name == IMAGENET_MODEL else ("i3d", NUM_CLASSES["kinetics"])
        streams = ("rgb",) if name == IMAGENET_MODEL else MODELS[kind].streams
        num_bytes += 2 * NUMBER_BYTES * sum(size.stored for size in network_sizes(kind, streams, classes).values())
    return Effort(num_bytes={"models": num_bytes})


def _models_of(work: _Work, runs: Iterable[Finished]) -> Iterable[Path]:
    """The model files of finished runs that did this work, the newest first."""
    column = BOTH if len(work.streams) > 1 else work.streams[0]
    for run in runs:
        did = (run.architecture, run.dataset, run.mode, run.imagenet)
        is_same = did == (work.architecture, work.dataset, work.mode, work.imagenet)
        path = run.folder / MODEL_NAME
        if is_same and column in run.figures and path.exists():
            yield path


def _free_name(name: str, root: Path) -> str:
    """``name``, or with a number where a folder of that name holds something else than an interrupted run."""
    number, free = 1, name
    while _is_taken(root / free):
        number += 1
        free = f"{name}-{number}"
    return free


def _is_taken(folder: Path) -> bool:
    if (folder / METRICS_NAME).exists():  # finished, but of another kind, or it would not be missing
        return True
    return folder.exists() and not (folder / RUN_NAME).exists() and not (folder / "answers.jsonl").exists()
