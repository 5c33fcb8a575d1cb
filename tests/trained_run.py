"""A run as ``vadis train`` or ``vadis finetune`` leaves it, without training: ``write_trained``, ``write_tested``."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from vadis.datasets import Dataset, Example
from vadis.evaluation.metrics import Evaluation, Prediction, write_summary
from vadis.evaluation.paper_plan import PUBLISHED
from vadis.models import MODELS, Model, ModelCard, build_networks
from vadis.training.plan import RUN_NAME, Plan
from vadis.training.recipes import choose_recipes, default_recipe
from vadis.weights.model_file import save_model

NUM_CLASSES = {"ucf101": 101, "hmdb51": 51, "kinetics": 400, "folder": 3}


def labels_of(dataset: str) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(NUM_CLASSES[dataset]))


def begun(name: str, architecture: str = "i3d", sha256: str = "0" * 64) -> Model:
    """A model to begin from, of which only the card matters."""
    card = ModelCard(name, architecture, MODELS[architecture].streams, labels_of("kinetics"))
    return Model(card, {}, torch.device("cpu"), sha256)


def write_model(path: Path) -> str:
    """Write a small model file, and return the SHA-256 in it."""
    card = ModelCard("small", "i3d", ("rgb",), ("a", "b"), width=1 / 64)
    return save_model(path, card, {"rgb": build_networks(card)["rgb"].state_dict()})


def write_trained(
    folder: Path,
    architecture: str,
    dataset: str,
    right: dict[str, int],
    *,
    split: int = 1,
    mode: str = "full",
    start: Model | None = None,
    published: str | None = "",
    imagenet: bool = False,
    width: float = 1.0,
    changes: dict[str, object] | None = None,
    is_tested: bool = True,
    part: str = "test",
    age_seconds: float = 0.0,
) -> Path:
    """Write run.json and metrics.json.

    Args:
        right: by column, how many of 1,000 videos were right; "rgb" alone is a model of one stream.
        start: the model to begin from; without it, made anew, from ImageNet if ``imagenet``.
        published: what its tensors are known as; by default the name of ``start``, if that is a published one.
        changes: of the recipe.
        age_seconds: how long ago it was tested.
    """
    published = known_as(start.card.name if start else "", published)
    labels, streams = labels_of(dataset), tuple(right) if len(right) == 1 and "both" not in right else None
    streams = streams or MODELS[architecture].streams
    examples = {"train": tuple(Example(f"{number}.mp4", label) for number, label in enumerate(labels))}
    names = {
        run: default_recipe(architecture, dataset, run, mode if start else "scratch")
        for run in MODELS[architecture].training_groups(streams)
    }
    recipes = choose_recipes(names, None, {"schedule": "steps"} | (changes or {}))
    original = begun("inception-v1-imagenet", "two-stream") if imagenet else None
    data = Dataset(dataset, "data", labels, split, examples)
    plan = Plan(data, recipes, start, architecture, streams, original, width, mode=mode)
    folder.mkdir(parents=True)
    run = plan.to_json()
    if start is not None:
        run["from"]["published"] = published
    (folder / RUN_NAME).write_text(json.dumps(run))
    if is_tested:
        write_tested(
            folder, plan.card.name, architecture, dataset, right, split=split, part=part, age_seconds=age_seconds
        )
    return folder


def known_as(name: str, published: str | None) -> str | None:
    """What tensors are known as: ``published``, or where that is "", ``name`` if that is a published one."""
    return published if published != "" else (name if name in PUBLISHED else None)


def write_tested(
    folder: Path,
    model: str,
    architecture: str,
    dataset: str,
    right: dict[str, int],
    *,
    split: int = 1,
    part: str = "test",
    age_seconds: float = 0.0,
    published: str | None = "",
) -> Path:
    """Write metrics.json alone, as ``vadis evaluate`` does."""
    labels = labels_of(dataset)
    summary = {}
    for column, count in right.items():
        logits = {True: np.eye(len(labels))[0], False: -np.eye(len(labels))[0]}
        answers = [
            Prediction("a.mp4", "ok", label=labels[0], logits={column: logits[number < count]})
            for number in range(1000)
        ]
        settings = {"classes": labels, "networks": [column], "averages": "logits"}
        summary |= Evaluation(folder, settings, answers).summary()
    about = {"dataset": dataset, "split": split, "part": part, "model": model, "architecture": architecture}
    folder.mkdir(parents=True, exist_ok=True)
    write_summary(folder, {**summary, **about, "published": known_as(model, published)})
    stamp = (folder / "metrics.json").stat().st_mtime - age_seconds
    os.utime(folder / "metrics.json", (stamp, stamp))
    return folder
