"""``vadis flow``: compute the optical flow of a data set once, into a flow store that training reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vadis.cli import options
from vadis.cli.run import SOME_FAILED
from vadis.cli.terminal import clock, complain, detail, say, settings, show, video_progress

if TYPE_CHECKING:
    import torch

    from vadis.flow.store import FlowStore

EPILOG = """
**Examples**

The flow of all videos of a data set, for training:  `vadis flow ucf101/ -o ucf101-flow/`

Once more after new videos came, or after an interruption; only what is missing is computed:  the same command

**Exit codes**: 0 the flow of every video is there; 1 could not go on; 2 wrong use; 3 finished, but some videos failed;
4 no video found; 130 and 143 interrupted.
"""

Store = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="STORE", help="The folder of the flow store.", rich_help_panel=options.OUTPUT
    ),
]


def flow(
    store: Store,
    inputs: options.Inputs = None,
    from_file: options.FromFile = None,
    null: options.Null = False,
    device: options.Device = "auto",
    debug: options.Debug = False,
) -> None:
    """Compute the optical flow of videos once, for training."""
    settings.debug |= debug
    from vadis.device import resolve_device
    from vadis.flow.filling import without_flow
    from vadis.flow.store import FlowStore
    from vadis.video.sources import find_videos

    found = find_videos(inputs or [], from_file=from_file, nul=null)
    target, where = FlowStore(store, create=True), resolve_device(device)
    unreadable = [source for source in found if source.error is not None]
    for source in unreadable:
        complain(f"{show(source.path)}: {source.error}")
    readable = [source.path for source in found if source.error is None]
    missing = without_flow(readable, target)
    failed = len(unreadable) + (fill(missing, target, where) if missing else 0)
    skipped = len(readable) - len(missing)
    counts = {"ok": len(found) - skipped - failed, "skipped": skipped, "failed": failed}
    shown = ", ".join(f"{count} {word}" for word, count in counts.items() if count or word == "ok")
    (complain if failed else say)(shown)
    if failed:
        raise typer.Exit(SOME_FAILED)


def fill(videos: list[str], store: "FlowStore", device: "torch.device") -> int:
    """Compute the flow of ``videos``, after telling what it will take; returns how many failed."""
    from vadis.flow.filling import FlowProgress, compute_flow, estimate

    say(f"looking at {len(videos):,} videos, on {device}")
    expected = estimate(videos, store, device)
    say(f"their flow takes about {clock(expected.seconds)} and {expected.num_bytes / 1e6:,.1f} MB")
    expected.check_space(store)
    failed = frames_before = frames_now = 0
    with video_progress() as bar:
        task = bar.add_task("", total=expected.num_frames)

        def report(now: FlowProgress) -> None:
            nonlocal frames_now
            frames_now = now.frames_done
            bar.update(task, description=show(Path(now.path).name), completed=frames_before + frames_now)

        for video, error in compute_flow(videos, store, device=device, progress=report):
            frames_before, frames_now = frames_before + frames_now, 0
            detail(f"{show(video)}: {'failed' if error else 'done'}")
            if error is not None:
                failed += 1
                complain(f"{show(video)}: {error}")
    return failed
