"""``vadis evaluate``: the paper's test on a dataset split."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options, signals
from vadis.cli.evaluate_results import judge_records, judge_runs, keep_metrics, part_to_test, report, table
from vadis.cli.loading import load_chosen
from vadis.cli.outputs import check_folder_name, writing
from vadis.cli.terminal import info, num_videos, settings, show, video_progress, warn, warn_of
from vadis.errors import UsageError

if TYPE_CHECKING:
    from vadis.datasets import Dataset, Example
    from vadis.evaluation import Answer, AnswerFile
    from vadis.models.card import Model

EPILOG = """
**Examples**

How good is a model on UCF-101, split 1?  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/`

The same again, for a script:  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/ --json`

Three splits and their mean, as in the paper's table 5:
`vadis evaluate --results run1/ --results run2/ --results run3/`

From what `vadis classify` wrote, without a model:
`vadis evaluate --data ./ucf101 --split 1 --results ucf101.jsonl -o metrics/`

**Exit codes**: 0 every video was tested; 1 could not go on; 2 wrong use; 3 tested, but some videos could not be read;
5 another run evaluates into this folder; 130 and 143 interrupted.
"""

DATA = "Dataset"
_DATA_OPTION = typer.Option("--data", metavar="DIR", help="The dataset's folder, or a list.", rich_help_panel=DATA)
Data = Annotated[Path, _DATA_OPTION]
DataIfAny = Annotated[Path | None, _DATA_OPTION]
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
RESULTS = "Results there are already"
Results = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        metavar="PATH",
        help="Instead of a model: folders of earlier evaluations, one per split; or, with --data, records of classify.",
        rich_help_panel=RESULTS,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial", metavar="", help="Take results that do not cover the whole split.", rich_help_panel=RESULTS
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="For answers, metrics, tables and pictures; with --results not needed.",
        rich_help_panel=options.OUTPUT,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", metavar="", help="Metrics as JSON on stdout.", rich_help_panel=options.OUTPUT)
]


def evaluate(
    context: typer.Context,
    data: DataIfAny = None,
    output: RunDir = None,
    dataset: DatasetName = None,
    split: Split = 1,
    part: Part = None,
    allow_missing: AllowMissing = 0.1,
    model: options.ModelName = None,
    streams: options.Streams = None,
    flip: options.Flip = False,
    results: Results = None,
    partial: Partial = False,
    as_json: AsJson = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """How often is a model right? The paper's test; run again to go on where it stopped."""
    settings.debug |= debug
    _refuse_contradictions(context, data, output, results)
    if results and data is None:
        judge_runs(results, partial, output, as_json)
        return
    assert data is not None
    from vadis.datasets import find_dataset

    found = find_dataset(data, dataset, split, allow_missing=allow_missing)
    part = part or part_to_test(found)
    info(found.summary())
    examples = found.examples(part)
    tell_part(found, part)
    if results:
        judge_records(results, found, part, partial, output, as_json)
        return
    assert output is not None
    refuse_folder(output)
    loaded = load_chosen(model, streams, device, offline)
    loaded.check_flip(flip)

    from vadis.evaluation import AnswerFile, check_classes, learnt_from_the_test, settings_of

    check_classes(examples, loaded)
    if warning := learnt_from_the_test(loaded, found):
        warn(warning)
    with writing(show(output)):
        wanted = settings_of(loaded, found.name, split, flip, part)
        file = AnswerFile(output / "answers.jsonl", wanted, found.root)
        with signals.deferred():
            answers = ask_all(examples, loaded, file, flip)
        metrics, summary = keep_metrics(answers, loaded, found, output, part, published=wanted["published"])
    report(json.dumps(summary) if as_json else table(metrics), summary["failed"])


def _refuse_contradictions(
    context: typer.Context, data: Path | None, output: Path | None, results: list[Path] | None
) -> None:
    if not results:
        if data is None or output is None:
            lacking = "--data" if data is None else "-o"
            raise UsageError(
                f"{lacking} is missing", hint="vadis evaluate --data DIR --model NAME|PATH -o DIR, or --results"
            )
        if _is_given(context, "partial"):
            raise UsageError("--partial is for --results", hint="leave it out")
        return
    useless = ["model", "streams", "flip", "device"]
    if data is None:
        useless += ["dataset", "split", "part", "allow_missing"]
    given = [name for name in useless if _is_given(context, name)]
    if given:
        which = "earlier evaluations" if data is None else "records"
        option = given[0].replace("_", "-")
        raise UsageError(f"--{option} does not go with --results: the {which} say it", hint="leave it out")
    if output is not None:
        refuse_folder(output)
        if (output / "answers.jsonl").exists():
            raise UsageError(f"{show(output)} holds an evaluation of its own", hint="choose another folder with -o")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_folder(folder: Path) -> None:
    """Raise UsageError, before any work, where ``folder`` cannot be made or written."""
    check_folder_name(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{show(nearest)} is not a folder", hint="choose another place with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{show(nearest)} cannot be written to", hint="choose another place with -o")


def tell_part(found: "Dataset", part: str) -> None:
    """Say it plainly where the figures will not be those of a test split."""
    from vadis.evaluation import about_part

    if warning := about_part(found, part):
        warn(warning)


def ask_all(examples: "Sequence[Example]", model: "Model", file: "AnswerFile", flip: bool) -> "list[Answer]":
    """An answer for every example, in a ``deferred`` block; shows how far it is."""
    from vadis.evaluation import evaluate as ask

    answers: list[Answer] = []
    began = time.monotonic()
    with video_progress() as bars:
        bar = bars.add_task(num_videos(len(examples)), total=len(examples), completed=0)
        asked = ask(examples, model, file, flip=flip)
        while len(answers) < len(examples):
            with signals.interruptible():
                found = next(asked)
            if found.error is not None:
                warn_of(found.path, found.error.partition(":")[0], found.error)
            answers.append(found)
            bars.update(bar, completed=len(answers))
    info(f"{num_videos(len(answers))}, {file.num_appended} of them new, in {time.monotonic() - began:.0f} s")
    return answers
