"""``vadis classify``: label files, folders, globs or a list, and write the records."""

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vadis.batch import Shard, parse_shard
from vadis.cli import options
from vadis.cli.options import MACHINE, OUTPUT, TIME, VIDEOS, flag, option
from vadis.cli.outputs import Destination
from vadis.cli.run import Run, find_inputs, load_for_command, open_remote
from vadis.cli.terminal import clock, file_console, info, num_videos, settings, show, show_status, stdout_console
from vadis.cli.timeline import lines, table
from vadis.errors import NothingToDoError, UsageError, VideoError
from vadis.formats import FORMATS, Format, csv_of_videos
from vadis.results import Part, VideoResult, part_of
from vadis.video.metadata import VideoFacts
from vadis.video.sources import Source, Stamp, VideoSources, stamp
from vadis.weights.catalog import DEFAULT_MODEL, SHIPPED, WEIGHTS

if TYPE_CHECKING:
    from vadis.inference.classify import ClassifyOptions
    from vadis.video.remote import FetchingDecoders

_NAME_THE_MODEL = ("table", "json", "jsonl")  # formats whose records do, so that a stand-in cannot be overlooked

_ALLOW_REMOTE = "Also fetch videos from s3://, gs:// and https://; needs pip install 'vadis[remote]'."
_SHARD = "Do the I-th of N parts of the inputs, into a file of its own; auto asks SLURM, Kubernetes or torchrun."
_DRY_RUN = "Only say how many videos there are, how long they are, and how long it takes, by a probe."
_RAY = "Label on a Ray cluster, into a folder: HOST:PORT, ray://…, auto (the default), or local; needs 'vadis[ray]'."

EPILOG = """
What happens in a video, second by second:  `vadis classify holiday.mp4`

A folder and all below it, one JSON record per video:  `vadis classify clips/ -o results.jsonl`

The same command again goes on where it was interrupted; then as a spreadsheet:
`vadis export results.jsonl -o results.csv`

What happens in the second minute:  `vadis classify holiday.mp4 --start 1:00 --end 2:00`

Subtitles for every video:  `vadis classify clips/ -f srt --output-dir subtitles/`

A list, as a spreadsheet:  `find clips -name '*.mp4' -print0 | vadis classify -0 - -o results.csv`

**Exit codes**: 0 every video labelled; 1 could not go on; 2 wrong use; 3 finished, but some videos failed;
4 no video found; 5 another run writes this output; 130 and 143 interrupted.
"""


def classify(
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    allow_remote: Annotated[bool, flag(VIDEOS, _ALLOW_REMOTE, "--allow-remote")] = False,
    model: options.ModelName = None,
    streams: options.Streams = None,
    flip: options.Flip = False,
    segment: options.SegmentSeconds = None,
    window: options.Window = None,
    stride: options.Stride = None,
    start: options.Start = None,
    end: options.End = None,
    top_k: Annotated[int, option(TIME, "Labels per video and per segment.", "--top-k", "-k", metavar="K", min=1)] = 5,
    threshold: options.Threshold = 0.0,
    label_pattern: options.Labels = None,
    format_name: options.FormatName = "auto",
    per: options.Per = "segment",
    output: options.Output = None,
    output_dir: options.OutputDir = None,
    overwrite: options.Overwrite = False,
    retry_failed: Annotated[bool, flag(OUTPUT, "Going on, try those again that failed.", "--retry-failed")] = False,
    strict: Annotated[bool, flag(OUTPUT, "Take a video that can only be read in part as failed.", "--strict")] = False,
    shard: Annotated[str | None, option(VIDEOS, _SHARD, metavar="I/N|auto")] = None,
    dry_run: Annotated[bool, flag(OUTPUT, _DRY_RUN, "--dry-run")] = False,
    summary_file: Annotated[Path | None, option(OUTPUT, "The counts, as JSON.", "--summary", metavar="FILE")] = None,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    ray: Annotated[str | None, option(MACHINE, _RAY, metavar="[ADDRESS]")] = None,
    jobs: options.Jobs = 0,
    batch_size: options.BatchSize = 0,
    scratch_gb: options.ScratchSize = None,
    offline: options.Offline = False,
) -> None:
    """Find out what happens in videos: labels for each as a whole, and a timeline."""
    part = part_of(start, end)
    _refuse_combinations(stride is not None and window is None, allow_remote, offline, ray, shard, dry_run)
    found, own, sources = _own_share(find_inputs(inputs or [], from_file, null, allow_remote=allow_remote), shard)

    def load(where: str, may_stand_in: bool) -> "ClassifyOptions":
        loaded = load_for_command(model, streams, where, offline, precision=precision, may_stand_in=may_stand_in)
        from vadis.inference.classify import ClassifyOptions

        how: dict[str, Any] = {"top_k": top_k, "flip": flip, "batch_size": batch_size, "labels": label_pattern}
        return ClassifyOptions.of(loaded, segment, window, stride, **how, part=part)

    if dry_run:
        return _estimate(sources, load(device, True))
    form = choose_format(format_name, None if ray else output, output_dir, per, is_one=len(sources) == 1)
    to_file, where = bool(output or output_dir), "cpu" if ray else device
    with ExitStack() as stack:
        destination = Destination(output, output_dir, form, own, threshold, overwrite, retry_failed, bool(ray))
        stack.enter_context(destination.open(inputs or [], [source.path for source in found]))
        remote, early = open_remote(allow_remote, scratch_gb, jobs, where), _early_flow(sources, model, streams, device)
        stamp_of, decoding = _start_decoders(stack, remote, jobs, early, part, ray, device != "cpu")
        wanted = load(where, not to_file and not ray and form.name in _NAME_THE_MODEL)
        settings = {**wanted.settings, "threshold": threshold, "strict": strict}
        is_named, resumable = form.name != "table" or to_file, destination.journal is not None
        run = Run(*destination.begin(settings, sources, stamp_of), is_named, resumable, strict, destination.notice())
        raise typer.Exit(run.complete(_labelled(run, wanted, decoding), destination.write, summary_file))


