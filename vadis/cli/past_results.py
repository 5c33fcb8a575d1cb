"""``vadis evaluate --results``: metrics of what has been computed already; no model is loaded and no video opened."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vadis.cli.accuracy import keep, report, splits_table, table
from vadis.cli.outputs import explained
from vadis.cli.terminal import complain, complain_of, num_videos, say, show
from vadis.errors import UsageError

if TYPE_CHECKING:
    from vadis.datasets import Dataset
    from vadis.evaluation.records import Matched
    from vadis.evaluation.runs import PastRun


def judge_runs(folders: Sequence[Path], partial: bool, output: Path | None, as_json: bool) -> None:
    """Metrics of earlier evaluations, and their mean where there are several."""
    from vadis.evaluation.answers import ANSWERS_NAME
    from vadis.evaluation.runs import check_together, read_run
    from vadis.evaluation.tables import summary_of_run, summary_of_splits, write_summary

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
        with explained(show(output)):
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
    say(
        f"{show(run.folder)}: {dataset}, split {run.split}, {part}: {num_videos(len(run.answers))}, by {_model_of(run)}"
    )
    for answer in run.answers:
        if answer.error is not None:
            complain_of(answer.path, answer.error.partition(":")[0], answer.error)
    counts = DATASETS[dataset].counts.get(part, ()) if dataset in DATASETS else ()
    published = counts[run.split - 1] if 0 < run.split <= len(counts) else len(run.answers)
    if len(run.answers) != published:
        complain(f"{show(run.folder)}: {len(run.answers):,} of the {published:,} videos of the official split")


def _model_of(run: "PastRun") -> str:
    return f"{show(str(run.settings['model']))} ({' and '.join(run.settings['streams'])})"


def judge_records(
    paths: Sequence[Path], found: "Dataset", part: str, partial: bool, output: Path | None, as_json: bool
) -> None:
    """Metrics of what ``vadis classify`` wrote of the videos of a split."""
    from vadis.datasets.listing import some
    from vadis.evaluation.metrics import measured
    from vadis.evaluation.records import matched, read_records
    from vadis.evaluation.tables import summary

    examples = found.examples(part)
    read = read_records(paths)
    for path in read.torn:
        complain(f"{show(path)} ends within a record, which is left out")
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
        with explained(show(output)):
            keep(output, metrics, found.classes, values)
    report(json.dumps(values) if as_json else table(metrics), len(chosen.failed))


def _tell_records(chosen: "Matched", num_examples: int) -> None:
    """What a person has to know about figures that come from records."""
    from vadis.datasets.listing import some

    streams = " and ".join(chosen.streams)
    say(f"records by {show(chosen.model)} ({streams}), of whole videos; the paper tests the first 10 s of each")
    for path, reason in chosen.failed.items():
        complain_of(path, reason.partition(":")[0], reason)
    if chosen.missing:
        complain(f"{len(chosen.missing):,} of {num_examples:,} videos have no record: {some(chosen.missing)}")
    if chosen.strange:
        named = some(f"{label} ({count:,})" for label, count in chosen.strange.items())
        total = sum(chosen.strange.values())
        complain(f"{total:,} videos have a first label that is no class of the dataset, and count as wrong: {named}")
    if chosen.repeated:
        say(f"{chosen.repeated:,} records are of videos that have a later one, which counts")
    if chosen.outside:
        say(f"{chosen.outside:,} records are of videos that are not in this split")
    if not chosen.is_top5_known:
        say("top-5 is left out: there are records with fewer than 5 labels")
