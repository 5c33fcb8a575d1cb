"""``vadis reproduce``: the published numbers beside ours, and the commands for those that are missing."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.cli.terminal import download_progress, info, show, warn
from vadis.errors import UsageError
from vadis.formats import visible

if TYPE_CHECKING:
    from vadis.evaluation.paper_plan import CostEstimate, Job
    from vadis.evaluation.paper_tables import Cell, Table
    from vadis.evaluation.run_index import RunIndex
    from vadis.evaluation.sample import Comparison, Line

DEFAULT_TFLOPS = 10.0  # what a GPU is taken to sustain; a guess in the middle of what there is, so it is always named
LINE_WIDTH = 78  # columns, of a command
FIGURE_WIDTH = 5  # of a figure: 98.0, and a blank or REMARK after it
MISSING, NO_FIGURE, REMARK = "·", "–", "*"

app = typer.Typer(help="Hold models against published numbers.", no_args_is_help=True)


@app.callback()
def reproduce() -> None:
    """Hold models against published numbers."""


_RGB_HELP = "Preprocessed frames (1, T, 224, 224, 3) in [-1, 1] instead of the sample."
_FLOW_HELP = "Preprocessed flow (1, T, 224, 224, 2) in [-1, 1] instead of the sample."


@app.command()
def sample(
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|PATH", help="The model.")] = "i3d-kinetics400",
    rgb: Annotated[Path | None, typer.Option(metavar="FILE.npy", help=_RGB_HELP)] = None,
    flow: Annotated[Path | None, typer.Option(metavar="FILE.npy", help=_FLOW_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, all logits included.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Open no connection.")] = False,
) -> None:
    """Run DeepMind's published sample through a model, and show its logits beside the published ones.

    Exit code 1 if they differ. With --rgb and --flow, any preprocessed arrays; there is nothing published to
    compare those with, unless they are the sample's.
    """
    from vadis.evaluation.sample import fetch_sample, reproduce, to_json
    from vadis.weights.download import is_offline
    from vadis.weights.load import load_model

    offline = offline or is_offline()
    paths = {stream: path for stream, path in (("rgb", rgb), ("flow", flow)) if path is not None}
    with download_progress() as progress:
        loaded = load_model(model, device, offline=offline, progress=progress, notify=info)
        paths = paths or fetch_sample(loaded.card.streams, offline=offline, progress=progress, notify=info)
    missing = [stream for stream in paths if stream not in loaded.networks]
    if missing:
        hint = f"leave --{missing[0]} out, or name a model that has one by --model"
        raise UsageError(f"the model {loaded.card.name} has no {missing[0]} network", hint)
    outcome = to_json(loaded, comparisons := reproduce(loaded, paths))
    if as_json:
        typer.echo(json.dumps(outcome, indent=1, allow_nan=False))
    else:
        for stream, comparison in comparisons.items():
            _print_comparison(comparison, f"{stream}: {show(paths[stream]) if stream in paths else 'the sum of both'}")
    if outcome["passed"] is False:
        raise typer.Exit(1)


def _print_comparison(comparison: "Comparison", title: str) -> None:
    def line(name: str, ours: str, published: str) -> None:
        typer.echo(f"  {name:<30} {ours:>19}   {published:>19}")

    def logit(of: "Line | None") -> str:
        return f"{of.probability:.5g} {of.logit:8.4f}" if of else NO_FIGURE  # the digits that DeepMind prints

    ours, published, largest_error, passed = comparison
    typer.echo(title)
    line("", "vadis", "published")
    line("norm of the logits", f"{ours.norm:.6f}", f"{published.norm:.6f}" if published else NO_FIGURE)
    theirs = {each.label: each for each in published.top} if published else {}
    for each in ours.top:
        line(visible(each.label)[:30], logit(each), logit(theirs.get(each.label)))
    verdict = "nothing is published for this model and input"
    if passed is not None:
        verdict = f"{'PASS' if passed else 'FAIL'}: largest difference {largest_error:.6f}"
    typer.echo(f"  {verdict}\n")


Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where finished runs are looked for, and new ones are to lie.")]
_DRY_RUN_HELP = "Only the commands, with the disk and the GPU-hours that they take."
_TFLOPS_HELP = "For --dry-run: 10¹² operations per second that one GPU sustains."


@app.command()
def table(
    number: Annotated[int, typer.Argument(metavar="2|3|4|5", min=2, max=5, help="The table's number in the paper.")],
    runs: Runs,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help=_DRY_RUN_HELP)] = False,
    tflops: Annotated[float, typer.Option(metavar="T", min=0.001, help=_TFLOPS_HELP)] = DEFAULT_TFLOPS,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Everything, as JSON.")] = False,
) -> None:
    """Show a table of the paper with our results beside each number, and the commands for what is missing.

    Results are those of finished runs of train, finetune and evaluate anywhere below DIR. The commands stand in an
    order in which they can be run; put your folders for ucf101/, hmdb51/ and kinetics400/.
    """
    from vadis.evaluation.paper_plan import plan
    from vadis.evaluation.paper_tables import TABLES
    from vadis.evaluation.run_index import find_runs

    wanted, index = TABLES[number], find_runs(runs)
    jobs = plan(wanted, index, runs)
    if as_json:
        typer.echo(json.dumps(_to_json(wanted, index, jobs, tflops), indent=1, allow_nan=False))
        return
    for note in index.notes:
        warn(note)
    if not index.runs:
        info(f"there are no finished runs in {show(runs)} yet")
    if not dry_run:
        typer.echo("\n".join(_lines(wanted, index)) + "\n")
    typer.echo("\n".join(_script(jobs, wanted, index, tflops if dry_run else None)))


def _lines(wanted: "Table", index: "RunIndex") -> Iterator[str]:
    """The table: of every row a line of the paper's figures and below it one of ours."""
    footnotes: dict[str, None] = {}
    titles = max(len(row.title) for row in wanted.rows)
    column = 1 + max(FIGURE_WIDTH, *map(len, wanted.columns))

    def line(title: str, which: str, texts: Sequence[str]) -> str:
        figures = iter(f"{text:>{column - 1}}{' ' * (not text.endswith(REMARK))}" for text in texts)
        parts = ["".join(islice(figures, number)) for _, number in wanted.groups]
        return f"{title:<{titles}}{which:>6} {' '.join(parts)}".rstrip()

    yield f"Table {wanted.number}. {wanted.title}"
    yield ""
    if any(title for title, _ in wanted.groups):
        yield " " * (titles + 7) + " ".join(f"{title:^{column * number}}" for title, number in wanted.groups).rstrip()
    yield line("", "", wanted.columns)
    for row in wanted.rows:
        yield line(row.title, "paper", row.printed.split())
        yield line("", "ours", [_ours(cell, index, footnotes) for cell in row.cells])
    yield ""
    yield f"{NO_FIGURE} the paper has no figure    {MISSING} no finished run yet"
    yield from (f"{REMARK} {visible(note)}" for note in footnotes)


