"""``vadis reproduce table``: a table of the paper with our results in it, and the commands for what is missing."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.cli.terminal import info, show, warn
from vadis.formats import visible

if TYPE_CHECKING:
    from vadis.evaluation.paper_plan import Job, Plan
    from vadis.evaluation.paper_tables import Cell, Table
    from vadis.evaluation.run_index import Found

DEFAULT_TFLOPS = 10.0  # what a GPU is taken to sustain; a guess in the middle of what there is, so it is always named
LINE_WIDTH = 78  # columns, of a command
FIGURE_WIDTH = 5  # of a figure: 98.0, and a blank or REMARK after it
MISSING, NO_FIGURE, REMARK = "·", "–", "*"

Runs = Annotated[Path, typer.Option(metavar="DIR", help="Where finished runs are looked for, and new ones are to lie.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Only the commands, with the disk and the GPU-hours that they take."),
]
Tflops = Annotated[
    float,
    typer.Option(metavar="T", min=0.001, help="For --dry-run: 10¹² operations per second that one GPU sustains."),
]


def table(
    number: Annotated[int, typer.Argument(metavar="2|3|4|5", min=2, max=5, help="The table's number in the paper.")],
    runs: Runs,
    dry_run: DryRun = False,
    tflops: Tflops = DEFAULT_TFLOPS,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Everything, as JSON.")] = False,
) -> None:
    """Show a table of the paper with our results beside each number, and the commands for what is missing.

    Results are those of finished runs of train, finetune and evaluate anywhere below DIR. The commands stand in an
    order in which they can be run; put your folders for ucf101/, hmdb51/ and kinetics400/.
    """
    from vadis.evaluation.paper_plan import plan
    from vadis.evaluation.paper_tables import paper_table
    from vadis.evaluation.run_index import find_runs

    wanted, found = paper_table(number), find_runs(runs)
    planned = plan(wanted, found, runs)
    if as_json:
        typer.echo(json.dumps(_to_json(wanted, found, planned, tflops), indent=1, allow_nan=False))
        return
    for note in found.notes:
        warn(note)
    if not found.runs:
        info(f"there are no finished runs in {show(runs)} yet")
    if not dry_run:
        typer.echo("\n".join(_shown(wanted, found)) + "\n")
    typer.echo("\n".join(_commands(planned, wanted, found, tflops if dry_run else None)))


def _shown(wanted: "Table", found: "Found") -> Iterator[str]:
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
        yield line(row.title, "paper", [_percent(cell.paper) for cell in row.cells])
        yield line("", "ours", [_ours(cell, found, footnotes) for cell in row.cells])
    yield ""
    yield f"{NO_FIGURE} the paper has no figure    {MISSING} no finished run yet"
    yield from (f"{REMARK} {visible(note)}" for note in footnotes)


def _percent(share: float | None) -> str:
    return NO_FIGURE if share is None else f"{share:.1%}"[:-1]


def _ours(cell: "Cell", found: "Found", footnotes: dict[str, None]) -> str:
    """Our figure as it is shown; what there is to say of it goes into ``footnotes``, each once."""
    from vadis.evaluation.run_index import our_figure

    value = our_figure(cell, found)
    if value is None:
        there = _partly(cell, found)
        footnotes |= dict.fromkeys(there)
        nothing = MISSING if cell.paper is not None else NO_FIGURE
        return f"{nothing}{REMARK}" if there else nothing
    said = _remarks(cell, found)
    footnotes |= dict.fromkeys(said)
    return _percent(value) + (REMARK if said else "")


def _partly(cell: "Cell", found: "Found") -> list[str]:
    """The splits that there are of a mean that is not complete."""
    from vadis.evaluation.run_index import splits_missing

    missing = splits_missing(cell, found)
    if len(missing) == len(cell.splits):
        return []
    there = [split for split in cell.splits if split not in missing]
    data = f"{cell.dataset}, {'ImageNet+' if cell.imagenet else ''}Kinetics"
    return [f"{data}: of split {', '.join(map(str, there))} there is a run, of {', '.join(map(str, missing))} none"]


def _remarks(cell: "Cell", found: "Found") -> list[str]:
    """What there is to say of the runs behind a figure."""
    said = []
    for split in cell.splits:
        newest = found.newest(cell, split)
        if newest is None:
            continue
        run, older = newest
        said += [f"{run.folder}: {remark}" for remark in run.remarks]
        if older:
            said.append(f"{run.folder} is the newest of {1 + len(older)} runs; also {_some(older)}")
    return said


def _some(older: "Sequence[Any]") -> str:
    return ", ".join(str(run.folder) for run in older[:3]) + (", …" if len(older) > 3 else "")


def _commands(planned: "Plan", wanted: "Table", found: "Found", tflops: float | None) -> Iterator[str]:
    """The jobs as a script: comments, and commands that a shell takes as they are."""
    from vadis.evaluation.run_index import our_figure

    cells = wanted.cells()
    missing = sum(our_figure(cell, found) is None for cell in cells)
    if not planned.jobs:
        yield f"# table {wanted.number}: all {len(cells)} numbers are there"
        return
    yield f"# table {wanted.number}: {missing} of {len(cells)} numbers are missing; {len(planned.jobs)} commands"
    for number, job in enumerate(planned.jobs, 1):
        yield ""
        yield f"# {number}. {_about(job, tflops)}"
        yield from _wrapped(job.command)
    yield ""
    yield "# on N GPUs: torchrun --standalone --nproc-per-node N -m vadis … (but for fixed)"
    yield from (_total(planned, tflops) if tflops else ["# --dry-run says what time and room they take"])


def _about(job: "Job", tflops: float | None) -> str:
    words = [visible(job.title)]
    if job.fills:
        words.append(f"{len(job.fills)} number{'s' * (len(job.fills) > 1)}")
    elif job.stage == "kinetics":
        words.append("others begin there")
    if tflops is not None:
        hours, cores = job.effort.gpu_hours(tflops), job.effort.core_hours
        words += [f"{_hours(hours)} GPU-hours"] if hours else []
        words += [f"{_hours(cores)} core-hours"] if cores else []
        words.append(_bytes(sum(job.effort.num_bytes.values())))
    return ", ".join(words)


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


def _total(planned: "Plan", tflops: float) -> Iterator[str]:
    kinds = planned.num_bytes()
    yield f"# in all: {_hours(planned.gpu_hours(tflops))} GPU-hours, if a GPU sustains {tflops:g} TFLOP/s (--tflops)"
    if planned.core_hours():
        yield f"#         {_hours(planned.core_hours())} core-hours of flow on the CPU"
    yield f"#         {_bytes(sum(kinds.values()))} of disk:"
    yield from (f"#           {kind:<12}{_bytes(number):>9}" for kind, number in kinds.items())


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{max(hours, 0.1):.1f}"


def _bytes(number: float) -> str:
    if number < 1e9:
        return f"{max(number / 1e6, 1):.0f} MB"
    return f"{number / 1e9:,.0f} GB" if number >= 10e9 else f"{number / 1e9:.1f} GB"


def _to_json(wanted: "Table", found: "Found", planned: "Plan", tflops: float) -> dict[str, Any]:
    """All that is known, as plain JSON values."""
    from vadis.evaluation.run_index import our_figure

    cells = [cell for row in wanted.rows for cell in row.cells]
    return {
        "schema": 1,
        "table": wanted.number,
        "title": wanted.title,
        "cells": [
            {
                **cell._asdict(),
                "paper": cell.paper,
                "ours": our_figure(cell, found),
                "runs": [show(newest[0].folder) for newest in _newest(cell, found)],
                "remarks": [visible(remark) for remark in _remarks(cell, found)],
            }
            for cell in cells
        ],
        "jobs": [
            {
                "title": visible(job.title),
                "stage": job.stage,
                "command": visible(" ".join(job.command)),
                "fills": [cell._asdict() for cell in job.fills],
                "flops": job.effort.flops,
                "gpu_hours": round(job.effort.gpu_hours(tflops), 3),
                "core_hours": round(job.effort.core_hours, 3),
                "bytes": {kind: round(number) for kind, number in job.effort.num_bytes.items()},
            }
            for job in planned.jobs
        ],
        "tflops": tflops,
        "gpu_hours": round(planned.gpu_hours(tflops), 3),
        "core_hours": round(planned.core_hours(), 3),
        "bytes": {kind: round(number) for kind, number in planned.num_bytes().items()},
        "notes": [visible(note) for note in found.notes],
    }


def _newest(cell: "Cell", found: "Found") -> Iterator[Any]:
    return (newest for split in cell.splits if (newest := found.newest(cell, split)) is not None)
