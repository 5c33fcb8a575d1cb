"""How a network is trained, as numbers: ``Recipe``, its schedule, the paper's recipes, and which of them a run takes.

Each number carries its source: (paper) Carreira & Zisserman, CVPR 2017, sections 2.5 and 4; (code) what DeepMind
published with google-deepmind/kinetics-i3d, its README and the first author's answers there; (ours) where neither
says anything. A recipe holds what decides the result; where and how fast it is computed is not in it.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vadis.datasets.dataset import did_you_mean
from vadis.errors import UsageError
from vadis.files import os_errors_as
from vadis.models.card import PRECISIONS
from vadis.parsing import decode, parse_json, parse_toml
from vadis.results import printable


@dataclass(frozen=True)
class Recipe:
    """The numbers of one training run; raises UsageError for those that cannot be."""

    name: str  # its key in RECIPES
    batch_size: int  # clips per step, over all devices and micro-batches
    micro_batch: int  # clips that pass through the network at once on one device; batch norm sees these and no others
    steps: int  # of the optimiser, at most
    schedule: str  # "plateau" (divide when the validation loss saturates), "steps" (milestones), "cosine" (to zero)
    learning_rate: float  # at the start
    milestones: tuple[tuple[int, float], ...] = ()  # (step, learning rate from that step on), for "steps"
    plateau_factor: float = 10.0  # the divisor; (paper) "reduced by a factor of 10 when validation loss saturated"
    plateau_patience: int = 3  # validations in a row without improvement that count as saturation; (ours)
    plateau_improvement: float = 1e-3  # by how much the loss must fall below the best so far, in nats; (ours)
    plateau_drops: int = 2  # divisions; the next saturation ends the run; (ours) as many as a cycle of the code has
    validate_every: int = 0  # steps between validations; 0 for none but the last
    optimizer: str = "sgd"  # (paper); or "adamw"
    momentum: float = 0.9  # as torch.optim.SGD means it; (paper); of AdamW the first of its betas
    weight_decay: float = 1e-7  # likewise; (code)
    # What others do who fine-tune; off, as the paper names none of it:
    last_layer_factor: float = 1.0  # multiplies the learning rate of the last layer
    freeze_batch_norm: bool = False  # normalise by the averages as they are, and learn nothing of batch norm
    warmup_steps: int = 0  # over which the learning rate rises from zero, linearly
    clip_norm: float = 0.0  # of all gradients together, at most; 0 for no limit
    label_smoothing: float = 0.0  # share of a training clip's label that is spread over all classes
    ema_decay: float = 0.0  # of the average over steps that is validated and kept instead of the network; 0: none
    dropout: float = 0.5  # share of the features dropped before the last layer; (code)
    batch_norm_decay: float = 0.999  # share of the running averages that one step keeps; (code)
    clip_frames: int = 64  # of a training clip, at 25 frames per second; (paper) 2.56 s
    brightness: float = 0.0  # of RGB clips, added, as a share of the whole range, at most; (paper) left to future work
    contrast: float = 0.0  # the factor around the clip's mean lies in [1 - contrast, 1 + contrast]
    saturation: float = 0.0  # the factor around grey, likewise
    seed: int = 0  # of everything random: order of clips, augmentation, dropout, and videos that are made
    mirror: bool = True  # show half of the clips mirrored; off where classes tell left from right; (paper)
    width: float = 1.0  # multiplies the channel counts of a network made anew, where nothing else is asked for; (paper)
    precision: str = "fp32"  # of the networks' products while they learn, or "bf16"; all else is float32; (paper)
    test_window: int = 0  # frames of the windows that the model looks through; 0: as its architecture does; (paper)
    dataset: str = ""  # where no data are named: that of vadis.datasets.camera
    videos: int = 0  # of each class, in all splits, of that dataset
    scales: bool = False  # batch, steps, validations and patience follow the number of clips (see scale_recipe)

    def __post_init__(self) -> None:
        if fault := _fault(self):
            hint = "correct it where it was set: by `changes`, or in the recipe's file"
            raise UsageError(f"the recipe {self.name} cannot be used: {fault}", hint)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {**asdict(self), "milestones": [list(pair) for pair in self.milestones]}


_CHOICES = {
    "schedule": ("plateau", "steps", "cosine"),
    "optimizer": ("sgd", "adamw"),
    "precision": tuple(PRECISIONS),
}
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "at least 1": ("batch_size micro_batch steps plateau_patience clip_frames", lambda value: value >= 1),
    "not negative, and finite": (
        "validate_every plateau_drops seed test_window videos plateau_improvement weight_decay warmup_steps clip_norm",
        lambda value: 0 <= value < math.inf,
    ),
    "in [0, 1)": (
        "momentum dropout batch_norm_decay brightness contrast saturation label_smoothing ema_decay",
        lambda value: 0 <= value < 1,
    ),
    "between 1/64 and 4": ("width", lambda value: 1 / 64 <= value <= 4),
    "greater than 1": ("plateau_factor", lambda value: value > 1),
    "positive and finite": ("learning_rate last_layer_factor", lambda value: 0 < value < math.inf),
}


def _fault(recipe: Recipe) -> str | None:
    for condition, (names, is_allowed) in _RANGES.items():
        for name in names.split():
            if not is_allowed(getattr(recipe, name)):
                return f"{name} must be {condition}, not {getattr(recipe, name)}"
    for name, choices in _CHOICES.items():
        if (chosen := getattr(recipe, name)) not in choices:
            return f"{name} must be one of {', '.join(choices)}, not {chosen!r}"
    steps = [step for step, rate in recipe.milestones if step >= 0 and 0 < rate < math.inf]
    if steps != sorted(set(steps)) or len(steps) < len(recipe.milestones):
        return "milestones must be in rising order of their steps, with learning rates that are positive and finite"
    return None


@dataclass(frozen=True)
class Plateau:
    """What the validations so far have shown: all that the paper's rule needs."""

    best: float | None = None  # validation loss, in nats
    stale: int = 0  # validations in a row without improvement
    drops: int = 0  # saturations so far: each divides the rate, or ends the run where it has been divided enough


