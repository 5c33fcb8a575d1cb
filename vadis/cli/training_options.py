"""What ``vadis finetune`` and ``vadis train`` are asked for: their options as types, and ``Asked``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vadis.cli import options

SCRATCH, IMAGENET = "scratch", "imagenet"  # beginnings that are no model of videos
MODES = ("full", "fixed")
TRAINING = "Training"

Streams = Annotated[
    str,
    typer.Option(
        metavar="|".join(options.STREAM_CHOICES),
        callback=options.one_of(options.STREAM_CHOICES),
        help="Which networks to train: that of the pictures (rgb), of the motion (flow), or one after the other.",
        rich_help_panel=TRAINING,
    ),
]
From = Annotated[
    str,
    typer.Option("--from", metavar="NAME|PATH|scratch", help="The model to begin from.", rich_help_panel=options.MODEL),
]
ARCHITECTURES = ("lstm", "c3d", "two-stream", "fused", "i3d")  # the keys of vadis.models.MODELS, which is heavy
Arch = Annotated[
    str,
    typer.Option(
        metavar="|".join(ARCHITECTURES),
        callback=options.one_of(ARCHITECTURES),
        help="The paper's architectures (a) to (e), in this order.",
        rich_help_panel=options.MODEL,
    ),
]
Init = Annotated[
    str,
    typer.Option(
        metavar="scratch|imagenet|NAME|PATH",
        help="What to begin from: nothing, Inception-v1 as it learnt ImageNet, or a model.",
        rich_help_panel=options.MODEL,
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        metavar="|".join(MODES),
        callback=options.one_of(MODES),
        help="full: the whole network learns; fixed: its features once, then only the last layer.",
        rich_help_panel=TRAINING,
    ),
]
Width = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        min=1 / 64,
        max=4.0,
        help="From scratch: multiplies every channel count; 1 is the paper's network.",
        rich_help_panel=options.MODEL,
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="By default that of the dataset; or a TOML file.",
        rich_help_panel=TRAINING,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a number of the recipe; repeatable.", rich_help_panel=TRAINING
    ),
]
Mirror = Annotated[
    bool,
    typer.Option(
        "--mirror/--no-mirror",
        help="Show half of the clips mirrored; not where classes tell left from right.",
        rich_help_panel=TRAINING,
    ),
]
StoreDir = Annotated[
    Path | None,
    typer.Option(
        "--flow-store", metavar="DIR", help="By default flow-store in the run's folder.", rich_help_panel=TRAINING
    ),
]
Run = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="The folder of the run.", rich_help_panel=options.OUTPUT),
]
Resume = Annotated[
    bool, typer.Option("--resume", metavar="", help="Go on where it stopped.", rich_help_panel=options.OUTPUT)
]
AllowInexact = Annotated[
    bool,
    typer.Option(
        "--allow-inexact-resume",
        metavar="",
        help="Go on although the machine or PyTorch is another: no longer the same to the bit.",
        rich_help_panel=options.OUTPUT,
    ),
]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard", metavar="", help="Write events for TensorBoard into the run.", rich_help_panel=options.OUTPUT
    ),
]
Workers = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Processes that load clips; 0: none.", rich_help_panel=options.MACHINE),
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What both commands were asked for."""

    data: Path | None  # None: what the recipe makes itself
    output: Path
    dataset: str | None
    split: int
    allow_missing: float
    streams: str
    architecture: str | None  # None: that of the model to begin from
    start: str  # SCRATCH, IMAGENET, or a model
    mode: str
    width: float | None
    recipe: str | None
    changes: list[str] | None
    mirror: bool
    flow_store: Path | None
    resume: bool
    allow_inexact: bool
    tensorboard: bool
    workers: int
    device: str
    offline: bool

    @property
    def begins_anew(self) -> bool:
        """Whether training begins from no model of videos."""
        return self.start in (SCRATCH, IMAGENET)
