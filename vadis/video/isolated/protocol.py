"""The messages between a process that decodes and its parent, through two pipes.

A message is its length (4 bytes, big-endian), so many bytes of JSON, and the pixels or bytes that the JSON announces.
There is no pickle: the decoder is not trusted, and everything it sends is checked before it is used.

    to the child    {"path": …, "what": "grid", "listed": …, "start_frame": …, "max_frames": …, "limits": {…}}
    from the child  {"ready": [what could not be given up]}                 once, after its start
                    {"video": {"size": …, "expected": …, "facts": {…}}}     the file is open
                    {"frames": [repeats…], "first": index on the grid}      pixels follow
                    {"end": {facts}}, or {"error": [code, message, hint]}   the next file may be requested,
                                                                            unless it adds "worn": true

For "what" of "source" or "sound" it sends frames at the file's own times, or the parameters of the sound's codecs and
then packet after packet (``child``). Fractions are pairs of integers.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

from vadis.errors import VIDEO_ERROR_CODES, VideoError
from vadis.parsing import parse_json
from vadis.video.metadata import FLAGS, VideoFacts

Value = TypeVar("Value")

LENGTH_BYTES = 4
MAX_JSON_BYTES = 1 << 16  # from the child; a file's path is the longest text sent to it
CHUNK_BYTES = 1 << 20  # pixels in one message, or one picture where that is more
SAMPLE_PACKETS = 16  # of sound: enough for parsers to find what no header says
MAX_PACKET_BYTES = 16 << 20  # a second of uncompressed sound with 64 channels of 32 bits at 48 kHz has 12 MB

_MAX_TEXT = 500  # characters of a message or hint
_MAX_INTEGER = (1 << 53) - 1


class ProtocolError(Exception):
    """The child has sent an invalid message."""


def pack_message(message: dict[str, Any]) -> bytes:
    """Return a message with its length; file names that are not UTF-8 survive as escaped surrogates."""
    content = json.dumps(message, allow_nan=False, default=Fraction.as_integer_ratio).encode("ascii")
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def unpack_message(content: bytes) -> dict[str, Any]:
    """Return the JSON object of a message; raise ProtocolError for anything else."""
    try:
        message = parse_json(content, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ProtocolError("no JSON") from error
    require(isinstance(message, dict), "no object")
    return message  # type: ignore[no-any-return]


def _refuse_constant(constant: str) -> None:
    raise ValueError(constant)


def send_all(descriptor: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write everything, however little the pipe takes at once."""
    for part in parts:
        left = memoryview(part).cast("B")
        while left:
            left = left[os.write(descriptor, left) :]


def require(is_valid: bool, what: str) -> None:
    """Raise ProtocolError unless what the child sent is valid."""
    if not is_valid:
        raise ProtocolError(what)


def field(message: Any, name: str) -> Any:
    """Return the value of an object under ``name``; this and the functions below raise ProtocolError otherwise."""
    require(isinstance(message, dict) and name in message, name)
    return message[name]


def integer(message: Any, name: str, low: int = 0, high: int = _MAX_INTEGER) -> int:
    """Return an integer within [low, high]."""
    number = field(message, name)
    require(type(number) is int and low <= number <= high, name)
    return number  # type: ignore[no-any-return]


def integers(message: Any, name: str, count: int | None, low: int, high: int = _MAX_INTEGER) -> list[int]:
    """Return a list of ``count`` (None: any number of) integers within [low, high]."""
    numbers = field(message, name)
    require(isinstance(numbers, list) and count in (None, len(numbers)), name)
    require(all(type(number) is int and low <= number <= high for number in numbers), name)
    return numbers  # type: ignore[no-any-return]


def size(message: Any, name: str = "size") -> tuple[int, int]:
    """Return a (width, height)."""
    width, height = integers(message, name, 2, 1)
    return width, height


def fraction(message: Any, name: str) -> Fraction:
    """Return a fraction of integers of 64 bits."""
    numerator, denominator = integers(message, name, 2, 1 - (1 << 63), (1 << 63) - 1)
    require(denominator > 0, name)
    return Fraction(numerator, denominator)


def optional(read: Callable[..., Value], message: Any, name: str, *bounds: int) -> Value | None:
    """Return what one of the functions above returns, or None for None."""
    return None if field(message, name) is None else read(message, name, *bounds)


def facts_from_json(message: Any) -> VideoFacts:
    """Return the facts whose ``vars`` were sent."""
    flags, seconds, first = (field(message, name) for name in ("flags", "duration_seconds", "first_seconds"))
    for each in (seconds or 0, first):
        require(isinstance(each, float | int) and 0 <= each < math.inf, "seconds")
    require(isinstance(flags, list) and all(isinstance(flag, str) and flag in FLAGS for flag in flags), "flags")
    require(field(message, "status") in ("ok", "partial"), "status")
    fps = optional(size, message, "source_fps")
    return VideoFacts(
        source_fps=fps and Fraction(*fps),
        source_size=size(message, "source_size"),
        rotation=integer(message, "rotation", low=-_MAX_INTEGER),
        duration_seconds=None if seconds is None else float(seconds),
        frames_declared=optional(integer, message, "frames_declared", -_MAX_INTEGER),
        frames_decoded=integer(message, "frames_decoded"),
        num_frames=optional(integer, message, "num_frames"),
        status=message["status"],
        flags=tuple(flags),
        first_seconds=float(first),
    )


def error_to_json(error: VideoError) -> list[str | None]:
    """Return ``error`` as plain JSON values."""
    return [error.code, error.message[:_MAX_TEXT], error.own_hint]


def error_from_json(message: Any) -> VideoError:
    """Return the error that ``error_to_json`` gave."""
    require(isinstance(message, list) and len(message) == 3, "error")
    code, text, hint = message
    require(isinstance(code, str) and code in VIDEO_ERROR_CODES, "code")
    for each in (text, "" if hint is None else hint):
        require(isinstance(each, str) and len(each) <= _MAX_TEXT and each.isprintable(), "error")
    return VideoError(code, text, hint)