def _ours(cell: "Cell", index: "RunIndex", footnotes: dict[str, None]) -> str:
    """Our figure as it is shown; what there is to say of it goes into ``footnotes``, each once."""
    value, missing = index.figure(cell), index.splits_missing(cell)
    if value is not None:
        shown, notes = f"{value:.1%}"[:-1], _remarks(cell, index)
    else:
        shown, notes = MISSING if cell.paper is not None else NO_FIGURE, []
        there = [str(split) for split in cell.splits if split not in missing]
        if there:
            data = f"{cell.dataset}, {'ImageNet+' if cell.imagenet else ''}Kinetics"
            lacking = ", ".join(map(str, missing))
            notes = [f"{data}: split {', '.join(there)} is run, {lacking} not yet"]
    footnotes |= dict.fromkeys(notes)
    return shown + (REMARK if notes else "")


def _remarks(cell: "Cell", index: "RunIndex") -> list[str]:
    """What there is to say of the runs behind a figure."""
    said = []
    for newest, *older in filter(None, (index.runs_of(cell, split) for split in cell.splits)):
        said += [f"{newest.folder}: {remark}" for remark in newest.remarks]
        if older:
            some = ", ".join(str(run.folder) for run in older[:3]) + (", …" if len(older) > 3 else "")
            said.append(f"{newest.folder} is the newest of {1 + len(older)} runs; also {some}")
    return said


