"""``vadis evaluate``: the paper's test on a dataset split, or metrics of what has been computed already."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.batch import Summary
from vadis.cli import options
from vadis.cli.options import DATA, MODEL, OUTPUT, choice, option
from vadis.cli.outputs import new_folder, writing
from vadis.cli.run import SOME_FAILED, Run, load_for_command
from vadis.cli.terminal import info, num_videos, show, warn, warn_failed
from vadis.errors import UsageError
from vadis.video.sources import Source

if TYPE_CHECKING:
    from vadis.datasets import Dataset
    from vadis.evaluation.metrics import Evaluation, Prediction
    from vadis.models.card import Model


EPILOG = """
How good is a model on UCF-101, split 1?  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/`

The same again, for a script:  `vadis evaluate --data ./ucf101 --split 1 --model mine.safetensors -o run/ --json`

Three splits and their mean, as in the paper's table 5:
`vadis evaluate --results run1/ --results run2/ --results run3/`

From what `vadis classify` wrote, without a model:
`vadis evaluate --data ./ucf101 --split 1 --results ucf101.jsonl -o metrics/`

**Exit codes** are those of `vadis classify`.
"""

RESULTS = "Results there are already"
AllowMissing = Annotated[float, option(DATA, "Share of files that may be missing.", metavar="SHARE", min=0.0, max=1.0)]
_RESULTS = "Instead of a model: folders of earlier evaluations, one per split; or, with --data, records of classify."
_SPATIAL = "Look at the 224×224 in the middle, as the paper, or fully convolutionally at 256×256 (I3D)."
_FRAMES = "Look at the first 250 frames, as the paper, or at all of each video."
_OUTPUT = "For answers, metrics, tables and pictures; with --results not needed."


def evaluate(
    data: options.Data = None,
    output: Annotated[Path | None, option(OUTPUT, _OUTPUT, "--output", "-o", metavar="DIR")] = None,
    dataset: options.DatasetName = None,
    split: options.Split = 1,
    part: Annotated[str | None, option(DATA, "By default test, or else val.", metavar="train|val|test")] = None,
    allow_missing: AllowMissing = 0.1,
    model: options.ModelName = None,
    streams: options.Streams = None,
    flip: options.Flip = False,
    spatial: Annotated[str, choice(MODEL, _SPATIAL, ("centre", "full"))] = "centre",
    frames: Annotated[str, choice(MODEL, _FRAMES, ("paper", "all"))] = "paper",
    results: Annotated[list[Path] | None, option(RESULTS, _RESULTS, "--results", metavar="RESULTS")] = None,
    as_json: options.AsJson = False,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    offline: options.Offline = False,
) -> None:
    """How often is a model right? The paper's test; run again to go on where it stopped."""
    for is_wrong, message in (
        (not results and data is None, "--data is missing, or --results"),
        (not results and output is None, "-o is missing"),
        (results and (model or streams or flip), "--model, --streams and --flip do not go with --results"),
        (results and (spatial, frames) != ("centre", "paper"), "--spatial and --frames do not go with --results"),
        (data is None and (dataset or part or split != 1), "--dataset, --split and --part are for --data"),
        (results and output and (output / "answers.jsonl").exists(), "the folder of -o holds an evaluation of its own"),
    ):
        if is_wrong:
            raise UsageError(message, hint="vadis evaluate --help has examples")
    with new_folder(output) if output else nullcontext():
        found = None
        if data is not None:
            from vadis.datasets import find_dataset

            found = find_dataset(data, dataset, split, allow_missing=allow_missing)
            info(found.summary())
            part = choose_part(found, part)
        if results:
            runs = _read_results(results, found, part)
        else:
            assert found is not None and part is not None and output is not None
            loaded = load_for_command(model, streams, device, offline, precision=precision)
            loaded.check_flip(flip)
            if spatial == "full":
                from vadis.evaluation.metrics import on_whole_frames

                loaded = on_whole_frames(loaded)
            runs = [evaluate_model(loaded, found, part, output, flip=flip, whole=frames == "all")]
        _show(runs, output, as_json)


def choose_part(found: "Dataset", part: str | None = None) -> str:
    """Return the split to test on, by default "test" or "val"; warn where the figures will not be of a test split."""
    part = part or ("test" if "test" in found.splits else "val")
    found.examples(part)
    if part != "test":
        val = "training may have chosen its learning rate by these videos"
        why = "a model knows the videos that it learnt from" if part == "train" else val
        warn(f"{found.name}: tested on {part}; {why}")
    return part


def evaluate_model(
    model: "Model",
    found: "Dataset",
    part: str,
    output: Path,
    *,
    flip: bool = False,
    whole: bool = False,
    go_on: bool = True,
) -> "Evaluation":
    """Run the paper's test; predictions are kept in ``output``.

    ``flip`` and ``whole`` as for ``predict_all``, ``go_on`` as for ``open_predictions``.
    """
    from vadis.evaluation import metrics

    examples, path, root = found.examples(part), output / metrics.PREDICTIONS_NAME, found.root
    metrics.check_classes(examples, model)
    if warning := metrics.overlap_warning(model, found):
        warn(warning)
    settings = metrics.evaluation_settings(model, found.name, found.split, flip, part, whole=whole)
    with writing(show(output)), metrics.open_predictions(path, settings, go_on=go_on) as journal:
        if journal.num_damaged:
            warn(f"{journal.num_damaged} damaged lines of {show(path)} are left out; their videos are done again")
        missing = metrics.pending(examples, journal, root)
        names, new = ({metrics.name_of(each, root): each for each in some} for some in (examples, missing))
        done, summary = names.keys() - new.keys(), Summary(len(names))
        for name in done:
            summary.add(journal.entries[name])
        run = Run([Source(example.path) for example in missing], summary)
        how: dict[str, Any] = {"flip": flip, "whole": whole, "progress": run.report}
        made = metrics.predict_all(missing, model, root, **how)
        run.complete(made, lambda records, is_whole: deque(map(journal.append, records), 0))
        journal.finish()
    kept = metrics.read_predictions(path)
    _warn_of_failed([kept[name] for name in names if name in done])
    return metrics.Evaluation(output, settings, [kept[metrics.name_of(example, root)] for example in examples])


def _warn_of_failed(made: "Sequence[Prediction]") -> None:
    for each in made:
        if each.status == "error":
            warn_failed(each.path, each.error_code, each.error_message)


def write_evaluation(evaluation: "Evaluation", folder: Path, **more: Any) -> dict[str, Any]:
    """Write tables, pictures and, at last, metrics.json, and return its content; each whole or not at all."""
    import numpy as np

    from vadis.evaluation.metrics import write_summary
    from vadis.report.plots import plot_confusion, plot_per_class

    summary = evaluation.summary(**more)
    about = f"{summary['dataset']}, split {summary['split']}, {summary['part']}, {summary['model']}"
    with writing(show(folder)):
        evaluation.write_tables(folder)
        for name, column in evaluation.columns.items():
            title = f"{name}: top-1 {column.top1:.1%}, mean class {column.mean_class:.1%}\n{about}"
            drawn = column.classes_met()  # a model may know many more
            names = [evaluation.classes[index] for index in drawn]
            plot_confusion(column.confusion[np.ix_(drawn, drawn)], names, folder / f"confusion-{name}.png", title)
            plot_per_class(column.accuracies()[drawn], names, folder / f"per-class-{name}.png", title)
        write_summary(folder, summary)
    return summary


def table(columns: Mapping[str, Mapping[str, Any]], paper: Mapping[str, str]) -> str:
    """Return the metrics of ``Metrics.to_json`` by column for a person, beside what the paper says of a column."""
    shown = "   paper, top-1" if paper else ""
    lines = [f"{'':6}{'top-1':>8}{'top-5':>8}{'mean class':>12}{'videos':>8}{shown}"]
    for name, found in columns.items():
        figures = f"{found['top1']:8.1%}{found['top5']:8.1%}{found['mean_class']:12.1%}{found['num_examples']:8,}"
        lines.append(f"{name:6}{figures}   {paper.get(name, '')}".rstrip())
    return "\n".join(lines)


def _splits_table(summary: Mapping[str, Any]) -> str:
    """Return the tables of several splits, and of their means with the paper's beside those of all three."""
    means, paper = summary["mean"], summary["paper_mean_top1"]
    splits = [
        f"split {split}\n{table({name: each[name] for name in means}, {})}" for split, each in summary["splits"].items()
    ]
    beside = {name: f"{top1['imagenet']:.1%} ({top1['scratch']:.1%})" for name, top1 in paper.items()}
    footnote = ["paper: table 5, I3D after ImageNet and Kinetics (in brackets: Kinetics alone)"] if paper else []
    return "\n".join([*splits, "mean", table(means, beside), *footnote])


def report(shown: str, failed: int) -> None:
    """Print the table or JSON; leave with exit code 3 where videos failed."""
    typer.echo(shown)
    if failed:
        warn(f"{num_videos(failed)} could not be read: counted as wrong")
        raise typer.Exit(SOME_FAILED)


def _show(runs: "list[Evaluation]", output: Path | None, as_json: bool) -> None:
    from vadis.evaluation.metrics import summarize_splits, write_summary

    if len(runs) == 1:
        summary, shown = runs[0].summary(), table(runs[0].figures, {})
        if output:
            write_evaluation(runs[0], output)
    else:
        summary = summarize_splits(runs)
        shown = _splits_table(summary)
        if output:
            for run in runs:
                write_evaluation(run, output / f"split-{run.split}")
            with writing(show(output)):
                write_summary(output, summary)
    report(json.dumps(summary) if as_json else shown, summary["failed"])


def _read_results(paths: "list[Path]", found: "Dataset | None", part: str | None) -> "list[Evaluation]":
    """Return earlier evaluations by their splits; or with a dataset the records of classify, as one."""
    from vadis.datasets import DATASETS
    from vadis.evaluation.metrics import read_evaluation, read_records

    if found is not None and part is not None:
        runs = [read_records(paths, found, part)]
    else:
        runs = sorted(map(read_evaluation, paths), key=lambda run: run.split)
    for run in runs:
        settings, number = run.settings, len(run.predictions)
        dataset, tested, by = settings["dataset"], settings["part"], show(settings["model"])
        streams = " and ".join(settings["streams"])
        info(f"{show(run.folder)}: {dataset}, split {run.split}, {tested}: {num_videos(number)}, by {by} ({streams})")
        _warn_of_failed(run.predictions)
        counts = DATASETS[dataset].counts.get(tested, ()) if dataset in DATASETS else ()
        published = dict(enumerate(counts, 1)).get(run.split, number)
        if number != published:
            warn(f"{show(run.folder)}: {number:,} of the {published:,} videos of the official split")
    return runs
