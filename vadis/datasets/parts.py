"""Which frames of its file the paper's test sees of an example."""

from vadis.datasets.listing import Example
from vadis.errors import VideoError
from vadis.video.isolation import Decoders


def tested_part(example: Example, decoders: Decoders, frame_rate: int, max_frames: int) -> tuple[int, int]:
    """The first frame of an example in its file, and how many are looked at from there on, at most ``max_frames``.

    Only where the file may be a clip that is cut already is its header looked at before.
    """
    start, end = example.span(_duration(example.path, decoders) if example.may_be_trimmed else None)
    first = round(start * frame_rate)
    return first, max_frames if end is None else min(max_frames, max(1, round(end * frame_rate) - first))


def _duration(path: str, decoders: Decoders) -> float | None:
    """How many seconds a file lasts by its header; None where that does not say it, or the file cannot be read."""
    try:
        with decoders.open(path, listed=True, max_frames=0) as video:
            return video.facts.duration_seconds
    except VideoError:
        return None
