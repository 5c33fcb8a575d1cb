"""``vadis evaluate``: the paper's test on a dataset split."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.cli import interrupts, options
from vadis.cli.chosen import load_chosen
from vadis.cli.outputs import explained
from vadis.cli.terminal import complain, say, settings, show, video_progress

if TYPE_CHECKING:
    from vadis.datasets import Dataset, Example
    from vadis.evaluation import Answer, AnswerFile, Metrics
    from vadis.models.card import Model

EPILOG = """
**Examples**

How good is a model on UCF-101, split 1?  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/`

The same again, for a script:  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/ --json`
"""

DATA = "Dataset"
Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="The dataset's folder, or a CSV list.", rich_help_panel=DATA)
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="ucf101, hmdb51, kinetics or folder; found out if not given.",
        rich_help_panel=DATA,
    ),
]
Split = Annotated[int, typer.Option(metavar="N", min=1, help="The official split.", rich_help_panel=DATA)]
Part = Annotated[
    str | None,
    typer.Option(metavar="train|val|test", help="By default test, or val where there is none.", rich_help_panel=DATA),
]
AllowMissing = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        min=0.0,
        max=1.0,
        help="Go on with less than this share of the files missing.",
        rich_help_panel=DATA,
    ),
]
RunDir = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="For answers, metrics and confusion matrices.",
        rich_help_panel=options.OUTPUT,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Metrics as JSON on stdout.", rich_help_panel=options.OUTPUT)
]


def evaluate(
    data: Data,
    output: RunDir,
    dataset: DatasetName = None,
    split: Split = 1,
    part: Part = None,
    allow_missing: AllowMissing = 0.1,
    model: options.ModelName = "i3d-kinetics400",
    streams: options.Streams = "both",
    flip: options.Flip = False,
    as_json: AsJson = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """How often is a model right? The paper's test; run again to go on where it stopped."""
    settings.debug |= debug
    from vadis.datasets import find_dataset

    found = find_dataset(data, dataset, split, allow_missing=allow_missing)
    say(found.summary())
    examples = found.examples(part or ("test" if "test" in found.splits else "val"))
    loaded = load_chosen(model, streams, device, offline)

    from vadis.evaluation import AnswerFile, check_classes, settings_of

    check_classes(examples, loaded)
    with explained(show(output)):
        file = AnswerFile(output / "answers.jsonl", settings_of(loaded, found.name, split, flip))
        with interrupts.deferred():
            answers = ask_all(examples, loaded, file, flip)
        _report(answers, loaded, found, output, as_json)


def ask_all(examples: "Sequence[Example]", model: "Model", file: "AnswerFile", flip: bool) -> "list[Answer]":
    """An answer for every example, in a ``deferred`` block; shows how far it is."""
    from vadis.evaluation import evaluate as ask

    answers: list[Answer] = []
    began, old = time.monotonic(), len(file.answers)
    with video_progress() as bars:
        bar = bars.add_task(f"{len(examples)} videos", total=len(examples), completed=0)
        asked = ask(examples, model, file, flip=flip)
        while len(answers) < len(examples):
            with interrupts.interruptible():
                found = next(asked)
            if found.error is not None:
                complain(f"{show(found.path)}: {found.error}")
            answers.append(found)
            bars.update(bar, completed=len(answers))
    new = len(file.answers) - old
    say(f"{len(answers)} videos, {new} of them new, in {time.monotonic() - began:.0f} s")
    return answers


def _report(answers: "list[Answer]", model: "Model", dataset: "Dataset", output: Path, as_json: bool) -> None:
    found, summary = keep_metrics(answers, model, dataset, output)
    typer.echo(json.dumps(summary) if as_json else table(found))
    if summary["failed"]:
        complain(f"{summary['failed']} videos could not be read and count as wrong")
        raise typer.Exit(3)


def keep_metrics(
    answers: "list[Answer]", model: "Model", dataset: "Dataset", output: Path
) -> "tuple[dict[str, Metrics], dict[str, Any]]":
    """The metrics by column, and what was written of them: ``metrics.json``, and a confusion matrix per column."""
    from vadis.evaluation import confusion_csv, metrics

    classes = model.card.labels
    found = metrics(answers, classes, model.card.streams)
    summary = {
        "dataset": dataset.name,
        "split": dataset.split,
        "model": model.card.name,
        "failed": sum(answer.error is not None for answer in answers),
        **{name: column.to_json() for name, column in found.items()},
    }
    (output / "metrics.json").write_text(json.dumps(summary, indent=1) + "\n")
    for name, column in found.items():
        (output / f"confusion-{name}.csv").write_text(confusion_csv(column, classes))
    return found, summary


def table(found: "dict[str, Metrics]", paper: Mapping[str, float] = MappingProxyType({})) -> str:
    """The metrics for a person, with the paper's top-1 of a column in [0, 1] beside ours where there is one."""
    lines = [f"{'':6}{'top-1':>8}{'top-5':>8}{'mean class':>12}{'videos':>8}" + ("   paper, top-1" if paper else "")]
    for name, column in found.items():
        shares = f"{column.top1:8.1%}{column.top5:8.1%}{column.mean_class:12.1%}"
        beside = f"{paper[name]:16.1%}" if name in paper else ""
        lines.append(f"{name:6}{shares}{column.num_examples:8}{beside}")
    return "\n".join(lines)
