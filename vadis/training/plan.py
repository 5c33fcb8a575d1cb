"""From a dataset, a model (or none) and a recipe to one model file: the networks one after the other, then the file.

    RUN/run.json             what the run was asked for; a run asked for otherwise does not go on here
    RUN/rgb/, RUN/flow/      a training run each: log and checkpoints (see ``run_folder``); RUN/both/ where an
                             architecture trains both streams as one
    RUN/videos/              where the recipe makes them itself
    RUN/curves.png           how they went
    RUN/model.safetensors    all networks, with the labels, the recipes and, once known, the metrics

The last layer is new, unless the model knows the same classes. Everything else is copied from the model, after a
comparison name by name and shape by shape.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import path_below
from vadis.datasets.holdout import Division, hold_out
from vadis.errors import UsageError
from vadis.flow.store import FlowStore
from vadis.models import MODELS, Architecture, Model, ModelCard, build_networks, joined_for_training
from vadis.models.inception import from_imagenet
from vadis.preprocessing import shrinking
from vadis.results import printable
from vadis.training.checkpoint import is_longer, read_json, write_json
from vadis.training.distributed import Process
from vadis.training.loader import Jitter, VideoClips
from vadis.training.log import Event
from vadis.training.loop import Outcome, Settings, train
from vadis.training.recipes import Recipe
from vadis.training.sampler import derived_seed
from vadis.training.validation import KeptState, Validation, never, validate_clips
from vadis.weights.labels import label_fault
from vadis.weights.load import published_name
from vadis.weights.model_file import describe_difference, save_model

RUN_NAME, MODEL_NAME, STORE_NAME = "run.json", "model.safetensors", "flow-store"
VIDEOS_NAME = "videos"  # where the videos lie that a recipe makes itself
LAST_LAYER = "Logits."  # how its keys begin, in every architecture
HELD_OUT = Fraction(1, 20)  # of each class, for validation, where a dataset has no split and the recipe needs it


@dataclass(frozen=True)
class Plan:
    """What a run was asked for.

    Attributes:
        dataset: with a "train" split.
        recipes: by run, in the order of training: "rgb", "flow", or "both" (see ``Architecture.training_groups``).
        start: the model to begin from, or None for networks made anew.
        architecture: of networks made anew: a key of ``MODELS``.
        streams: of the model to be.
        imagenet: Inception-v1's parameters, from which new networks begin; None for random ones.
        width: multiplier of the channel counts of new networks.
        mirror: show half of the training clips mirrored; off where classes tell left from right.
        mode: "full", or "fixed": only the last layer learns (see ``fixed``).

    Raises:
        UsageError: for what cannot be trained, before any work.
    """

    dataset: Dataset
    recipes: Mapping[str, Recipe]
    start: Model | None
    architecture: str = "i3d"
    streams: tuple[str, ...] = ("rgb", "flow")
    imagenet: Model | None = None
    width: float = 1.0
    mirror: bool = True
    mode: str = "full"

    def __post_init__(self) -> None:
        self.dataset.examples("train")
        for label in self.dataset.classes:
            fault = label_fault(label)
            if fault is not None:
                message = f"the class {printable(label)} {fault}, so no model can have it"
                raise UsageError(message, hint="give it another name, in the lists or by renaming its folder")
        lacking = [stream for stream in self.streams if self.start and stream not in self.start.card.streams]
        if lacking:
            raise UsageError(
                f"the model to begin from has no {lacking[0]} stream", hint="choose other `streams`, or another model"
            )
        for recipe in self.recipes.values():
            fault = _length_fault(self.row, recipe.clip_frames)
            if fault is not None and self.mode == "full":
                hint = "leave it out of `changes` and of the recipe's file, or train another architecture"
                raise UsageError(f"clip_frames {fault}, not {recipe.clip_frames}", hint)
            if recipe.test_window and (self.row.test_window or recipe.test_window < self.row.min_frames):
                hint = "leave it out, or train I3D, which takes windows of any length"
                raise UsageError(f"test_window cannot be {recipe.test_window} here", hint=hint)
        for run in self.recipes:
            self.splits(run)

    @property
    def row(self) -> Architecture:
        """The architecture of the model to be."""
        return MODELS[self.architecture if self.start is None else self.start.card.architecture]

    @property
    def first_recipe(self) -> Recipe:
        """The one that says what the networks of a model have in common."""
        return next(iter(self.recipes.values()))

    @property
    def runs(self) -> dict[str, tuple[str, ...]]:
        """The streams of each training run, by its name; a last layer alone is trained for each network."""
        return self.row.networks(self.streams) if self.mode == "fixed" else self.row.training_groups(self.streams)

    @property
    def keeps_last_layer(self) -> bool:
        """Whether the model to begin from tells the same classes apart, in whatever order."""
        return self.start is not None and sorted(self.start.card.labels) == sorted(self.dataset.classes)

    @cached_property
    def published_start(self) -> str | None:
        """The name of the published model to begin from, by its tensors; None for any other, and for none."""
        return None if self.start is None else published_name(self.start)

    @property
    def mirrors(self) -> bool:
        """Whether half of the clips are shown mirrored: not of classes that are known to tell left from right."""
        knows_sides = self.start is not None and self.start.card.provenance.get("mirror") is False
        return self.mirror and self.first_recipe.mirror and not (self.keeps_last_layer and knows_sides)

    @property
    def card(self) -> ModelCard:
        """The card of the model to be, without its metrics.

        Of the model to begin from it has the architecture and the width, which its networks have. What that model does
        with its labels (``threshold``, ``otherwise``), what its recipe chose (``test_window``) and how it makes flow
        faster (``crop_first``) were found for its own classes or training, and say nothing about this one.
        """
        data = {"name": self.dataset.name, "split": self.dataset.split}
        begun = self.start or self.imagenet
        provenance = {
            "dataset": data,
            "from": begun and {"model": begun.card.name, "sha256": begun.sha256, "published": self.published_start},
            "mode": self.mode if self.start else "scratch",
            "mirror": self.mirrors,
            "recipes": {run: recipe.to_json() for run, recipe in self.recipes.items()},
        }
        row, window, place = self.row, self.first_recipe.test_window, f"-{data['name']}-split{data['split']}"
        name = self.architecture if self.start is None else self.start.card.name
        return ModelCard(
            name=self.first_recipe.dataset or name.removesuffix(place) + place,
            architecture=self.architecture if self.start is None else self.start.card.architecture,
            streams=self.streams,
            labels=self.dataset.classes,
            width=self.width if self.start is None else self.start.card.width,
            window_frames=window or row.window_frames,
            test_window=window or None,
            short_side=row.short_side,
            crop=row.crop,
            provenance=provenance,
        )

    def splits(self, run: str) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """Return the examples to learn from, and those for validation, which may be none."""
        division = self.division(run)
        return division.train, division.val

    def division(self, run: str) -> Division:
        """Divide the training examples into those to learn from and those for validation, which may be none.

        Without a "val" split, a recipe that goes by the validation loss has ``HELD_OUT`` of the training clips kept for
        it, whole recordings of each class. The test split is never looked at.
        """
        examples, val = self.dataset.splits["train"], self.dataset.splits.get("val", ())
        if val or self.recipes[run].schedule != "plateau":
            return Division(examples, val, ())
        division = hold_out(examples, HELD_OUT, self.dataset.root)
        if not division.val:
            raise UsageError(
                "there are too few videos to keep some for validation",
                hint="make a split for it (val/), or use `schedule=steps`, which needs none",
            )
        return division

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        card = self.card
        asked = {"schema": 1, "architecture": card.architecture, "streams": list(card.streams), "width": card.width}
        return {**asked, "labels": list(card.labels), **card.provenance}


def _length_fault(row: Architecture, frames: int) -> str | None:
    """Why no training clip of this architecture has so many frames, or None."""
    if row.test_window is None:  # convolutional in time
        return f"must be at least {row.min_frames}" if frames < row.min_frames else None
    return f"must be {row.window_frames}" if frames != row.window_frames else None


def begin(folder: Path, plan: Plan, *, resume: bool) -> None:
    """Make ``folder`` the folder of this run, or go on with it, with ``resume`` also for more steps than before.

    Raises:
        UsageError: where it holds another run, or anything else.
    """
    path, wanted = folder / RUN_NAME, json.loads(json.dumps(plan.to_json()))
    name = printable(str(folder))
    if not path.exists():
        refuse_foreign(folder)
        write_json(path, wanted)
        return
    there = read_json(path)
    if resume and is_longer(wanted, there):
        write_json(path, wanted)
    elif there != wanted:
        other = ", ".join(key for key in wanted if there.get(key) != wanted[key])
        raise UsageError(f"{name} holds another run: {other or 'more'} differ", hint="choose another folder")
    if not resume and any((folder / stream).exists() for stream in plan.recipes):
        raise UsageError(f"{name} holds this run already", hint="go on by `resume=True`, or choose another folder")


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError where ``folder`` holds what is no part of a training run; a run in it may be another."""
    if (folder / RUN_NAME).exists() or not folder.exists():
        return
    strange = [entry.name for entry in folder.iterdir() if entry.name not in (STORE_NAME, VIDEOS_NAME)]
    if strange:
        raise UsageError(
            f"{printable(str(folder))} is not empty and holds no run of vadis ({printable(strange[0])} is there)",
            hint="choose a new folder",
        )