def _refuse_combinations(
    stride_alone: bool, allow_remote: bool, offline: bool, ray: str | None, shard: str | None, dry_run: bool
) -> None:
    if stride_alone:
        raise UsageError("--stride goes with --window", hint="give both, or neither to look at the video as a whole")
    if allow_remote and offline:
        raise UsageError("--allow-remote and --offline exclude each other", hint="give one of the two")
    if ray and shard:
        raise UsageError("--ray divides the inputs itself", hint="leave --shard out: it is for machines without Ray")
    if dry_run and (allow_remote or ray):
        raise UsageError("--dry-run tells of local files and of this machine", "leave out --allow-remote and --ray")


def _own_share(found: VideoSources, shard: str | None) -> tuple[VideoSources, Shard | None, list[Source]]:
    """Return all inputs, the shard, if any, and its part of them."""
    if shard is None:
        return found, None, list(found)
    own = parse_shard(shard)
    sources = [source for source in found if own.has(source.path)]
    info(f"shard {own}: {len(sources):,} of {len(found):,} videos")
    return found, own, sources


def _start_decoders(
    stack: ExitStack,
    remote: "AbstractContextManager[FetchingDecoders | None]",
    jobs: int,
    early_flow: str | None,
    part: Part | None,
    ray: str | None,
    on_gpus: bool,
) -> tuple[Callable[[str], Stamp], dict[str, Any]]:
    """Return the function that stamps a file, and the keyword arguments for ``_labelled`` that decode.

    A decoder process is started here, so that it loads while the model does; with it the first flow of the video
    ``early_flow``, if any, is computed meanwhile.
    """
    fetched = stack.enter_context(remote)
    stamp_of = fetched.stamp if fetched else stamp
    if ray:
        return stamp_of, {"address": ray, "on_gpus": on_gpus, "share_bytes": fetched and fetched.share_bytes}
    if fetched:
        return stamp_of, {"jobs": fetched.places, "decoders": fetched}
    with show_status("loading the model …"):  # a tenth of a second, before the seconds that PyTorch takes
        from vadis.video.isolated.pool import Decoders

    decoders = stack.enter_context(Decoders())
    decoders.start_one()
    how: dict[str, Any] = {"jobs": jobs, "decoders": decoders}
    if early_flow is not None:
        from vadis.flow.store import FirstFlow

        how["first"] = stack.enter_context(FirstFlow(early_flow, decoders, part))
    return stamp_of, how


def _early_flow(sources: list[Source], model: str | None, streams: str | None, device: str) -> str | None:
    """Return the path of the only input whose flow the processor computes: it can begin while the model loads."""
    from vadis.weights.cache import is_file, model_path

    named = model or DEFAULT_MODEL
    has_gpu = Path("/dev/nvidiactl").exists()  # PyTorch would know, and is not there yet; of no harm where it is wrong
    on_cpu = device == "cpu" or (device == "auto" and not has_gpu)
    # Shipped models see no flow, or that of cropped frames; one that is not here yet may not come.
    sees_flow = streams != "rgb" and named not in SHIPPED and (named not in WEIGHTS or is_file(model_path(named)))
    is_waited_for = len(sources) == 1 and sources[0].error is None
    return sources[0].path if is_waited_for and on_cpu and sees_flow else None


