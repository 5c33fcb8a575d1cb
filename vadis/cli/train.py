"""``vadis train``: any of the paper's architectures, by the paper's recipes.

``vadis finetune`` is the same command with another beginning by default: a model that exists.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vadis.cli import options
from vadis.cli.evaluate import AllowMissing
from vadis.cli.options import MACHINE, MODEL, OUTPUT, choice, flag, option

ARCHITECTURES = ("lstm", "c3d", "two-stream", "fused", "i3d")  # the keys of vadis.models.MODELS, which is heavy
TRAINING = "Training"

EPILOG = """
Both networks on Kinetics, on 8 GPUs:  `torchrun --standalone --nproc-per-node 8 -m vadis train --data k400/ -o run/`

Another architecture, from ImageNet:  `vadis train --arch lstm --from imagenet --data ucf101/ -o run/`

How a camera moves, from videos made for it:  `vadis train --recipe camera-motion -o run/`

Go on after an interruption:  the same command with `--resume`

Under torchrun, compute the flow first:  `vadis flow --data k400/ -o k400-flow/`, then `--flow-store k400-flow/`

**Exit codes** are those of `vadis classify`; an interrupted run has its checkpoint.
"""
FINETUNE_EPILOG = """
A UCF-101 model from the Kinetics one:  `vadis finetune --data ./ucf101 --split 1 -o ucf101-run/`

Your own classes, one folder of videos each:  `vadis finetune --data ./mine --set steps=500 -o run/`

Only the last layer, in much less time:  `vadis finetune --data ./mine --mode fixed -o run/`

Go on after an interruption:  the same command with `--resume`

The model it makes:  `vadis classify holiday.mp4 --model run/model.safetensors`

**Exit codes** are those of `vadis classify`; an interrupted run has its checkpoint.
"""


_ARCH = "The paper's architectures (a) to (e), in this order; of a model that training begins from, its own."
_START = "What to begin from: a model, nothing, or Inception-v1 as it learnt ImageNet."
Start = Annotated[str, option(MODEL, _START, "--from", metavar="NAME|FILE|scratch|imagenet")]
_WIDTH = "From scratch: multiplies every channel count; 1 is the paper's network."
_MODE = "full: train the whole network; fixed: compute its features once, then train only the last layer."
_STREAMS = "Which networks to train: that of the pictures (rgb), of the motion (flow), or one after the other."
_CHANGES = "Change a number of the recipe; repeatable."
_MIRROR = "Show half of the clips mirrored; not where classes tell left from right."
_INEXACT = "Go on although the machine or PyTorch is another: no longer the same to the bit."


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What ``vadis train`` was asked for."""

    data: options.Data = None  # None: what the recipe makes itself
    output: Annotated[Path, option(OUTPUT, "The folder of the run.", "--output", "-o", metavar="DIR")]
    dataset: options.DatasetName = None
    split: options.Split = 1
    allow_missing: AllowMissing = 0.1
    arch: Annotated[str | None, choice(MODEL, _ARCH, ARCHITECTURES, show_default="i3d")] = None
    from_model: Start = "scratch"
    width: Annotated[float | None, option(MODEL, _WIDTH, metavar="W", min=1 / 64, max=4.0)] = None
    mode: Annotated[str, choice(TRAINING, _MODE, ("full", "fixed"))] = "full"
    streams: Annotated[str, choice(TRAINING, _STREAMS, options.STREAM_CHOICES)] = "both"
    recipe: Annotated[str | None, option(TRAINING, "By default the dataset's; or a file.", metavar="NAME|FILE")] = None
    changes: Annotated[list[str] | None, option(TRAINING, _CHANGES, "--set", metavar="KEY=VALUE")] = None
    mirror: Annotated[bool, option(TRAINING, _MIRROR, "--mirror/--no-mirror")] = True
    flow_store: Annotated[Path | None, option(TRAINING, "By default flow-store in the run.", metavar="DIR")] = None
    resume: Annotated[bool, flag(OUTPUT, "Go on where it stopped.", "--resume")] = False
    allow_inexact: Annotated[bool, flag(OUTPUT, _INEXACT, "--allow-inexact-resume")] = False
    tensorboard: Annotated[bool, flag(OUTPUT, "Write events for TensorBoard into the run.", "--tensorboard")] = False
    jobs: Annotated[int, option(MACHINE, "Processes that load clips; 0: none.", metavar="N", min=0)] = 2
    device: options.Device = "auto"
    precision: options.Precision = "fp32"
    offline: options.Offline = False


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TrainOptions):
    from_model: Start = "i3d-kinetics400"


def _command(asked: type[TrainOptions], name: str, description: str) -> Callable[..., None]:
    """Return a command whose parameters are the fields of a dataclass."""

    def call(**values: Any) -> None:
        from vadis.cli.training_run import run  # with PyTorch

        run(asked(**values))

    call.__signature__ = inspect.signature(asked)  # type: ignore[attr-defined]  # what typer reads
    call.__name__, call.__doc__ = name, description
    return call


train = _command(TrainOptions, "train", "Train an architecture of the paper, and say how good it is.")
finetune = _command(FinetuneOptions, "finetune", "Teach a model your own classes, and say how good it is.")