def new_networks(plan: Plan, run: str) -> dict[str, nn.Module]:
    """The networks of one run, by name, as training begins: the model's, with new last layers; or new altogether.

    Of a model with the same classes the last layers are kept too, their outputs in the order of the dataset's classes.

    Changes PyTorch's global generator; the random parameters depend on the recipe's seed and the run alone.

    Raises:
        UsageError: where the model's networks have other tensors than the new ones.
    """
    torch.manual_seed(derived_seed(plan.recipes[run].seed, "parameters", run))
    networks = build_networks(replace(plan.card, streams=plan.runs[run]))
    for name, network in networks.items():
        if plan.start is not None:
            source = plan.start.networks[name].state_dict()
            copy_body(source, network)
            if plan.keeps_last_layer:
                known = plan.start.card.labels
                _copy_last_layer(source, network, [known.index(label) for label in plan.dataset.classes])
        elif plan.imagenet is not None:
            _begin_from_imagenet(network, plan.imagenet)
    return networks


def _begin_from_imagenet(network: nn.Module, imagenet: Model) -> None:
    try:
        from_imagenet(network, imagenet.networks["rgb"].state_dict())
    except ValueError as error:
        message = f"training cannot begin from {imagenet.card.name}: {error}"
        raise UsageError(message, hint="let it begin from scratch, or from a model of its own architecture") from error


