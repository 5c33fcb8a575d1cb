"""``vadis finetune``: a model of your own classes, begun from one that exists. ``vadis train`` shares all of it."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import interrupts, options
from vadis.cli.chosen import load_chosen
from vadis.cli.evaluate import AllowMissing, Data, DatasetName, Split, ask_all, keep_metrics, table
from vadis.cli.flow import fill
from vadis.cli.interrupts import Interrupted
from vadis.cli.live import training_progress
from vadis.cli.outputs import explained
from vadis.cli.terminal import complain, say, settings, show
from vadis.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vadis.datasets import Dataset
    from vadis.flow.store import FlowStore
    from vadis.training.distributed import Process
    from vadis.training.finetuning import Plan
    from vadis.training.recipes import Recipe

EPILOG = """
**Examples**

A UCF-101 model from the Kinetics one:  `vadis finetune --data ./ucf101 --split 1 -o ucf101-run/`

Your own classes, one folder of videos each:  `vadis finetune --data ./mine --set steps=500 -o run/`

Go on after an interruption:  the same command with `--resume`

The model it makes:  `vadis classify holiday.mp4 --model run/model.safetensors`

**Exit codes**: 0 the model is there; 1 could not go on; 2 wrong use; 3 the model is there, but some test videos could
not be read; 5 another run trains there; 130 and 143 interrupted, after a checkpoint.
"""

SCRATCH = "scratch"
TRAINING = "Training"
From = Annotated[
    str,
    typer.Option("--from", metavar="NAME|PATH|scratch", help="The model to begin from.", rich_help_panel=options.MODEL),
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
    typer.Option("--recipe", metavar="NAME", help="By default that of the dataset.", rich_help_panel=TRAINING),
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
Workers = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Processes that load clips; 0: none.", rich_help_panel=options.MACHINE),
]


@dataclass(frozen=True)
class Asked:
    """What both commands were asked for, apart from the recipes."""

    data: Path
    output: Path
    dataset: str | None
    split: int
    allow_missing: float
    streams: str
    start: str
    width: float | None
    mirror: bool
    flow_store: Path | None
    resume: bool
    workers: int
    device: str
    offline: bool

    def stream_names(self) -> tuple[str, ...]:
        """The streams in the order of training."""
        return ("rgb", "flow") if self.streams == "both" else (self.streams,)


def finetune(
    data: Data,
    output: Run,
    dataset: DatasetName = None,
    split: Split = 1,
    allow_missing: AllowMissing = 0.1,
    streams: options.Streams = "both",
    start: From = "i3d-kinetics400",
    width: Width = None,
    recipe: RecipeName = None,
    changes: Changes = None,
    mirror: Mirror = True,
    flow_store: StoreDir = None,
    resume: Resume = False,
    workers: Workers = 2,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Teach a model your own classes, and say how good it is."""
    settings.debug |= debug
    asked = Asked(
        data, output, dataset, split, allow_missing, streams, start, width, mirror, flow_store, resume, workers,
        device, offline,
    )  # fmt: skip
    found = find_data(asked)
    from vadis.training.recipes import RECIPES

    name = recipe or (found.name if found.name in RECIPES else "ucf101")
    run(asked, found, recipes_of(dict.fromkeys(asked.stream_names(), name), changes))


def find_data(asked: Asked) -> "Dataset":
    """The dataset, after what can be refused without it; says what there is."""
    from vadis.datasets import find_dataset
    from vadis.training.distributed import is_torchrun

    if not is_torchrun():
        from vadis.device import resolve_device

        resolve_device(asked.device)
    if asked.width is not None and asked.start != SCRATCH:
        raise UsageError("--width is for networks made anew; a model has its own", hint="add --from scratch")
    found = find_dataset(asked.data, asked.dataset, asked.split, allow_missing=asked.allow_missing)
    found.examples(test_part(found))
    return found


def test_part(found: "Dataset") -> str:
    """The split to test on: "test", or "val" where there is none."""
    return "test" if "test" in found.splits else "val"


def recipes_of(names: Mapping[str, str], changes: list[str] | None) -> "dict[str, Recipe]":
    """Recipes by stream, with what ``--set`` changes in them."""
    from vadis.training.recipes import find_recipe, override

    values = {}
    for change in changes or ():
        key, equals, value = change.partition("=")
        if not equals:
            raise UsageError(f"--set {show(change)} does not say KEY=VALUE", hint="for example --set steps=500")
        values[key.strip()] = value.strip()
    return {stream: override(find_recipe(name), values) for stream, name in names.items()}


