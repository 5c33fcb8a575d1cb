"""The messages between a process that decodes and its parent, through two pipes.

A request is a line of JSON. An answer is its length (4 bytes, big-endian), so many bytes of JSON, and the pixels or
bytes that the JSON announces. There is no pickle: the decoder is not trusted, and all that it sends is checked.

    to the child    {"path": …, "what": "grid", "source", "sound" or "clip", …}
    from the child  {"ready": [what could not be given up]}                 once, after its start
                    {"size": …, "facts": {…}, …}                            the file is open
                    {"first": index on the grid, "count": …}                the pixels of a picture follow
                    {"end": {facts}}, or {"error": [code, message, hint]}   the next file may be requested,
                                                                            unless it adds "worn": true
"""

import json
from fractions import Fraction
from types import NoneType
from typing import Any, get_args, get_type_hints

from vadis.errors import VIDEO_ERROR_CODES, VideoError
from vadis.video.metadata import FLAGS, VideoFacts

LENGTH_BYTES = 4
MAX_JSON_BYTES = 1 << 16  # of an answer
SAMPLE_PACKETS = 16  # of sound: enough for parsers to find what no header says
MAX_PACKET_BYTES = 16 << 20  # a second of uncompressed sound with 64 channels of 32 bits at 48 kHz has 12 MB

_MAX_TEXT = 500  # characters


class ProtocolError(Exception):
    """The child has sent an invalid message."""


def pack_message(message: dict[str, Any]) -> bytes:
    """Return a message with its length."""
    content = json.dumps(message, allow_nan=False, default=Fraction.as_integer_ratio).encode("ascii")
    return len(content).to_bytes(LENGTH_BYTES, "big") + content


def require(is_valid: bool, what: str) -> None:
    """Raise ProtocolError unless what the child sent is valid."""
    if not is_valid:
        raise ProtocolError(what)


def fields(message: Any, **kinds: Any) -> tuple[Any, ...]:
    """Return the values of an object under the names given, each as ``checked`` with the type given for it."""
    require(isinstance(message, dict), "no object")
    return tuple(checked(message.get(name), kind, name) for name, kind in kinds.items())


def checked(value: Any, kind: Any, name: str = "error") -> Any:
    """Return a JSON value as ``kind``: int (of 64 bits), float (not negative), str, Fraction, a tuple or None of them.

    ``name`` is what the error calls it.
    """
    kinds = get_args(kind)
    if NoneType in kinds:
        return None if value is None else checked(value, kinds[0], name)
    if kind is Fraction:
        numerator, denominator = checked(value, tuple[int, int], name)
        require(denominator > 0, name)
        return Fraction(numerator, denominator)
    if kinds:
        require(isinstance(value, list), name)
        kinds = kinds[:1] * len(value) if ... in kinds else kinds
        require(len(value) == len(kinds), name)
        return tuple(checked(each, its_kind, name) for each, its_kind in zip(value, kinds, strict=True))
    if kind is float:
        require(type(value) in (int, float) and 0 <= value < 1e9, name)
        return float(value)
    require(type(value) is kind, name)
    in_range = -(1 << 63) <= value < 1 << 63 if kind is int else len(value) <= _MAX_TEXT and value.isprintable()
    require(in_range, name)
    return value


def facts_from_json(message: Any) -> VideoFacts:
    """Return the facts whose ``vars`` were sent."""
    facts = VideoFacts(*fields(message, **get_type_hints(VideoFacts)))
    require(facts.status in ("ok", "partial") and FLAGS.keys() >= set(facts.flags), "facts")
    require(min(facts.source_size) > 0 and (facts.source_fps is None or facts.source_fps > 0), "facts")
    require(facts.frames_decoded >= 0 and (facts.num_frames or 0) >= 0, "facts")
    return facts


def error_to_json(error: VideoError) -> list[str | None]:
    """Return ``error`` as plain JSON values."""
    return [error.code, error.message[:_MAX_TEXT], error.own_hint]


def error_from_json(message: Any) -> VideoError:
    """Return the error that ``error_to_json`` gave."""
    code, text, hint = checked(message, tuple[str, str, str | None])
    require(code in VIDEO_ERROR_CODES, "code")
    return VideoError(code, text, hint)