def copy_body(source: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy everything but the last layer; raises UsageError with the names unless all else is the same."""
    own = network.state_dict()
    body = {key: value for key, value in source.items() if _is_body(key)}
    expected = {key: tuple(value.shape) for key, value in own.items() if _is_body(key)}
    difference = describe_difference(expected, {key: tuple(value.shape) for key, value in body.items()})
    if difference is not None:
        hint = "begin from a model of the same architecture and width, or from scratch"
        raise UsageError(f"the model to begin from is another network: {difference}", hint)
    network.load_state_dict({**own, **body})


def _copy_last_layer(source: Mapping[str, Tensor], network: nn.Module, order: Sequence[int]) -> None:
    """Copy the last layer, whose outputs are the first axis of all its tensors, in another ``order`` of outputs."""
    last = {
        key: value[torch.tensor(order, device=value.device)]
        for key, value in source.items()
        if key.startswith(LAST_LAYER)
    }
    network.load_state_dict({**network.state_dict(), **last})


def _is_body(key: str) -> bool:
    return not key.startswith(LAST_LAYER) and not key.endswith(".num_batches_tracked")


def train_run(
    run: str,
    plan: Plan,
    folder: Path,
    process: Process,
    *,
    settings: Settings,
    store: FlowStore | None = None,
    report: Callable[[Event], None] = lambda event: None,
    stop_requested: Callable[[], int] = never,
) -> tuple[Outcome, dict[str, dict[str, Tensor]]]:
    """Train the networks of one run in ``folder/run``; or take them from there, where they have been trained.

    ``store`` holds the flow of all videos, where flow is needed; the other arguments are those of ``train``.

    Returns:
        How the run ended, and each network's tensors, on the CPU.

    Raises:
        As ``train`` does.
    """
    recipe = plan.recipes[run]
    learnt, held_out = plan.splits(run)
    networks = new_networks(plan, run)

    def validate(network: nn.Module) -> Validation:
        clips = clips_of(plan, run, held_out, learning=False, store=store)
        size, workers = recipe.micro_batch, settings.workers
        return validate_clips(network, clips, process, batch_size=size, workers=workers, stop_requested=stop_requested)

    outcome = train(
        joined_for_training(networks),
        clips_of(plan, run, learnt, learning=True, store=store),
        recipe,
        folder / run,
        labels=plan.dataset.classes,
        data_sha256=list_sha256(plan.dataset, (*learnt, *held_out)),
        process=process,
        validate=validate if held_out else None,
        settings=settings,
        report=report,
        stop_requested=stop_requested,
    )
    return outcome, {name: tensors_of(network) for name, network in networks.items()}


def clips_of(
    plan: Plan, run: str, examples: Sequence[Example], *, learning: bool, store: FlowStore | None
) -> VideoClips:
    """The clips of one run: random ones to learn from, or those for validation."""
    recipe, row = plan.recipes[run], plan.row
    jitter = Jitter(recipe.brightness, recipe.contrast, recipe.saturation)
    return VideoClips(
        examples,
        plan.dataset.classes,
        plan.runs[run],
        frames=recipe.clip_frames,
        seed=recipe.seed,
        train=learning,
        store=store,
        flip=plan.mirrors,
        jitter=jitter if any(astuple(jitter)) else None,
        sampling=row.sampling,
        shrink=shrinking(row.short_side),
    )


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """All tensors of a network, on the CPU."""
    return {key: value.detach().cpu() for key, value in network.state_dict().items()}


def list_sha256(dataset: Dataset, examples: Sequence[Example]) -> str:
    """The SHA-256 of a list of examples, by their paths below the dataset's folder: it may be moved."""
    rows = [
        [printable(path_below(each.path, dataset.root)), each.label, each.start_seconds, each.end_seconds]
        for each in examples
    ]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def save(
    folder: Path,
    plan: Plan,
    networks: Mapping[str, Mapping[str, Tensor]],
    states: Mapping[str, KeptState],
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write the model file; its provenance says which state of each run it holds, and ``metrics`` where there are any.

    Returns its path.

    Raises:
        WeightsError: where it cannot be written.
    """
    card, path = plan.card, folder / MODEL_NAME
    provenance = {**card.provenance, "states": {run: kept.to_json() for run, kept in states.items()}}
    if metrics is not None:
        provenance["metrics"] = dict(metrics)
    save_model(path, replace(card, provenance=provenance), networks)
    return path
