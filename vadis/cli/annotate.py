"""``vadis annotate``: a video with its labels drawn in."""

import os
from pathlib import Path
from typing import Annotated

import typer

from vadis.cli import options
from vadis.cli.options import OUTPUT, flag, option
from vadis.cli.outputs import check_file, refuse_source
from vadis.cli.run import fail_if_partial
from vadis.cli.terminal import info, show, video_progress
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
    context: typer.Context,
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
    """Draw the labels into a video, with a bar for each score and the timeline below.

    Frames and sound keep their times; the sound is copied as it is, and the picture stands upright.
    """
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
        for option_name in ("model", "streams", "segment", "device", "offline"):
            source = context.get_parameter_source(option_name)
            if source is not None and source.name == "COMMANDLINE":
                message = f"--{option_name} does not go with --results: the labels are there"
                raise UsageError(message, hint="leave one of them out")
        result = _read_record(video, results)
    with video_progress() as bar:
        task = bar.add_task(f"drawing: {show(video.name)}", total=None)
        facts = annotated(
            name,
            result,
            output,
            with_sound=not no_sound,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    info(f"{facts.frames_decoded:,} frames")
    typer.echo(show(output))
    fail_if_partial(name, facts)


def _classify(
    video: str, model: str | None, streams: str | None, segment: float | None, device: str, offline: bool
) -> VideoResult:
    """What a model says of the video."""
    from vadis.cli.loading import load_for_command

    loaded = load_for_command(model, streams, device, offline)
    from vadis.inference.classify import classify
    from vadis.inference.predict import Progress

    with video_progress() as bar:
        task = bar.add_task("", total=None)

        def report(now: Progress) -> None:
            bar.update(task, description=f"{now.stage}: {show(Path(video).name)}", completed=now.frames_done)
            bar.update(task, total=now.frames_total)

        return classify(video, loaded, segment=segment, progress=report)


def _read_record(video: Path, results: Path) -> VideoResult:
    """The record of this video in a file of results: that of the same file, or else the only one of this name."""
    from vadis.batch.results_file import LastResults

    every, place = list(LastResults([results])), os.path.realpath(video)
    same = [each for each in every if os.path.realpath(each.path) == place]
    same = same or [each for each in every if os.path.realpath(results.parent / each.path) == place]
    same = same or [each for each in every if os.path.basename(each.path) == video.name]  # noqa: PTH119
    if len(same) != 1:
        what = f"{len(same)} records fit" if same else "there is no record of"
        hint = "label it first: vadis classify; or leave --results out"
        raise UsageError(f"{what} {show(video)} in {show(results)}", hint=hint)
    (found,) = same
    if found.error_code is not None:
        raise VideoError(found.error_code, f"{show(video)} has no labels: {found.error_message}")
    if not found.segments:
        raise UsageError(f"the record of {show(video)} has no timeline", hint="label it again: vadis classify")
    return found
