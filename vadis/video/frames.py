"""What a video gives, wherever it is decoded: ``GridFrame`` after ``GridFrame``, and what is known of it."""

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vadis.video.facts import VideoFacts

Picture = NDArray[np.uint8]  # (H, W, 3), RGB; or (H, W), grey


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
