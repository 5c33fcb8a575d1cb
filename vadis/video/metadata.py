"""What is known of a video and what it gives, wherever it is decoded; the limits within which it is read."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

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
    """How much of a video vadis is willing to read; beyond it the video is refused as ``too_large`` or ``timeout``."""

    max_pixels: int = 8192 * 4352  # width times height of a coded frame: 8K (7680 × 4320), with the decoder's padding
    max_seconds: float = 24 * 3600.0  # duration
    max_frames: int = 24 * 3600 * 120  # decoded ones: a day at 120 per second
    # Address space of the decoder's process, in units of 2**20 bytes: the 17 pictures that H.264 and HEVC may hold are
    # 3.5 GB where they have ``max_pixels`` and 16 bits in each of three planes, and the interpreter takes 0.2 GB. (What
    # was tried in that size took 0.4 GB, VP9, to 1.3 GB, HEVC with 10 bits.)
    max_memory_mb: int = 4096
    max_wait_seconds: float = 60.0  # for a byte from the decoder's process; see ``isolated.process.Watchdog``

    @classmethod
    def of_environment(cls) -> "Limits":
        """Return the default limits, but for those that ``LIMIT_VARIABLES`` change; raises UsageError."""
        return cls(**{name: _positive(variable, getattr(cls, name)) for name, variable in LIMIT_VARIABLES.items()})

    @property
    def max_decoder_pixels(self) -> int:
        """The limit for FFmpeg, as a stop to headers that lie: it counts a picture with the borders that it adds."""
        return 2 * self.max_pixels + 256 * 256

    def check_pixels(self, width: int, height: int) -> None:
        """Raise VideoError ``too_large`` for a picture beyond ``max_pixels``."""
        if width * height > self.max_pixels:
            message = f"its picture of {width} × {height} pixels is larger than the limit allows"
            raise VideoError("too_large", message, more("max_pixels"))

    def check_length(self, seconds: Fraction = Fraction(0), num_frames: int = 0) -> None:
        """Raise VideoError ``too_large`` for a video beyond ``max_seconds`` or ``max_frames``."""
        if seconds > self.max_seconds:
            message = f"it is longer than the {self.max_seconds / 3600:g} hours that the limit allows"
            raise VideoError("too_large", message, more("max_seconds"))
        if num_frames > self.max_frames:
            message = f"it has more than the {self.max_frames} frames that the limit allows"
            raise VideoError("too_large", message, more("max_frames"))


# The environment variables that change these: VADIS_MAX_PIXELS, …_SECONDS, …_FRAMES, …_MEMORY_MB, …_WAIT_SECONDS
LIMIT_VARIABLES = {each.name: f"VADIS_{each.name.upper()}" for each in fields(Limits)}


def more(limit: str) -> str:
    """Return the hint that goes with a video beyond this limit."""
    return f"{LIMIT_VARIABLES[limit]} allows more"


def network_patience() -> float:
    """Return by how much longer than by default hosts are waited for: a factor, from the environment."""
    return float(_positive("VADIS_NETWORK_PATIENCE", 1.0))


def _positive(variable: str, default: float) -> Any:
    text = os.environ.get(variable) or str(default)
    with suppress(ValueError):
        if 0 < (value := type(default)(text)) < math.inf:
            return value
    raise UsageError(f"{variable} must be a positive number, not {text!r}", f"unset it for {default}")


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video; the counts are final once all of its frames have been read."""

    source_fps: Fraction | None  # mean frames per second by the header, None where it states none
    source_size: tuple[int, int]  # (width, height) of the coded picture, turned upright
    rotation: int  # degrees counter-clockwise by which the coded frames are turned to stand upright
    duration_seconds: float | None  # to the end of the last frame; until all is read, what the header declares
    # That the header says will be shown. AVI files count their dropped frames, and one too many with packed B-frames.
    frames_declared: int | None
    frames_decoded: int  # so far
    num_frames: int | None  # on the 25 fps grid, None until all is read
    status: str  # ``ok``, or ``partial`` when something the file promises is missing (see ``PARTIAL_FLAGS``)
    flags: tuple[str, ...]  # keys of ``FLAGS``, in that table's order
    # When the first frame is shown, as players count: from the file's start, which is that of a sound that is earlier.
    first_seconds: float = 0.0


AnyPath = str | os.PathLike[str]
Picture: TypeAlias = "NDArray[np.uint8]"  # (H, W, 3), RGB; or (H, W), grey

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name for MP4 and QuickTime."""

SHORT_SIDE = 256
"""Pixels (paper, section 2.5: the smaller side is resized to 256)."""

LONGEST_SIDE = 16 * SHORT_SIDE  # more than 16 times as long as it is wide, it is no picture of an action


class GridFrame(NamedTuple):
    """A frame of the grid, seconds after the first. Neighbours may share one array: do not write into it."""

    pixels: Picture
    seconds: float


class SourceFrame(NamedTuple):
    """A frame as the file has it."""

    pixels: Picture  # upright RGB
    seconds: Fraction  # after the first
    duration_seconds: Fraction
    zero_seconds: Fraction | None  # that stand for time 0 by the clock of sound and pictures, which may start again
