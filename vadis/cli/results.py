"""What is made of results: other formats, a page, a video with its labels, what happens where, and that as clips."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vadis.batch import LastResults, files_below
from vadis.cli import options, outputs
from vadis.cli.classify import choose_format
from vadis.cli.options import MODEL, OUTPUT, TIME, choice, flag, option
from vadis.cli.run import SOME_FAILED, fail_if_partial, load_for_command
from vadis.cli.terminal import clock, debug, frame_progress, info, num_videos, show, tenths, video_progress, warn_failed
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.formats import above, csv_line, only, percent, spreadsheet_cell, visible
from vadis.results import Piece, VideoResult, is_like, part_of, path_fields, printable
from vadis.video.container import regular_file
from vadis.video.sources import remote_scheme
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, WEIGHTS, published_labels, unknown_model

EXPORT_EPILOG = """
A spreadsheet of what a run has found so far:  `vadis export labels.jsonl -o labels.csv`

The shards of several machines as one:  `vadis export labels.shard-*.jsonl -o labels.jsonl`

A row per video, of what is played:  `vadis export labels.jsonl --per video --labels 'playing *' -o played.csv`

Subtitles beside one another:  `vadis export labels.jsonl -f srt --output-dir subtitles/`

Chapters, which `ffmpeg -i holiday.mp4 -i holiday.ffmetadata -map_metadata 1 -c copy out.mp4` puts in:
`vadis export holiday.jsonl -o holiday.ffmetadata`
"""

Results = Annotated[list[Path], typer.Argument(metavar="RESULTS…", help="What classify wrote as jsonl or json.")]


def export(
    results: Results,
    format_name: options.FormatName = "auto",
    output: options.Output = None,
    output_dir: options.OutputDir = None,
    per: options.Per = "segment",
    threshold: options.Threshold = 0.0,
    label_pattern: options.Labels = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn results into another format; of several records of one video the last counts."""
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

OF_ARCHIVE = "Results of vadis classify"

_REPORTED = "Files or folders that 'vadis classify' wrote as jsonl or json; or one folder of a training run."
_PAGE = "The page; by default report.html, here or in the folder of the run."
_ROOT = "Where relative paths in RESULTS begin; by default the current folder, else that of RESULTS."