def run(asked: Asked, found: "Dataset", recipes: "dict[str, Recipe]") -> None:
    """Train every stream, write the model file, test it, and write it again with the metrics."""
    from vadis.training.distributed import joined
    from vadis.training.finetuning import Plan, begin, save

    with joined(asked.device) as process:
        settings.quiet |= not process.is_main
        say(found.summary())
        start = None if asked.start == SCRATCH else load_chosen(asked.start, asked.streams, "cpu", asked.offline)
        plan = Plan(found, recipes, start, asked.width or 1.0, asked.mirror)
        if process.is_main:
            begin(asked.output, plan, resume=asked.resume)
        store = _filled_store(asked, found, process) if "flow" in recipes else None
        networks = {stream: _train(stream, plan, asked, process, store) for stream in recipes}
    if not process.is_main:
        return
    save(asked.output, plan, networks)
    _test(plan, asked, networks, process.device)


def _train(
    stream: str, plan: "Plan", asked: Asked, process: "Process", store: "FlowStore | None"
) -> "dict[str, Tensor]":
    """Train one stream to its end; a signal ends it after a checkpoint, by ``Interrupted``."""
    from vadis.training.finetuning import train_stream
    from vadis.training.loop import Settings

    learnt, held_out = plan.splits(stream)
    say(f"{stream}: learns from {len(learnt):,} videos, {len(held_out):,} for validation, on {process.device}")
    how = Settings(workers=asked.workers, resume=asked.resume)
    with interrupts.deferred(), training_progress(stream) if process.is_main else nullcontext(_ignore) as report:
        outcome, tensors = train_stream(
            stream,
            plan,
            asked.output,
            process,
            store=store,
            settings=how,
            report=report,
            stop_requested=interrupts.pending,
        )
    if outcome.stopped_by:  # by a signal to another process
        raise Interrupted(outcome.stopped_by)
    return tensors


def _ignore(event: object) -> None:
    """Only the main process shows what happens."""


def _filled_store(asked: Asked, found: "Dataset", process: "Process") -> "FlowStore":
    """The flow store with the flow of every video to learn from."""
    from vadis.flow.filling import without_flow
    from vadis.flow.store import FlowStore
    from vadis.training.finetuning import STORE_NAME

    root = asked.flow_store or asked.output / STORE_NAME
    store = FlowStore(root, create=True)
    wanted = [example.path for split in ("train", "val") for example in found.splits.get(split, ())]
    missing = without_flow(dict.fromkeys(wanted), store)
    if missing and process.world_size > 1:
        raise UsageError(
            f"the flow of {len(missing):,} videos is not in {show(root)}, and several processes wait for it",
            hint=f"compute it first: vadis flow {show(asked.data)} -o {show(root)}",
        )
    if missing:
        fill(missing, store, process.device)
    return store


def _test(plan: "Plan", asked: Asked, networks: "dict[str, dict[str, Tensor]]", device: "torch.device") -> None:
    """Test the model file by the paper's test; the table on stdout, the metrics into the model file."""
    from vadis.evaluation import PAPER_TABLE_4, AnswerFile, settings_of
    from vadis.training.finetuning import MODEL_NAME, save
    from vadis.weights.model_file import load_model_file

    found, folder = plan.dataset, asked.output
    model = load_model_file(folder / MODEL_NAME, device)
    examples = found.examples(test_part(found))
    with explained(show(folder)):
        file = AnswerFile(folder / "answers.jsonl", settings_of(model, found.name, found.split, flip=False))
        with interrupts.deferred():
            answers = ask_all(examples, model, file, flip=False)
        metrics, summary = keep_metrics(answers, model, found, folder)
    save(folder, plan, networks, summary)
    begun = None if plan.start is None else plan.start.card.name
    paper = PAPER_TABLE_4.get((found.name, begun)) if found.split == 1 else None
    typer.echo(table(metrics, {} if paper is None else {"both": paper}))
    say(f"the model is {show(folder / MODEL_NAME)}")
    if summary["failed"]:
        complain(f"{summary['failed']} videos could not be read and count as wrong")
        raise typer.Exit(3)
