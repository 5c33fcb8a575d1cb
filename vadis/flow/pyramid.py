"""Images at five scales: bilinear resizing as OpenCV's ``resize`` does it, and central differences.

Colour to grey, as OpenCV's ``RGB2GRAY`` rounds it.
"""

import numpy as np
import numpy.typing as npt

from vadis.flow.numba_cache import compiled, inlined

SCALES = 5
SCALE_STEP = 0.8
MIN_SIDE = 16  # px; a scale with a shorter side is left out, unless it is the first

Image = npt.NDArray[np.float32]


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """(H, W) of every scale, the finest first. Sides are rounded to the nearest, halves to even."""
    shapes = [(height, width)]
    while len(shapes) < SCALES:
        height, width = round(height * SCALE_STEP), round(width * SCALE_STEP)
        if min(height, width) < MIN_SIDE:
            break
        shapes.append((height, width))
    return shapes


@inlined
def resize(source: Image, target: Image, step_y: float, step_x: float, beyond: float) -> None:
    """Sample ``source`` (H, W) bilinearly on the grid of ``target``; borders are replicated.

    Steps are in source pixels per target pixel; pixel centres lie at halves. ``beyond`` is the weight (0 or 1) with
    which a position beyond the last pixel takes the difference to its left neighbour: OpenCV takes the last pixel
    itself (0) when it enlarges, and the neighbour plus the whole difference (1) when it shrinks.
    """
    height, width = source.shape
    left = np.empty(target.shape[1], np.intp)
    right = np.empty(target.shape[1], np.intp)
    weight = np.empty(target.shape[1], np.float32)
    for x in range(target.shape[1]):
        left[x], right[x], weight[x] = _neighbours(x, step_x, width, beyond)
    for y in range(target.shape[0]):
        above, below, down = _neighbours(y, step_y, height, beyond)
        for x in range(target.shape[1]):
            a = _between(source[above, left[x]], source[above, right[x]], weight[x])
            b = _between(source[below, left[x]], source[below, right[x]], weight[x])
            target[y, x] = _between(a, b, down)


@inlined
def _between(a: np.float32, b: np.float32, weight: np.float32) -> np.float32:
    """a + (b - a) · weight, the product not rounded (it is exact in float64)."""
    between: np.float32 = np.float32(np.float64(a) + np.float64(np.float32(b - a)) * np.float64(weight))
    return between


@inlined
def _neighbours(index: int, step: float, size: int, beyond: float) -> tuple[int, int, np.float32]:
    """The two source pixels around a target pixel, and the weight of the second."""
    position = (index + 0.5) * step - 0.5
    first = int(np.floor(position))
    if first < 0:
        return 0, 0, np.float32(0)
    if first >= size - 1:
        return max(size - 2, 0) if beyond else size - 1, size - 1, np.float32(beyond)
    return first, first + 1, np.float32(position - first)


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
