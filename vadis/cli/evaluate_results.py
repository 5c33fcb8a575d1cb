"""``vadis evaluate --results``: metrics of what has been computed already; no model is loaded and no video opened.

What a test comes to: files in its folder, a table on stdout, the exit code.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from vadis.cli.outputs import writing
from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import info, num_videos, show, warn, warn_of
from vadis.errors import UsageError

if TYPE_CHECKING:
    from vadis.datasets import Dataset
    from vadis.evaluation import Answer, Metrics
    from vadis.models.card import Model

_HEAD = f"{'top-1':>8}{'top-5':>8}{'mean class':>12}{'videos':>8}"
_FOOTNOTE = "paper: table 5, I3D after ImageNet and Kinetics (in brackets: Kinetics alone)"


def part_to_test(found: "Dataset", part: str | None = None) -> str:
    """The split to test on: ``part``, or else "test", or "val" where there is none."""
    return part or ("test" if "test" in found.splits else "val")


def keep_metrics(
    answers: "list[Answer]", model: "Model", dataset: "Dataset", output: Path, part: str | None = None, **more: Any
) -> "tuple[dict[str, Metrics], dict[str, Any]]":
    """The metrics by column, and the content of ``metrics.json``; written with tables and pictures for each column."""
    from vadis.evaluation import metrics
    from vadis.evaluation.summary import summary
    from vadis.models import MODELS

    classes, architecture = model.card.labels, MODELS[model.card.architecture]
    networks = tuple(architecture.networks(model.card.streams))
    found = metrics(answers, classes, networks, architecture.averages)
    values = summary(
        found,
        classes,
        dataset=dataset.name,
        split=dataset.split,
        part=part_to_test(dataset, part),
        model=model.card.name,
        architecture=model.card.architecture,
        failed=sum(answer.error is not None for answer in answers),
        **more,
    )
    keep(output, found, classes, values)
    return found, values


def keep(folder: Path, found: "Mapping[str, Metrics]", classes: Sequence[str], values: Mapping[str, Any]) -> None:
    """Write tables, pictures and, at last, ``values`` as metrics.json; each whole or not at all."""
    import numpy as np

    from vadis.evaluation.summary import write_summary, write_tables
    from vadis.report.plots import plot_confusion, plot_per_class

    write_tables(folder, found, classes)
    about = f"{values['dataset']}, split {values['split']}, {values['part']}, {values['model']}"
    for name, column in found.items():
        title = f"{name}: top-1 {column.top1:.1%}, mean class {column.mean_class:.1%}\n{about}"
        drawn = column.classes_met()  # a model may know many more
        names = [classes[index] for index in drawn]
        plot_confusion(column.confusion[np.ix_(drawn, drawn)], names, folder / f"confusion-{name}.png", title)
        plot_per_class(column.accuracies()[drawn], names, folder / f"per-class-{name}.png", title)
    write_summary(folder, values)


def table(found: "Mapping[str, Metrics]", paper: Mapping[str, float] = MappingProxyType({})) -> str:
    """The metrics for a person, with the paper's top-1 of a column in [0, 1] beside ours where there is one."""
    lines = [f"{'':6}{_HEAD}" + ("   paper, top-1" if paper else "")]
    for name, column in found.items():
        beside = f"{paper[name]:15.1%}" if name in paper else ""
        lines.append(f"{name:6}{_shares(column.top1, column.top5, column.mean_class)}{column.num_examples:8,}{beside}")
    return "\n".join(lines)


def _shares(top1: float | None, top5: float | None, mean_class: float | None) -> str:
    widths = ((top1, 8), (top5, 8), (mean_class, 12))
    return "".join(f"{'-' if share is None else f'{share:.1%}':>{width}}" for share, width in widths)


def splits_table(found: "Mapping[int, Mapping[str, Metrics]]", together: Mapping[str, Any]) -> str:
    """The metrics of several splits and their means, for a person; the paper's beside those of all three.

    ``together`` is what ``vadis.evaluation.summary.summary_of_splits`` says of them.
    """
    paper: Mapping[str, Mapping[str, float]] = together["paper_mean_top1"]
    lines = [f"{'':16}{_HEAD}" + ("  paper, top-1" if paper else "")]
    for name, means in together["mean"].items():
        for place, (split, columns) in enumerate(found.items()):
            column = columns[name]
            shares = _shares(column.top1, column.top5, column.mean_class)
            lines.append(f"{'' if place else name:6}split {split:<4}{shares}{column.num_examples:8,}")
        total = sum(columns[name].num_examples for columns in found.values())
        beside = f"  {paper[name]['imagenet']:.1%} ({paper[name]['scratch']:.1%})" if name in paper else ""
        lines.append(f"{'':6}mean      {_shares(**means)}{total:8,}{beside}")
    return "\n".join([*lines, _FOOTNOTE] if paper else lines)


def report(shown: str, failed: int) -> None:
    """Print the table or JSON; leaves with exit code 3 where videos failed."""
    typer.echo(shown)
    if failed:
        warn(f"{failed:,} {'video' if failed == 1 else 'videos'} could not be read: counted as wrong")
        raise typer.Exit(SOME_FAILED)


