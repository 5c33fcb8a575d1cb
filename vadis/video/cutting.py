"""Cut a stretch out of a video: its packets copied from the nearest picture before it that stands alone, or encoded."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, VideoError
from vadis.files import write_atomic
from vadis.results import Part
from vadis.video.encoder import CONTAINERS, video_file
from vadis.video.isolated.pool import ChildClip, ChildSound, Decoders, SourceVideo
from vadis.video.metadata import Picture

COPY_EXTENSION, ENCODED_EXTENSION = ".mkv", ".mp4"  # of a clip, where that of the source is none that can be written

Shown = tuple[Picture, Fraction, Fraction, Fraction | None]
"""A picture, when it is shown and for how long, and what is time 0 by the clock of the sound: as ``write`` takes it."""

_SHORTEST_SECONDS = Fraction(1, 1000)  # for which a frame is shown at the beginning, or it is left out


def clip_extension(path: str, exact: bool) -> str:
    """Return the extension of a clip of the video at ``path``."""
    own = os.path.splitext(path)[1].lower()  # noqa: PTH122
    return own if own in CONTAINERS else ENCODED_EXTENSION if exact else COPY_EXTENSION


def cut(
    decoders: Decoders, path: str, start: float, end: float, output: Path, *, exact: bool = False, sound: bool = True
) -> float:
    """Write ``[start, end)`` of a video, in seconds from its start, to ``output``; return the second where it begins.

    That is ``start`` when it is ``exact``, or cannot be copied: then the pictures are encoded anew, and every one of
    the stretch is there. Otherwise nothing loses quality, but the clip begins with the last picture before ``start``
    that stands alone. Sound is copied as it is. Raises as ``vadis.report.annotate.annotate``.
    """
    if not exact and (begins := _copy(decoders, path, start, end, output, sound)) is not None:
        return begins
    part = Part(round(start, 3), round(end, 3))
    try:
        with open_clip(decoders, path, part, output, sound=sound) as (_, pictures, write):
            for picture in pictures:
                write(*picture)
    except UsageError as error:
        raise VideoError("unsupported_codec", error.message, "leave the sound out with `with_sound=False`") from error
    return start


def _copy(decoders: Decoders, path: str, start: float, end: float, output: Path, sound: bool) -> float | None:
    """Return where the copy begins; None, and nothing written, where the packets do not go into such a file."""
    form = CONTAINERS[output.suffix.lower()]
    with ChildClip(decoders, path, stretch=[start, end], format=form, sound=sound) as clip:
        if clip.begins is None:
            return None
        with write_atomic(output) as file:
            for content in clip.pieces():
                file.write(content)
        return clip.begins


@contextmanager
def open_clip(
    decoders: Decoders, path: str, part: Part | None, output: Path, *, sound: bool = True
) -> Iterator[tuple[SourceVideo, Iterator[Shown], Callable[..., None]]]:
    """Open a video and an output file; give the video, its pictures (of ``part``, or all), and the file's ``write``.

    The sound of the part is copied. Iterating over the pictures raises VideoError if there are none.
    """
    start, end = (part or Part()).exact
    with ExitStack() as stack:
        source = stack.enter_context(decoders.open_source(path, part=part))
        heard = stack.enter_context(ChildSound(decoders, path)) if sound else None
        zero = (source.start_seconds or Fraction(0)) - source.first_seconds + start  # by the clock of the sound
        if heard is not None and part is not None:
            heard.packets = _packets_between(heard.packets, zero, None if end is None else zero + end - start)
        write = video_file(
            output,
            source.size,
            source.facts.source_fps,
            pixel_aspect=source.pixel_aspect,
            colours=source.colours,
            sound=heard if heard and heard.streams else None,
            zero_seconds=zero,
        )
        yield source, _pictures_between(source, start, end), stack.enter_context(write)


def _pictures_between(source: SourceVideo, start: Fraction, end: Fraction | None) -> Iterator[Shown]:
    is_empty = True
    for pixels, seconds, duration, zero in source.source_frames():
        begins = source.first_seconds + seconds - start
        ends = begins + duration if end is None else min(begins + duration, end - start)
        if (begins >= 0 or ends >= _SHORTEST_SECONDS) and (end is None or begins < end - start):
            is_empty, shown = False, max(begins, Fraction(0))
            yield pixels, shown, ends - shown, None if zero is None else zero - source.first_seconds + start
    if is_empty:
        until = "the end" if end is None else f"{float(end):.1f} s"
        raise VideoError("outside", f"no frame is shown from {float(start):.1f} s to {until}")


def _packets_between(packets: Iterator[Any], start: Fraction, end: Fraction | None) -> Iterator[Any]:
    for packet in packets:
        seconds = packet.dts * packet.time_base
        if start <= seconds and (end is None or seconds < end):
            yield packet
