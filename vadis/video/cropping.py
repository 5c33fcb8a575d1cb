"""Borders that a container says are not to be shown: Matroska's PixelCrop, QuickTime's and MP4's clean aperture.

FFmpeg reads both but leaves the cropping to its caller, and PyAV does not hand the numbers on. So FFmpeg is asked to
write the header of a Matroska file for the stream, where they stand as PixelCrop, whatever file they came from.
(Borders that H.264, HEVC and their like mark in the stream itself are cut off by the decoders.)
"""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import av

from vadis.video.metadata import MP4

_CONTAINERS = (MP4, "matroska,webm")

_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_PIXEL_CROP = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_NESTED = (_SEGMENT, _TRACKS, _TRACK, _VIDEO)
"""Elements of Matroska (RFC 9559), by their numbers."""


class Crop(NamedTuple):
    """Pixels to be cut off a coded frame."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


def container_crop(format_name: str, stream: av.VideoStream) -> Crop | None:
    """What the container says is to be cut off, None where that is nothing."""
    if format_name not in _CONTAINERS:
        return None
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
            written = header.getvalue()
    except Exception:  # noqa: BLE001 (a codec that Matroska does not take, which raises nearly anything)
        return None
    found = Crop(**{_PIXEL_CROP[element]: value for element, value in _numbers(written) if element in _PIXEL_CROP})
    return found if any(found) else None


def _numbers(content: bytes) -> Iterator[tuple[int, int]]:
    """The elements of Matroska without elements inside, in those that lead to PixelCrop, each read as a number."""
    at = 0
    while at < len(content):
        element, at = _variable(content, at, keep_marker=True)
        length, at = _variable(content, at, keep_marker=False)
        inside = content[at : at + length]  # a segment that is being written states a length beyond its end
        if element in _NESTED:
            yield from _numbers(inside)
        else:
            yield element, int.from_bytes(inside[:8], "big")
        at += length


def _variable(content: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number whose first byte says how many there are, and where it ends."""
    length = max(1, 9 - content[at].bit_length()) if at < len(content) else 1
    number = int.from_bytes(content[at : at + length], "big")
    return (number if keep_marker else number & ((1 << 7 * length) - 1)), at + length


class Cropper:
    """Cuts borders off frames; frames that they would leave nothing of stay as they are."""

    def __init__(self, crop: Crop | None) -> None:
        self._crop = crop
        self._graph: Any = None
        self._kind: tuple[int, int, str] | None = None

    def crop(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame without its borders."""
        if self._crop is None:
            return frame
        width = frame.width - self._crop.left - self._crop.right
        height = frame.height - self._crop.top - self._crop.bottom
        if width < 1 or height < 1:
            return frame
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._kind:
            self._graph, self._kind = _cropping_graph(frame, width, height, self._crop), kind
        self._graph.vpush(frame)
        return self._graph.vpull()  # type: ignore[no-any-return]


def _cropping_graph(frame: av.VideoFrame, width: int, height: int, crop: Crop) -> Any:
    graph = av.filter.Graph()
    graph.threads = 1
    time_base = frame.time_base
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    cut = graph.add("crop", f"{width}:{height}:{crop.left}:{crop.top}")
    graph.link_nodes(source, cut, graph.add("buffersink")).configure()
    return graph
