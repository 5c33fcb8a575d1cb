"""To a clip in the middle of a file without decoding all that comes before it; only where the frames stay the same.

A seek leads to a key frame at or before the clip, from where decoding is complete. Its place on the time grid must
follow from its timestamp alone, and that of every later frame too. Where this is not sure the file is read from its
start, which costs time and nothing else.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
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
    is_beyond = header.duration is not None and seconds > header.duration
    if is_beyond and header.format_name != MP4:  # whose fragments state a part; else in a recording that was appended
        return None
    reorders = stream.codec_context.has_b_frames
    if header.is_sequential and reorders:
        return None
    return clock.ticks(seconds - _LEAD_SECONDS if reorders else seconds)


def place_before(decoder: Decoder, clock: Clock, ticks: int, seconds: Fraction) -> Place | None:
    """The last frame shown at or before ``seconds``, after a seek to ``ticks``; None where it is not sure.

    In the latter case the decoder has lost its place, and the file has to be opened again. So it is where no frame
    follows: the clip lies behind the end, or in a recording that was appended, whose clock started again.
    """
    try:
        frames = decoder.frames_from(ticks)
    except Exception:  # noqa: BLE001 (damaged files raise nearly anything; the file is read from its start)
        return None
    held: tuple[av.VideoFrame, Fraction] | None = None
    for frame, time in frames:
        if clock.has_guessed:
            return None
        if time > seconds:
            return None if held is None else Place(*held, chain([(frame, time)], frames))
        if held is None and frame.key_frame and frame.is_corrupt:
            return None
        if held is not None or frame.key_frame:  # those before a key frame lean on frames that were not read
            held = frame, time
    return None
