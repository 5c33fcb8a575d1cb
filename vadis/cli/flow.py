"""``vadis flow``: compute the optical flow of a data set once, into a flow store that training reads."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options
from vadis.cli.outputs import check_file, check_folder_name
from vadis.cli.run import SOME_FAILED, fail_if_partial, find_inputs
from vadis.cli.terminal import clock, debug, frame_progress, info, num_videos, show, video_progress, warn, warn_of
from vadis.cli.timeline import missing_part
from vadis.device import resolve_device
from vadis.errors import UsageError, VideoError
from vadis.results import Part, part_of
from vadis.video.metadata import VideoFacts

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
    unreadable = dict[str, VideoError]()
    if data is None:
        found = find_inputs(inputs, from_file, null)
        unreadable |= {source.path: source.error for source in found if source.error is not None}
        readable = [source.path for source in found if source.error is None]
        for path, error in unreadable.items():
            warn_of(path, error.code, error.in_full)
    else:
        from vadis.datasets import find_dataset

        examples = find_dataset(data, dataset, split, allow_missing=1.0)  # what is missing is no obstacle
        info(examples.summary())
        readable = list(dict.fromkeys(each.path for part in examples.splits.values() for each in part))
    from vadis.flow.store import FlowStore

    where = resolve_device(device)
    counts = fill(readable, FlowStore(output, create=True), where)
    counts["failed"] += len(unreadable)
    is_whole = not counts["partial"] + counts["failed"]
    words = ("ok", "partial", "skipped", "failed")
    (info if is_whole else warn)(", ".join(f"{counts[word]} {word}" for word in words if counts[word] or word == "ok"))
    if not is_whole:
        raise typer.Exit(SOME_FAILED)


def _to_look_at(video: str, output: Path, part: Part | None, overwrite: bool, device: str) -> None:
    check_file(output, overwrite, video)
    from vadis.report.annotate import write_flow_video

    with frame_progress(f"optical flow: {show(Path(video).name)}") as report:
        facts = write_flow_video(video, output, resolve_device(device), report, part=part)
    info(f"{facts.num_frames or 0:,} frames")
    typer.echo(show(output))
    fail_if_partial(video, facts)


def fill(videos: list[str], store: "FlowStore", device: "torch.device") -> Counter[str]:
    """Compute the flow that a store lacks of ``videos``, after saying what that takes; return the counts."""
    from vadis.flow.store import compute_flow, estimate_flow, without_flow

    missing = without_flow(videos, store)
    counts = Counter(skipped=len(videos) - len(missing))
    if not missing:
        return counts
    info(f"looking at {num_videos(len(missing))}, on {device}")
    expected = estimate_flow(missing, store, device)
    info(f"their flow takes about {clock(expected.seconds)} and {expected.num_bytes / 1e6:,.1f} MB")
    expected.check_space(store)
    frames_before = frames_now = 0
    partial: set[str] = set()
    with video_progress() as bar:
        task = bar.add_task("", total=expected.num_frames)

        def report(video: str, num_frames: int, partial_facts: VideoFacts | None) -> None:
            nonlocal frames_now
            frames_now = num_frames
            bar.update(task, description=show(Path(video).name), completed=frames_before + frames_now)
            if partial_facts is not None:
                partial.add(video)
                warn(f"{show(video)}: partial, {missing_part(partial_facts)}")

        for video, error in compute_flow(missing, store, device=device, progress=report):
            frames_before, frames_now = frames_before + frames_now, 0
            debug(f"{show(video)}: {'failed' if error else 'done'}")
            counts["failed" if error else "partial" if video in partial else "ok"] += 1
            if error is not None:
                warn_of(video, error.code, error.in_full)
    return counts
