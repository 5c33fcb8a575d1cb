"""``vadis export``, ``vadis report`` and ``vadis annotate``: what is made of results."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vadis.batch import LastResults, files_below
from vadis.cli import options, outputs
from vadis.cli.classify import choose_format
from vadis.cli.options import MODEL, OUTPUT, option
from vadis.cli.run import SOME_FAILED, fail_if_partial, load_for_command
from vadis.cli.terminal import frame_progress, info, num_videos, show, video_progress
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.formats import above, only
from vadis.results import VideoResult, part_of
from vadis.video.container import regular_file

EXPORT_EPILOG = """
A spreadsheet of what a run has found so far:  `vadis export labels.jsonl -o labels.csv`

The shards of several machines as one:  `vadis export labels.shard-*.jsonl -o labels.jsonl`

A row per video, of what is played:  `vadis export labels.jsonl --per video --labels 'playing *' -o played.csv`

Subtitles beside one another:  `vadis export labels.jsonl -f srt --output-dir subtitles/`

Chapters, which `ffmpeg -i holiday.mp4 -i holiday.ffmetadata -map_metadata 1 -c copy out.mp4` puts in:
`vadis export holiday.jsonl -o holiday.ffmetadata`
"""


def export(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS…", help="What classify wrote as jsonl or json.")],
    format_name: options.FormatName = "auto",
    output: options.Output = None,
    output_dir: options.OutputDir = None,
    per: options.Per = "segment",
    threshold: options.Threshold = 0.0,
    label_pattern: options.Labels = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn results into another format; of several records of one video the last counts."""
    output = None if output == Path("-") else output
    found = read_results(results)
    form = choose_format(format_name, output, output_dir, per, is_one=len(found.paths) == 1)
    outputs.refuse_combination(form, output, output_dir, len(found.paths))
    counts: Counter[str] = Counter()

    def wanted() -> Iterator[VideoResult]:
        for result in found:
            counts[result.status] += 1
            yield above(result, threshold) if label_pattern is None else only(above(result, threshold), label_pattern)

    if output_dir:
        with outputs.new_folder(output_dir):
            folder = outputs.DocumentFolder(output_dir, outputs.tree_root([], found.paths), form, found.paths)
            folder.check(found.paths, overwrite)
            folder.write(wanted())
    else:
        if output is not None:
            outputs.check_file(output, overwrite)
        outputs.write_document(output, form, wanted())
    info(num_videos(counts.total()) + (f", of which {counts['error']:,} had failed" if counts["error"] else ""))
    if counts["error"]:
        raise typer.Exit(SOME_FAILED)


def read_results(inputs: Sequence[Path]) -> LastResults:
    """Return the records of files, and of those below folders, of which there must be one at least."""
    given = [files_below(each, (".jsonl", ".ndjson", ".json")) if each.is_dir() else [each] for each in inputs]
    found = LastResults([file for some in given for file in some])
    if not found.paths:
        raise NothingToDoError("there is no record in these files", hint="label videos first: vadis classify")
    return found


REPORT_EPILOG = """
A page on an archive:  `vadis classify archive/ -o results.jsonl`, then  `vadis report results.jsonl -o report.html`

Without pictures, of several files:  `vadis report monday.jsonl tuesday.jsonl --thumbnails 0 -o week.html`

A page on a training run or an evaluation:  `vadis report ucf101-run/`
"""

RESULTS = "Results of vadis classify"

_REPORTED = "Files or folders that 'vadis classify' wrote as jsonl or json; or one folder of a training run."
_PAGE = "The page; by default report.html, here or in the folder of the run."
_ROOT = "Where relative paths in RESULTS begin; by default the current folder, else that of RESULTS."


