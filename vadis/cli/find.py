"""``vadis find`` and ``vadis labels``: where something happens in an archive, and what a model can name."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from vadis.cli import options
from vadis.cli.options import OUTPUT, TIME, choice, option
from vadis.cli.results import read_results
from vadis.cli.terminal import clock, info, num_videos, show, tenths
from vadis.errors import UsageError
from vadis.formats import csv_line, percent, spreadsheet_cell, visible
from vadis.results import Piece, VideoResult, is_like, path_fields
from vadis.video.sources import remote_scheme
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, WEIGHTS, published_labels, unknown_model

EPILOG = """
Where somebody plays something:  `vadis find labels.jsonl 'playing *'`

For at least three seconds, as a spreadsheet:  `vadis find labels.jsonl yoga --min-seconds 3 -f csv > yoga.csv`

To look at one after the other:  `vadis find labels.jsonl yoga -f m3u > yoga.m3u`, then  `vlc yoga.m3u`
"""


class Place(NamedTuple):
    """A piece of the timeline of the video at ``path``."""

    path: str
    piece: Piece


def matching(result: VideoResult, label: str, min_score: float, min_seconds: float) -> Iterator[Piece]:
    """Yield the pieces of a timeline that are asked for."""
    for piece in result.timeline:
        if is_like(piece.label, label) and piece.score >= min_score and piece.end - piece.start >= min_seconds:
            yield piece


def _table(places: Sequence[Place]) -> Iterator[str]:
    names = [show(path) for path, _ in places]
    widths = [max(map(len, names), default=0), max((len(tenths(piece.end)) for _, piece in places), default=0)]
    for name, (_, piece) in zip(names, places, strict=True):
        times = "  ".join(f"{tenths(seconds):>{widths[1]}}" for seconds in (piece.start, piece.end))
        yield f"{name:<{widths[0]}}  {times}  {percent(piece.score):>3} %  {visible(piece.label)}\n"


def _csv(places: Sequence[Place]) -> Iterator[str]:
    yield csv_line(("path", "start", "end", "label", "score"))
    for path, piece in places:
        start, end, score = f"{piece.start:.3f}", f"{piece.end:.3f}", f"{piece.score:.6f}"
        yield csv_line((spreadsheet_cell(path), start, end, spreadsheet_cell(piece.label), score))


def _jsonl(places: Sequence[Place]) -> Iterator[str]:
    yield from (json.dumps(path_fields(path) | piece.to_json()) + "\n" for path, piece in places)


def _m3u(places: Sequence[Place]) -> Iterator[str]:
    """A playlist with absolute paths, or URLs; where each plays from and to is understood by VLC."""
    yield "#EXTM3U\n"
    for path, piece in places:
        yield f"#EXTINF:{piece.end - piece.start:.0f},{visible(piece.label)}: {show(os.path.basename(path))}\n"  # noqa: PTH119
        yield f"#EXTVLCOPT:start-time={piece.start:.1f}\n#EXTVLCOPT:stop-time={piece.end:.1f}\n"
        yield show(path if remote_scheme(path) else os.path.abspath(path)) + "\n"  # noqa: PTH100 (keeps symlinks)


FOUND = {"table": _table, "csv": _csv, "jsonl": _jsonl, "m3u": _m3u}
"""The formats of what was found."""

_PATTERN = "A label, in any case, with * for any letters: 'playing *'."
RESULTS = Annotated[list[Path], typer.Argument(metavar="RESULTS…", help="What classify wrote as jsonl or json.")]
MinScore = Annotated[float, option(TIME, "Leave out what scores below P.", metavar="P", min=0.0, max=1.0)]
MinSeconds = Annotated[float, option(TIME, "Leave out what is shorter.", metavar="SECONDS", min=0.0)]


def find(
    results: RESULTS,
    label: Annotated[str, typer.Argument(help=_PATTERN, **options.LABEL)],
    min_score: MinScore = 0.0,
    min_seconds: MinSeconds = 0.0,
    format_name: Annotated[str, choice(OUTPUT, "How it is written.", tuple(FOUND), "--format", "-f")] = "table",
) -> None:
    """Find where something happens: in which videos, from when to when. Opens nothing but the results."""
    found = read_results(results)
    wanted = ((result.path, matching(result, label, min_score, min_seconds)) for result in found)
    places = [Place(path, piece) for path, pieces in wanted for piece in pieces]
    for text in FOUND[format_name](places):
        typer.echo(text, nl=False)
    seconds, number = clock(sum(piece.end - piece.start for _, piece in places)), len({path for path, _ in places})
    place = f"{len(places):,} place{'s' * (len(places) != 1)}"
    info(f"{place}, {seconds} in all, in {number:,} of {num_videos(len(found.paths))}")


_MODEL = "A name that 'vadis weights list' shows, or a model file."
LABELS_EPILOG = """
All that the default model can name:  `vadis labels`

What there is to play:  `vadis labels i3d-kinetics400 'playing *'`

What your own model can name:  `vadis labels run/model.safetensors`
"""


def labels(
    model: Annotated[str, typer.Argument(help=_MODEL, **options.OF_MODEL | {"metavar": "[MODEL]"})] = DEFAULT_MODEL,
    label: Annotated[str, typer.Argument(help=_PATTERN, **options.LABEL | {"metavar": "[LABEL]"})] = "*",
) -> None:
    """Show what a model can name, one label in a line. The model does not have to be here."""
    if "*" in model:
        model, label = DEFAULT_MODEL, model
    if model in WEIGHTS:
        names = published_labels(WEIGHTS[model].labels)
    else:
        from vadis.weights.model_file import read_header

        path = SHIPPED[model].path if model in SHIPPED else Path(model)
        if not path.exists():
            raise unknown_model(model)
        names = read_header(path)[0].labels
    wanted = [name for name in names if is_like(name, label)]
    if not wanted:
        raise UsageError(f"{show(model)} has no label like {show(label)}", hint="leave it out to see all")
    typer.echo("\n".join(map(visible, wanted)))
    info(f"{len(wanted)} of {len(names)} labels of {show(model)}")
