"""What is known of a video: ``VideoFacts``, the ``FLAGS`` it can carry, and the ``Limits`` within which it is read.

What a video gives, wherever it is decoded: ``GridFrame`` after ``GridFrame``, and what is known of it.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from vadis.errors import UsageError, VideoError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLAGS = {
    "synthetic_timestamps": "timestamps were missing, wrong or started again; those frames follow the ones before",
    "damaged_packets": "parts of the file could not be decoded; their frames are missing",
    "damaged_frames": "the decoder patched over damage inside some frames",
    "stream_gaps": "stretches in the middle of the file are lost, scrambled or damaged; their frames are missing",
    "stream_changes": "for a stretch, only another video stream of the file has pictures; it was not read",
    "ends_early": "the file ends before the time its header declares",
    "length_ignored": "the header states a length that a file of this size cannot have; it was not believed",
    "frames_missing": "the decoder gave noticeably fewer frames than the file stores",
    "size_changes": "the picture changes its size or shape; frames are scaled, then cut or padded to the first one's",
    "pixel_aspect_ignored": "the pixel aspect ratio is not a plausible one; pixels are taken as square",
    "hdr": "high dynamic range (PQ or HLG) was converted to BT.709; what is brighter than reference white is white",
    "colours_approximated": "the colours are coded by an unusual matrix; they were converted by the nearest one",
    "several_video_streams": "the file holds more than one video stream; the best was read",
}
"""Every flag the reader sets, with its meaning."""

PARTIAL_FLAGS = frozenset({"damaged_packets", "stream_gaps", "stream_changes", "ends_early", "frames_missing"})
"""The flags that make a video ``partial``: something that the file promises could not be read."""


@dataclass(frozen=True)
class Limits:
    """How much of a video vadis is willing to read; beyond it the video is refused as ``too_large`` or ``timeout``.

    The last two hold where videos are decoded in processes of their own (``isolation``).
    """

    max_pixels: int = 8192 * 4352
    """Width times height of a coded frame: 8K (7680 × 4320), with the decoder's padding."""
    max_seconds: float = 24 * 3600.0
    """Duration."""
    max_frames: int = 24 * 3600 * 120
    """Decoded frames: a day at 120 per second."""
    max_memory_mb: int = 4096
    """Address space of the decoder's process, in units of 2**20 bytes: the 17 pictures that H.264 and HEVC may hold are
    3.5 GB where they have ``max_pixels`` and 16 bits in each of three planes, and the interpreter takes 0.2 GB. (What
    was tried in that size took 0.4 GB, VP9, to 1.3 GB, HEVC with 10 bits.)"""
    max_wait_seconds: float = 60.0
    """For which nothing comes from the decoder; see ``isolation.Patience``."""

    @classmethod
    def of_environment(cls) -> "Limits":
        """The default limits, but for those that ``LIMIT_VARIABLES`` change.

        Raises:
            UsageError: for a variable that is not a positive number.
        """
        given = {name: os.environ.get(variable) for name, variable in LIMIT_VARIABLES.items()}
        return cls(**{name: _number(name, text) for name, text in given.items() if text})

    @property
    def max_decoder_pixels(self) -> int:
        """What FFmpeg is told, as a stop to headers that lie: it counts a picture with the borders that it adds."""
        return 2 * self.max_pixels + 256 * 256

    def check_pixels(self, width: int, height: int) -> None:
        """Raise VideoError ``too_large`` for a picture beyond ``max_pixels``."""
        if width * height > self.max_pixels:
            message = f"its picture of {width} × {height} pixels is larger than the limit allows"
            raise VideoError("too_large", message, more("max_pixels"))

    def check_length(self, seconds: Fraction | None, num_frames: int | None) -> None:
        """Raise VideoError ``too_large`` for a video beyond ``max_seconds`` or ``max_frames``; None is not known."""
        if seconds is not None and seconds > self.max_seconds:
            message = f"it is longer than the {self.max_seconds / 3600:g} hours that the limit allows"
            raise VideoError("too_large", message, more("max_seconds"))
        if num_frames is not None and num_frames > self.max_frames:
            message = f"it has more than the {self.max_frames} frames that the limit allows"
            raise VideoError("too_large", message, more("max_frames"))