def learning_rate(recipe: Recipe, step: int, plateau: Plateau) -> float:
    """Return the rate of the step that follows ``step`` others."""
    warmup = recipe.warmup_steps
    share = (step + 1) / warmup if step < warmup else 1.0  # of the rate that the schedule says
    if recipe.schedule == "plateau":
        return share * recipe.learning_rate / recipe.plateau_factor ** min(plateau.drops, recipe.plateau_drops)
    if recipe.schedule == "cosine":
        done = max(step - warmup, 0) / max(recipe.steps - warmup, 1)
        return share * recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return share * [recipe.learning_rate, *(rate for milestone, rate in recipe.milestones if milestone <= step)][-1]


def after_validation(recipe: Recipe, plateau: Plateau, loss: float) -> Plateau:
    """Return the state after one more validation of this loss; a loss that is not finite is no improvement."""
    best = math.inf if plateau.best is None else plateau.best
    if loss < best - recipe.plateau_improvement:
        return replace(plateau, best=loss, stale=0)
    if plateau.stale + 1 < recipe.plateau_patience:
        return replace(plateau, stale=plateau.stale + 1)
    return replace(plateau, stale=0, drops=plateau.drops + 1)


def is_finished(recipe: Recipe, step: int, plateau: Plateau) -> bool:
    """Return whether all steps are done, or the loss has saturated at the lowest rate."""
    return step >= recipe.steps or (recipe.schedule == "plateau" and plateau.drops > recipe.plateau_drops)