def report(
    inputs: Annotated[list[Path], typer.Argument(metavar="RESULTS…|RUN", help=_REPORTED, show_default=False)],
    output: Annotated[Path | None, option(OUTPUT, _PAGE, "--output", "-o", metavar="FILE")] = None,
    overwrite: options.Replace = False,
    title: Annotated[str | None, option(OUTPUT, "What stands above it all.", metavar="TEXT")] = None,
    thumbnails: Annotated[int, option(RESULTS, "Pictures of each video; 0 for none.", metavar="N", min=0)] = 4,
    root: Annotated[Path | None, option(RESULTS, _ROOT, metavar="DIR")] = None,
) -> None:
    """Make one HTML page to look at: an archive's labels over time, or how a training run went.

    The page is one file that needs no network. It plays the videos from where they lie.
    """
    from vadis.report.page import is_run, write_page, write_run_page

    first, others = inputs[0], len(inputs) - 1
    of_run = not others and first.is_dir() and is_run(first)
    page = output or (first if of_run else Path()) / "report.html"
    runs_own = of_run and output is None  # which may be replaced, because runs go on
    outputs.check_file(page, overwrite or runs_own, extensions=(".html", ".htm"))
    name = first.resolve().name if first.is_dir() else first.stem
    title = title or (f"{name} and {others} more" if others else name)
    if of_run:
        with outputs.writing(show(page)):
            write_run_page(first, page, title)
        typer.echo(show(page))
        return
    if root is not None and not root.is_dir():
        raise UsageError(f"{show(root)} is not a folder", hint="name the folder where relative paths begin")
    found = read_results(inputs)
    with video_progress() as bar, outputs.writing(show(page)):
        task = bar.add_task("", total=len(found.paths))
        bases = [root] if root else [Path(), *dict.fromkeys(file.parent for file in found.files)]

        def report_progress(path: str) -> None:
            bar.update(task, description=f"pictures: {show(Path(path).name)}", advance=1)

        how: dict[str, Any] = {"bases": bases, "num_thumbnails": thumbnails, "progress": report_progress}
        made = write_page(page, found, title=title, **how)
    if made.not_found:
        info(f"{made.not_found:,} of {made.num_videos:,} videos are not where the results say: --root DIR tells where")
    if made.num_thumbnails < thumbnails:
        info(f"{made.num_thumbnails} pictures of each video at most, to keep the page small")
    info(f"{made.num_videos:,} videos, {made.num_bytes / 1e6:,.1f} MB")
    typer.echo(show(page))


ANNOTATE_EPILOG = """
See what the network sees:  `vadis annotate holiday.mp4 -o seen.mp4`

Ten seconds of it:  `vadis annotate holiday.mp4 --start 1:00 --end 1:10 -o part.mp4`

From results there are already, without a model:  `vadis annotate holiday.mp4 --results archive.jsonl -o seen.mp4`
"""


def annotate(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The video.", show_default=False)],
    output: Annotated[Path, option(OUTPUT, "The new video: .mp4, .mov or .mkv.", "--output", "-o", metavar="FILE")],
    results: Annotated[Path | None, option(MODEL, "Take the labels from these.", metavar="RESULTS")] = None,
    no_sound: options.NoSound = False,
    overwrite: options.Replace = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    segment: options.SegmentSeconds = None,
    start: options.Start = None,
    end: options.End = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
) -> None:
    """Draw the labels into a video, with a bar for each score and the timeline below. The sound is copied as it is."""
    from vadis.report.annotate import annotate as annotated
    from vadis.video.encoder import check_name

    check_name(output)
    name, part = os.fspath(video), part_of(start, end)
    outputs.check_file(output, overwrite, name)
    if results is None:
        how = {"segment": segment, "start": start, "end": end}
        result = label_one(video, model, streams, device, offline, may_stand_in=False, **how)
    elif model or streams or segment or offline or device != "auto":
        message = "--model, --streams, --segment, --device and --offline do not go with --results"
        raise UsageError(message, hint="leave them out: the labels are there")
    else:
        result = _read_record(video, results)
        result = result if part is None else replace(result, part=part)
    with frame_progress(f"drawing: {show(video.name)}") as report:
        facts = annotated(name, result, output, with_sound=not no_sound, progress=report)
    info(f"{facts.frames_decoded:,} frames")
    typer.echo(show(output))
    fail_if_partial(name, facts)


def label_one(
    video: Path, model: str | None, streams: str | None, device: str, offline: bool, *, may_stand_in: bool, **how: Any
) -> VideoResult:
    """Return the record of a video, labelled now, as ``load_for_command`` and then ``classify`` take all this."""
    regular_file(os.fspath(video), listed=False)
    loaded = load_for_command(model, streams, device, offline, may_stand_in=may_stand_in)
    from vadis.inference.classify import classify

    with frame_progress(f"labelling: {show(video.name)}") as report:
        progress = lambda now: report(now.frames_done, now.frames_total)  # noqa: E731
        return classify(os.fspath(video), loaded, progress=progress, **how)


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
    if not found.timeline:
        raise UsageError(f"the record of {show(video)} has no timeline", hint="label it again: vadis classify")
    return found
