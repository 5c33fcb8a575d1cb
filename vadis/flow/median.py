"""The 5×5 median of a flow field, by comparing and exchanging, 16 pixels at a time.

What is compared are whole numbers in the order of the floats: a processor compares twice as many of these at a time.
"""

from typing import Any

import numpy as np
from numba.core import types

from vadis.flow.numba_cache import inlined
from vadis.flow.pyramid import Image
from vadis.flow.simd import BITS, LANES, address, instruction

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
        values[a], values[b] = (
            builder.select(swap, values[b], values[a]),
            builder.select(swap, values[a], values[b]),
        )


def _flipped(builder: Any, bits: Any) -> Any:
    """A float's bits to a whole number of the same order, and back: those of negative numbers, but for the sign."""
    sign = builder.ashr(bits, bits.type([31] * LANES))
    return builder.xor(bits, builder.lshr(sign, bits.type([1] * LANES)))


@instruction
def _copy_in_order(typing: Any, source: Any, index: Any, target: Any, target_index: Any) -> Any:
    """16 numbers from ``source[index]`` to ``target[target_index]``, as the whole numbers that are compared."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.load(address(context, builder, BITS, sig.args[0], *args[:2]), align=4)
        builder.store(_flipped(builder, bits), address(context, builder, BITS, sig.args[2], *args[2:]), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), lower


@instruction
def _sort_columns(typing: Any, source: Any, index: Any, pitch: Any, target: Any, target_index: Any) -> Any:
    """Sort 16 columns of five: ``source[index + r·pitch]`` to ``target[target_index + r·pitch]`` for r = 0…4."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def place(position: int, row: int) -> Any:
            index = builder.add(args[position + 1], builder.mul(args[2], args[2].type(row)))
            return address(context, builder, BITS, sig.args[position], args[position], index)

        values = [builder.load(place(0, row), align=4) for row in range(SIZE)]
        _exchange(builder, values, SORT_FIVE)
        for row, value in enumerate(values):
            builder.store(value, place(3, row), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp), lower


@instruction
def _median_of_columns(typing: Any, columns: Any, index: Any, pitch: Any, target: Any, target_index: Any) -> Any:
    """Store the medians of ``columns[index + r·pitch + c]``, r and c = 0…4, sorted along r, at ``target_index``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def value(column: int, row: int) -> Any:
            index = builder.add(args[1], builder.add(builder.mul(args[2], args[2].type(row)), args[1].type(column)))
            return builder.load(address(context, builder, BITS, sig.args[0], args[0], index), align=4)

        values = [value(column, row) for column in range(SIZE) for row in range(SIZE)]
        _exchange(builder, values, MEDIAN)
        median = _flipped(builder, values[MEDIAN_PLACE])
        builder.store(median, address(context, builder, BITS, sig.args[3], *args[3:]), align=4)
        return context.get_dummy_value()

    return types.void(columns, types.intp, types.intp, target, types.intp), lower


@inlined
def median_scratch(height: int, padded: int) -> int:
    """How many numbers ``median_5x5`` needs: a copy with borders, and its five sorted rows."""
    return (height + 2 * MARGIN + SIZE) * (padded + LANES)


@inlined
def median_5x5(field: Image, start: int, stride: int, height: int, width: int, scratch: Image) -> None:
    """Replace a field of ``height`` rows, ``stride`` apart in a flat array, by its medians; borders are replicated.

    ``width`` rounded up past the next multiple of 16 numbers of each row are touched; those beyond ``width`` become 0.
    ``scratch`` has ``median_scratch`` of H and that width.
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