if TYPE_CHECKING:
    from vadis.datasets import Dataset
    from vadis.evaluation.records import Matched
    from vadis.evaluation.summary import PastRun


def judge_runs(folders: Sequence[Path], partial: bool, output: Path | None, as_json: bool) -> None:
    """Metrics of earlier evaluations, and their mean where there are several."""
    from vadis.evaluation.predictions import ANSWERS_NAME
    from vadis.evaluation.summary import check_together, read_run, summary_of_run, summary_of_splits, write_summary

    folders = [folder.parent if folder.name == ANSWERS_NAME else folder for folder in folders]
    for folder in folders:
        if not (folder / ANSWERS_NAME).exists():
            hint = "for records of vadis classify, say by --data and --split of which videos they are"
            raise UsageError(f"{show(folder)} holds no evaluation ({ANSWERS_NAME})", hint=hint)
    runs = sorted((read_run(folder, partial=partial) for folder in folders), key=lambda run: run.split)
    check_together(runs)
    for run in runs:
        _tell_run(run)
    found = {run.split: run.metrics() for run in runs}
    summaries = {run.split: summary_of_run(run, found[run.split]) for run in runs}
    together = summary_of_splits(found, summaries)
    if output:
        with writing(show(output)):
            for run in runs:
                place = output / f"split-{run.split}" if len(runs) > 1 else output
                keep(place, found[run.split], run.classes, summaries[run.split])
            if len(runs) > 1:
                write_summary(output, together)
    if len(runs) > 1:
        report(json.dumps(together) if as_json else splits_table(found, together), together["failed"])
    else:
        (only,), (metrics,) = summaries.values(), found.values()
        report(json.dumps(only) if as_json else table(metrics), only["failed"])


def _tell_run(run: "PastRun") -> None:
    """What is in a run's folder, the videos that failed, and how many the split should have."""
    from vadis.datasets import DATASETS

    dataset, part = str(run.settings["dataset"]), str(run.settings["part"])
    info(
        f"{show(run.folder)}: {dataset}, split {run.split}, {part}: {num_videos(len(run.answers))}, by {_model_of(run)}"
    )
    for answer in run.answers:
        if answer.error is not None:
            warn_of(answer.path, answer.error.partition(":")[0], answer.error)
    counts = DATASETS[dataset].counts.get(part, ()) if dataset in DATASETS else ()
    published = counts[run.split - 1] if 0 < run.split <= len(counts) else len(run.answers)
    if len(run.answers) != published:
        warn(f"{show(run.folder)}: {len(run.answers):,} of the {published:,} videos of the official split")


def _model_of(run: "PastRun") -> str:
    return f"{show(str(run.settings['model']))} ({' and '.join(run.settings['streams'])})"


def judge_records(
    paths: Sequence[Path], found: "Dataset", part: str, partial: bool, output: Path | None, as_json: bool
) -> None:
    """Metrics of what ``vadis classify`` wrote of the videos of a split."""
    from vadis.datasets.dataset import some
    from vadis.evaluation.metrics import measured
    from vadis.evaluation.records import matched, read_records
    from vadis.evaluation.summary import summary

    examples = found.examples(part)
    read = read_records(paths)
    for path in read.torn:
        warn(f"{show(path)} ends within a record, which is left out")
    chosen = matched(read.records, found, examples)
    if chosen.missing and not partial:
        raise UsageError(
            f"{len(chosen.missing):,} of the split's {len(examples):,} videos have no record: {some(chosen.missing)}",
            hint="label them too, or add --partial for the accuracy on the others",
        )
    _tell_records(chosen, len(examples))
    metrics = {
        chosen.column: measured(chosen.rankings, found.classes, with_top5=chosen.is_top5_known),
    }
    values = summary(
        metrics,
        found.classes,
        dataset=found.name,
        split=found.split,
        part=part,
        model=chosen.model,
        failed=len(chosen.failed),
        complete=not chosen.missing,
        missing=len(chosen.missing),
    )
    if output:
        with writing(show(output)):
            keep(output, metrics, found.classes, values)
    report(json.dumps(values) if as_json else table(metrics), len(chosen.failed))


def _tell_records(chosen: "Matched", num_examples: int) -> None:
    """What a person has to know about figures that come from records."""
    from vadis.datasets.dataset import some

    streams = " and ".join(chosen.streams)
    info(f"records by {show(chosen.model)} ({streams}), of whole videos; the paper tests the first 10 s of each")
    for path, reason in chosen.failed.items():
        warn_of(path, reason.partition(":")[0], reason)
    if chosen.missing:
        warn(f"{len(chosen.missing):,} of {num_examples:,} videos have no record: {some(chosen.missing)}")
    if chosen.strange:
        named = some(f"{label} ({count:,})" for label, count in chosen.strange.items())
        total = sum(chosen.strange.values())
        warn(f"{total:,} videos have a first label that is no class of the dataset, and count as wrong: {named}")
    if chosen.repeated:
        info(f"{chosen.repeated:,} records are of videos that have a later one, which counts")
    if chosen.outside:
        info(f"{chosen.outside:,} records are of videos that are not in this split")
    if not chosen.is_top5_known:
        info("top-5 is left out: there are records with fewer than 5 labels")
