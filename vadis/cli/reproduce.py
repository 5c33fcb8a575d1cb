"""``vadis reproduce``: published numbers beside ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import reproduce_table
from vadis.cli.terminal import download_progress, info, show
from vadis.errors import UsageError
from vadis.formats import visible

if TYPE_CHECKING:
    from vadis.evaluation.sample import Comparison, Line, Outputs

app = typer.Typer(help="Hold models against published numbers.", no_args_is_help=True)
app.command()(reproduce_table.table)


@app.callback()
def reproduce() -> None:
    """Hold models against published numbers."""


@app.command()
def sample(
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|PATH", help="The model.")] = "i3d-kinetics400",
    rgb: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy", help="Preprocessed frames (1, T, 224, 224, 3) in [-1, 1] instead of the sample."
        ),
    ] = None,
    flow: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy", help="Preprocessed flow (1, T, 224, 224, 2) in [-1, 1] instead of the sample."
        ),
    ] = None,
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
        _print(comparisons, {stream: show(path) for stream, path in paths.items()})
    if outcome["passed"] is False:
        raise typer.Exit(1)


def _print(comparisons: Mapping[str, "Comparison"], paths: Mapping[str, str]) -> None:
    for stream, comparison in comparisons.items():
        typer.echo(f"{stream}: {paths.get(stream, 'the sum of both')}")
        typer.echo(f"  {'':<30} {'vadis':>19}   {'published':>19}")
        published = comparison.published
        typer.echo(f"  {'norm of the logits':<30} {_norm(comparison.ours):>19}   {_norm(published):>19}")
        theirs = {line.label: line for line in published.top} if published else {}
        for line in comparison.ours.top:
            typer.echo(f"  {visible(line.label)[:30]:<30} {_line(line):>19}   {_line(theirs.get(line.label)):>19}")
        typer.echo(f"  {_verdict(comparison)}\n")


def _norm(outputs: "Outputs | None") -> str:
    return f"{outputs.norm:.6f}" if outputs else "–"


def _line(line: "Line | None") -> str:
    """Probability and logit, with the digits that DeepMind prints."""
    return f"{line.probability:.5g} {line.logit:8.4f}" if line else "–"


def _verdict(comparison: "Comparison") -> str:
    if comparison.passed is None:
        return "nothing is published for this model and input"
    return f"{'PASS' if comparison.passed else 'FAIL'}: largest difference {comparison.largest_error:.6f}"
