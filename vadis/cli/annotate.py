"""``vadis annotate``: a video with its labels drawn in."""

import os
from pathlib import Path
from typing import Annotated

import typer

from vadis.batch.results_file import LastResults
from vadis.cli import options
from vadis.cli.loading import load_for_command
from vadis.cli.options import OUTPUT, flag, option
from vadis.cli.outputs import check_file, refuse_source
from vadis.cli.run import fail_if_partial
from vadis.cli.terminal import frame_progress, info, show
from vadis.errors import UsageError, VideoError
from vadis.results import VideoResult
from vadis.video.container import regular_file

EPILOG = """
**Examples**

See what the network sees:  `vadis annotate holiday.mp4 -o seen.mp4`

From results there are already, without a model:  `vadis annotate holiday.mp4 --results archive.jsonl -o seen.mp4`

**Exit codes**: 0 the video is there; 1 could not go on; 2 wrong use; 3 the video cannot be
read, or only in part; 130 and 143 interrupted.
"""

Video = Annotated[Path, typer.Argument(metavar="VIDEO", help="The video.", show_default=False)]
Output = Annotated[Path, option(OUTPUT, "The new video: .mp4, .mov or .mkv.", "--output", "-o", metavar="FILE")]
_RESULTS = "Take the labels from here instead of looking at the video."
Results = Annotated[Path | None, typer.Option(metavar="FILE", help=_RESULTS)]
NoSound = Annotated[bool, flag(OUTPUT, "Leave the sound out.", "--no-sound")]


def annotate(
    video: Video,
    output: Output,
    results: Results = None,
    no_sound: NoSound = False,
    overwrite: options.Replace = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    segment: options.SegmentSeconds = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Draw the labels into a video, with a bar for each score and the timeline below. The sound is copied as it is."""
    from vadis.report.annotate import annotate as annotated
    from vadis.video.encoder import check_name

    check_name(output)
    check_file(output, overwrite)
    refuse_source(output, os.fspath(video))
    name = os.fspath(video)
    if results is None:
        regular_file(name, listed=False)
        result = _classify(name, model, streams, segment, device, offline)
    else:
        given = {"model": model, "streams": streams, "segment": segment, "offline": offline or None}
        given["device"] = None if device == "auto" else device
        for option_name in (each for each, value in given.items() if value is not None):
            message = f"--{option_name} does not go with --results: the labels are there"
            raise UsageError(message, hint="leave one of them out")
        result = _read_record(video, results)
    with frame_progress(f"drawing: {show(video.name)}") as report:
        facts = annotated(name, result, output, with_sound=not no_sound, progress=report)
    info(f"{facts.frames_decoded:,} frames")
    typer.echo(show(output))
    fail_if_partial(name, facts)


def _classify(
    video: str, model: str | None, streams: str | None, segment: float | None, device: str, offline: bool
) -> VideoResult:
    """Return what a model says of the video."""
    loaded = load_for_command(model, streams, device, offline)
    from vadis.inference.classify import classify

    with frame_progress(f"labelling: {show(Path(video).name)}") as report:
        return classify(video, loaded, segment=segment, progress=lambda now: report(now.frames_done, now.frames_total))


def _read_record(video: Path, results: Path) -> VideoResult:
    """Return the record of this video in a file of results: that of the same file, or the only one of its name."""
    every, place = list(LastResults([results])), os.path.realpath(video)
    same = [each for each in every if os.path.realpath(each.path) == place]
    same = same or [each for each in every if os.path.realpath(results.parent / each.path) == place]
    same = same or [each for each in every if os.path.basename(each.path) == video.name]  # noqa: PTH119
    if len(same) != 1:
        message = f"{show(results)} has {len(same)} records of {show(video)}, and one is needed"
        raise UsageError(message, hint="label it first: vadis classify; or leave --results out")
    (found,) = same
    if found.error_code is not None:
        raise VideoError(found.error_code, f"{show(video)} has no labels: {found.error_message}")
    if not found.segments:
        raise UsageError(f"the record of {show(video)} has no timeline", hint="label it again: vadis classify")
    return found
