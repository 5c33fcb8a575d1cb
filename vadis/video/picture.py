"""From a decoded frame to an upright RGB picture whose short side has 256 pixels: cropped, scaled, and turned.

What codecs crop, decoders crop; what Matroska (PixelCrop) and MP4 (clean aperture) crop, FFmpeg leaves to its caller.
"""

import re
import struct
import threading
from contextlib import suppress
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any, NamedTuple, cast

import av
import av.logging
import numpy as np
from av.buffer import Buffer
from av.container import InputContainer

from vadis.errors import VideoError
from vadis.video.colour import ColourConverter, Colours, output_colours
from vadis.video.metadata import LONGEST_SIDE, SHORT_SIDE, Picture

_LARGEST_ASPECT = Fraction(4)  # of a pixel; the widest in use, anamorphic DV and DVD, are below 1.5, stacked 3D at 2
_SAME_SHARE = Fraction(1, 100)  # of a side: sizes that differ by less come from rounding, and are made equal
_WITH_LUMINANCE = ("gray", "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")

_LOGGING = threading.Lock()  # of PyAV, which is the same for all threads


def container_crop(container: InputContainer, stream: av.VideoStream) -> dict[str, int]:
    """Return the pixels that the container crops off, by side, of which PyAV has only FFmpeg's words."""
    with _LOGGING:
        av.logging.set_level(av.logging.INFO)
        try:
            words = container.dumps_format()  # type: ignore[attr-defined]
        finally:
            av.logging.set_level(None)
    own = re.split(rf"Stream #0:{stream.index}\b", words)[-1].partition("Stream #")[0]
    sides = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", own)
    return {} if sides is None else dict(zip(("left", "right", "top", "bottom"), map(int, sides.groups()), strict=True))


class Cropper:
    """Cuts pixels off the sides of frames; frames that this would leave nothing of stay as they are."""

    def __init__(self, top: int = 0, bottom: int = 0, left: int = 0, right: int = 0) -> None:
        self._place, self._width, self._height = f"{left}:{top}", left + right, top + bottom
        self._graph: Any = None
        self._kind: tuple[int, int, str] | None = None

    def crop(self, frame: av.VideoFrame) -> av.VideoFrame:
        width, height = frame.width - self._width, frame.height - self._height
        if not (self._width or self._height) or width < 1 or height < 1:
            return frame
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._kind:
            self._graph, self._kind = av.filter.Graph(), kind
            self._graph.threads = 1
            source = self._graph.add_buffer(None, *kind, time_base=frame.time_base)
            crop = self._graph.add("crop", f"{width}:{height}:{self._place}")
            self._graph.link_nodes(source, crop, self._graph.add("buffersink")).configure()
        self._graph.vpush(frame)
        return self._graph.vpull()  # type: ignore[no-any-return]


class Orientation(NamedTuple):
    """How coded frames have to be turned to stand upright: mirrored first (upside down), then turned."""

    quarters: int  # counter-clockwise
    is_mirrored: bool

    @classmethod
    def of_frame(cls, frame: av.VideoFrame) -> "Orientation":
        """Return the nearest to the frame's display matrix a, b, u, c, d, …: x' = ax + cy, y' = bx + dy."""
        a, b, _, c, d = 1, 0, 0, 0, 1
        with suppress(ValueError):  # PyAV refuses to list kinds of side data that it does not know
            if (matrix := cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))) is not None:
                a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])  # FFmpeg's libavutil/display.h
        return cls(round(frame.rotation / 90), a * d < b * c)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the upright (width, height) of a coded picture."""
        return (height, width) if self.quarters % 2 else (width, height)

    def apply(self, picture: Picture) -> Picture:
        """Return ``picture`` (H, W, 3) upright; contiguous, copied only where it has to be turned."""
        return np.ascontiguousarray(np.rot90(picture[::-1] if self.is_mirrored else picture, self.quarters))


def scaled_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the (width, height) with square pixels, the short side 256 and the long side rounded half up.

    Raises VideoError ``too_large`` where the long side would exceed ``LONGEST_SIDE``.
    """
    shown = width * aspect
    long = floor(max(shown / height, height / shown) * SHORT_SIDE + Fraction(1, 2))
    if long > LONGEST_SIDE:
        message = f"its picture of {width} × {height} pixels is more than 16 times as long as wide"
        raise VideoError("too_large", message, "no limit allows more: crop it first")
    return (long, SHORT_SIDE) if shown >= height else (SHORT_SIDE, long)