LIMIT_VARIABLES = {
    "max_pixels": "VADIS_MAX_PIXELS",
    "max_seconds": "VADIS_MAX_SECONDS",
    "max_frames": "VADIS_MAX_FRAMES",
    "max_memory_mb": "VADIS_MAX_MEMORY_MB",
    "max_wait_seconds": "VADIS_MAX_WAIT_SECONDS",
}
"""The environment variable that changes each of the ``Limits``."""


def more(limit: str) -> str:
    """The hint that goes with a video beyond this limit."""
    return f"{LIMIT_VARIABLES[limit]} allows more"


def _number(name: str, text: str) -> Any:
    kind = type(getattr(Limits, name))
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        hint = f"unset it for {getattr(Limits, name)}"
        raise UsageError(f"{LIMIT_VARIABLES[name]} is to be a positive number, not {text!r}", hint)
    return value


PATIENCE_VARIABLE = "VADIS_NETWORK_PATIENCE"


def network_patience() -> float:
    """By how much longer than by default hosts are waited for: a factor, from the environment.

    Raises:
        UsageError: for a variable that is not a positive number.
    """
    text = os.environ.get(PATIENCE_VARIABLE) or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = 0
    if not 0 < factor < math.inf:
        raise UsageError(f"{PATIENCE_VARIABLE} is to be a positive number, not {text!r}", "unset it for 1")
    return factor


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video; the counts are final once all of its frames have been read.

    Attributes:
        source_fps: mean frames per second by the header, None where it states none.
        source_size: (width, height) of the coded picture, turned upright.
        rotation: degrees counter-clockwise by which the coded frames are turned to stand upright.
        duration_seconds: until the end of the last frame; what the header declares (or None) until all is read.
        frames_declared: frames that the header says will be shown, None where it does not say. Not always exact:
            AVI files count their dropped frames, and one too many where B-frames are packed.
        frames_decoded: frames decoded so far.
        num_frames: frames on the 25 fps grid, None until all is read.
        status: ``ok``, or ``partial`` when something the file promises is missing (see ``PARTIAL_FLAGS``).
        flags: keys of ``FLAGS``, in that table's order.
        first_seconds: when the first frame is shown, counted as players do: from the start of the file, which is that
            of its sound where that begins earlier.
    """

    source_fps: Fraction | None
    source_size: tuple[int, int]
    rotation: int
    duration_seconds: float | None
    frames_declared: int | None
    frames_decoded: int
    num_frames: int | None
    status: str
    flags: tuple[str, ...]
    first_seconds: float = 0.0


Picture: TypeAlias = "NDArray[np.uint8]"  # (H, W, 3), RGB; or (H, W), grey


MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name for MP4 and QuickTime."""

SHORT_SIDE = 256
"""Pixels (paper, section 2.5: the smaller side is resized to 256)."""

LONGEST_SIDE = 16 * SHORT_SIDE
"""Pixels; a picture more than 16 times as long as it is wide is no picture of an action."""


class GridFrame(NamedTuple):
    """A frame of the grid: uint8 RGB (H, W, 3) or grey (H, W), and its time in seconds after the first.

    Where the source is slower than 25 fps, neighbours share one array: do not write into it.
    """

    pixels: Picture
    seconds: float


class SourceFrame(NamedTuple):
    """A frame as the file has it: uint8 RGB (H, W, 3), upright; its time after the first, and how long it is shown.

    ``zero_seconds`` is what stands for time 0 by the clock that sound and pictures share, which may start again on the
    way; None where there is none.
    """

    pixels: Picture
    seconds: Fraction
    duration_seconds: Fraction
    zero_seconds: Fraction | None


class OpenVideo(Protocol):
    """A video that is open for reading, once: decoded in this process (``reader``) or in a child (``isolation``)."""

    @property
    def facts(self) -> VideoFacts:
        """What is known by now; final once the frames have all been read."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of every grid frame."""
        ...

    @property
    def expected_num_frames(self) -> int | None:
        """How many grid frames the header promises, None where it does not."""
        ...

    def __iter__(self) -> Iterator[GridFrame]:
        """The frames of the grid, in order of time."""
        ...
