"""``vadis train``: any of the paper's architectures, by the paper's recipes.

``vadis finetune``: a model of your own classes, begun from one that exists.
"""

from vadis.cli import options
from vadis.cli.evaluate import AllowMissing, Data, DataIfAny, DatasetName, Split
from vadis.cli.terminal import settings
from vadis.cli.training_options import (
    SCRATCH,
    AllowInexact,
    Arch,
    Asked,
    Changes,
    From,
    Init,
    Mirror,
    Mode,
    RecipeName,
    Resume,
    Run,
    StoreDir,
    Streams,
    TensorBoard,
    Width,
    Workers,
)
from vadis.cli.training_run import run

EPILOG = """
**Examples**

Both networks on Kinetics, on 8 GPUs:  `torchrun --standalone --nproc-per-node 8 -m vadis train --data k400/ -o run/`

Another architecture, from ImageNet:  `vadis train --arch lstm --init imagenet --data ucf101/ -o run/`

How a camera moves, from videos made for it:  `vadis train --recipe camera-motion -o run/`

Go on after an interruption:  the same command with `--resume`

Under torchrun, compute the flow first:  `vadis flow --data k400/ -o k400-flow/`, then `--flow-store k400-flow/`

**Exit codes** are those of `vadis finetune`.
"""


def train(
    output: Run,
    data: DataIfAny = None,
    dataset: DatasetName = None,
    split: Split = 1,
    allow_missing: AllowMissing = 0.1,
    arch: Arch = "i3d",
    init: Init = SCRATCH,
    width: Width = None,
    streams: Streams = "both",
    recipe: RecipeName = None,
    changes: Changes = None,
    mirror: Mirror = True,
    flow_store: StoreDir = None,
    resume: Resume = False,
    allow_inexact: AllowInexact = False,
    tensorboard: TensorBoard = False,
    workers: Workers = 2,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Train an architecture of the paper, and say how good it is."""
    settings.debug |= debug
    asked = Asked(
        data=data, output=output, dataset=dataset, split=split, allow_missing=allow_missing, streams=streams,
        architecture=arch, start=init, mode="full", width=width, recipe=recipe, changes=changes, mirror=mirror,
        flow_store=flow_store, resume=resume, allow_inexact=allow_inexact, tensorboard=tensorboard, workers=workers,
        device=device, offline=offline,
    )  # fmt: skip
    run(asked)


FINETUNE_EPILOG = """
**Examples**

A UCF-101 model from the Kinetics one:  `vadis finetune --data ./ucf101 --split 1 -o ucf101-run/`

Your own classes, one folder of videos each:  `vadis finetune --data ./mine --set steps=500 -o run/`

Only the last layer, in much less time:  `vadis finetune --data ./mine --mode fixed -o run/`

Go on after an interruption:  the same command with `--resume`

The model it makes:  `vadis classify holiday.mp4 --model run/model.safetensors`

**Exit codes**: 0 the model is there; 1 could not go on; 2 wrong use; 3 the model is there, but some test videos could
not be read; 5 another run trains there; 130 and 143 interrupted, after a checkpoint.
"""


def finetune(
    data: Data,
    output: Run,
    dataset: DatasetName = None,
    split: Split = 1,
    allow_missing: AllowMissing = 0.1,
    start: From = "i3d-kinetics400",
    width: Width = None,
    mode: Mode = "full",
    streams: Streams = "both",
    recipe: RecipeName = None,
    changes: Changes = None,
    mirror: Mirror = True,
    flow_store: StoreDir = None,
    resume: Resume = False,
    allow_inexact: AllowInexact = False,
    tensorboard: TensorBoard = False,
    workers: Workers = 2,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Teach a model your own classes, and say how good it is."""
    settings.debug |= debug
    asked = Asked(
        data=data, output=output, dataset=dataset, split=split, allow_missing=allow_missing, streams=streams,
        architecture=None, start=start, mode=mode, width=width, recipe=recipe, changes=changes, mirror=mirror,
        flow_store=flow_store, resume=resume, allow_inexact=allow_inexact, tensorboard=tensorboard, workers=workers,
        device=device, offline=offline,
    )  # fmt: skip
    run(asked)
