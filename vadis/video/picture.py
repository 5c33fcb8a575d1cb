"""From a decoded frame to an upright RGB picture whose short side has 256 pixels: one swscale step and a turn."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import cast

import av
import numpy as np
from av.buffer import Buffer
from av.video.reformatter import VideoReformatter

from vadis.errors import VideoError
from vadis.video.confinement import memory_refusal
from vadis.video.frames import LONGEST_SIDE, SHORT_SIDE, Picture

_LARGEST_ASPECT = Fraction(4)  # of a pixel; the widest in use, anamorphic DV and DVD, are below 1.5, stacked 3D at 2

# Flags of FFmpeg's libswscale/swscale.h: SWS_BILINEAR, whose filter widens where pictures become smaller, so that
# nothing aliases; SWS_ACCURATE_RND and SWS_BITEXACT, with which every processor gives the same result.
_SCALER = 0x2 | 0x40000 | 0x80000


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

    Colours follow each frame's matrix (BT.601, BT.709, BT.2020) and range (limited or full); where it states no
    matrix, BT.601. More than 8 bits are reduced to 8; alpha is dropped, high dynamic range is not mapped, and
    interlaced frames are taken as they are.

    Args:
        first: the first frame; its display matrix turns all of them.
        aspect: sample aspect ratio (width of a pixel by its height), None where unknown.

    Attributes:
        size: (width, height) of the pictures, upright.
        source_size: (width, height) as coded, turned upright.
        rotation: degrees counter-clockwise from the coded to the upright picture.
        aspect_ignored: the aspect ratio is not plausible and pixels are taken as square.
        size_changes: a frame of another size than the first has been seen.

    Raises:
        VideoError: ``too_large``, for a picture of extreme proportions.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None) -> None:
        aspect = aspect or Fraction(1)
        self.aspect_ignored = not 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT
        self.size_changes = False
        self.rotation = first.rotation
        self._turn = orientation(first)
        self._coded = (first.width, first.height)
        self._scaled = self._wanted_size(*self._coded, Fraction(1) if self.aspect_ignored else aspect)
        self.source_size, self.size = self._turn.size(*self._coded), self._turn.size(*self._scaled)
        self._reformatter = VideoReformatter()  # keeps its filter tables from frame to frame

    @staticmethod
    def _wanted_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
        return scaled_size(width, height, aspect)

    def picture(self, frame: av.VideoFrame) -> Picture:
        """The frame as uint8 RGB (H, W, 3), upright.

        Raises:
            VideoError: ``decode_failed``, swscale cannot convert its pixels.
        """
        self.size_changes |= (frame.width, frame.height) != self._coded
        width, height = self._scaled
        try:
            scaled = self._reformatter.reformat(frame, width, height, format="rgb24", interpolation=_SCALER, threads=1)
        except Exception as error:  # PyAV raises whatever FFmpeg's code maps to
            message = f"pixels of the format {frame.format.name} cannot be converted"
            raise memory_refusal(error) or VideoError("decode_failed", message) from error
        return self._turn.apply(np.asarray(scaled.to_ndarray(), dtype=np.uint8))


class FullSize(Scaler):
    """As ``Scaler``, with the pixels that are coded, square or not."""

    @staticmethod
    def _wanted_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
        return width, height


class GrayPlane:
    """Gives the luminance of decoded frames as it is coded; stands where a ``Scaler`` does, and tells the same.

    Raises:
        VideoError: ``decode_failed``, where frames have no plane of 8 bits for it.
    """

    aspect_ignored = False
    rotation = 0

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None) -> None:
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
