"""Colour to grey, as OpenCV's ``RGB2GRAY`` rounds it."""

import numpy as np
import numpy.typing as npt

from vadis.flow.compiling import compiled

# Rec. 601 luma (0.299, 0.587, 0.114) in units of 2^-15; together exactly 1.
RED, GREEN, BLUE = 9798, 19235, 3735
BITS = 15


def to_gray(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 RGB (T, H, W, 3) → uint8 grey (T, H, W), equal to OpenCV's.

    Raises:
        ValueError: for any other type or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"expected uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    gray = np.empty(frames.shape[:3], np.uint8)
    _to_gray(np.require(frames, requirements=["C", "W"]).reshape(-1), gray.reshape(-1))
    return gray


@compiled
def _to_gray(colours: npt.NDArray[np.uint8], gray: npt.NDArray[np.uint8]) -> None:
    half = np.int32(1 << (BITS - 1))
    for i in range(gray.size):
        red, green, blue = np.int32(colours[3 * i]), np.int32(colours[3 * i + 1]), np.int32(colours[3 * i + 2])
        gray[i] = (red * np.int32(RED) + green * np.int32(GREEN) + blue * np.int32(BLUE) + half) >> np.int32(BITS)
