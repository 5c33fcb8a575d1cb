"""To a clip in the middle of a file without decoding all that comes before it; only where the frames stay the same.

A seek leads to a key frame at or before the clip, from where decoding is complete. Its place on the time grid must
follow from its timestamp alone, and that of every later frame too. Where this is not sure the file is read from its
start, which costs time and nothing else.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av

from vadis.video.container import MP4
from vadis.video.decoding import Decoder
from vadis.video.stream import Header
from vadis.video.timegrid import Clock

_INDEXED = (MP4, "matroska,webm", "avi")
"""FFmpeg's names of the containers with an index of key frames, in which a seek is exact. In the others FFmpeg guesses
by bytes, or their clocks may start again on the way."""

_LEAD_SECONDS = Fraction(1, 2)  # B-frames: files index a frame by when it is decoded, before it is shown

_WORTH_SECONDS = Fraction(1, 2)  # from the start; nearer, it is quicker to read on


class Place(NamedTuple):
    """Where reading goes on: a frame, its time in seconds after the first of the file, and the frames after it."""

    frame: av.VideoFrame
    seconds: Fraction
    following: Iterator[tuple[av.VideoFrame, Fraction]]


def seek_ticks(header: Header, stream: av.VideoStream, clock: Clock, seconds: Fraction) -> int | None:
    """The timestamp to seek to for a clip that starts at ``seconds``, None where it is better to read on.

    Containers that store a sequence of frames and no timestamps (AVI) tell which frame is which by counting. With
    B-frames, that of the frames that are shown differs from that of those that are stored.
    """
    if header.format_name not in _INDEXED or seconds < _WORTH_SECONDS:
        return None
    reorders = stream.codec_context.has_b_frames
    if header.is_sequential and reorders:
        return None
    return clock.ticks(seconds - _LEAD_SECONDS if reorders else seconds)


def place_before(decoder: Decoder, clock: Clock, ticks: int, seconds: Fraction) -> Place | None:
    """The first whole frame after a seek to ``ticks``, shown at or before ``seconds``; None where there is none.

    In the latter case the decoder has lost its place, and the file has to be opened again.
    """
    try:
        frames = decoder.frames_from(ticks)
    except Exception:  # noqa: BLE001 (damaged files raise nearly anything; the file is read from its start)
        return None
    for frame, time in frames:
        if clock.has_guessed or time > seconds:
            return None
        if frame.key_frame:  # those before it lean on frames that were not read
            return None if frame.is_corrupt else Place(frame, time, frames)
    return None
