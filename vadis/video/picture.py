"""From a decoded frame to an upright RGB picture whose short side has 256 pixels: cut, scaled, and turned.

The shape of pixels where it changes on the way.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, cast

import av
import numpy as np
from av.buffer import Buffer

from vadis.errors import VideoError
from vadis.video.colour import ColourConverter, Colours, written_colours
from vadis.video.cropping import Crop, Cropper
from vadis.video.metadata import LONGEST_SIDE, SHORT_SIDE, Picture

_LARGEST_ASPECT = Fraction(4)  # of a pixel; the widest in use, anamorphic DV and DVD, are below 1.5, stacked 3D at 2
_SAME_SHARE = Fraction(1, 100)  # of a side: sizes that differ by less come from rounding, and are made equal


@dataclass(frozen=True)
class Orientation:
    """How coded frames have to be turned to stand upright: transposed first, then mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @staticmethod
    def from_matrix(matrix: bytes) -> "Orientation":
        """By a display matrix (FFmpeg's libavutil/display.h): x' = a x + c y, y' = b x + d y; the nearest right angle.

        Args:
            matrix: nine native 32-bit integers a, b, u, c, d, v, x, y, w.
        """
        a, b, _, c, d, _, _, _, _ = struct.unpack("=9i", matrix[:36])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return Orientation(False, a < 0, d < 0)
        return Orientation(True, c < 0, b < 0)

    @staticmethod
    def from_rotation(degrees: int) -> "Orientation":
        """By an angle counter-clockwise, the nearest right angle."""
        return (
            Orientation(),
            Orientation(transposed=True, mirrored_y=True),
            Orientation(mirrored_x=True, mirrored_y=True),
            Orientation(transposed=True, mirrored_x=True),
        )[round(degrees / 90) % 4]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The upright (width, height) of a coded picture."""
        return (height, width) if self.transposed else (width, height)

    def apply(self, picture: Picture) -> Picture:
        """``picture`` upright; contiguous, copied only where it has to be turned."""
        if self.transposed:
            picture = picture.transpose(1, 0, 2)  # (H, W, 3) -> (W, H, 3)
        step_y, step_x = (-1 if self.mirrored_y else 1), (-1 if self.mirrored_x else 1)
        return np.ascontiguousarray(picture[::step_y, ::step_x])


def orientation(frame: av.VideoFrame) -> Orientation:
    """By the frame's display matrix; upright where it has none."""
    try:
        matrix = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # PyAV refuses to list kinds of side data that it does not know; mirroring is lost then
        return Orientation.from_rotation(frame.rotation)
    return Orientation() if matrix is None else Orientation.from_matrix(bytes(matrix))


def scaled_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """(width, height) with square pixels, the short side 256 and the long side rounded half up.

    Raises:
        VideoError: ``too_large``, the long side would exceed ``LONGEST_SIDE``.
    """
    shown = width * aspect
    proportion = max(shown / height, height / shown)
    long = floor(proportion * SHORT_SIDE + Fraction(1, 2))
    if long > LONGEST_SIDE:
        message = f"its picture of {width} × {height} pixels is more than 16 times as long as wide"
        raise VideoError("too_large", message, "no limit allows more: crop it first")
    return (long, SHORT_SIDE) if shown >= height else (SHORT_SIDE, long)


class Scaler:
    """Turns decoded frames into pictures, all of one size: that which suits the first.

    Colours follow each frame's matrix, range and transfer function; where it states no matrix, BT.601 is taken
    (``vadis.video.colour``). Alpha is dropped, and interlaced frames are taken as they are. A later frame of other
    proportions keeps them: it is scaled as if it were the first, and then cut or padded with black around its centre.

    Args:
        first: the first frame; its display matrix turns all of them.
        aspect: sample aspect ratio (width of a pixel by its height), None where unknown.
        crop: what the container says of borders that are not to be shown.

    Attributes:
        size: (width, height) of the pictures, upright.
        source_size: (width, height) as coded, without the borders that are cut off, turned upright.
        rotation: degrees counter-clockwise from the coded to the upright picture.
        pixel_aspect: width of a coded pixel by its height; 1 where it is unknown or not plausible.
        colours: those in which to write the pictures so that they look like the source, None for no statement.
        aspect_ignored: an aspect ratio is not plausible and pixels are taken as square.
        size_changes: a frame of another size or aspect ratio than the first has been seen.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None, crop: Crop | None = None) -> None:
        self.aspect_ignored = self.size_changes = False
        self.rotation = first.rotation
        self.colours: Colours | None = written_colours(first)
        self._aspect = aspect
        self.pixel_aspect = self._plausible(cast(Fraction | None, first.opaque) or aspect)
        self._cropper = Cropper(crop)
        self._turn = orientation(first)
        first = self._cropper.crop(first)
        self._coded = (first.width, first.height)
        self._scaled = self._first_size()
        self._sizes = {(*self._coded, first.opaque): self._scaled}
        self.source_size, self.size = self._turn.size(*self._coded), self._turn.size(*self._scaled)
        self._converter = ColourConverter()

    @property
    def is_hdr(self) -> bool:
        """Whether a frame of high dynamic range has been converted."""
        return self._converter.is_hdr

    @property
    def colours_approximated(self) -> bool:
        """Whether a frame's matrix was replaced by another."""
        return self._converter.is_approximated

    def picture(self, frame: av.VideoFrame) -> Picture:
        """The frame as uint8 RGB (H, W, 3), upright; its ``opaque`` is its sample aspect ratio, None for that of all.

        Raises:
            VideoError: ``decode_failed``, swscale cannot convert its pixels.
        """
        frame = self._cropper.crop(frame)
        key = (frame.width, frame.height, frame.opaque)
        if key not in self._sizes:
            self.size_changes = True
            aspect = self._plausible(cast(Fraction | None, frame.opaque) or self._aspect)
            self._sizes[key] = self._later_size(frame.width, frame.height, aspect)
        pixels = self._converter.convert(frame, *self._sizes[key])
        return self._turn.apply(centred(pixels, *self._scaled))

    def _plausible(self, aspect: Fraction | None) -> Fraction:
        aspect = aspect or Fraction(1)
        is_plausible = 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT
        self.aspect_ignored |= not is_plausible
        return aspect if is_plausible else Fraction(1)

    def _first_size(self) -> tuple[int, int]:
        """The (width, height) to which the first frame is scaled."""
        return scaled_size(*self._coded, self.pixel_aspect)

    def _later_size(self, width: int, height: int, aspect: Fraction) -> tuple[int, int]:
        """The (width, height) to which a frame is scaled that is not like the first."""
        try:
            size = scaled_size(width, height, aspect)
        except VideoError:  # of extreme proportions
            return self._scaled
        return self._scaled if _nearly_equal(size, self._scaled) else size


