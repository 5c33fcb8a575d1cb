"""``vadis cut``: the stretches in which something happens, as files."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vadis.cli import options, outputs
from vadis.cli.find import MinScore, MinSeconds, Place, matching
from vadis.cli.options import LABEL, OUTPUT, TIME, flag, option
from vadis.cli.results import label_one, read_results
from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import clock, debug, info, show, tenths, video_progress, warn_of
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.results import Piece, VideoResult, printable

EPILOG = """
What is yoga in a video, as files:  `vadis cut holiday.mp4 --label yoga -o clips/`

In an archive that is labelled already, with a second more at each end:
`vadis cut labels.jsonl --label 'playing *' --padding 1 -o clips/`

At exact borders, encoded anew:  `vadis cut labels.jsonl --label yoga --exact -o clips/`
"""

_INPUT = "One video, which is labelled first; or what classify wrote as jsonl or json, of any number."
_LABEL = "What is cut out, in any case, with * for any letters: 'playing *'."
_PADDING = "So much more before and after each stretch."
_LABEL_BYTES = 60  # of a label in a name; Kinetics' longest has 49
_EXACT = "Encode the pictures anew, just the stretch; else packets are copied, from a bit before on."


def cut(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|RESULTS", help=_INPUT, show_default=False)],
    label: Annotated[str, option(TIME, _LABEL, "--label", "-l", **LABEL)],
    output: Annotated[Path, option(OUTPUT, "Where the clips go.", "--output", "-o", metavar="DIR")],
    min_score: MinScore = 0.0,
    min_seconds: MinSeconds = 0.0,
    padding: Annotated[float, option(TIME, _PADDING, metavar="SECONDS", min=0.0)] = 0.0,
    exact: Annotated[bool, flag(OUTPUT, _EXACT, "--exact")] = False,
    no_sound: options.NoSound = False,
    overwrite: options.Replace = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
) -> None:
    """Cut the stretches in which something happens out of videos, with their sound, each as a file."""
    is_results = source.is_dir() or source.suffix.lower() in (".jsonl", ".ndjson", ".json")
    if is_results and (model or streams or offline or device != "auto"):
        message = "--model, --streams, --device and --offline do not go with results"
        raise UsageError(message, hint="leave them out: the labels are there")
    with outputs.new_folder(output):
        records: Iterable[VideoResult]
        if is_results:
            found = read_results([source])
            records = map(partial(_found, found.files), found)
        else:
            may = streams in (None, "rgb")
            records = [label_one(source, model, streams, device, offline, may_stand_in=may)]
        wanted = ((record, matching(record, label, min_score, min_seconds)) for record in records)
        places = [place for record, pieces in wanted for place in _stretches(record, pieces, padding)]
        if not places:
            raise NothingToDoError(f"{show(label)} happens nowhere here", "`vadis find RESULTS '*'` shows what happens")
        targets = _targets(output, places, exact)
        for target in targets:
            if target.exists():
                outputs.check_file(target, overwrite)
        written = _cut_all(places, targets, exact, not no_sound)
    seconds = clock(sum(piece.end - piece.start for piece in written))
    info(f"{len(written):,} clip{'s' * (len(written) != 1)}, {seconds} in all")
    if len(written) < len(places):
        raise typer.Exit(SOME_FAILED)


def _cut_all(places: list[Place], targets: list[Path], exact: bool, sound: bool) -> list[Piece]:
    """Write the clips and print their names; return the pieces of those that could be written."""
    from vadis.video.cutting import cut as cut_clip
    from vadis.video.isolated.pool import Decoders

    written, failed = list[Piece](), set[str]()
    with Decoders() as decoders, video_progress() as bar:
        task = bar.add_task("", total=len(places))
        for (path, piece), target in zip(places, targets, strict=True):
            bar.update(task, description=show(os.path.basename(path)))  # noqa: PTH119
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                begins = cut_clip(decoders, path, piece.start, piece.end, target, exact=exact, sound=sound)
            except VideoError as error:
                if path not in failed:
                    warn_of(path, error.code, error.in_full)
                failed.add(path)
            else:
                typer.echo(show(target))
                written.append(piece)
                if begins < piece.start:
                    debug(f"{show(target)} begins {piece.start - begins:.1f} s before the stretch; --exact does not")
            bar.advance(task)
    return written


def _stretches(record: VideoResult, wanted: Iterable[Piece], padding: float) -> list[Place]:
    """Return the stretches with their padding; those that then meet or overlap are one."""
    found = list[Place]()
    for piece in wanted:
        end = max(piece.end, min(piece.end + padding, record.span[1]))
        wide = replace(piece, start=max(0.0, piece.start - padding), end=end)
        if found and found[-1].piece.label == wide.label and wide.start <= found[-1].piece.end:
            wide = replace(found.pop().piece, end=wide.end)
        found.append(Place(record.path, wide))
    return found


def _found(files: Sequence[Path], record: VideoResult) -> VideoResult:
    """Return a record whose relative path begins in the current folder, or in that of the results where it is there."""
    from vadis.report.page import place_of

    if os.path.lexists(record.path):
        return record
    return replace(record, path=place_of(record.path, [file.parent for file in files]) or record.path)


def _targets(output: Path, places: Sequence[Place], exact: bool) -> list[Path]:
    """Return the files of the clips; of two that would have one name the second has a number."""
    root, taken, targets = outputs.tree_root([], [place.path for place in places]), Counter[Path](), list[Path]()
    for place in places:
        target = outputs.mirrored(output, root, _name(place, exact), place.path)
        taken[target] += 1
        again = f".{taken[target]}" if taken[target] > 1 else ""
        targets.append(target.with_name(f"{target.stem}{again}{target.suffix}"))
    return targets


def _name(place: Place, exact: bool) -> str:
    """Return what is added to a video's name for a clip of it: from when to when, and what happens."""
    from vadis.video.cutting import clip_extension

    begins, ends = (tenths(seconds).rsplit(":", 1) for seconds in (place.piece.start, place.piece.end))
    times = "-".join(f"{minutes.replace(':', 'h')}m{seconds}s" for minutes, seconds in (begins, ends))
    what = re.sub(r"[^\w()'-]+", "_", printable(place.piece.label)).encode()[:_LABEL_BYTES].decode(errors="ignore")
    return f"{times}.{what}{clip_extension(place.path, exact)}"
