"""``vadis evaluate``: the paper's test on a dataset split, or metrics of what has been computed already."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.cli import options, signals
from vadis.cli.options import DATA, OUTPUT, flag, option
from vadis.cli.outputs import check_folder_name, writing
from vadis.cli.run import SOME_FAILED, load_for_command
from vadis.cli.terminal import info, num_videos, show, video_progress, warn, warn_of
from vadis.errors import UsageError

if TYPE_CHECKING:
    from vadis.datasets import Dataset, Example
    from vadis.evaluation.metrics import Metrics, StoredEvaluation
    from vadis.evaluation.predictions import Prediction, PredictionFile
    from vadis.evaluation.records import Matched
    from vadis.models.card import Model

    Columns = Mapping[str, Metrics]  # by column: rgb, flow, both

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

RESULTS = "Results there are already"
Split = Annotated[int, option(DATA, "The official split.", metavar="N", min=1)]
_PART = "By default test, or val where there is none."
Part = Annotated[str | None, option(DATA, _PART, metavar="train|val|test")]
_MISSING = "Go on with less than this share of the files missing."
AllowMissing = Annotated[float, option(DATA, _MISSING, metavar="SHARE", min=0.0, max=1.0)]
_RESULTS = "Instead of a model: folders of earlier evaluations, one per split; or, with --data, records of classify."
Results = Annotated[list[Path] | None, option(RESULTS, _RESULTS, "--results", metavar="PATH")]
Partial = Annotated[bool, flag(RESULTS, "Take results that do not cover the whole split.", "--partial")]
_OUTPUT = "For answers, metrics, tables and pictures; with --results not needed."
RunDir = Annotated[Path | None, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")]
AsJson = Annotated[bool, flag(OUTPUT, "Metrics as JSON on stdout.", "--json")]

_HEAD = f"{'top-1':>8}{'top-5':>8}{'mean class':>12}{'videos':>8}"


def evaluate(
    context: typer.Context,
    data: options.DataIfAny = None,
    output: RunDir = None,
    dataset: options.DatasetName = None,
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
    _refuse_contradictions(context, data, output, results)
    if results and data is None:
        summarize_runs(results, partial, output, as_json)
        return
    assert data is not None
    from vadis.datasets import find_dataset

    found = find_dataset(data, dataset, split, allow_missing=allow_missing)
    part = part or part_to_test(found)
    info(found.summary())
    examples = found.examples(part)
    warn_of_part(found, part)
    if results:
        summarize_records(results, found, part, partial, output, as_json)
        return
    assert output is not None
    _refuse_folder(output)
    loaded = load_for_command(model, streams, device, offline)
    loaded.check_flip(flip)

    from vadis.evaluation.predictions import check_classes, overlap_warning

    check_classes(examples, loaded)
    if warning := overlap_warning(loaded, found):
        warn(warning)
    columns, summary = evaluate_model(loaded, found, part, output, flip=flip)
    report(json.dumps(summary) if as_json else table(columns), summary["failed"])


def _refuse_contradictions(
    context: typer.Context, data: Path | None, output: Path | None, results: list[Path] | None
) -> None:
    def given(*names: str) -> list[str]:
        sources = {name: context.get_parameter_source(name) for name in names}
        return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]

    if not results:
        if data is None or output is None:
            lacking = "--data" if data is None else "-o"
            raise UsageError(
                f"{lacking} is missing", hint="vadis evaluate --data DIR --model NAME|PATH -o DIR, or --results"
            )
        if given("partial"):
            raise UsageError("--partial is for --results", hint="leave it out")
        return
    of_dataset = ("dataset", "split", "part", "allow_missing") if data is None else ()
    for name in given("model", "streams", "flip", "device", *of_dataset):
        which, option = "earlier evaluations" if data is None else "records", name.replace("_", "-")
        raise UsageError(f"--{option} does not go with --results: the {which} say it", hint="leave it out")
    if output is not None:
        _refuse_folder(output)
        if (output / "answers.jsonl").exists():
            raise UsageError(f"{show(output)} holds an evaluation of its own", hint="choose another folder with -o")


def _refuse_folder(folder: Path) -> None:
    """Raise UsageError, before any work, where ``folder`` cannot be made or written."""
    check_folder_name(folder)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{show(nearest)} is not a folder", hint="choose another place with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{show(nearest)} cannot be written to", hint="choose another place with -o")


def part_to_test(found: "Dataset") -> str:
    """The split to test on: "test", or "val" where there is none."""
    return "test" if "test" in found.splits else "val"


def warn_of_part(found: "Dataset", part: str) -> None:
    """Warn where the figures will not be those of a test split."""
    from vadis.evaluation.predictions import part_warning

    if warning := part_warning(found, part):
        warn(warning)


def evaluate_model(
    model: "Model", found: "Dataset", part: str, output: Path, *, flip: bool = False, go_on: bool = True, **more: Any
) -> "tuple[Columns, dict[str, Any]]":
    """Run the paper's test; return the metrics by column and the content of ``metrics.json``.

    Everything is kept in ``output``. Unless ``go_on``, predictions there by an earlier state of the model are discarded
    instead of refused. ``more`` goes into metrics.json.
    """
    from vadis.evaluation.metrics import measure_predictions, summarize
    from vadis.evaluation.predictions import (
        PREDICTIONS_NAME,
        discard_of_other_model,
        evaluation_settings,
        open_predictions,
    )

    path, wanted = output / PREDICTIONS_NAME, evaluation_settings(model, found.name, found.split, flip, part)
    with writing(show(output)):
        if not go_on:
            discard_of_other_model(path, wanted)
        with open_predictions(path, wanted, found.root) as file, signals.deferred():
            predictions = predict_with_progress(found.examples(part), model, file, flip)
        columns = measure_predictions(predictions, model.card.labels, wanted["networks"], wanted["averages"])
        head = {"dataset": found.name, "split": found.split, "part": part, "model": model.card.name}
        head["failed"] = sum(prediction.error is not None for prediction in predictions)
        more = {"architecture": model.card.architecture, **more, "published": wanted["published"]}
        summary = summarize(columns, model.card.labels, **head, **more)
        _write(output, columns, model.card.labels, summary)
    return columns, summary


def predict_with_progress(
    examples: "Sequence[Example]", model: "Model", file: "PredictionFile", flip: bool
) -> "list[Prediction]":
    """Return a prediction for every example, in a ``deferred`` block; shows how far it is."""
    from vadis.evaluation.predictions import evaluate

    predictions: list[Prediction] = []
    began = time.monotonic()
    with video_progress() as bars:
        bar = bars.add_task(num_videos(len(examples)), total=len(examples), completed=0)
        made = evaluate(examples, model, file, flip=flip)
        while len(predictions) < len(examples):
            with signals.interruptible():
                predictions.append(next(made))
            _warn_of_failed(predictions[-1:])
            bars.update(bar, completed=len(predictions))
    info(f"{num_videos(len(predictions))}, {file.num_appended} of them new, in {time.monotonic() - began:.0f} s")
    return predictions


def _warn_of_failed(predictions: "Sequence[Prediction]") -> None:
    for prediction in predictions:
        if prediction.error is not None:
            warn_of(prediction.path, prediction.error.partition(":")[0], prediction.error)


def _write(folder: Path, columns: "Columns", classes: Sequence[str], summary: Mapping[str, Any]) -> None:
    """Write tables, pictures and, at last, ``summary`` as metrics.json; each whole or not at all."""
    import numpy as np

    from vadis.evaluation.metrics import write_summary, write_tables
    from vadis.report.plots import plot_confusion, plot_per_class

    write_tables(folder, columns, classes)
    about = f"{summary['dataset']}, split {summary['split']}, {summary['part']}, {summary['model']}"
    for name, column in columns.items():
        title = f"{name}: top-1 {column.top1:.1%}, mean class {column.mean_class:.1%}\n{about}"
        drawn = column.classes_met()  # a model may know many more
        names = [classes[index] for index in drawn]
        plot_confusion(column.confusion[np.ix_(drawn, drawn)], names, folder / f"confusion-{name}.png", title)
        plot_per_class(column.accuracies()[drawn], names, folder / f"per-class-{name}.png", title)
    write_summary(folder, summary)


def table(columns: "Columns", paper: Mapping[str, float] = MappingProxyType({})) -> str:
    """The metrics for a person, with the paper's top-1 of a column in [0, 1] beside ours where there is one."""
    lines = [f"{'':6}{_HEAD}" + ("   paper, top-1" if paper else "")]
    for name, column in columns.items():
        beside = f"{paper[name]:15.1%}" if name in paper else ""
        lines.append(f"{name:6}{_shares(column.top1, column.top5, column.mean_class)}{column.num_examples:8,}{beside}")
    return "\n".join(lines)