def report(
    inputs: Annotated[list[Path], typer.Argument(metavar="RESULTS…|RUN", help=_REPORTED, show_default=False)],
    output: Annotated[Path | None, option(OUTPUT, _PAGE, "--output", "-o", metavar="FILE")] = None,
    overwrite: options.Replace = False,
    title: Annotated[str | None, option(OUTPUT, "What stands above it all.", metavar="TEXT")] = None,
    thumbnails: Annotated[int, option(OF_ARCHIVE, "Pictures of each video; 0 for none.", metavar="N", min=0)] = 4,
    root: Annotated[Path | None, option(OF_ARCHIVE, _ROOT, metavar="DIR")] = None,
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
        result = label_one(video, model, streams, device, offline, may_stand_in=False, start=start, end=end)
    elif model or streams or offline or device != "auto":
        message = "--model, --streams, --device and --offline do not go with --results"
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


FIND_EPILOG = """
Where somebody plays something:  `vadis find labels.jsonl 'playing *'`

For at least three seconds, as a spreadsheet:  `vadis find labels.jsonl yoga --min-seconds 3 -f csv > yoga.csv`

To look at one after the other:  `vadis find labels.jsonl yoga -f m3u > yoga.m3u`, then  `vlc yoga.m3u`
"""


class Place(NamedTuple):
    """A piece of the timeline of the video at ``path``."""

    path: str
    piece: Piece


def _matching(result: VideoResult, label: str, min_score: float, min_seconds: float) -> Iterator[Place]:
    """Yield the pieces of a timeline that are asked for."""
    for piece in result.timeline:
        if is_like(piece.label, label) and piece.score >= min_score and piece.end - piece.start >= min_seconds:
            yield Place(result.path, piece)


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
MinScore = Annotated[float, option(TIME, "Leave out what scores below P.", metavar="P", min=0.0, max=1.0)]
MinSeconds = Annotated[float, option(TIME, "Leave out what is shorter.", metavar="SECONDS", min=0.0)]


def find(
    results: Results,
    label: Annotated[str, typer.Argument(help=_PATTERN, **options.LABEL)],
    min_score: MinScore = 0.0,
    min_seconds: MinSeconds = 0.0,
    format_name: Annotated[str, choice(OUTPUT, "How it is written.", tuple(FOUND), "--format", "-f")] = "table",
) -> None:
    """Find where something happens: in which videos, from when to when. Opens nothing but the results."""
    found = read_results(results)
    places = [place for result in found for place in _matching(result, label, min_score, min_seconds)]
    for text in FOUND[format_name](places):
        typer.echo(text, nl=False)
    seconds, number = clock(sum(piece.end - piece.start for _, piece in places)), len({path for path, _ in places})
    place = f"{len(places):,} place{'s' * (len(places) != 1)}"
    info(f"{place}, {seconds} in all, in {number:,} of {num_videos(len(found.paths))}")


CUT_EPILOG = """
What is yoga in a video, as files:  `vadis cut holiday.mp4 --label yoga -o clips/`

In an archive that is labelled already, with a second more at each end:
`vadis cut labels.jsonl --label 'playing *' --padding 1 -o clips/`

At exact borders, encoded anew:  `vadis cut labels.jsonl --label yoga --exact -o clips/`
"""

_INPUT = "One video, which is labelled first; or what classify wrote as jsonl or json, of any number."
_CUT_LABEL = "What is cut out, in any case, with * for any letters: 'playing *'."
_PADDING = "So much more before and after each stretch."
_LABEL_BYTES = 60  # of a label in a name; Kinetics' longest has 49
_EXACT = "Encode the pictures anew, just the stretch; else packets are copied, from a bit before on."


def cut(
    source: Annotated[Path, typer.Argument(metavar="VIDEO|RESULTS", help=_INPUT, show_default=False)],
    label: Annotated[str, option(TIME, _CUT_LABEL, "--label", "-l", **options.LABEL)],
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
        how = (model, streams, device, offline)
        records = _records(source) if is_results else [label_one(source, *how, may_stand_in=True)]
        wanted = ((record, _matching(record, label, min_score, min_seconds)) for record in records)
        places = [place for record, found in wanted for place in _stretches(record, found, padding)]
        if not places:
            raise NothingToDoError(f"{show(label)} happens nowhere here", "`vadis find RESULTS '*'` shows what happens")
        targets = _targets(output, places, exact)
        for target in filter(os.path.exists, targets):
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
                    warn_failed(path, error.code, error.in_full)
                failed.add(path)
            else:
                typer.echo(show(target))
                written.append(piece)
                if begins < piece.start:
                    debug(f"{show(target)} begins {piece.start - begins:.1f} s before the stretch; --exact does not")
            bar.advance(task)
    return written


def _records(source: Path) -> Iterator[VideoResult]:
    """Yield records whose relative paths begin in the current folder, or else in that of the results."""
    from vadis.report.page import place_of

    found = read_results([source])
    bases = [file.parent for file in found.files]
    for record in found:
        path = record.path if os.path.lexists(record.path) else place_of(record.path, bases)
        yield replace(record, path=path or record.path)


def _stretches(record: VideoResult, wanted: Iterable[Place], padding: float) -> list[Place]:
    """Return the stretches with their padding; those that then meet or overlap are one."""
    found = list[Place]()
    for path, piece in wanted:
        end = max(piece.end, min(piece.end + padding, record.span[1]))
        wide = replace(piece, start=max(0.0, piece.start - padding), end=end)
        if found and found[-1].piece.label == wide.label and wide.start <= found[-1].piece.end:
            wide = replace(found.pop().piece, end=wide.end)
        found.append(Place(path, wide))
    return found


def _targets(output: Path, places: Sequence[Place], exact: bool) -> list[Path]:
    """Return the files of the clips; of two that would have one name the second has a number."""
    root, taken, targets = outputs.tree_root([], [place.path for place in places]), Counter[Path](), list[Path]()
    for place in places:
        target = outputs.mirror_path(output, root, _name(place, exact), place.path)
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


LABELS_EPILOG = """
All that the default model can name:  `vadis labels`

What there is to play:  `vadis labels i3d-kinetics400 'playing *'`

What your own model can name:  `vadis labels run/model.safetensors`
"""


def labels(
    model: options.ModelArgument = DEFAULT_MODEL,
    label: Annotated[str, typer.Argument(help=_PATTERN, **options.LABEL)] = "*",
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
