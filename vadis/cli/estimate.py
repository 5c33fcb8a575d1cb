"""``vadis classify --dry-run``: how many videos there are, how long, and how long labelling them takes, by a probe."""

import time
from collections.abc import Sequence
from contextlib import closing, suppress

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
    sources: Sequence[Source], model: str | None, streams: str | None, device: str, offline: bool, part: Part | None
) -> None:
    """Print the estimate, of all videos or a part of each; raise NothingToDoError where there is nothing to read."""
    readable = [source.path for source in sources if source.error is None]
    sample = readable[:: max(1, -(-len(readable) // SAMPLE))]
    loaded = load_for_command(model, streams, device, offline, may_stand_in=streams in (None, "rgb"))
    from vadis.inference.predict import Progress, predict
    from vadis.inference.prefetch import LocalVideo
    from vadis.video.isolated.pool import Decoders

    seconds_of, seen = dict[str, float](), list[Progress]()
    with Decoders() as decoders:
        for path in sample:
            with suppress(VideoError), decoders.open(path, listed=True, max_frames=1) as video:
                seconds_of[path] = _seconds_in(part or Part(), video.facts)
        if not seconds_of:
            raise NothingToDoError("none of the videos can be read", "`vadis classify` says why of each")
        if not any(seconds_of.values()) and part is not None:
            raise NothingToDoError(f"all videos end before {clock(part.start)}", "give an earlier `start`")
        longest = max(seconds_of, key=seconds_of.__getitem__)
        began = time.monotonic()
        with closing(LocalVideo(longest, loaded, decoders, max_frames=PROBE_FRAMES, part=part)) as probe:
            for _ in predict(probe, loaded, progress=seen.append):
                pass
    probed = seen[-1].frames_done / loaded.card.frame_rate
    pace = probed / (time.monotonic() - began)  # seconds of video in one second
    whole = sum(seconds_of.values()) / len(seconds_of) * len(readable)
    about = "" if len(seconds_of) == len(readable) else f", by {len(seconds_of):,} of them"
    typer.echo(
        f"{num_videos(len(readable))}, {clock(whole)} in all{about}; labelling takes about {clock(whole / pace)} here: "
        f"{pace:.2g} times the speed of playing, by a probe of {probed:.0f} s"
    )


def _seconds_in(part: Part, facts: VideoFacts) -> float:
    """Return how much of a video is in a part, by its header."""
    end = facts.first_seconds + (facts.duration_seconds or 0.0)
    return max(0.0, (end if part.end is None else min(part.end, end)) - max(part.start, facts.first_seconds))