def _labelled(run: Run, wanted: "ClassifyOptions", decoding: dict[str, Any]) -> Generator[VideoResult, None, None]:
    wanted = replace(wanted, progress=run.report)
    if "address" in decoding:
        from vadis.inference.ray import classify_on_ray

        return classify_on_ray(list(run.paths()), wanted, **decoding)
    from vadis.inference.classify import label_videos

    return label_videos(run.paths(), wanted, listed=True, **decoding)


SAMPLE = 200  # videos at most whose length is looked up; a header takes some hundredths of a second
PROBE_FRAMES = 250  # of the longest of them, 10 s, which are labelled


def _estimate(sources: Sequence[Source], wanted: "ClassifyOptions") -> None:
    """Print how many videos there are, how long, and how long labelling them takes, by a probe."""
    from vadis.inference.prefetch import LocalVideo
    from vadis.video.isolated.pool import Decoders

    readable = [source.path for source in sources if source.error is None]
    seconds_of, part = dict[str, float | None](), wanted.part or Part()
    with Decoders() as decoders:
        for path in readable[:: max(1, -(-len(readable) // SAMPLE))]:
            with suppress(VideoError), decoders.open(path, listed=True, max_frames=1) as video:
                seconds_of[path] = _seconds_in(part, video.facts)
        if set(seconds_of.values()) == {0.0}:
            raise NothingToDoError(f"all videos end before {clock(part.start)}", "give an earlier `start`")
        for path in sorted(seconds_of, key=lambda path: seconds_of[path] or 0.0, reverse=True):
            began = time.monotonic()
            probe = LocalVideo(path, wanted.model, decoders, max_frames=PROBE_FRAMES, part=wanted.part)
            with suppress(VideoError), closing(probe):
                probed = (wanted.label(probe).num_frames or 0) / wanted.model.card.frame_rate
                break
        else:
            raise NothingToDoError("none of the videos can be read", "`vadis classify` says why of each")
    pace = probed / (time.monotonic() - began)  # seconds of video in one second
    known = [seconds for seconds in seconds_of.values() if seconds is not None]
    if not known:
        raise NothingToDoError("none of the videos says how long it is", "`vadis classify` finds out")
    whole = sum(known) / len(known) * len(readable)
    about = "" if len(known) == len(readable) else f", by {len(known):,} of them"
    typer.echo(
        f"{num_videos(len(readable))}, {clock(whole)} in all{about}; labelling takes about {clock(whole / pace)} here: "
        f"{pace:.2g} times the speed of playing, by a probe of {probed:.0f} s"
    )


def _seconds_in(part: Part, facts: VideoFacts) -> float | None:
    """Return how much of a video is in a part, by its header; None where that does not say how long it is."""
    if facts.duration_seconds is None:
        return None
    end = facts.first_seconds + facts.duration_seconds
    return max(0.0, (end if part.end is None else min(part.end, end)) - max(part.start, facts.first_seconds))


def choose_format(
    name: str, output: Path | None, output_dir: Path | None, per: str = "segment", *, is_one: bool = True
) -> Format:
    """Return the format of this name; ``auto`` goes by ``output``. A table is drawn for this terminal, or for a file;
    of several videos on the terminal it has a line for each, if not ``--verbose``.

    Raises:
        UsageError: the extension of ``output`` is that of no format.
    """
    if name == "auto" and output is not None:
        name = output.suffix.removeprefix(".").lower().replace("ndjson", "jsonl") or "jsonl"
        if name not in FORMATS:
            known = ", ".join(f".{known}" for known in FORMATS)
            hint = "say which is wanted: -f; vadis report makes pages, vadis annotate videos"
            raise UsageError(f"{show(output)} has the extension of no format ({known})", hint)
    elif name == "auto":
        name = "table" if output_dir is None and sys.stdout.isatty() else "jsonl"
    if per == "video" and name != "csv":
        raise UsageError("--per video is for csv", hint="add -f csv, or let the name after -o end with .csv")
    if name != "table":
        return Format(name, csv_of_videos) if per == "video" else FORMATS[name]
    if not (is_one or output or output_dir or settings.verbose):
        return Format(name, partial(lines, console=stdout_console()))
    console = file_console() if output or output_dir else stdout_console()
    return Format(name, partial(table, console=console, all_stretches=settings.verbose))
