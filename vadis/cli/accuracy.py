"""What a test comes to: files in its folder, a table on stdout, the exit code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer

from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import complain

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
    from vadis.evaluation.tables import summary
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

    from vadis.evaluation.tables import write_summary, write_tables
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

    ``together`` is what ``vadis.evaluation.tables.summary_of_splits`` says of them.
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
        complain(f"{failed:,} {'video' if failed == 1 else 'videos'} could not be read: counted as wrong")
        raise typer.Exit(SOME_FAILED)
