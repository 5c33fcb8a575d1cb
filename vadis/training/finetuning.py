"""From a dataset, a model (or none) and a recipe to one model file: the networks one after the other, then the file.

    RUN/run.json             what the run was asked for; a run asked for otherwise does not go on here
    RUN/rgb/, RUN/flow/      a training run each: log and checkpoints (see ``run_folder``)
    RUN/model.safetensors    both networks, with the labels, the recipes and, once known, the metrics

The last layer is new. Everything else is copied from the model, after a comparison name by name and shape by shape.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vadis.atomic import temporary_beside
from vadis.datasets import Dataset, Example
from vadis.errors import UsageError
from vadis.flow.store import FlowStore
from vadis.models import MODELS, Model, ModelCard, build_networks
from vadis.models.i3d import I3D
from vadis.results import printable
from vadis.training.distributed import Process
from vadis.training.loader import VideoClips
from vadis.training.log import Event
from vadis.training.loop import Outcome, Settings, train
from vadis.training.order import derived_seed
from vadis.training.recipes import Recipe
from vadis.training.validation import Validation, never, validate_clips
from vadis.weights.labels import label_fault
from vadis.weights.model_file import describe_difference, save_model

RUN_NAME, MODEL_NAME, STORE_NAME = "run.json", "model.safetensors", "flow-store"
LAST_LAYER = "Logits.Conv3d_0c_1x1.conv."
HELD_OUT = 20  # one group of this many is kept for validation, where a dataset has none and the recipe needs it

_CLIP_NUMBER = re.compile(r"_c?\d+$")  # v_Archery_g08_c03 → v_Archery_g08; the clips of a group look alike


@dataclass(frozen=True)
class Plan:
    """What a run was asked for.

    Attributes:
        dataset: with a "train" split.
        recipes: by stream, in the order of training.
        start: the model to begin from, or None for random networks.
        width: multiplier of the channel counts of random networks.
        mirror: show half of the training clips mirrored; off where classes tell left from right.

    Raises:
        UsageError: for what cannot be trained, before any work.
    """

    dataset: Dataset
    recipes: Mapping[str, Recipe]
    start: Model | None
    width: float = 1.0
    mirror: bool = True

    def __post_init__(self) -> None:
        self.dataset.examples("train")
        for label in self.dataset.classes:
            fault = label_fault(label)
            if fault is not None:
                raise UsageError(f"the class {printable(label)} {fault}, so no model can have it")
        least = MODELS[self.card.architecture].min_frames
        for recipe in self.recipes.values():
            if recipe.clip_frames < least:
                raise UsageError(f"clip_frames must be at least {least}, not {recipe.clip_frames}")
        for stream in self.recipes:
            self.splits(stream)

    @property
    def card(self) -> ModelCard:
        """The card of the model to be, without its metrics."""
        data = {"name": self.dataset.name, "split": self.dataset.split}
        begun = None if self.start is None else {"model": self.start.card.name, "sha256": self.start.sha256}
        recipes = {stream: recipe.to_json() for stream, recipe in self.recipes.items()}
        provenance = {"dataset": data, "from": begun, "mirror": self.mirror, "recipes": recipes}
        streams, labels = tuple(self.recipes), self.dataset.classes
        name = f"{'i3d' if self.start is None else self.start.card.name}-{data['name']}-split{data['split']}"
        if self.start is None:
            return ModelCard(name, "i3d", streams, labels, self.width, provenance=provenance)
        return replace(self.start.card, name=name, streams=streams, labels=labels, provenance=provenance)

    def splits(self, stream: str) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
        """The examples to learn from, and those for validation, which may be none.

        Without a "val" split, a recipe that goes by the validation loss has every ``HELD_OUT``-th group of training
        clips kept for it. The test split is never looked at.
        """
        examples, val = self.dataset.splits["train"], self.dataset.splits.get("val", ())
        if val or self.recipes[stream].schedule != "plateau":
            return examples, val
        names = sorted({_group(example) for example in examples}, key=lambda name: hashlib.sha256(name).digest())
        kept = set(names[::HELD_OUT])
        if len(names) < 2:
            raise UsageError(
                "there are too few videos to keep some for validation",
                hint="make a split for it (val/), or use --set schedule=steps, which needs none",
            )
        learnt = tuple(each for each in examples if _group(each) not in kept)
        return learnt, tuple(each for each in examples if _group(each) in kept)

    def to_json(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        card = self.card
        return {"schema": 1, "width": card.width, "labels": list(card.labels), **card.provenance}


def _group(example: Example) -> bytes:
    return os.fsencode(_CLIP_NUMBER.sub("", Path(example.path).stem))


def begin(folder: Path, plan: Plan, *, resume: bool) -> None:
    """Make ``folder`` the folder of this run, or go on with it.

    Raises:
        UsageError: where it holds another run, or anything else.
    """
    path, wanted = folder / RUN_NAME, json.loads(json.dumps(plan.to_json()))
    name = printable(str(folder))
    try:
        if not path.exists():
            _refuse_foreign(folder, name)
            with temporary_beside(path) as (temporary, file):
                file.write(json.dumps(wanted, indent=1).encode("ascii") + b"\n")
                temporary.replace(path)
            return
        there = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{name} cannot hold a training run: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{printable(str(path))} is damaged", hint="choose another folder") from error
    if not isinstance(there, dict) or there != wanted:
        found = there if isinstance(there, dict) else {}
        other = ", ".join(key for key in wanted if found.get(key) != wanted[key])
        raise UsageError(f"{name} holds another run: {other or 'more'} differ", hint="choose another folder with -o")
    if not resume:
        raise UsageError(f"{name} holds this run already", hint="go on with it by --resume, or choose another folder")


def _refuse_foreign(folder: Path, name: str) -> None:
    strange = [entry.name for entry in folder.iterdir() if entry.name != STORE_NAME] if folder.exists() else []
    if strange:
        raise UsageError(
            f"{name} is not empty and holds no run of vadis ({printable(strange[0])} is there)",
            hint="choose a new folder with -o",
        )


def new_network(plan: Plan, stream: str) -> I3D:
    """The network of one stream as training begins: the model's, with a new last layer; or all of it random.

    Changes PyTorch's global generator; the random parameters depend on the recipe's seed and the stream alone.

    Raises:
        UsageError: where the model's network has other tensors than the new one.
    """
    torch.manual_seed(derived_seed(plan.recipes[stream].seed, "parameters", stream))
    network = build_networks(replace(plan.card, streams=(stream,)))[stream]
    if plan.start is not None:
        copy_body(plan.start.networks[stream].state_dict(), network)
    return network


def copy_body(source: Mapping[str, Tensor], network: I3D) -> None:
    """Copy everything but the last layer; raises UsageError with the names unless all else is the same."""
    own = network.state_dict()
    body = {key: value for key, value in source.items() if _is_body(key)}
    expected = {key: tuple(value.shape) for key, value in own.items() if _is_body(key)}
    difference = describe_difference(expected, {key: tuple(value.shape) for key, value in body.items()})
    if difference is not None:
        raise UsageError(f"the model to begin from is another network: {difference}")
    network.load_state_dict({**own, **body})


def _is_body(key: str) -> bool:
    return not key.startswith(LAST_LAYER) and not key.endswith(".num_batches_tracked")


def train_stream(
    stream: str,
    plan: Plan,
    folder: Path,
    process: Process,
    *,
    settings: Settings,
    store: FlowStore | None = None,
    report: Callable[[Event], None] = lambda event: None,
    stop_requested: Callable[[], int] = never,
) -> tuple[Outcome, dict[str, Tensor]]:
    """Train the network of one stream in ``folder/stream``; or take it from there, where it has been trained.

    ``store`` holds the flow of all videos, for "flow"; the other arguments are those of ``train``.

    Returns:
        How the run ended, and the network's tensors, on the CPU.

    Raises:
        As ``train`` does.
    """
    recipe = plan.recipes[stream]
    learnt, held_out = plan.splits(stream)
    classes = plan.dataset.classes

    def clips_of(examples: Sequence[Example], *, learning: bool) -> VideoClips:
        return VideoClips(
            examples,
            classes,
            stream,
            frames=recipe.clip_frames,
            seed=recipe.seed,
            train=learning,
            store=store,
            flip=plan.mirror,
        )

    def validate(network: torch.nn.Module) -> Validation:
        clips = clips_of(held_out, learning=False)
        size, workers = recipe.micro_batch, settings.workers
        return validate_clips(network, clips, process, batch_size=size, workers=workers, stop_requested=stop_requested)

    network = new_network(plan, stream)
    outcome = train(
        network,
        clips_of(learnt, learning=True),
        recipe,
        folder / stream,
        labels=classes,
        data_sha256=list_sha256(plan.dataset, (*learnt, *held_out)),
        process=process,
        validate=validate if held_out else None,
        settings=settings,
        report=report,
        stop_requested=stop_requested,
    )
    return outcome, {key: value.detach().cpu() for key, value in network.state_dict().items()}


def list_sha256(dataset: Dataset, examples: Sequence[Example]) -> str:
    """The SHA-256 of a list of examples, by their paths below the dataset's folder: it may be moved."""
    rows = [
        [printable(os.path.relpath(each.path, dataset.root)), each.label, each.start_seconds, each.end_seconds]
        for each in examples
    ]
    return hashlib.sha256(json.dumps(rows).encode("ascii")).hexdigest()


def save(
    folder: Path, plan: Plan, networks: Mapping[str, Mapping[str, Tensor]], metrics: Mapping[str, Any] | None = None
) -> Path:
    """Write the model file, with ``metrics`` in its provenance where there are any; returns its path.

    Raises:
        WeightsError: where it cannot be written.
    """
    card, path = plan.card, folder / MODEL_NAME
    if metrics is not None:
        card = replace(card, provenance={**card.provenance, "metrics": dict(metrics)})
    save_model(path, card, networks)
    return path
