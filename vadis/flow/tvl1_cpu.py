"""TV-L1 on the processor, by numba: one pair of frames on one core, 16 pixels at a time.

The state of a scale lies in one flat array, row by row, each row with its nine fields one after the other: what an
iteration touches is then one stream through memory. A field's row is padded with zeros to a multiple of 16 with at
least one zero, which is also what lies to the left of the next field's first pixel; a row of zeros lies above the
image, and below it one for the copy of the last u. So the loops hardly need a special case at a border.

The roundings are those of OpenCV's plain loops: every product, sum, quotient and length rounded to the nearest float32.
What is added here to be fast must not change them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from vadis.flow.filters import BORDER, MEDIAN, MEDIAN_PLACE, SCALE_STEP, SHARPNESS, SIZE, SORT_FIVE, TAPS, Image, resize
from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import (
    BITS,
    FLOAT,
    LANES,
    absolute,
    any_differs,
    blend,
    broadcast,
    call,
    copysign,
    floor,
    fma,
    hypot_float64,
    instruction,
    load,
    load_every_fourth,
    maximum,
    minimum,
    read,
    reduce_add,
    rsqrt_estimate,
    select_gt,
    splat,
    square_residual,
    store,
    types,
    write,
)

# --- the median ------------------------------------------------------------------------------------------------------

# It compares and exchanges, 16 pixels at a time. What it compares are whole numbers in the order of the floats: a
# processor compares twice as many of these at a time.
MARGIN = SIZE // 2


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


@instruction(types.void)
def _copy_in_order(builder: Any, source: Any, index: Any, target: Any, target_index: Any) -> None:
    """Copy 16 numbers from ``source[index]`` to ``target[target_index]``, as the whole numbers that are compared."""
    write(builder, target, target_index, _in_order(builder, read(builder, source, index, BITS)))


@instruction(types.void)
def _sort_columns(builder: Any, source: Any, index: Any, pitch: Any, target: Any, target_index: Any) -> None:
    """Sort 16 columns of five: ``source[index + r·pitch]`` to ``target[target_index + r·pitch]`` for r = 0…4."""
    values = [read(builder, source, _offset(builder, index, pitch, row), BITS) for row in range(SIZE)]
    _exchange(builder, values, SORT_FIVE)
    for row, value in enumerate(values):
        write(builder, target, _offset(builder, target_index, pitch, row), value)


@instruction(types.void)
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

CHANNELS = 4  # the image, its two gradients, and a zero to make a vector of four

_QUAD = ir.VectorType(FLOAT, CHANNELS)


@inlined
def row_work(padded: int) -> Image:
    """Return memory for ``sample_row``: for x and y where the taps begin and 4 weights; then the columns' numbers."""
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
        _place_taps(load(state, u1 + x) + load(work, 10 * stride + x), padded_width - TAPS, work, x, stride)
        down = load(state, u2 + x) + broadcast(np.float32(y))
        _place_taps(down, padded_height - TAPS, work, x + (1 + TAPS) * stride, stride)
    flat = taps.reshape(-1)
    for x in range(np.uint64(width)):
        left, top = np.int64(work[x]), np.int64(work[(1 + TAPS) * stride + x])
        corner = (top * padded_width + left) * CHANNELS
        _sample(flat, corner, padded_width * CHANNELS, work, stride + x, stride, row, CHANNELS * x)


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


@instruction(types.void)
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


# --- the iterations ---------------------------------------------------------------------------------------------------

# OpenCV's defaults and names; with them the flow was made that the published weights were trained on.
TAU = 0.25  # step of the dual variables
LAMBDA = 0.15  # weight of the data term
THETA = 0.3  # tightness between u and v
EPSILON = 0.01  # px; the iterations stop when u changes by less than this (root mean square)
WARPS = 5
OUTER_ITERATIONS = 10
INNER_ITERATIONS = 30
L_T, TAUT, THETA32 = np.float32(LAMBDA * THETA), np.float32(TAU / THETA), np.float32(THETA)