_KINETICS_RGB = Recipe(
    name="kinetics-rgb",
    batch_size=384,  # (code) 6 clips per replica; (paper) 64 GPUs for the 3D networks: 6 · 64
    micro_batch=6,  # (code) so batch norm sees what a replica saw
    steps=115_000,  # (code); (paper) 110 k
    schedule="steps",
    learning_rate=1e-1,  # (code)
    milestones=((97_000, 1e-2), (108_000, 1e-3)),  # (code)
    validate_every=5_000,  # (ours)
)
_KINETICS_FLOW = replace(
    _KINETICS_RGB,
    name="kinetics-flow",
    steps=155_000,  # (code) a second cycle
    # (code) 1e-3 comes 3.5 k steps earlier than for RGB
    milestones=((97_000, 1e-2), (104_500, 1e-3), (115_000, 1e-1), (140_000, 1e-2), (150_000, 1e-3)),
)
_UCF101 = Recipe(
    name="ucf101",
    batch_size=96,  # (paper) 16 GPUs; 6 clips on each as for Kinetics (ours: the paper does not say)
    micro_batch=6,
    steps=5_000,  # (paper) "up to 5k steps"
    schedule="plateau",  # (paper) the same rule
    learning_rate=1e-3,  # (code) the first author: 1e-3 with momentum 0.9; 1e-2 is too large
    validate_every=250,  # (ours) two and a half epochs of UCF-101
)
_UCF101_SCRATCH = replace(
    _UCF101,
    name="ucf101-scratch",
    learning_rate=1e-1,  # (code) as Kinetics begins; 1e-3 is for networks that have learnt already
)
_UCF101_FIXED = Recipe(  # the paper does not say how the last layer alone was trained
    name="ucf101-fixed",
    batch_size=480,  # (ours) no memory to spare, so fewer and larger steps than for the whole network
    micro_batch=480,  # (ours) there is no batch norm to see it
    steps=500,  # (ours) 26 epochs of UCF-101
    schedule="plateau",  # (paper) the same rule
    learning_rate=5e-2,  # (ours) for features of root mean square 1; 3e-2 to 1e-1 end within 1 % of each other
    validate_every=25,  # (ours) one and a third epochs of UCF-101
)
_CAMERA_MOTION = Recipe(  # (ours) all of it
    name="camera-motion",
    batch_size=8,  # of 16, half as many steps would fit into the same time
    micro_batch=8,
    steps=2_000,
    schedule="steps",
    learning_rate=2e-2,  # at 1e-1 the RGB network had learnt nothing after 450 steps, and then did at 1e-2
    milestones=((1_500, 2e-3), (1_850, 4e-4)),
    validate_every=250,
    dropout=0.3,
    batch_norm_decay=0.95,  # of few steps the average must forget the first
    clip_frames=32,
    mirror=False,  # a pan to the left is one to the right in the mirror
    width=0.125,
    test_window=32,
    dataset="camera-motion",
    videos=108,
)
_SHARES = {  # clips that a device takes at once; devices, (paper) on Kinetics; (paper) table 1: frames of a clip
    "lstm": (6, 32, 125),  # clips: (ours) 150 images at once
    "c3d": (15, 64, 16),  # clips: (paper) section 2.2, 15 per GPU
    "two-stream": (12, 32, 10),  # clips: (ours)
    "fused": (6, 64, 50),  # clips: (ours) 30 images and 30 stacks at once
}


def _table() -> list[Recipe]:
    recipes, transferred = [_KINETICS_RGB, _KINETICS_FLOW, _CAMERA_MOTION], [_UCF101, _UCF101_SCRATCH, _UCF101_FIXED]
    for architecture, (clips, devices, frames) in _SHARES.items():  # whose code was not published: the paper's rule
        sized = replace(_UCF101, batch_size=16 * clips, micro_batch=clips, clip_frames=frames)
        # (ours) its first rate: the paper tuned it on Kinetics' validation set, and does not tell it
        scratch = replace(sized, name=f"{architecture}-ucf101-scratch", learning_rate=_UCF101_SCRATCH.learning_rate)
        transferred += [replace(sized, name=f"{architecture}-ucf101"), scratch]
        large = replace(scratch, name=f"{architecture}-kinetics", batch_size=clips * devices)
        recipes.append(replace(large, steps=110_000, validate_every=5_000))  # (paper); (ours)
    for dataset in ("ucf101", "hmdb51", "folder"):  # (paper) one protocol for the first two
        for recipe in transferred:
            name = recipe.name.replace("ucf101", dataset)
            recipes.append(replace(recipe, name=name, scales=dataset == "folder"))
    return recipes


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _table()}

STEPS_PER_EPOCH = 4  # (ours) of small datasets; UCF-101's 9,537 clips make 99
EPOCHS = 50  # (paper) 5,000 steps of 96 clips on UCF-101
EPOCHS_PER_VALIDATION = 2.5  # as for UCF-101
MIN_PATIENCE_STEPS = 60  # (ours) before the rate falls; 3 validations of 23 clips would be 30 steps of 6


def scale_recipe(recipe: Recipe, num_clips: int, num_processes: int = 1) -> Recipe:
    """Return a recipe that ``scales`` for so many training clips: what UCF-101 has in epochs, with smaller batches.

    A last layer alone is trained in batches of all clips, for as many steps.
    """
    if not recipe.scales:
        return recipe
    if recipe.micro_batch == recipe.batch_size:
        batch = min(recipe.batch_size, num_clips)
        return replace(recipe, batch_size=batch, micro_batch=batch)
    unit = recipe.micro_batch * num_processes
    batch = min(recipe.batch_size, unit * max(1, round(num_clips / (STEPS_PER_EPOCH * unit))))
    every = max(1, min(recipe.validate_every, math.ceil(EPOCHS_PER_VALIDATION * num_clips / batch)))
    return replace(
        recipe,
        batch_size=batch,
        steps=min(recipe.steps, math.ceil(EPOCHS * num_clips / batch)),
        validate_every=every,
        plateau_patience=max(recipe.plateau_patience, math.ceil(MIN_PATIENCE_STEPS / every)),
    )


