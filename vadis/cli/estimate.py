"""``vadis classify --dry-run``: how many videos there are, how long, and how long labelling them takes, by a probe."""

import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

import typer

from vadis.cli.run import load_for_command
from vadis.cli.terminal import clock, num_videos
from vadis.errors import NothingToDoError, VideoError
from vadis.results import Part
from vadis.video.metadata import VideoFacts
from vadis.video.sources import Source

SAMPLE = 200  # videos at most whose length is looked up; a header takes some hundredths of a second
PROBE_FRAMES = 250  # of the longest of them, 10 s, which are labelled


def estimate(
    sources: Sequence[Source],
    name: str | None,
    by: dict[str, Any],
    part: Part | None,
    segment: float | None,
    window: int | None,
    stride: int | None,
    flip: bool,
) -> None:
    """Print the estimate, by the model ``name``, loaded ``by``, of all videos or a part of each.

    Raise NothingToDoError where there is nothing to read.
    """
    model = load_for_command(name, **by, may_stand_in=by["streams"] in (None, "rgb"))
    from vadis.inference.classify import ClassifyOptions
    from vadis.inference.predict import Progress, Sliding, predict
    from vadis.inference.prefetch import LocalVideo
    from vadis.video.isolated.pool import Decoders

    readable = [source.path for source in sources if source.error is None]
    sample = readable[:: max(1, -(-len(readable) // SAMPLE))]
    seconds_of, seen = dict[str, float | None](), list[Progress]()
    wanted = ClassifyOptions(model, Sliding(segment or model.card.segment_seconds, window, stride), flip=flip)
    with Decoders() as decoders:
        for path in sample:
            with suppress(VideoError), decoders.open(path, listed=True, max_frames=1) as video:
                seconds_of[path] = _seconds_in(part or Part(), video.facts)
        if seconds_of and part is not None and set(seconds_of.values()) == {0.0}:
            raise NothingToDoError(f"all videos end before {clock(part.start)}", "give an earlier `start`")
        for path in sorted(seconds_of, key=lambda path: seconds_of[path] or 0.0, reverse=True):
            began, probe = time.monotonic(), LocalVideo(path, model, decoders, max_frames=PROBE_FRAMES, part=part)
            with suppress(VideoError), closing(probe):
                for _ in predict(probe, model, wanted.sliding, flip=flip, progress=seen.append):
                    pass
                break
        else:
            raise NothingToDoError("none of the videos can be read", "`vadis classify` says why of each")
    probed = seen[-1].frames_done / model.card.frame_rate
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