def _shares(top1: float | None, top5: float | None, mean_class: float | None) -> str:
    widths = ((top1, 8), (top5, 8), (mean_class, 12))
    return "".join(f"{'-' if share is None else f'{share:.1%}':>{width}}" for share, width in widths)


def report(shown: str, failed: int) -> None:
    """Print the table or JSON; leaves with exit code 3 where videos failed."""
    typer.echo(shown)
    if failed:
        warn(f"{num_videos(failed)} could not be read: counted as wrong")
        raise typer.Exit(SOME_FAILED)


def summarize_runs(folders: Sequence[Path], partial: bool, output: Path | None, as_json: bool) -> None:
    """Show metrics of earlier evaluations, and their mean where there are several."""
    from vadis.evaluation.metrics import check_together, read_evaluation, summarize_splits, write_summary
    from vadis.evaluation.predictions import PREDICTIONS_NAME

    folders = [folder.parent if folder.name == PREDICTIONS_NAME else folder for folder in folders]
    for folder in folders:
        if not (folder / PREDICTIONS_NAME).exists():
            hint = "for records of vadis classify, say by --data and --split of which videos they are"
            raise UsageError(f"{show(folder)} holds no evaluation ({PREDICTIONS_NAME})", hint=hint)
    runs = sorted((read_evaluation(folder, partial=partial) for folder in folders), key=lambda run: run.split)
    check_together(runs)
    for run in runs:
        _say_run(run)
    columns = {run.split: run.measure() for run in runs}
    summaries = {run.split: run.summarize(columns[run.split]) for run in runs}
    together, is_one = summarize_splits(columns, summaries), len(runs) == 1
    if output:
        with writing(show(output)):
            for run in runs:
                place = output if is_one else output / f"split-{run.split}"
                _write(place, columns[run.split], run.classes, summaries[run.split])
            if not is_one:
                write_summary(output, together)
    shown = summaries[runs[0].split] if is_one else together
    as_text = table(columns[runs[0].split]) if is_one else _splits_table(columns, together)
    report(json.dumps(shown) if as_json else as_text, shown["failed"])


