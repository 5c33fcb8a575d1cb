"""The image operations of TV-L1, with OpenCV's roundings: grey, scales, medians, sampling where the flow points."""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import (
    BITS,
    FLOAT,
    LANES,
    broadcast,
    call,
    floor,
    fma,
    instruction,
    load,
    maximum,
    minimum,
    read,
    splat,
    store,
    write,
)

Image = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

# --- grey and scales -------------------------------------------------------------------------------------------------

# Rec. 601 luma (0.299, 0.587, 0.114) in units of 2^-15; together exactly 1.
RED, GREEN, BLUE = 9798, 19235, 3735
LUMA_BITS = 15


def to_gray(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return uint8 grey (T, H, W), as OpenCV's ``RGB2GRAY``; raise ValueError unless it is uint8 RGB (T, H, W, 3)."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"expected uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    gray = np.empty(frames.shape[:3], np.uint8)
    _to_gray(np.require(frames, requirements=["C", "W"]).reshape(-1), gray.reshape(-1))
    return gray


@compiled
def _to_gray(colours: npt.NDArray[np.uint8], gray: npt.NDArray[np.uint8]) -> None:
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
def resize(
    source: Image, target: Image, step_y: float, step_x: float, beyond: float, places: Places, weight: Image
) -> None:
    """Sample ``source`` (H, W) bilinearly on the grid of ``target``; borders are replicated.

    Steps are in source pixels per target pixel; pixel centres lie at halves. ``beyond`` is the weight with which a
    position beyond the last pixel takes the difference to its left neighbour: OpenCV's is 0 when it enlarges, else 1.
    ``places`` has room for two numbers, ``weight`` for one, for each column of ``target``.
    """
    height, width = source.shape
    left, right = places[: target.shape[1]], places[target.shape[1] :]
    for x in range(target.shape[1]):
        left[x], right[x], weight[x] = _neighbours(x, step_x, width, beyond)
    for y in range(target.shape[0]):
        above, below, down = _neighbours(y, step_y, height, beyond)
        for x in range(target.shape[1]):
            a = _interpolate(source[above, left[x]], source[above, right[x]], weight[x])
            b = _interpolate(source[below, left[x]], source[below, right[x]], weight[x])
            target[y, x] = _interpolate(a, b, down)


@inlined
def _interpolate(a: np.float32, b: np.float32, weight: np.float32) -> Any:
    """Return a + (b - a) · weight, the product not rounded (it is exact in float64)."""
    return np.float32(np.float64(a) + np.float64(np.float32(b - a)) * np.float64(weight))


@inlined
def _neighbours(index: int, step: float, size: int, beyond: float) -> tuple[int, int, np.float32]:
    """Return the two source pixels around a target pixel, and the second's weight."""
    position = (index + 0.5) * step - 0.5
    first = int(np.floor(position))
    if first < 0:
        return 0, 0, np.float32(0)
    if first >= size - 1:
        return max(size - 2, 0) if beyond else size - 1, size - 1, np.float32(beyond)
    return first, first + 1, np.float32(position - first)


# --- the median ------------------------------------------------------------------------------------------------------

# It compares and exchanges, 16 pixels at a time. What it compares are whole numbers in the order of the floats: a
# processor compares twice as many of these at a time.
SIZE = 5
MARGIN = SIZE // 2

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


def _exchange(builder: Any, values: list[Any], network: tuple[tuple[int, int], ...]) -> None:
    """Send ``values`` (whole numbers) through a network; LLVM leaves out what no result depends on."""
    for a, b in network:
        swap = builder.icmp_signed(">", values[a], values[b])
        low, high = builder.select(swap, values[b], values[a]), builder.select(swap, values[a], values[b])
        values[a], values[b] = low, high


def _in_order(builder: Any, bits: Any) -> Any:
    """Turn a float's bits into a whole number of the same order, and back: flip a negative's, but for the sign."""
    sign = builder.ashr(bits, bits.type([31] * LANES))
    return builder.xor(bits, builder.lshr(sign, bits.type([1] * LANES)))


def _offset(builder: Any, start: Any, step: Any, times: int, more: int = 0) -> Any:
    start = builder.add(start, builder.mul(step, step.type(times)))
    return builder.add(start, start.type(more))


@instruction("void")
def _copy_in_order(builder: Any, source: Any, index: Any, target: Any, target_index: Any) -> None:
    """Copy 16 numbers from ``source[index]`` to ``target[target_index]``, as the whole numbers that are compared."""
    write(builder, target, target_index, _in_order(builder, read(builder, source, index, BITS)))


@instruction("void")
def _sort_columns(builder: Any, source: Any, index: Any, pitch: Any, target: Any, target_index: Any) -> None:
    """Sort 16 columns of five: ``source[index + r·pitch]`` to ``target[target_index + r·pitch]`` for r = 0…4."""
    values = [read(builder, source, _offset(builder, index, pitch, row), BITS) for row in range(SIZE)]
    _exchange(builder, values, SORT_FIVE)
    for row, value in enumerate(values):
        write(builder, target, _offset(builder, target_index, pitch, row), value)


@instruction("void")
def _median_of_columns(builder: Any, columns: Any, index: Any, pitch: Any, target: Any, target_index: Any) -> None:
    """Store the medians of ``columns[index + r·pitch + c]``, r and c = 0…4, sorted along r, at ``target_index``."""
    places = [_offset(builder, index, pitch, row, column) for column in range(SIZE) for row in range(SIZE)]
    values = [read(builder, columns, place, BITS) for place in places]
    _exchange(builder, values, MEDIAN)
    write(builder, target, target_index, _in_order(builder, values[MEDIAN_PLACE]))


@inlined
def median_5x5(field: Image, start: int, stride: int, height: int, width: int, scratch: Image) -> None:
    """Replace a field of ``height`` rows, ``stride`` apart in a flat array, by its medians; borders are replicated.

    ``width`` rounded up past the next multiple of 16 numbers of each row are touched; those beyond ``width`` become 0.
    ``scratch`` has (height + 9) · (that width + 16) numbers: a copy with borders, and its five sorted rows.
    """
    padded = (width // LANES + 1) * LANES
    pitch = padded + LANES
    columns = (height + 2 * MARGIN) * pitch  # the five sorted rows come after the copy
    for y in range(-MARGIN, height + MARGIN):
        row = start + min(max(y, 0), height - 1) * stride
        copy = (y + MARGIN) * pitch
        for x in range(0, padded, LANES):
            _copy_in_order(field, row + x, scratch, copy + MARGIN + x)
        scratch[copy : copy + MARGIN] = scratch[copy + MARGIN]
        scratch[copy + MARGIN + width : copy + pitch] = scratch[copy + MARGIN + width - 1]
    for y in range(height):
        for x in range(0, pitch, LANES):
            _sort_columns(scratch, y * pitch + x, pitch, scratch, columns + x)
        for x in range(0, padded, LANES):
            _median_of_columns(scratch, columns + x, pitch, field, start + y * stride + x)
        field[start + y * stride + width : start + y * stride + padded] = np.float32(0)


# --- bicubic sampling, as OpenCV 5's ``remap`` ------------------------------------------------------------------------

TAPS = 4
CHANNELS = 4  # the image, its two gradients, and a zero to make a vector of four
BORDER = 4  # px of zeros around the image: the four taps of a position outside are all zero
SHARPNESS = np.float32(-0.75)  # the cubic kernel's slope at distance 1; OpenCV's choice

_QUAD = ir.VectorType(FLOAT, CHANNELS)


@inlined
def number_columns(work: Image) -> None:
    """Prepare memory for ``sample_row``: for x and y where the taps begin and 4 weights; then the columns' numbers."""
    padded = len(work) // 11
    for x in range(padded):
        work[10 * padded + x] = x


@inlined
def sample_row(
    taps: Image, height: int, width: int, state: Image, u1: int, u2: int, y: int, work: Image, row: Image
) -> None:
    """Sample ``taps`` (H + 8, W + 8, 4) at (x + u1, y + u2) for every x of one image row into ``row`` (4 per pixel).

    ``u1`` and ``u2`` are where that row of the flow begins in ``state``; ``work`` has been through ``number_columns``.
    """
    padded_height, padded_width = height + 2 * BORDER, width + 2 * BORDER
    stride = np.uint64(len(work) // 11)
    for x in range(0, width, LANES):
        _place_taps(load(state, u1 + x) + load(work, 10 * stride + x), padded_width - TAPS, work, x, stride)
        down = load(state, u2 + x) + broadcast(np.float32(y))
        _place_taps(down, padded_height - TAPS, work, x + (1 + TAPS) * stride, stride)
    for x in range(np.uint64(width)):
        left, top = np.int64(work[x]), np.int64(work[(1 + TAPS) * stride + x])
        corner = (top * padded_width + left) * CHANNELS
        _sample(taps, corner, padded_width * CHANNELS, work, stride + x, stride, row, CHANNELS * x)


@inlined
def _place_taps(position: Any, last_start: int, work: Image, at: int, stride: int) -> None:
    """Store where the four taps of a position begin in the padded image (0 … ``last_start``), and their weights."""
    one = broadcast(np.float32(1))
    whole = floor(position)
    t = position - whole
    rest = one - t
    before = broadcast(SHARPNESS) * (t * (rest * rest))
    here = fma(fma(broadcast(SHARPNESS + np.float32(2)), t, broadcast(-SHARPNESS - np.float32(3))), t * t, one)
    last = broadcast(-SHARPNESS) * (t * t * (t - one))
    start = whole + broadcast(np.float32(BORDER - 1))
    store(work, at, minimum(maximum(start, broadcast(np.float32(0))), broadcast(np.float32(last_start))))
    store(work, at + stride, before)
    store(work, at + 2 * stride, here)
    store(work, at + 3 * stride, one - before - here - last)
    store(work, at + 4 * stride, last)


@instruction("void")
def _sample(
    builder: Any, taps: Any, corner: Any, pitch: Any, weights: Any, at: Any, stride: Any, target: Any, index: Any
) -> None:
    """Store the weighted sum of 4 × 4 pixels of four channels; across first, then down.

    The taps begin at ``taps[corner]``, a row every ``pitch``; the weights across are ``weights[at + i·stride]`` for
    i = 0…3, those down for i = 5…8.
    """

    def weight(i: int) -> Any:
        return splat(builder, read(builder, weights, _offset(builder, at, stride, i), FLOAT), CHANNELS)

    def tap(row: int, column: int) -> Any:
        return read(builder, taps, _offset(builder, corner, pitch, row, CHANNELS * column), _QUAD)

    def weighted(values: list[Any], factors: list[Any]) -> Any:
        result = builder.fmul(values[0], factors[0])
        for value, factor in zip(values[1:], factors[1:], strict=True):
            result = call(builder, "fma", value, factor, result)
        return result

    across, down = [weight(i) for i in range(TAPS)], [weight(TAPS + 1 + i) for i in range(TAPS)]
    rows = [weighted([tap(row, column) for column in range(TAPS)], across) for row in range(TAPS)]
    write(builder, target, index, weighted(rows, down))