def find_recipe(name: str) -> Recipe:
    """Return the recipe of this name; raise UsageError where there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}", f"there are {', '.join(RECIPES)}{did_you_mean(name, RECIPES)}")
    return RECIPES[name]


def override(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """Return ``recipe`` with the fields replaced that ``values`` name, as TOML gives them, or as text.

    ``milestones`` is a list of pairs, ``[[97000, 0.01]]``, as text too.
    """
    types = {field.name: field.type for field in fields(Recipe)}
    for name in values:
        if name not in types:
            raise UsageError(f"a recipe has no field {name!r}", f"it has {', '.join(types)}{did_you_mean(name, types)}")
    return replace(recipe, **{name: _parse(name, types[name], value) for name, value in values.items()})


_TYPE_NAMES: dict[object, str] = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}


def _parse(name: str, kind: Any, value: object) -> Any:
    if kind is str and isinstance(value, str):
        return value
    with suppress(ValueError, TypeError, OverflowError):
        parsed: Any = parse_json(value.lower()) if isinstance(value, str) else value  # True, as Python says it, too
        if kind is bool and type(parsed) is bool:
            return parsed
        if kind in (int, float) and type(parsed) in (int, float) and kind(parsed) == parsed:
            return kind(parsed)
        if kind not in _TYPE_NAMES:
            return tuple((int(step), float(rate)) for step, rate in parsed)
    raise UsageError(f"{name} cannot be {value!r}", f"it is {_TYPE_NAMES.get(kind, 'a list such as [[97000, 0.01]]')}")


def default_recipe(architecture: str, dataset: str, run: str, mode: str) -> str:
    """Return the name of the recipe that a training run takes unless another is asked for.

    ``architecture`` is a key of ``MODELS``, ``dataset`` of ``DATASETS``, ``run`` "rgb", "flow" or "both", ``mode``
    "scratch" (from nothing, or ImageNet), "full" (fine-tuned end to end) or "fixed" (a new last layer).
    """
    if dataset == "kinetics" and mode == "scratch":
        return f"kinetics-{run}" if architecture == "i3d" else f"{architecture}-kinetics"
    known = "ucf101" if dataset == "kinetics" else dataset
    name = known if mode == "full" else f"{known}-{mode}"
    return name if architecture == "i3d" or mode == "fixed" else f"{architecture}-{name}"


def choose_recipes(
    defaults: Mapping[str, str],
    name: str | None = None,
    changes: Mapping[str, object] | None = None,
    *,
    num_clips: int | None = None,
    num_processes: int = 1,
) -> dict[str, Recipe]:
    """Return the recipe of each run, of ``defaults``, which has the name of the one that it takes by itself.

    ``name`` is that of another, or the path of a TOML file (it ends with ``.toml``); ``changes``, by field, come last.
    Recipes that say so are scaled before, to ``num_clips`` of the training set and ``num_processes``.
    """
    content: dict[str, Any] = {"recipe": name} if name else {}
    if name and name.endswith(".toml"):
        content = _read_toml(name)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if unknown := sorted(tables.keys() - defaults.keys()):
        message = f"{printable(str(name))}: there is no network {printable(unknown[0])!r} to train"
        raise UsageError(message, hint=f"the networks of this run are {', '.join(defaults)}")
    recipes = {}
    for run, default in defaults.items():
        numbers = {key: value for key, value in content.items() if key not in tables} | tables.get(run, {})
        recipe = find_recipe(str(numbers.pop("recipe", default)))
        recipe = recipe if num_clips is None else scale_recipe(recipe, num_clips, num_processes)
        recipes[run] = override(recipe, {**numbers, **(changes or {})})
    return recipes


def _read_toml(path: str) -> dict[str, Any]:
    what = f"the recipe {printable(path)} cannot be read"
    with os_errors_as(UsageError, what):
        content = Path(path).read_bytes()
    try:
        return parse_toml(decode(content))
    except ValueError as error:
        hint = "write one field = value in a line, such as steps = 500; words stand in quotes"
        raise UsageError(f"{what} as TOML: {error}", hint) from error