LEAST_GRADIENT = np.float32(np.finfo(np.float32).eps)  # a squared gradient not above this counts as none
LEAST_SQUARE = np.float32(1e-36)  # of a length whose root can be estimated; a shorter one counts for nothing

Memory = tuple[Image, ...]  # five flat arrays, see ``working_memory``

U1, U2, P11, P12, P21, P22, IX, IY, RHO = range(9)
FIELDS = 9


@inlined
def _is_near(change: np.float32, threshold: np.float32, pixels: int) -> Any:
    """Whether OpenCV's float32 sum of so many squares can lie on the other side of ``threshold`` than ``change``."""
    return np.abs(change - threshold) <= pixels * np.float32(2.0**-24) * threshold  # each addition rounds


@inlined
def _sum_in_opencvs_order(squares: Image, height: int, padded: int, width: int) -> Any:
    """Sum the squared changes of u pixel by pixel; slow, because each addition waits for the one before."""
    change = np.float32(0)
    for y in range(height):
        for x in range(y * padded, y * padded + width):
            change += squares[x]
    return change


@inlined
def _padded(width: int) -> int:
    return (width // LANES + 1) * LANES


@inlined
def _row(padded: int, y: int) -> int:
    """Return where row ``y`` (-1 … H) begins in the state."""
    return LANES + (y + 1) * FIELDS * padded


@inlined
def _iterate(state: Image, height: int, padded: int, edge: int, inside: Image, squares: Image) -> Any:
    """Run one inner iteration over the image; return the sum of the squared changes of u, kept in ``squares``.

    ``edge`` is where the 16 pixels with the last column begin, ``inside`` is 1 for those of them left of that column.
    Row by row down the image: u of a row needs the old p of that row and of the one above; then p of the row above
    needs the new u of both, which are still in the cache.
    """
    change = _update_u(state, 0, padded, edge, squares, broadcast(np.float32(0)))
    for y in range(1, height):
        change = _update_u(state, y, padded, edge, squares, change)
        _update_p(state, y - 1, padded, edge, inside)
    # What lies below the last row is its own u: no difference, and p stays 0 along y.
    last, below = _row(padded, height - 1), _row(padded, height)
    state[below : below + 2 * padded] = state[last : last + 2 * padded]
    _update_p(state, height - 1, padded, edge, inside)
    return reduce_add(change)


@inlined
def _update_u(state: Image, y: int, padded: int, edge: int, squares: Image, change: Any) -> Any:
    """Move u of one row towards the data term's optimum within its bounds, then along the divergence of p."""
    l_t, theta, zero, least = broadcast(L_T), broadcast(THETA32), broadcast(np.float32(0)), broadcast(LEAST_GRADIENT)
    here, above = _row(padded, y), _row(padded, y - 1)
    for x in range(0, edge + LANES, LANES):
        at, up = here + x, above + x
        u1, u2 = load(state, at + U1 * padded), load(state, at + U2 * padded)
        ix, iy = load(state, at + IX * padded), load(state, at + IY * padded)
        rho = load(state, at + RHO * padded) + (ix * u1 + iy * u2)
        gradient = ix * ix + iy * iy
        bound = l_t * gradient
        shift = select_gt(gradient, least, rho / gradient, zero)
        shift = select_gt(absolute(rho), bound, copysign(l_t, rho), shift)
        left1, left2 = load(state, at + P11 * padded - 1), load(state, at + P21 * padded - 1)
        down1, down2 = load(state, at + P12 * padded), load(state, at + P22 * padded)
        if x == 0:  # OpenCV sums the first column in another order, and the flow is that sensitive
            left1, left2 = blend(zero - down1, left1), blend(zero - down2, left2)
            down1, down2 = blend(zero, down1), blend(zero, down2)
        div1 = (load(state, at + P11 * padded) - left1) + (down1 - load(state, up + P12 * padded))
        div2 = (load(state, at + P21 * padded) - left2) + (down2 - load(state, up + P22 * padded))
        new1, new2 = (u1 - shift * ix) + theta * div1, (u2 - shift * iy) + theta * div2
        store(state, at + U1 * padded, new1)
        store(state, at + U2 * padded, new2)
        square = (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
        store(squares, y * padded + x, square)
        change = change + square
    return change


@inlined
def _update_p(state: Image, y: int, padded: int, edge: int, inside: Image) -> None:
    """Move p of one row a step along the gradient of u, shrunk where that is steep."""
    taut, one = broadcast(TAUT), broadcast(np.float32(1))
    here, below = _row(padded, y), _row(padded, y + 1)
    for x in range(0, edge + LANES, LANES):
        at, down = here + x, below + x
        u1, u2 = load(state, at + U1 * padded), load(state, at + U2 * padded)
        u1x, u1y = load(state, at + U1 * padded + 1) - u1, load(state, down + U1 * padded) - u1
        u2x, u2y = load(state, at + U2 * padded + 1) - u2, load(state, down + U2 * padded) - u2
        if x == edge:  # no pixel lies to the right of the last column
            u1x, u2x = u1x * load(inside, 0), u2x * load(inside, 0)
        length1, length2 = _lengths(u1x, u1y, u2x, u2y)
        norm1, norm2 = one + taut * length1, one + taut * length2
        store(state, at + P11 * padded, (load(state, at + P11 * padded) + taut * u1x) / norm1)
        store(state, at + P12 * padded, (load(state, at + P12 * padded) + taut * u1y) / norm1)
        store(state, at + P21 * padded, (load(state, at + P21 * padded) + taut * u2x) / norm2)
        store(state, at + P22 * padded, (load(state, at + P22 * padded) + taut * u2y) / norm2)


@inlined
def _lengths(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
    """Return √(x1² + y1²) and √(x2² + y2²) as OpenCV has them, which takes C's ``hypotf``."""
    least1, most1 = _length_between(x1, y1)
    least2, most2 = _length_between(x2, y2)
    if any_differs(least1, most1) or any_differs(least2, most2):  # once in some ten thousand times
        return hypot_float64(x1, y1), hypot_float64(x2, y2)
    return least1, least2


@inlined
def _length_between(x: Any, y: Any) -> Any:
    """Return √(x² + y²) from below and from above, rounded to the nearest: the same but for near ties.

    A good root of the rounded sum, then what the squares have more than the root's square, almost without rounding.
    """
    half, doubt = np.float32(0.5), np.float32(2.0**-20)  # 16 times the error of all that is rounded below
    xx, yy = x * x, y * y
    square = xx + yy
    lost = square_residual(x, xx) + square_residual(y, yy)
    rest = (minimum(xx, yy) - (square - maximum(xx, yy))) + lost  # what rounding took from the square
    estimate = rsqrt_estimate(maximum(square, broadcast(LEAST_SQUARE)))
    root = square * estimate
    more = rest - square_residual(root, square)
    return fma(more, broadcast(half - doubt) * estimate, root), fma(more, broadcast(half + doubt) * estimate, root)


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
def _linearize(state: Image, image: Image, height: int, width: int, taps: Image, work: Image, samples: Image) -> None:
    """Sample the second image and its gradients at x + u, and fill the fields that the iterations need of them."""
    padded = _padded(width)
    for y in range(height):
        here = _row(padded, y)
        sample_row(taps, state, here + U1 * padded, here + U2 * padded, y, work, samples)
        for x in range(0, padded, LANES):
            at = here + x
            ix, iy = load_every_fourth(samples, CHANNELS * x + 1), load_every_fourth(samples, CHANNELS * x + 2)
            rho = load_every_fourth(samples, CHANNELS * x) - ix * load(state, at + U1 * padded)
            rho = rho - iy * load(state, at + U2 * padded) - load(image, y * padded + x)
            store(state, at + IX * padded, ix)
            store(state, at + IY * padded, iy)
            store(state, at + RHO * padded, rho)


def working_memory(height: int, width: int) -> Memory:
    """Return what ``flow_of_pair`` works in; who keeps it for the next pair saves the system from clearing pages."""
    padded = (width // LANES + 1) * LANES
    sizes = (
        (height + 2) * FIELDS * padded + 2 * LANES,  # state
        (height + 2 * BORDER) * (width + 2 * BORDER) * CHANNELS,  # taps
        (height + 9) * (padded + LANES),  # of the medians
        height * padded,  # the first image
        height * padded,  # squared changes
    )
    arrays = (np.empty(size + LANES, np.float32) for size in sizes)
    return tuple(array[-(array.ctypes.data // array.itemsize) % LANES :] for array in arrays)  # whole cache lines


@inlined
def _solve_scale(first: Image, second: Image, u: Image, memory: Memory) -> int:
    """Run all warps of one scale on u (2, H, W), the first guess, in place; return the inner iterations done."""
    height, width = first.shape
    padded, wide = _padded(width), width + 2 * BORDER
    state, taps_memory, scratch, image_memory, squares = memory
    taps = taps_memory[: (height + 2 * BORDER) * wide * CHANNELS].reshape(height + 2 * BORDER, wide, CHANNELS)
    taps[:] = 0
    with_gradients(second, taps)
    image = image_memory[: height * padded]
    image[:] = 0
    image.reshape(height, padded)[:, :width] = first
    state[: _row(padded, height + 1) + LANES] = 0
    for y in range(height):
        for c in range(2):
            state[_row(padded, y) + c * padded :][:width] = u[c, y]
    work, samples = row_work(padded), np.zeros(CHANNELS * padded, np.float32)
    edge = (width - 1) // LANES * LANES  # the block of the last column
    inside = np.zeros(LANES, np.float32)
    inside[: width - 1 - edge] = 1
    threshold = np.float32(EPSILON * EPSILON * (height * width))  # of the sum of squared changes of u
    done = 0
    for _ in range(WARPS):
        _linearize(state, image, height, width, taps, work, samples)
        change = np.float32(np.inf)
        for _ in range(OUTER_ITERATIONS):
            for field in (U1, U2):
                median_5x5(state, _row(padded, 0) + field * padded, FIELDS * padded, height, width, scratch)
            for _ in range(INNER_ITERATIONS):
                change = _iterate(state, height, padded, edge, inside, squares)
                if _is_near(change, threshold, height * width):
                    change = _sum_in_opencvs_order(squares, height, padded, width)
                done += 1
                if not change > threshold:
                    break
            if not change > threshold:
                break
    for y in range(height):
        for c in range(2):
            u[c, y] = state[_row(padded, y) + c * padded :][:width]
    return done


@inlined
def _pyramid(image: npt.NDArray[np.uint8], shapes: npt.NDArray[np.int64]) -> list[Image]:
    levels = [image.astype(np.float32)]
    for s in range(1, len(shapes)):
        levels.append(np.empty((shapes[s, 0], shapes[s, 1]), np.float32))
        resize(levels[s - 1], levels[s], 1 / SCALE_STEP, 1 / SCALE_STEP, 1.0)
    return levels


@compiled
def flow_of_pair(
    first: npt.NDArray[np.uint8],
    second: npt.NDArray[np.uint8],
    shapes: npt.NDArray[np.int64],
    memory: Memory,
    flow: Image,
) -> int:
    """Compute the TV-L1 flow from ``first`` to ``second`` (H, W) into ``flow`` (2, H, W).

    ``shapes`` (S, 2) are the (H, W) of all scales, the finest first; ``memory`` is ``working_memory(H, W)``. Return how
    many pixels went through an inner iteration, each time counted.
    """
    firsts, seconds = _pyramid(first, shapes), _pyramid(second, shapes)
    u = np.zeros((2, 1, 1), np.float32)  # the guess of the coarsest scale
    done = 0
    for s in range(len(shapes) - 1, -1, -1):
        height, width = shapes[s]
        enlarged = np.empty((2, height, width), np.float32) if s else flow
        for c in range(2):
            resize(u[c], enlarged[c], u.shape[1] / height, u.shape[2] / width, 0.0)
        enlarged *= np.float32(1 / SCALE_STEP)
        u = enlarged
        done += _solve_scale(firsts[s], seconds[s], u, memory) * height * width
    return done
