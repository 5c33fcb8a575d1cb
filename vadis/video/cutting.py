"""Cut a stretch out of a video: its packets copied from the nearest picture before it that stands alone, or encoded."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from vadis.errors import UsageError, VideoError
from vadis.files import write_atomic
from vadis.video.encoder import CONTAINERS, video_file
from vadis.video.isolated.pool import ChildClip, ChildSound, Decoders, SourceVideo

COPY_EXTENSION, ENCODED_EXTENSION = ".mkv", ".mp4"  # of a clip, where that of the source is none that can be written

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
    first, last = (Fraction(round(1000 * seconds), 1000) for seconds in (start, end))
    try:
        _encode(decoders, path, first, last, output, sound)
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


def _encode(decoders: Decoders, path: str, start: Fraction, end: Fraction, output: Path, sound: bool) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(SourceVideo(decoders, path))
        heard = stack.enter_context(ChildSound(decoders, path)) if sound else None
        first = source.first_seconds
        zero = (source.start_seconds or Fraction(0)) - first + start  # by the clock of the sound
        with video_file(
            output,
            source.size,
            source.facts.source_fps,
            pixel_aspect=source.pixel_aspect,
            colours=source.colours,
            sound=_Part(heard, zero, zero + end - start) if heard and heard.streams else None,
            zero_seconds=zero,
        ) as write:
            is_empty = True
            for frame in source.source_frames():
                begins, ends = (
                    first + frame.seconds - start,
                    min(first + frame.seconds + frame.duration_seconds, end) - start,
                )
                if begins >= end - start:
                    break
                if ends >= _SHORTEST_SECONDS:
                    is_empty = False
                    write(frame.pixels, max(begins, Fraction(0)), ends - max(begins, Fraction(0)))
            if is_empty:
                raise VideoError("no_frames", f"no frame is shown from {float(start):.1f} to {float(end):.1f} s")


class _Part:
    """The sound of a stretch, by its own clock."""

    def __init__(self, sound: ChildSound, start: Fraction, end: Fraction) -> None:
        self.streams, self.packets = sound.streams, self._within(sound.packets, start, end)

    @staticmethod
    def _within(packets: Iterator[Any], start: Fraction, end: Fraction) -> Iterator[Any]:
        for packet in packets:
            seconds = packet.dts * packet.time_base
            if start <= seconds < end:
                yield packet
