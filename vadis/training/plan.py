"""From a dataset, a model (or none) and a recipe to one model file: the networks one after the other, then the file.

RUN/run.json             what the run was asked for; a run asked for otherwise does not go on here
RUN/rgb/, RUN/flow/      a training run each: log and checkpoints; RUN/both/ where both streams are trained as one
RUN/videos/              where the recipe makes them itself
RUN/curves.png           how they went
RUN/model.safetensors    all networks, with the labels, the recipes and, once known, the metrics
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vadis.datasets import Dataset, Example
from vadis.datasets.dataset import Division, hold_out, path_below
from vadis.errors import UsageError
from vadis.files import os_errors_as, write_file
from vadis.flow.store import FlowStore
from vadis.models import MODELS, Architecture, Model, ModelCard, build_networks, joined_for_training
from vadis.models.inception import from_imagenet
from vadis.parsing import parse_json
from vadis.results import label_fault, printable
from vadis.training.checkpoint import differences
from vadis.training.loader import VideoClips, derived_seed
from vadis.training.loop import Context, KeptState, Trainer, validate_clips
from vadis.training.recipes import Recipe
from vadis.video.metadata import SHORT_SIDE
from vadis.weights.load import published_name
from vadis.weights.model_file import save_model

RUN_NAME, MODEL_NAME, STORE_NAME = "run.json", "model.safetensors", "flow-store"
VIDEOS_NAME = "videos"  # where the videos lie that a recipe makes itself
LAST_LAYER = "Logits."  # how its keys begin, in every architecture
Networks = dict[str, dict[str, Tensor]]  # by name: tensors by key
States = dict[str, KeptState]  # by run
VAL_SHARE = Fraction(1, 20)  # of each class, for validation, where a dataset has no split and the recipe needs it


@dataclass(frozen=True)
class Plan:
    """What a run was asked for; raises UsageError for what cannot be trained, before any work."""

    dataset: Dataset  # with a "train" split
    recipes: Mapping[str, Recipe]  # by run, in the order of training: "rgb", "flow", or "both"
    start: Model | None  # the model to begin from, or None for networks made anew
    architecture: str = "i3d"  # a key of MODELS: that of ``start``, if there is one
    streams: tuple[str, ...] = ("rgb", "flow")  # of the model to be
    imagenet: Model | None = None  # Inception-v1's parameters, from which new networks begin; None for random ones
    width: float = 1.0  # multiplier of the channel counts of new networks
    mirror: bool = True  # show half of the training clips mirrored; off where classes tell left from right
    mode: str = "full"  # or "fixed": only the last layer learns (see linear_probe)

    def __post_init__(self) -> None:
        self.dataset.examples("train")
        for label in self.dataset.classes:
            if (fault := label_fault(label)) is not None:
                message = f"the class {printable(label)} {fault}, so no model can have it"
                raise UsageError(message, hint="give it another name, in the lists or by renaming its folder")
        if self.start and (lacking := set(self.streams) - set(self.start.card.streams)):
            message = f"the model to begin from has no {lacking.pop()} stream"
            raise UsageError(message, hint="choose other `streams`, or another model")
        row, hint = self.row, "leave it out of `changes` and of the recipe's file, or train another architecture"
        for recipe in self.recipes.values():
            frames, fixed = recipe.clip_frames, row.window_frames if row.test_window else None
            if self.mode == "full" and (frames != fixed if fixed else frames < row.min_frames):
                raise UsageError(f"clip_frames must be {fixed or f'at least {row.min_frames}'}, not {frames}", hint)
            if recipe.test_window and (row.test_window or recipe.test_window < row.min_frames):
                raise UsageError(f"test_window cannot be {recipe.test_window} here", hint)
        for run in self.recipes:
            self.division(run)

    @property
    def row(self) -> Architecture:
        return MODELS[self.architecture]

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
        """The card of the model to be, without its metrics; of ``start`` it has only name and width."""
        row, begun, data, recipe = self.row, self.start or self.imagenet, self.dataset, self.first_recipe
        name, place = self.start.card.name if self.start else self.architecture, f"-{data.name}-split{data.split}"
        return ModelCard(
            name=recipe.dataset or name.removesuffix(place) + place,
            architecture=self.architecture,
            streams=self.streams,
            labels=data.classes,
            width=self.start.card.width if self.start else self.width,
            window_frames=recipe.test_window or row.window_frames,
            test_window=recipe.test_window or None,
            short_side=row.short_side,
            crop=row.crop,
            provenance={
                "dataset": {"name": data.name, "split": data.split},
                "from": begun and {"model": begun.card.name, "sha256": begun.sha256, "published": self.published_start},
                "mode": self.mode if self.start else "scratch",
                "mirror": self.mirrors,
                "recipes": {run: recipe.to_json() for run, recipe in self.recipes.items()},
            },
        )

    def division(self, run: str) -> Division:
        """Return the training set and the validation set of a run, which may be empty; never the test split.

        Without a "val" split, a recipe that goes by the validation loss gets ``VAL_SHARE`` of the training clips.
        """
        examples, val = self.dataset.splits["train"], self.dataset.splits.get("val", ())
        if val or self.recipes[run].schedule != "plateau":
            return Division(examples, val, ())
        division = hold_out(examples, VAL_SHARE, self.dataset.root)
        if not division.val:
            hint = "make a split for it (val/), or use `schedule=steps`, which needs none"
            raise UsageError("there are too few videos to keep some for validation", hint)
        return division

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to go on; ``schema`` is that of all that lies in its folder."""
        card = self.card
        asked = {"schema": 2, "architecture": card.architecture, "streams": list(card.streams), "width": card.width}
        return {**asked, "labels": list(card.labels), **card.provenance}


