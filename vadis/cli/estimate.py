"""``vadis classify --dry-run``: how many videos there are, how long, and how long labelling them takes, by a probe."""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import typer

from vadis.cli.run import load_for_command
from vadis.cli.terminal import clock, num_videos
from vadis.errors import NothingToDoError, VideoError
from vadis.video.sources import Source

SAMPLE = 200  # videos at most whose length is looked up; a header takes some hundredths of a second
PROBE_FRAMES = 250  # of the longest of them, 10 s, which are labelled


def estimate(
    sources: Sequence[Source],
    name: str | None,
    how: dict[str, Any],
    segment: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    flip: bool = False,
) -> None:
    """Print the estimate for the model ``name``, loaded by ``how``; raise NothingToDoError where nothing can be read."""
    model = load_for_command(name, **how, may_stand_in=how["streams"] in (None, "rgb"))
    from vadis.inference.classify import ClassifyOptions
    from vadis.inference.predict import Progress, Sliding, predict
    from vadis.inference.prefetch import LocalVideo
    from vadis.video.isolated.pool import Decoders

    readable = [source.path for source in sources if source.error is None]
    sample = readable[:: max(1, len(readable) // SAMPLE)]
    seconds_of, frames_done = dict[str, float | None](), 0

    def report(now: Progress) -> None:
        nonlocal frames_done
        frames_done = now.frames_done

    wanted = ClassifyOptions(model, Sliding(segment or model.card.segment_seconds, window, stride), flip=flip)
    with Decoders() as decoders:
        for path in sample:
            with suppress(VideoError), decoders.open(path, listed=True, max_frames=1) as video:
                seconds_of[path] = video.facts.duration_seconds
        longest_first = sorted(seconds_of, key=lambda path: seconds_of[path] or 0.0, reverse=True)
        for path in longest_first:
            began = time.monotonic()
            with suppress(VideoError), closing(LocalVideo(path, model, decoders, max_frames=PROBE_FRAMES)) as probe:
                for _ in predict(probe, model, wanted.sliding, flip=flip, progress=report):
                    pass
                break
        else:
            raise NothingToDoError("none of the videos can be read", "`vadis classify` says why of each")
    probed = frames_done / model.card.frame_rate
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
