"""What the process that decodes and the one that asks for it say to each other, through two pipes.

A message is its length (4 bytes, the highest first), so many bytes of JSON, and of frames the pixels, which are as many
bytes as size and number of pictures make. There is no pickle: the one who decodes is not trusted, and what it says is
believed only as far as it can be true.

    asked   {"path": …, "what": "grid", "listed": …, "start_frame": …, "max_frames": …, "limits": {…}}
    told    {"ready": [what could not be given up]}                      once, when the process begins
            {"video": {"size": …, "expected": …, "facts": {…}}}          the file is open
            {"frames": [repeats…], "first": index on the grid}           pixels follow
            {"end": {facts}}, or {"error": [code, message, hint]}        and the next file may be asked for,
                                                                         unless it adds "worn": true

Asked for what is "source" or "sound" instead of "grid", it tells what ``full_size`` reads: frame by frame with its
times, pixels following; or the parameters of the sound's codecs, and packet after packet.
"""

import json
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from vadis.errors import VIDEO_ERROR_CODES, VideoError
from vadis.parsing import parse_json
from vadis.video.metadata import FLAGS, LONGEST_SIDE, SHORT_SIDE, VideoFacts

LENGTH_BYTES = 4
MAX_JSON_BYTES = 1 << 16  # of what is told; a file's path is the longest that is asked
CHUNK_BYTES = 1 << 20  # pixels sent at once, or one picture where that is more
SAMPLE_PACKETS = 16  # of sound: enough for parsers to find what no header says
MAX_PACKET_BYTES = 16 << 20  # a second of uncompressed sound with 64 channels of 32 bits at 48 kHz has 12 MB

_MAX_TEXT = 500  # characters of a message or hint
_MAX_COUNT = 1 << 53


class Nonsense(Exception):
    """What was told cannot be true."""


def packed(message: dict[str, Any]) -> bytes:
    """A message with its length; file names that are not UTF-8 survive as escaped surrogates."""
    content = json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii")
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def unpacked(content: bytes) -> dict[str, Any]:
    """The JSON of a message.

    Raises:
        Nonsense: where it is none, or no object.
    """
    try:
        message = parse_json(content, parse_constant=_refuse)
    except ValueError as error:
        raise Nonsense("no JSON") from error
    if not isinstance(message, dict):
        raise Nonsense("no object")
    return message


