"""What TV-L1 filters with wherever it is computed: grey, the scales of an image, a network of medians, bicubic taps."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vadis.flow.numba_cache import compiled, inlined

Image = npt.NDArray[np.float32]

# Rec. 601 luma (0.299, 0.587, 0.114) in units of 2^-15; together exactly 1.
RED, GREEN, BLUE = 9798, 19235, 3735
LUMA_BITS = 15


@compiled
def fill_gray(colours: npt.NDArray[np.uint8], gray: npt.NDArray[np.uint8]) -> None:
    """Fill ``gray``, as OpenCV's ``RGB2GRAY`` does, from as many times three colours."""
    half = np.int32(1 << (LUMA_BITS - 1))
    for i in range(gray.size):
        red, green, blue = np.int32(colours[3 * i]), np.int32(colours[3 * i + 1]), np.int32(colours[3 * i + 2])
        gray[i] = (red * np.int32(RED) + green * np.int32(GREEN) + blue * np.int32(BLUE) + half) >> np.int32(LUMA_BITS)


SCALES = 5
SCALE_STEP = 0.8
MIN_SIDE = 16  # px; a scale with a shorter side is left out, unless it is the first


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (H, W) of every scale, the finest first. Sides are rounded to the nearest, halves to even."""
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

    Steps are in source pixels per target pixel; pixel centres lie at halves. ``beyond`` is the weight with which a
    position beyond the last pixel takes the difference to its left neighbour: OpenCV's is 0 when it enlarges, else 1.
    """
    height, width = source.shape
    left, right = np.empty(target.shape[1], np.intp), np.empty(target.shape[1], np.intp)
    weight = np.empty(target.shape[1], np.float32)
    for x in range(target.shape[1]):
        left[x], right[x], weight[x] = neighbours(x, step_x, width, beyond)
    for y in range(target.shape[0]):
        above, below, down = neighbours(y, step_y, height, beyond)
        for x in range(target.shape[1]):
            a = _interpolate(source[above, left[x]], source[above, right[x]], weight[x])
            b = _interpolate(source[below, left[x]], source[below, right[x]], weight[x])
            target[y, x] = _interpolate(a, b, down)


@inlined
def _interpolate(a: np.float32, b: np.float32, weight: np.float32) -> Any:
    """Return a + (b - a) · weight, the product not rounded (it is exact in float64)."""
    return np.float32(np.float64(a) + np.float64(np.float32(b - a)) * np.float64(weight))


@inlined
def neighbours(index: int, step: float, size: int, beyond: float) -> tuple[int, int, np.float32]:
    """Return the two source pixels around a target pixel, and the second's weight."""
    position = (index + 0.5) * step - 0.5
    first = int(np.floor(position))
    if first < 0:
        return 0, 0, np.float32(0)
    if first >= size - 1:
        return max(size - 2, 0) if beyond else size - 1, size - 1, np.float32(beyond)
    return first, first + 1, np.float32(position - first)


SIZE = 5  # px, side of the medians

# A pair (a, b) puts the smaller of two numbers at place a and the larger at place b.
SORT_FIVE = ((0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (0, 2), (1, 4), (1, 3), (1, 2))

# Finds the median of five sorted columns (place 5·column + row); found by removing from a sorting network whatever the
# 6^5 sorted columns of zeros and ones do not need, which by the zero-one principle proves it for all numbers.
MEDIAN_PLACE = 8
MEDIAN = (
    (0, 5), (15, 20), (10, 15), (0, 15), (5, 20), (5, 15), (1, 6), (16, 21), (11, 21), (11, 16),
    (1, 16), (6, 21), (6, 11), (2, 7), (17, 22), (12, 22), (12, 17), (2, 17), (2, 12), (7, 22),
    (7, 17), (7, 12), (3, 8), (18, 23), (13, 18), (3, 18), (3, 13), (8, 23), (8, 18), (4, 9),
    (19, 24), (14, 24), (4, 19), (4, 14), (9, 19), (9, 14), (3, 7), (17, 11), (8, 13), (4, 12),
    (16, 8), (9, 13), (4, 20), (12, 21), (7, 17), (9, 8), (12, 20), (17, 16), (11, 9), (20, 15),
    (11, 16), (12, 20), (21, 15), (11, 21), (16, 4), (9, 12), (8, 20), (11, 9), (8, 4), (9, 8),
)  # fmt: skip

TAPS = 4  # of bicubic sampling, as OpenCV 5's ``remap``
BORDER = 4  # px of zeros around the image: the four taps of a position outside are all zero
SHARPNESS = np.float32(-0.75)  # the cubic kernel's slope at distance 1; OpenCV's choice