class Scaler:
    """Turns decoded frames into pictures, all of the size that suits the first, whose display matrix turns all of them.

    A later frame of other proportions keeps them: it is scaled as if it were the first, and then cut or padded with
    black around its centre. ``aspect`` is the width of a coded pixel by its height, None where unknown; ``size`` a key
    of ``SCALERS``.

    Attributes:
        size, source_size: (width, height) of the pictures, and as coded, cropped and upright.
        rotation: degrees counter-clockwise from the coded to the upright picture.
        pixel_aspect: as ``aspect``; 1 where that is unknown or not plausible.
        flags: those of ``metadata.FLAGS`` that concern pictures.
    """

    def __init__(
        self, first: av.VideoFrame, aspect: Fraction | None, crop: dict[str, int] | None = None, size: str = "short256"
    ) -> None:
        self.flags, self._kind = set[str](), size
        self.rotation = first.rotation
        self.colours: Colours | None = output_colours(first)
        self._aspect = aspect
        self.pixel_aspect = self._plausible_aspect(first)
        self._cropper, self._converter = Cropper(**crop or {}), ColourConverter(self.flags)
        self._orientation = Orientation.of_frame(first)
        first = self._cropper.crop(first)
        self._coded = (first.width, first.height)
        self._scaled = self._size_of(*self._coded, self.pixel_aspect, is_first=True)
        self._sizes = {(*self._coded, first.opaque): self._scaled}
        self.source_size, self.size = self._orientation.size(*self._coded), self._orientation.size(*self._scaled)

    def picture(self, frame: av.VideoFrame) -> Picture:
        """Return a frame, whose ``opaque`` may be an aspect ratio of its own, as uint8 RGB (H, W, 3), upright."""
        frame = self._cropper.crop(frame)
        key = (frame.width, frame.height, frame.opaque)
        if key not in self._sizes:
            self.flags.add("size_changes")
            size = self._size_of(frame.width, frame.height, self._plausible_aspect(frame), is_first=False)
            is_same = all(abs(one - two) <= two * _SAME_SHARE for one, two in zip(size, self._scaled, strict=True))
            self._sizes[key] = self._scaled if is_same else size
        pixels = self._converter.convert(frame, *self._sizes[key])
        return self._orientation.apply(_centre(pixels, *self._scaled))

    def _plausible_aspect(self, frame: av.VideoFrame) -> Fraction:
        aspect = cast(Fraction | None, frame.opaque) or self._aspect or Fraction(1)
        if 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT:
            return aspect
        self.flags.add("pixel_aspect_ignored")
        return Fraction(1)

    def _size_of(self, width: int, height: int, aspect: Fraction, *, is_first: bool) -> tuple[int, int]:
        """Return the (width, height) of the picture of a frame; later ones keep their own proportions."""
        if self._kind == "square224":
            return 224, 224  # what the networks see (``vadis.preprocessing.CROP``)
        if self._kind == "full":  # the pixels that are coded, square or not; later frames lie within the first one's
            shown = width * aspect / self.pixel_aspect  # in pixels of the first frame
            scale = min(self._coded[0] / shown, Fraction(self._coded[1], height))
            return max(1, round(shown * scale)), max(1, round(height * scale))
        try:
            return scaled_size(width, height, aspect)
        except VideoError:
            if is_first:
                raise
            return self._scaled  # of extreme proportions


SCALERS = {size: partial(Scaler, size=size) for size in ("full", "short256", "square224")}
"""What sizes pictures can have: as coded, the short side 256 pixels long, or 224×224."""


def _centre(picture: Picture, width: int, height: int) -> Picture:
    """Return ``picture`` (H, W, 3) cut, or padded with black, around its centre to this size."""
    if picture.shape[:2] == (height, width):
        return picture
    whole = np.zeros((height, width, 3), np.uint8)
    rows, columns = min(height, picture.shape[0]), min(width, picture.shape[1])
    target = whole[(height - rows) // 2 :, (width - columns) // 2 :][:rows, :columns]
    target[:] = picture[(picture.shape[0] - rows) // 2 :, (picture.shape[1] - columns) // 2 :][:rows, :columns]
    return whole


class GrayPlane:
    """Takes the luminance of decoded frames as it is coded; in place of a ``Scaler``, with its attributes."""

    flags: frozenset[str] = frozenset()
    rotation = 0
    pixel_aspect = Fraction(1)
    colours: Colours | None = None

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None, crop: dict[str, int] | None = None) -> None:
        self.size = self.source_size = (first.width, first.height)
        if first.format.name not in _WITH_LUMINANCE:
            raise VideoError("decode_failed", f"pixels of the format {first.format.name} have no plane of luminance")

    def picture(self, frame: av.VideoFrame) -> Picture:
        """Return the frame as uint8 (H, W); raise VideoError where its size is not the first one's."""
        if (frame.width, frame.height) != self.size:
            raise VideoError("decode_failed", "the picture size changes on the way")
        plane = frame.planes[0]
        rows: Picture = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        return np.array(rows[:, : plane.width])


class PixelAspect:
    """Follows a sample aspect ratio that changes within a stream, and puts it into the ``opaque`` of PyAV's frames."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._context = stream.codec_context
        self._first = self._latest = self._shown = self._context.sample_aspect_ratio
        self._since: int | None = None  # timestamp of the packet that changed it; frames before it may still come
        self._is_followed = stream.sample_aspect_ratio == self._first

    def mark(self, frames: list[av.VideoFrame], packet: "av.Packet[Any] | None") -> None:
        """Put the aspect ratio of the frames that came out after this packet into them."""
        if self._is_followed and self._context.sample_aspect_ratio != self._latest:
            self._latest = self._context.sample_aspect_ratio
            self._since = None if packet is None else packet.pts
        for frame in frames:
            if frame.pts is None or self._since is None or frame.pts >= self._since:
                self._shown = self._latest
            if self._shown != self._first:
                width, height = (self._shown or Fraction(1)).as_integer_ratio()
                frame.opaque = Fraction(width, height)  # a new object for each: PyAV forgets one that two frames share
