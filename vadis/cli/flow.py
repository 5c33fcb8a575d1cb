"""``vadis flow``: compute the optical flow of a data set once, into a flow store that training reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.batch import Summary
from vadis.cli import options
from vadis.cli.outputs import check_file, check_folder_name
from vadis.cli.run import SOME_FAILED, Run, fail_if_partial, find_inputs
from vadis.cli.terminal import clock, frame_progress, info, num_videos, show
from vadis.device import resolve_device
from vadis.errors import UsageError, VideoError
from vadis.results import Part, VideoResult, part_of
from vadis.video.metadata import VideoFacts
from vadis.video.sources import Source

if TYPE_CHECKING:
    import torch

    from vadis.flow.store import FlowStore

EPILOG = """
To look at, in colours beside the picture:  `vadis flow holiday.mp4 --end 10 -o flow.mp4`

The flow of all videos in a folder, for training:  `vadis flow videos/ -o flow/`

Of the videos of a dataset that a split uses:  `vadis flow --data ./hmdb51 --split 1 -o hmdb51-flow/`

Once more after new videos came, or after an interruption; only what is missing is computed:  the same command
"""

_STORE = "The folder of the flow store; or a new video to look at (.mp4, .mov, .mkv), of one input."


def flow(
    output: Annotated[Path, options.option(options.OUTPUT, _STORE, "--output", "-o", metavar="DIR|FILE")],
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    data: options.Data = None,
    dataset: options.DatasetName = None,
    split: options.Split = 1,
    start: options.Start = None,
    end: options.End = None,
    overwrite: options.Replace = False,
    device: options.Device = "auto",
) -> None:
    """Compute the optical flow of videos or a dataset once, for training; or of one video, to look at."""
    inputs, part = inputs or [], part_of(start, end)
    has_inputs = bool(inputs) or from_file is not None
    if data is not None and has_inputs:
        raise UsageError("--data and INPUTS exclude each other", hint="give a dataset, or videos and folders")
    if data is None and not has_inputs:
        raise UsageError("no input given", hint="name videos or folders, or a dataset by --data")
    if data is None and (dataset is not None or split != 1):
        raise UsageError("--dataset and --split go with --data", hint="name the dataset's folder by --data")
    if output.suffix.lower() in (".mp4", ".mov", ".mkv") and not output.is_dir():
        if data is not None or from_file is not None or len(inputs) != 1 or Path(inputs[0]).is_dir():
            hint = "name one video; a flow store is a folder, whose name does not end with that"
            raise UsageError(f"{show(output)} has room for the flow of one video", hint=hint)
        _to_look_at(inputs[0], output, part, overwrite, device)
        return
    if part is not None:
        raise UsageError("--start and --end go with -o FILE.mp4", hint="leave them out: a flow store has whole videos")
    check_folder_name(output)
    if data is None:
        sources = list(find_inputs(inputs, from_file, null))
    else:
        from vadis.datasets import find_dataset

        examples = find_dataset(data, dataset, split, allow_missing=1.0)  # what is missing is no obstacle
        info(examples.summary())
        sources = list(map(Source, dict.fromkeys(each.path for part in examples.splits.values() for each in part)))
    from vadis.flow.store import FlowStore

    where = resolve_device(device)
    raise typer.Exit(fill(sources, FlowStore(output, create=True), where))


def _to_look_at(video: str, output: Path, part: Part | None, overwrite: bool, device: str) -> None:
    check_file(output, overwrite, video)
    from vadis.report.annotate import write_flow_video

    with frame_progress(f"optical flow: {show(Path(video).name)}") as report:
        facts = write_flow_video(video, output, resolve_device(device), report, part=part)
    info(f"{facts.num_frames or 0:,} frames")
    typer.echo(show(output))
    fail_if_partial(video, facts)


def fill(sources: Sequence[Source], store: "FlowStore", device: "torch.device") -> int:
    """Compute the flow that a store lacks of videos, after saying what that takes; return the exit code."""
    from vadis.flow.store import compute_flow, estimate_flow, videos_without_flow
    from vadis.inference.predict import Progress

    readable = [source.path for source in sources if source.error is None]
    missing, partial, summary = videos_without_flow(readable, store), dict[str, VideoFacts](), Summary(len(sources))
    summary.statuses["skipped"] = len(readable) - len(missing)
    wanted = set(missing)
    run = Run([source for source in sources if source.error or source.path in wanted], summary)
    if missing:
        info(f"looking at {num_videos(len(missing))}, on {device}")
        expected = estimate_flow(missing, store, device)
        info(f"their flow takes about {clock(expected.seconds)} and {expected.num_bytes / 1e6:,.1f} MB")
        expected.check_space(store)

    def report(video: str, num_frames: int, facts: VideoFacts | None) -> None:
        run.report(Progress(video, "flow", num_frames, round(expected.num_frames / len(missing))))
        if facts is not None:
            partial[video] = facts

    def record(video: str, error: VideoError | None) -> VideoResult:
        if error is not None:
            return VideoResult(video, "error", error_code=error.code, error_message=error.in_full)
        facts = partial.get(video)
        read, declared = (facts.frames_decoded, facts.frames_declared) if facts else (None, None)
        return VideoResult(video, "partial" if facts else "ok", frames_decoded=read, frames_declared=declared)

    computed = compute_flow(run.paths(), store, device=device, progress=report)
    code = run.complete(record(*each) for each in computed)
    return SOME_FAILED if summary.statuses["partial"] else code
