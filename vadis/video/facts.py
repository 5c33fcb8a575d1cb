"""What is known of a video: ``VideoFacts``, the ``FLAGS`` it can carry, and the ``Limits`` within which it is read."""

from dataclasses import dataclass
from fractions import Fraction

from vadis.errors import VideoError

FLAGS = {
    "synthetic_timestamps": "timestamps were missing or out of order; frames follow at the nominal frame rate",
    "damaged_packets": "parts of the file could not be decoded; their frames are missing",
    "damaged_frames": "the decoder patched over damage inside some frames",
    "ends_early": "the file ends before the time its header declares",
    "frames_missing": "the decoder gave noticeably fewer frames than the file stores",
    "size_changes": "the picture size changes on the way; every frame is scaled to the size of the first",
    "pixel_aspect_ignored": "the pixel aspect ratio is not a plausible one; pixels are taken as square",
    "several_video_streams": "the file holds more than one video stream; the best was read",
}
"""Every flag the reader sets, with its meaning."""

PARTIAL_FLAGS = frozenset({"damaged_packets", "ends_early", "frames_missing"})
"""The flags that make a video ``partial``: something that the file promises could not be read."""


@dataclass(frozen=True)
class Limits:
    """How much of a video vadis is willing to read; beyond it the video is refused as ``too_large``."""

    max_pixels: int = 8192 * 4352
    """Width times height of a coded frame: 8K (7680 × 4320), with the decoder's padding."""
    max_seconds: float = 24 * 3600.0
    """Duration."""
    max_frames: int = 24 * 3600 * 120
    """Decoded frames: a day at 120 per second."""

    @property
    def max_decoder_pixels(self) -> int:
        """What FFmpeg is told, as a stop to headers that lie: it counts a picture with the borders that it adds."""
        return 2 * self.max_pixels + 256 * 256

    def check_pixels(self, width: int, height: int) -> None:
        """Raise VideoError ``too_large`` for a picture beyond ``max_pixels``."""
        if width * height > self.max_pixels:
            raise VideoError("too_large", f"its picture of {width} × {height} pixels is larger than the limit allows")

    def check_length(self, seconds: Fraction | None, num_frames: int | None) -> None:
        """Raise VideoError ``too_large`` for a video beyond ``max_seconds`` or ``max_frames``; None is not known."""
        if seconds is not None and seconds > self.max_seconds:
            hours = self.max_seconds / 3600
            raise VideoError("too_large", f"it is longer than the {hours:g} hours that the limit allows")
        if num_frames is not None and num_frames > self.max_frames:
            raise VideoError("too_large", f"it has more than the {self.max_frames} frames that the limit allows")


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
