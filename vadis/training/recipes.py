"""How a network is trained, as numbers: ``Recipe``, and the table of those the paper used.

Each number carries its source: (paper) Carreira & Zisserman, CVPR 2017, sections 2.5 and 4; (code) what DeepMind
published with google-deepmind/kinetics-i3d, its README and the first author's answers there; (ours) where neither
says anything. A recipe holds what decides the result; where and how fast it is computed is not in it.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from vadis.errors import UsageError
from vadis.parsing import parse_json

SCHEDULES = ("plateau", "steps")


@dataclass(frozen=True)
class Recipe:
    """The numbers of one training run of one network.

    Attributes:
        name: its key in ``RECIPES``.
        batch_size: clips per step, over all devices and micro-batches.
        micro_batch: clips that pass through the network at once on one device; batch norm sees these and no others.
        steps: of the optimiser, at most.
        schedule: ``plateau`` (divide when the validation loss saturates) or ``steps`` (``milestones``).
        learning_rate: at the start.
        milestones: pairs (step, learning rate from that step on), for ``steps``.
        plateau_factor: by which the rate is divided.
        plateau_patience: validations in a row without improvement that count as saturation.
        plateau_improvement: by how much the loss must fall below the best so far, in nats.
        plateau_drops: divisions; at the saturation after the last one the run ends.
        validate_every: steps between validations; 0 for none but the last.
        momentum, weight_decay: of the optimiser, as ``torch.optim.SGD`` means them.
        dropout: share of the features dropped before the last layer.
        batch_norm_decay: share of the running averages that one step keeps.
        clip_frames: length of a training clip, at 25 frames per second.
        brightness, contrast, saturation: the largest photometric changes of RGB clips, see ``augmentation.Jitter``.
        seed: of everything random: order of clips, augmentation, dropout, and videos that are made.
        mirror: show half of the clips mirrored; off where classes tell left from right.
        width: multiplies the channel counts of a network made anew, where nothing else is asked for.
        test_window: frames of the separate windows that the model looks through; 0: as its architecture does.
        dataset: what to learn from where no data are named: one of ``vadis.datasets.MADE_HERE``; "" for nothing.
        videos: of each class, in all splits, of that dataset.
        scales: batch, steps, validations and patience follow the number of clips, see ``scaled``.
    """

    name: str
    batch_size: int
    micro_batch: int
    steps: int
    schedule: str
    learning_rate: float
    milestones: tuple[tuple[int, float], ...] = ()
    plateau_factor: float = 10.0  # (paper) "reduced by a factor of 10 when validation loss saturated"
    plateau_patience: int = 3  # (ours)
    plateau_improvement: float = 1e-3  # (ours)
    plateau_drops: int = 2  # (ours) as many as the schedule of the code has in a cycle
    validate_every: int = 0
    momentum: float = 0.9  # (paper)
    weight_decay: float = 1e-7  # (code)
    dropout: float = 0.5  # (code)
    batch_norm_decay: float = 0.999  # (code)
    clip_frames: int = 64  # (paper) 2.56 s
    brightness: float = 0.0  # (paper) left to future work, so off
    contrast: float = 0.0
    saturation: float = 0.0
    seed: int = 0
    mirror: bool = True  # (paper)
    width: float = 1.0  # (paper)
    test_window: int = 0  # (paper) the whole video is one clip
    dataset: str = ""
    videos: int = 0
    scales: bool = False

    def __post_init__(self) -> None:
        fault = _fault(self)
        if fault is not None:
            hint = "correct it where it was set: by `changes`, or in the recipe's file"
            raise UsageError(f"the recipe {self.name} cannot be used: {fault}", hint)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values; ``Recipe.from_json`` gives it back."""
        return {**asdict(self), "milestones": [list(pair) for pair in self.milestones]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """The recipe that ``to_json`` gave; raises TypeError for missing or unknown fields."""
        return cls(**{**values, "milestones": tuple((step, rate) for step, rate in values["milestones"])})


def _fault(recipe: Recipe) -> str | None:
    """What is wrong with a recipe, or None."""
    for name in ("batch_size", "micro_batch", "steps", "plateau_patience", "clip_frames"):
        if getattr(recipe, name) < 1:
            return f"{name} must be at least 1, not {getattr(recipe, name)}"
    whole = ("validate_every", "plateau_drops", "seed", "test_window", "videos")
    for name in (*whole, "plateau_improvement", "weight_decay"):
        if not 0 <= getattr(recipe, name) < math.inf:
            return f"{name} must not be negative, and finite, not {getattr(recipe, name)}"
    for name in ("momentum", "dropout", "batch_norm_decay", "brightness", "contrast", "saturation"):
        if not 0 <= getattr(recipe, name) < 1:
            return f"{name} must be in [0, 1), not {getattr(recipe, name)}"
    if recipe.schedule not in SCHEDULES:
        return f"schedule must be one of {', '.join(SCHEDULES)}, not {recipe.schedule!r}"
    if not 1 / 64 <= recipe.width <= 4:
        return f"width must be between 1/64 and 4, not {recipe.width}"
    if not recipe.plateau_factor > 1:
        return f"plateau_factor must be greater than 1, not {recipe.plateau_factor}"
    if not all(0 < rate < math.inf for rate in (recipe.learning_rate, *(rate for _, rate in recipe.milestones))):
        return "learning rates must be positive and finite"
    steps = [step for step, _ in recipe.milestones]
    if any(step < 0 for step in steps) or steps != sorted(set(steps)):
        return "milestones must be in rising order of their steps"
    return None


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


class _Share(NamedTuple):
    """What one device takes of a step, for the architectures (a) to (d)."""

    clips: int
    devices: int  # (paper) on Kinetics: 64 for the 3D networks, 32 for the others
    clip_frames: int  # (paper) table 1


_SHARES = {
    "lstm": _Share(6, 32, 125),  # clips: (ours) 150 images at once
    "c3d": _Share(15, 64, 16),  # clips: (paper) section 2.2, 15 per GPU
    "two-stream": _Share(12, 32, 10),  # clips: (ours)
    "fused": _Share(6, 64, 50),  # clips: (ours) 30 images and 30 stacks at once
}


def _others(architecture: str, share: _Share) -> Iterator[Recipe]:
    """The recipes of an architecture whose code was not published: the paper's rule on every dataset."""
    scratch, tuned = (
        replace(each, micro_batch=share.clips, clip_frames=share.clip_frames) for each in (_UCF101_SCRATCH, _UCF101)
    )
    yield replace(
        scratch,  # (ours) its first rate: the paper tuned it on Kinetics' validation set, and does not tell it
        name=f"{architecture}-kinetics",
        batch_size=share.clips * share.devices,
        steps=110_000,  # (paper)
        validate_every=5_000,  # (ours)
    )
    for recipe in (tuned, scratch):
        for dataset in ("ucf101", "hmdb51", "folder"):
            name = f"{architecture}-{recipe.name.replace('ucf101', dataset)}"
            yield replace(recipe, name=name, batch_size=16 * share.clips, scales=dataset == "folder")


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

RECIPES: dict[str, Recipe] = {
    "kinetics-rgb": _KINETICS_RGB,
    "kinetics-flow": replace(
        _KINETICS_RGB,
        name="kinetics-flow",
        steps=155_000,  # (code) a second cycle
        milestones=(  # (code) 1e-3 comes 3.5 k steps earlier than for RGB
            (97_000, 1e-2),
            (104_500, 1e-3),
            (115_000, 1e-1),
            (140_000, 1e-2),
            (150_000, 1e-3),
        ),
    ),
    "ucf101": _UCF101,
    "hmdb51": replace(_UCF101, name="hmdb51"),  # (paper) one protocol for both
    "ucf101-scratch": _UCF101_SCRATCH,
    "hmdb51-scratch": replace(_UCF101_SCRATCH, name="hmdb51-scratch"),
    "ucf101-fixed": _UCF101_FIXED,
    "hmdb51-fixed": replace(_UCF101_FIXED, name="hmdb51-fixed"),
    "folder": replace(_UCF101, name="folder", scales=True),
    "folder-scratch": replace(_UCF101_SCRATCH, name="folder-scratch", scales=True),
    "folder-fixed": replace(_UCF101_FIXED, name="folder-fixed", scales=True),
    "camera-motion": _CAMERA_MOTION,
    **{recipe.name: recipe for row in _SHARES.items() for recipe in _others(*row)},
}
"""Every recipe by its name."""


STEPS_PER_EPOCH = 4  # (ours) of small datasets; UCF-101's 9,537 clips make 99
EPOCHS = 50  # (paper) 5,000 steps of 96 clips on UCF-101
EPOCHS_PER_VALIDATION = 2.5  # as for UCF-101
LEAST_PATIENCE_STEPS = 60  # (ours) before the rate falls; 3 validations of 23 clips would be 30 steps of 6


def scaled(recipe: Recipe, num_clips: int, num_processes: int = 1) -> Recipe:
    """Return a recipe that ``scales`` for so many training clips: what UCF-101 has in epochs, with smaller batches.

    Its own numbers are the most of each. A last layer alone is trained in batches of all clips, as often as ever.
    """
    if not recipe.scales:
        return recipe
    if recipe.micro_batch == recipe.batch_size:
        return replace(
            recipe, batch_size=min(recipe.batch_size, num_clips), micro_batch=min(recipe.batch_size, num_clips)
        )
    unit = recipe.micro_batch * num_processes
    batch = min(recipe.batch_size, unit * max(1, round(num_clips / (STEPS_PER_EPOCH * unit))))
    every = max(1, min(recipe.validate_every, math.ceil(EPOCHS_PER_VALIDATION * num_clips / batch)))
    return replace(
        recipe,
        batch_size=batch,
        steps=min(recipe.steps, math.ceil(EPOCHS * num_clips / batch)),
        validate_every=every,
        plateau_patience=max(recipe.plateau_patience, math.ceil(LEAST_PATIENCE_STEPS / every)),
    )


def find_recipe(name: str) -> Recipe:
    """The recipe of this name; raises UsageError, naming the nearest, where there is none."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}", hint=_those_there_are(name, RECIPES))
    return RECIPES[name]


def override(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """``recipe`` with some of its fields replaced.

    Args:
        values: by field name, as TOML gives them, or as text: ``{"learning_rate": "1e-2"}``. ``milestones`` is a list
            of pairs, ``[[97000, 0.01]]``, as text too.

    Raises:
        UsageError: for a name that is no field, or a value that the field cannot have.
    """
    kinds = {field.name: field.type for field in fields(Recipe)}
    for name in values:
        if name not in kinds:
            raise UsageError(f"a recipe has no field {name!r}", hint=_those_there_are(name, kinds))
    return replace(recipe, **{name: _parsed(name, kinds[name], value) for name, value in values.items()})


def _those_there_are(name: str, known: Mapping[str, object]) -> str:
    """The hint for a name that is not ``known``: the nearest of them, and all."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    guess = f"did you mean {close[0]!r}? It is " if close else ""
    return f"{guess}one of {', '.join(known)}"


def _parsed(name: str, kind: object, value: object) -> Any:
    """``value`` as the type of a field."""
    try:
        if kind is str and isinstance(value, str):
            return value
        text = value.lower() if kind is bool and isinstance(value, str) else value  # True, as Python says it, too
        parsed: Any = parse_json(text) if isinstance(text, str) else text
        if kind is bool and type(parsed) is bool:
            return parsed
        if kind is float and type(parsed) in (int, float):
            return float(parsed)
        if kind is int and type(parsed) in (int, float) and parsed == int(parsed):
            return int(parsed)
        if kind not in (str, int, float, bool):
            return tuple((int(step), float(rate)) for step, rate in parsed)
    except (ValueError, TypeError, OverflowError):
        pass
    raise UsageError(f"{name} cannot be {value!r}", hint=_WANTED.get(kind, "it is a list such as [[97000, 0.01]]"))


_WANTED: dict[object, str] = {
    str: "it is a word",
    int: "it is a whole number",
    float: "it is a number",
    bool: "it is true or false",
}