def _say_run(run: "StoredEvaluation") -> None:
    """Say what is in a run's folder, the videos that failed, and how many the split should have."""
    from vadis.datasets import DATASETS

    dataset, part, number = str(run.settings["dataset"]), str(run.settings["part"]), len(run.predictions)
    model = f"{show(str(run.settings['model']))} ({' and '.join(run.settings['streams'])})"
    info(f"{show(run.folder)}: {dataset}, split {run.split}, {part}: {num_videos(number)}, by {model}")
    _warn_of_failed(run.predictions)
    counts = DATASETS[dataset].counts.get(part, ()) if dataset in DATASETS else ()
    published = counts[run.split - 1] if 0 < run.split <= len(counts) else number
    if number != published:
        warn(f"{show(run.folder)}: {number:,} of the {published:,} videos of the official split")


def _splits_table(columns: "Mapping[int, Columns]", together: Mapping[str, Any]) -> str:
    """The metrics of several splits and their means, for a person; the paper's beside those of all three.

    ``together`` is what ``summarize_splits`` says of them.
    """
    paper: Mapping[str, Mapping[str, float]] = together["paper_mean_top1"]
    lines = [f"{'':16}{_HEAD}" + ("  paper, top-1" if paper else "")]
    for name, means in together["mean"].items():
        for place, (split, found) in enumerate(columns.items()):
            shares = _shares(found[name].top1, found[name].top5, found[name].mean_class)
            lines.append(f"{'' if place else name:6}split {split:<4}{shares}{found[name].num_examples:8,}")
        total = sum(found[name].num_examples for found in columns.values())
        beside = f"  {paper[name]['imagenet']:.1%} ({paper[name]['scratch']:.1%})" if name in paper else ""
        lines.append(f"{'':6}mean      {_shares(**means)}{total:8,}{beside}")
    footnote = ["paper: table 5, I3D after ImageNet and Kinetics (in brackets: Kinetics alone)"] if paper else []
    return "\n".join(lines + footnote)


def summarize_records(
    paths: Sequence[Path], found: "Dataset", part: str, partial: bool, output: Path | None, as_json: bool
) -> None:
    """Show metrics of what ``vadis classify`` wrote of the videos of a split."""
    from vadis.datasets.dataset import some
    from vadis.evaluation.metrics import measure, summarize
    from vadis.evaluation.records import match, read_records

    examples, read = found.examples(part), read_records(paths)
    for path in read.torn:
        warn(f"{show(path)} ends within a record, which is left out")
    matched = match(read.records, found, examples)
    if matched.missing and not partial:
        raise UsageError(
            f"{len(matched.missing):,} of the split's {len(examples):,} videos have no record: {some(matched.missing)}",
            hint="label them too, or add --partial for the accuracy on the others",
        )
    _say_records(matched, len(examples))
    columns = {matched.column: measure(matched.rankings, found.classes, with_top5=matched.is_top5_known)}
    head = {"dataset": found.name, "split": found.split, "part": part, "model": matched.model}
    counts = {"failed": len(matched.failed), "complete": not matched.missing, "missing": len(matched.missing)}
    summary = summarize(columns, found.classes, **head, **counts)
    if output:
        with writing(show(output)):
            _write(output, columns, found.classes, summary)
    report(json.dumps(summary) if as_json else table(columns), len(matched.failed))


def _say_records(matched: "Matched", num_examples: int) -> None:
    """Say what a person has to know about figures that come from records."""
    from vadis.datasets.dataset import some

    streams = " and ".join(matched.streams)
    info(f"records by {show(matched.model)} ({streams}), of whole videos; the paper tests the first 10 s of each")
    for path, reason in matched.failed.items():
        warn_of(path, reason.partition(":")[0], reason)
    if matched.missing:
        warn(f"{len(matched.missing):,} of {num_examples:,} videos have no record: {some(matched.missing)}")
    if matched.strange:
        named = some(f"{label} ({count:,})" for label, count in matched.strange.items())
        number = sum(matched.strange.values())
        warn(f"{number:,} videos have a first label that is no class of the dataset, and count as wrong: {named}")
    if matched.repeated:
        info(f"{matched.repeated:,} records are of videos that have a later one, which counts")
    if matched.outside:
        info(f"{matched.outside:,} records are of videos that are not in this split")
    if not matched.is_top5_known:
        info("top-5 is left out: there are records with fewer than 5 labels")
