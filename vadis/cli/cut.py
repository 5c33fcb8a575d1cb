"""``vadis cut``: the stretches in which something happens, as files."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vadis.cli import options, outputs
from vadis.cli.find import MinScore, MinSeconds, Place, tenths
from vadis.cli.options import OUTPUT, TIME, flag, offer, option
from vadis.cli.results import files_of, read_results
from vadis.cli.run import SOME_FAILED, load_for_command
from vadis.cli.terminal import clock, debug, frame_progress, info, show, video_progress, warn_of
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.results import VideoResult, is_like, printable
from vadis.video.container import regular_file

EPILOG = """
What is yoga in a video, as files:  `vadis cut holiday.mp4 --label yoga -o clips/`

In an archive that is labelled already, with a second more at each end:
`vadis cut labels.jsonl --label 'playing *' --padding 1 -o clips/`

At exact borders, encoded anew:  `vadis cut labels.jsonl --label yoga --exact -o clips/`
"""

_INPUT = "One video, which is labelled first; or what classify wrote as jsonl or json, of any number."
_LABEL = "What is cut out, in any case, with * for any letters: 'playing *'."
_PADDING = "So much more before and after each stretch."
_EXACT = (
    "Encode the pictures anew, so that a clip has exactly the stretch; else packets are copied, from a bit before on."
)


def cut(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|RESULTS", help=_INPUT, show_default=False)],
    label: Annotated[
        str, option(TIME, _LABEL, "--label", "-l", metavar="LABEL", autocompletion=offer(options.known_labels))
    ],
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
    is_results = source.is_dir() or source.suffix.lower() in (".jsonl", ".json")
    if is_results and (model or streams or offline or device != "auto"):
        message = "--model, --streams, --device and --offline do not go with results"
        raise UsageError(message, hint="leave them out: the labels are there")
    with outputs.new_folder(output):
        records = (
            read_results(files_of([source])) if is_results else [_labelled(source, model, streams, device, offline)]
        )
        places = list(_places(records, label, min_score, min_seconds, padding))
        if not places:
            raise NothingToDoError(f"{show(label)} happens nowhere here", "`vadis find RESULTS '*'` shows what happens")
        root = outputs.tree_root([], [place.path for place in places])
        targets = [outputs.mirrored(output, root, _name(place, exact), place.path) for place in places]
        for target in targets:
            if target.exists():
                outputs.check_file(target, overwrite)
        failed = _cut_all(places, targets, exact, not no_sound)
    seconds = sum(piece.end - piece.start for path, piece in places if path not in failed)
    number = sum(path not in failed for path, _ in places)
    info(f"{number:,} clip{'s' * (number != 1)}, {clock(seconds)} in all")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _cut_all(places: list[Place], targets: list[Path], exact: bool, sound: bool) -> set[str]:
    """Write the clips and print their names; return the videos that cannot be read."""
    from vadis.video.cutting import cut as cut_clip
    from vadis.video.isolated.pool import Decoders

    failed = set[str]()
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
                if begins < piece.start:
                    debug(f"{show(target)} begins {piece.start - begins:.1f} s before the stretch; --exact does not")
            bar.advance(task)
    return failed


def _places(
    records: Iterable[VideoResult], label: str, min_score: float, min_seconds: float, padding: float
) -> Iterator[Place]:
    """Yield the stretches with their padding; those of a video that then meet or overlap are one."""
    for record in records:
        last: Place | None = None
        for piece in record.timeline:
            if not is_like(piece.label, label) or piece.score < min_score or piece.end - piece.start < min_seconds:
                continue
            end = piece.end + padding
            wide = replace(piece, start=max(0.0, piece.start - padding), end=min(end, record.timeline[-1].end))
            if last is not None and last.piece.label == wide.label and wide.start <= last.piece.end:
                last = Place(record.path, replace(last.piece, end=wide.end))
                continue
            if last is not None:
                yield last
            last = Place(record.path, wide)
        if last is not None:
            yield last


def _name(place: Place, exact: bool) -> str:
    """Return what is added to a video's name for a clip of it: from when to when, and what happens."""
    from vadis.video.cutting import clip_extension

    times = "-".join(tenths(seconds).replace(":", "m") + "s" for seconds in (place.piece.start, place.piece.end))
    what = re.sub(r"[^\w()'-]+", "_", printable(place.piece.label))
    return f"{times}.{what}{clip_extension(place.path, exact)}"


def _labelled(video: Path, model: str | None, streams: str | None, device: str, offline: bool) -> VideoResult:
    regular_file(os.fspath(video), listed=False)
    loaded = load_for_command(model, streams, device, offline, may_stand_in=True)
    from vadis.inference.classify import classify

    with frame_progress(f"labelling: {show(video.name)}") as report:
        return classify(os.fspath(video), loaded, progress=lambda now: report(now.frames_done, now.frames_total))