def write_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write everything, however little the pipe takes at once."""
    for part in parts:
        left = memoryview(part).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]


def facts_to_json(facts: VideoFacts) -> dict[str, Any]:
    """``facts`` as plain JSON values."""
    fps = facts.source_fps
    return vars(facts) | {"source_fps": None if fps is None else [fps.numerator, fps.denominator]}


def facts_from_json(told: Any) -> VideoFacts:
    """The facts that ``facts_to_json`` gave; raises Nonsense for all else."""
    fps, seconds, flags = field(told, "source_fps"), field(told, "duration_seconds"), field(told, "flags")
    first = field(told, "first_seconds")
    if not all(isinstance(each, float | int) and 0 <= each < math.inf for each in (seconds or 0, first)):
        raise Nonsense("seconds")
    if not isinstance(flags, list) or not all(isinstance(flag, str) and flag in FLAGS for flag in flags):
        raise Nonsense("flags")
    if field(told, "status") not in ("ok", "partial"):
        raise Nonsense("status")
    return VideoFacts(
        source_fps=None if fps is None else Fraction(*_pair(fps)),
        source_size=_pair(field(told, "source_size")),
        rotation=count(told, "rotation", least=-_MAX_COUNT),
        duration_seconds=None if seconds is None else float(seconds),
        frames_declared=maybe_count(told, "frames_declared", least=-_MAX_COUNT),
        frames_decoded=count(told, "frames_decoded"),
        num_frames=maybe_count(told, "num_frames"),
        status=told["status"],
        flags=tuple(flags),
        first_seconds=float(first),
    )


def error_to_json(error: VideoError) -> list[str | None]:
    """``error`` as plain JSON values."""
    return [error.code, error.message[:_MAX_TEXT], error.own_hint]


def error_from_json(told: Any) -> VideoError:
    """The error that ``error_to_json`` gave; raises Nonsense for all else."""
    if not isinstance(told, list) or len(told) != 3:
        raise Nonsense("error")
    code, message, hint = told
    if not isinstance(code, str) or code not in VIDEO_ERROR_CODES:
        raise Nonsense("code")
    if not _is_text(message) or not (hint is None or _is_text(hint)):
        raise Nonsense("error")
    return VideoError(code, message, hint)


def picture_size(told: Any) -> tuple[int, int]:
    """The (width, height) of the grid frames, as ``picture.scaled_size`` allows it; raises Nonsense for all else."""
    width, height = _pair(field(told, "size"))
    if min(width, height) != SHORT_SIDE or max(width, height) > LONGEST_SIDE:
        raise Nonsense("size")
    return width, height


def repeats(told: Any, picture_bytes: int) -> list[int]:
    """How many grid points each of the pictures that follow stands for; raises Nonsense where it cannot be."""
    if not isinstance(told, list) or not 1 <= len(told) <= max(1, CHUNK_BYTES // picture_bytes):
        raise Nonsense("frames")
    if not all(type(number) is int and 1 <= number < _MAX_COUNT for number in told):
        raise Nonsense("frames")
    return told


def field(told: Any, name: str) -> Any:
    """What an object says under a name; raises Nonsense where it says nothing."""
    if not isinstance(told, dict) or name not in told:
        raise Nonsense(name)
    return told[name]


def count(told: Any, name: str, least: int = 0, most: int = _MAX_COUNT - 1) -> int:
    """A whole number; raises Nonsense for all else."""
    number = field(told, name)
    if type(number) is not int or not least <= number <= most:
        raise Nonsense(name)
    return number


def integer(told: Any, name: str) -> int:
    """A whole number of 64 bits, as FFmpeg's times are; raises Nonsense for all else."""
    return count(told, name, -(1 << 63), (1 << 63) - 1)


def pair_of(number: Fraction) -> list[int]:
    """A fraction as plain JSON values."""
    return [number.numerator, number.denominator]


def fraction(told: Any) -> Fraction:
    """The fraction that ``pair_of`` gave; raises Nonsense for all else."""
    if not isinstance(told, list) or len(told) != 2 or not all(type(n) is int and abs(n) < 1 << 63 for n in told):
        raise Nonsense("fraction")
    if told[1] < 1:
        raise Nonsense("fraction")
    return Fraction(told[0], told[1])


def maybe_fraction(told: Any, name: str) -> Fraction | None:
    """A fraction or None; raises Nonsense for all else."""
    given = field(told, name)
    return None if given is None else fraction(given)


def full_size(told: Any, max_pixels: int) -> tuple[int, int]:
    """The (width, height) of frames that are not scaled; raises Nonsense beyond the limit."""
    width, height = _pair(field(told, "size"))
    if width * height > max_pixels:
        raise Nonsense("size")
    return width, height


def maybe_count(told: Any, name: str, least: int = 0) -> int | None:
    """A whole number or None; raises Nonsense for all else."""
    return None if field(told, name) is None else count(told, name, least)


def _pair(told: Any) -> tuple[int, int]:
    """Two positive whole numbers."""
    if not isinstance(told, list) or len(told) != 2 or not all(type(n) is int and 0 < n < _MAX_COUNT for n in told):
        raise Nonsense("pair")
    return told[0], told[1]


def _is_text(told: Any) -> bool:
    return isinstance(told, str) and len(told) <= _MAX_TEXT and told.isprintable()


def _refuse(constant: str) -> None:
    raise ValueError(constant)
