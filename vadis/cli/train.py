"""``vadis train``: networks from nothing, by the recipes that the paper has for Kinetics."""

from vadis.cli import options
from vadis.cli.evaluate import AllowMissing, Data, DatasetName, Split
from vadis.cli.finetune import (
    SCRATCH,
    Asked,
    Changes,
    Mirror,
    RecipeName,
    Resume,
    Run,
    StoreDir,
    Width,
    Workers,
    find_data,
    recipes_of,
    run,
)
from vadis.cli.terminal import settings

EPILOG = """
**Examples**

Both networks on Kinetics, on 8 GPUs:  `torchrun --standalone --nproc-per-node 8 -m vadis train --data k400/ -o run/`

Go on after an interruption:  the same command with `--resume`

Under torchrun, compute the flow first:  `vadis flow k400/ -o k400-flow/`, then `--flow-store k400-flow/`

**Exit codes** are those of `vadis finetune`.
"""


def train(
    data: Data,
    output: Run,
    dataset: DatasetName = None,
    split: Split = 1,
    allow_missing: AllowMissing = 0.1,
    streams: options.Streams = "both",
    width: Width = None,
    recipe: RecipeName = None,
    changes: Changes = None,
    mirror: Mirror = True,
    flow_store: StoreDir = None,
    resume: Resume = False,
    workers: Workers = 2,
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Train networks from scratch, and say how good they are."""
    settings.debug |= debug
    asked = Asked(
        data, output, dataset, split, allow_missing, streams, SCRATCH, width, mirror, flow_store, resume, workers,
        device, offline=True,
    )  # fmt: skip
    found = find_data(asked)
    names = {stream: recipe or f"kinetics-{stream}" for stream in asked.stream_names()}
    run(asked, found, recipes_of(names, changes))
