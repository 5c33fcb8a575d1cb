"""Images sampled where the flow points, bicubically, with the roundings of OpenCV 5's ``remap``."""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types

from vadis.flow.numba_cache import inlined
from vadis.flow.pyramid import Image
from vadis.flow.simd import (
    LANES,
    address,
    call,
    floor,
    fused,
    high,
    instruction,
    load,
    low,
    spread,
    spread_over,
    store,
)

TAPS = 4
CHANNELS = 4  # the image, its two gradients, and a zero to make a vector of four
BORDER = 4  # px of zeros around the image: the four taps of a position outside are all zero
SHARPNESS = np.float32(-0.75)  # the cubic kernel's slope at distance 1; OpenCV's choice

_QUAD = ir.VectorType(ir.FloatType(), CHANNELS)


@inlined
def with_gradients(image: Image, taps: Image) -> None:
    """Fill ``taps`` (H + 8, W + 8, 4), zero at first, with ``image`` and its central differences along x and y.

    At the border the missing neighbour is the border pixel itself.
    """
    height, width = image.shape
    half = np.float32(0.5)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            taps[y + BORDER, x + BORDER, 0] = image[y, x]
            taps[y + BORDER, x + BORDER, 1] = half * (image[y, right] - image[y, left])
            taps[y + BORDER, x + BORDER, 2] = half * (image[below, x] - image[above, x])


@inlined
def row_work(padded: int) -> Image:
    """Scratch memory of ``sample_row``: for x and y where the taps begin and 4 weights; then the columns' numbers."""
    work = np.zeros(11 * padded, np.float32)
    work[10 * padded :] = np.arange(padded)
    return work


@inlined
def sample_row(taps: Image, state: Image, u1: int, u2: int, y: int, work: Image, row: Image) -> None:
    """Sample ``taps`` at (x + u1, y + u2) for every x of one image row into ``row`` (4 numbers per pixel).

    ``u1`` and ``u2`` are where that row of the flow begins in ``state``; ``work`` comes from ``row_work``.
    """
    padded_height, padded_width = taps.shape[0], taps.shape[1]
    width = padded_width - 2 * BORDER
    stride = np.uint64(len(work) // 11)
    for x in range(0, width, LANES):
        _place(load(state, u1 + x) + load(work, 10 * stride + x), padded_width - TAPS, work, x, stride)
        down = load(state, u2 + x) + spread(np.float32(y))
        _place(down, padded_height - TAPS, work, x + (1 + TAPS) * stride, stride)
    flat = taps.reshape(-1)
    for x in range(np.uint64(width)):
        left, top = np.int64(work[x]), np.int64(work[(1 + TAPS) * stride + x])
        corner = (top * padded_width + left) * CHANNELS
        _sample(flat, corner, padded_width * CHANNELS, work, stride + x, stride, row, CHANNELS * x)


@inlined
def _place(position: Any, most: int, work: Image, at: int, stride: int) -> None:
    """Where the four taps of a position begin in the padded image (0 … ``most``), and their weights, to ``work``."""
    one = spread(np.float32(1))
    whole = floor(position)
    t = position - whole
    rest = one - t
    before = spread(SHARPNESS) * (t * (rest * rest))
    here = fused(fused(spread(SHARPNESS + np.float32(2)), t, spread(-SHARPNESS - np.float32(3))), t * t, one)
    last = spread(-SHARPNESS) * (t * t * (t - one))
    start = whole + spread(np.float32(BORDER - 1))
    store(work, at, low(high(start, spread(np.float32(0))), spread(np.float32(most))))
    store(work, at + stride, before)
    store(work, at + 2 * stride, here)
    store(work, at + 3 * stride, one - before - here - last)
    store(work, at + 4 * stride, last)


@instruction
def _sample(
    typing: Any, taps: Any, corner: Any, pitch: Any, weights: Any, at: Any, stride: Any, target: Any, index: Any
) -> Any:
    """Store the weighted sum of 4 × 4 pixels of four channels; across first, then down.

    The taps begin at ``taps[corner]``, a row every ``pitch``; the weights across are ``weights[at + i·stride]`` for
    i = 0…3, those down for i = 5…8.
    """

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def place(position: int, factor: Any, times: int, plus: int = 0) -> Any:
            start = builder.add(args[position + 1], builder.mul(factor, factor.type(times)))
            start = builder.add(start, start.type(plus))
            return address(context, builder, ir.FloatType(), sig.args[position], args[position], start)

        def weight(i: int) -> Any:
            return spread_over(builder, builder.load(place(3, args[5], i)), CHANNELS)

        def weighted(values: list[Any], factors: list[Any]) -> Any:
            result = builder.fmul(values[0], factors[0])
            for value, factor in zip(values[1:], factors[1:], strict=True):
                result = call(builder, "fma", value, factor, result)
            return result

        def tap(row: int, column: int) -> Any:
            pointer = builder.bitcast(place(0, args[2], row, CHANNELS * column), _QUAD.as_pointer())
            return builder.load(pointer, align=4)

        across, down = [weight(i) for i in range(TAPS)], [weight(TAPS + 1 + i) for i in range(TAPS)]
        rows = [weighted([tap(row, column) for column in range(TAPS)], across) for row in range(TAPS)]
        pointer = address(context, builder, _QUAD, sig.args[6], args[6], args[7])
        builder.store(weighted(rows, down), pointer, align=4)
        return context.get_dummy_value()

    arguments = (taps, types.intp, types.intp, weights, types.intp, types.intp, target, types.intp)
    return types.void(*arguments), lower