class FullSize(Scaler):
    """As ``Scaler``, with the pixels that are coded, square or not; later frames lie within the first one's picture."""

    def _first_size(self) -> tuple[int, int]:
        return self._coded

    def _later_size(self, width: int, height: int, aspect: Fraction) -> tuple[int, int]:
        shown = width * aspect / self.pixel_aspect  # in pixels of the first frame
        scale = min(self._coded[0] / shown, Fraction(self._coded[1], height))
        size = max(1, round(shown * scale)), max(1, round(height * scale))
        return self._coded if _nearly_equal(size, self._coded) else size


def centred(picture: Picture, width: int, height: int) -> Picture:
    """``picture`` (H, W, 3) cut, or padded with black, around its centre to this size."""
    if picture.shape[:2] == (height, width):
        return picture
    whole = np.zeros((height, width, 3), np.uint8)
    rows, columns = min(height, picture.shape[0]), min(width, picture.shape[1])
    target = whole[(height - rows) // 2 :, (width - columns) // 2 :][:rows, :columns]
    target[:] = picture[(picture.shape[0] - rows) // 2 :, (picture.shape[1] - columns) // 2 :][:rows, :columns]
    return whole


def _nearly_equal(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return all(abs(one - two) <= two * _SAME_SHARE for one, two in zip(size, other, strict=True))


class GrayPlane:
    """Gives the luminance of decoded frames as it is coded; stands where a ``Scaler`` does, and tells the same.

    Raises:
        VideoError: ``decode_failed``, where frames have no plane of 8 bits for it.
    """

    aspect_ignored = is_hdr = colours_approximated = False
    rotation = 0
    pixel_aspect = Fraction(1)
    colours: Colours | None = None

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None, crop: Crop | None = None) -> None:
        self.size_changes = False
        self.size = self.source_size = (first.width, first.height)
        if first.format.name not in _WITH_LUMINANCE:
            raise VideoError("decode_failed", f"pixels of the format {first.format.name} have no plane of luminance")

    def picture(self, frame: av.VideoFrame) -> Picture:
        """The frame as uint8 (H, W); raises VideoError ``decode_failed`` where its size is not the first one's."""
        if (frame.width, frame.height) != self.size:
            self.size_changes = True
            raise VideoError("decode_failed", "the picture size changes on the way")
        plane = frame.planes[0]
        rows: Picture = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        picture: Picture = rows[:, : plane.width].copy()
        return picture


_WITH_LUMINANCE = ("gray", "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")


class PixelAspect:
    """Follows a sample aspect ratio that changes within a stream, where its container states none that differs.

    PyAV's frames do not tell theirs, so one that is not that of the header is noted in their ``opaque``.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._context = stream.codec_context
        self._first = self._read = self._shown = self._context.sample_aspect_ratio
        self._since: int | None = None  # timestamp of the packet that changed it; frames before it may still come
        self._is_followed = stream.sample_aspect_ratio == self._first

    def after(self, packet: "av.Packet[Any] | None") -> None:
        """Look at what the decoder says after this packet."""
        if self._is_followed and self._context.sample_aspect_ratio != self._read:
            self._read = self._context.sample_aspect_ratio
            self._since = None if packet is None else packet.pts

    def note(self, frame: av.VideoFrame) -> None:
        """Note in the next frame what is known of it."""
        if frame.pts is None or self._since is None or frame.pts >= self._since:
            self._shown = self._read
        if self._shown != self._first:
            width, height = (self._shown or Fraction(1)).as_integer_ratio()
            frame.opaque = Fraction(width, height)  # a new object for each: PyAV forgets one that two frames share