def _script(jobs: "list[Job]", wanted: "Table", index: "RunIndex", tflops: float | None) -> Iterator[str]:
    """The jobs as a script: comments, and commands that a shell takes as they are."""
    cells = wanted.cells()
    missing = sum(index.figure(cell) is None for cell in cells)
    if not jobs:
        yield f"# table {wanted.number}: all {len(cells)} numbers are there"
        return
    yield f"# table {wanted.number}: {missing} of {len(cells)} numbers are missing; {len(jobs)} commands"
    for number, job in enumerate(jobs, 1):
        words = [visible(job.title)]
        if job.fills:
            words.append(f"{len(job.fills)} number{'s' * (len(job.fills) > 1)}")
        elif job.stage == "kinetics":
            words.append("others begin there")
        yield ""
        yield f"# {number}. {', '.join(words + (_estimated(job.estimate, tflops) if tflops else []))}"
        yield from _wrapped(job.command)
    yield ""
    yield "# on N GPUs: torchrun --standalone --nproc-per-node N -m vadis … (not fixed)"
    yield from (_total(jobs, tflops) if tflops else ["# --dry-run says what time and disk space they take"])


def _estimated(estimate: "CostEstimate", tflops: float) -> list[str]:
    hours, cores = estimate.gpu_hours(tflops), estimate.core_hours
    words = [f"{_hours(hours)} GPU-hours"] if hours else []
    words += [f"{_hours(cores)} core-hours"] if cores else []
    return [*words, _bytes(sum(estimate.num_bytes.values()))]


def _wrapped(words: Sequence[str]) -> Iterator[str]:
    """A command over as many lines as it needs."""
    line = words[0]
    for word in words[1:]:
        if len(line) + len(word) + 3 > LINE_WIDTH:
            yield f"{visible(line)} \\"
            line = f"    {word}"
        else:
            line = f"{line} {word}"
    yield visible(line)


def _total(jobs: "list[Job]", tflops: float) -> Iterator[str]:
    from vadis.evaluation.paper_plan import total

    taken = total(jobs)
    yield f"# in all: {_hours(taken.gpu_hours(tflops))} GPU-hours, if a GPU sustains {tflops:g} TFLOP/s (--tflops)"
    if taken.core_hours:
        yield f"#         {_hours(taken.core_hours)} core-hours of flow on the CPU"
    yield f"#         {_bytes(sum(taken.num_bytes.values()))} of disk:"
    yield from (f"#           {kind:<12}{_bytes(number):>9}" for kind, number in taken.num_bytes.items())


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{max(hours, 0.1):.1f}"


def _bytes(number: float) -> str:
    if number < 1e9:
        return f"{max(number / 1e6, 1):.0f} MB"
    return f"{number / 1e9:,.0f} GB" if number >= 10e9 else f"{number / 1e9:.1f} GB"


def _to_json(wanted: "Table", index: "RunIndex", jobs: "list[Job]", tflops: float) -> dict[str, Any]:
    """All that is known, as plain JSON values."""
    from vadis.evaluation.paper_plan import total

    def costs(taken: "CostEstimate") -> dict[str, Any]:
        hours = {"gpu_hours": round(taken.gpu_hours(tflops), 3), "core_hours": round(taken.core_hours, 3)}
        return hours | {"bytes": {kind: round(number) for kind, number in taken.num_bytes.items()}}

    cells = [cell for row in wanted.rows for cell in row.cells]
    return {
        "schema": 1,
        "table": wanted.number,
        "title": wanted.title,
        "cells": [
            {
                **cell._asdict(),
                "paper": cell.paper,
                "ours": index.figure(cell),
                "runs": [show(runs[0].folder) for split in cell.splits if (runs := index.runs_of(cell, split))],
                "remarks": [visible(remark) for remark in _remarks(cell, index)],
            }
            for cell in cells
        ],
        "jobs": [
            {
                "title": visible(job.title),
                "stage": job.stage,
                "command": visible(" ".join(job.command)),
                "fills": [cell._asdict() for cell in job.fills],
                "flops": job.estimate.flops,
                **costs(job.estimate),
            }
            for job in jobs
        ],
        "tflops": tflops,
        **costs(total(jobs)),
        "notes": [visible(note) for note in index.notes],
    }