def begin(folder: Path, plan: Plan, *, resume: bool, allow_inexact: bool = False) -> None:
    """Make ``folder`` the folder of this run, or go on with it; raise UsageError where it holds anything else.

    Another recipe for what has been begun is refused before anything is written, unless ``allow_inexact``.
    """
    path, name = folder / RUN_NAME, printable(str(folder))
    text = json.dumps(plan.to_json(), indent=1) + "\n"
    if path.exists():
        try:
            with os_errors_as(UsageError, f"{printable(str(path))} cannot be read"):
                there, wanted = dict(parse_json(path.read_bytes())), parse_json(text)
            begun = [run for run in plan.recipes if (folder / run).exists() and not allow_inexact]
            changes = [each for run in begun for each in differences(*(of["recipes"][run] for of in (there, wanted)))]
        except (ValueError, TypeError, LookupError) as error:
            raise UsageError(f"{printable(str(path))} is damaged", hint="choose another folder") from error
        others = [key for key in {**wanted, **there} if key != "recipes" and there.get(key) != wanted.get(key)]
        if others:
            raise UsageError(f"{name} holds another run: its {', '.join(others)} differ", "choose another folder")
        if not resume and any((folder / run).exists() for run in plan.recipes):
            raise UsageError(f"{name} holds this run already", hint="go on by `resume=True`, or choose another folder")
        if changes:
            hint = "change that back, or go on all the same by `allow_inexact=True`"
            raise UsageError(f"{name} cannot go on exactly: its {'; '.join(dict.fromkeys(changes))}", hint)
    refuse_foreign(folder)
    with os_errors_as(UsageError, f"{name} cannot hold a training run"):
        write_file(path, text)


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError where ``folder`` holds what is no part of a training run; a run in it may be another."""
    if (folder / RUN_NAME).exists() or not folder.exists():
        return
    strange = [entry.name for entry in folder.iterdir() if entry.name not in (STORE_NAME, VIDEOS_NAME)]
    if strange:
        message = f"{printable(str(folder))} is not empty and holds no run of vadis ({printable(strange[0])} is there)"
        raise UsageError(message, hint="choose a new folder")


def new_networks(plan: Plan, run: str) -> dict[str, nn.Module]:
    """Return the networks of one run, by name, as training begins: the model's, with new last layers; or all new.

    Of a model with the same classes the last layers are kept too. Random parameters depend on seed and run alone.
    """
    torch.manual_seed(derived_seed(plan.recipes[run].seed, "parameters", run))
    networks = build_networks(replace(plan.card, streams=plan.runs[run]))
    for name, network in networks.items():
        if plan.start is not None:
            source, own = plan.start.networks[name].state_dict(), network.state_dict()
            last = {key: value for key, value in own.items() if key.startswith(LAST_LAYER)}
            if plan.keeps_last_layer:  # the outputs are the first axis of all its tensors
                order = [plan.start.card.labels.index(label) for label in plan.dataset.classes]
                last = {key: source[key][order] for key in last}
            counters = {key: value for key, value in own.items() if key.endswith(".num_batches_tracked")}
            network.load_state_dict({**source, **last, **counters})  # which wants every name and shape
        elif plan.imagenet is not None:
            try:
                from_imagenet(network, plan.imagenet.networks["rgb"].state_dict())
            except ValueError as error:
                message = f"training cannot begin from {plan.imagenet.card.name}: {error}"
                hint = "let it begin from scratch, or from a model of its own architecture"
                raise UsageError(message, hint) from error
    return networks


def train_run(
    run: str, plan: Plan, folder: Path, context: Context, store: FlowStore | None = None
) -> tuple[KeptState, Networks]:
    """Train the networks of one run in ``folder/run``, or take them from there; raise as ``Trainer.train`` does.

    ``store`` has the flow, where that is needed. Returns the state kept, and its tensors on the CPU.
    """
    recipe, division, networks = plan.recipes[run], plan.division(run), new_networks(plan, run)
    train = clips_of(plan, run, division.train, train=True, store=store)
    val = clips_of(plan, run, division.val, train=False, store=store) if division.val else None
    validator = partial(validate_clips, clips=val, context=context, batch_size=recipe.micro_batch) if val else None
    data = plan.dataset.classes, list_sha256(plan.dataset, (*division.train, *division.val))
    trainer = Trainer(joined_for_training(networks), train, validator, recipe, folder / run, *data, context)
    return trainer.train(), tensors_of(networks)


def clips_of(plan: Plan, run: str, examples: Sequence[Example], *, train: bool, store: FlowStore | None) -> VideoClips:
    """Return the clips of one run: random ones for training, or those for validation."""
    return VideoClips(
        examples,
        plan.dataset.classes,
        plan.runs[run],
        plan.recipes[run],
        train=train,
        store=store,
        flip=plan.mirrors,
        sampling=plan.row.sampling,
        shrink=SHORT_SIDE // plan.row.short_side,
    )


def tensors_of(networks: Mapping[str, nn.Module]) -> Networks:
    states = {name: network.state_dict() for name, network in networks.items()}
    return {name: {key: value.cpu() for key, value in state.items()} for name, state in states.items()}


def list_sha256(dataset: Dataset, examples: Sequence[Example]) -> str:
    """Return the SHA-256 of a list of examples, by their paths below the dataset's folder: it may be moved."""
    rows = [
        [printable(path_below(each.path, dataset.root)), each.label, each.start_seconds, each.end_seconds]
        for each in examples
    ]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def save(
    folder: Path, plan: Plan, networks: Networks, states: States, metrics: Mapping[str, Any] | None = None
) -> None:
    """Write the model file; its provenance has which state of each run it holds, and ``metrics`` if there are any."""
    provenance = {**plan.card.provenance, "states": {run: asdict(kept) for run, kept in states.items()}}
    if metrics is not None:
        provenance["metrics"] = dict(metrics)
    save_model(folder / MODEL_NAME, replace(plan.card, provenance=provenance), networks)
