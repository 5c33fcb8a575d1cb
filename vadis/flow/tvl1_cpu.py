"""``tvl1_torch``'s equations on the processor, by numba: one pair of frames on one core, 16 pixels at a time.

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

from vadis.flow.filters import (
    BORDER,
    CHANNELS,
    SCALE_STEP,
    Image,
    Places,
    level_shapes,
    median_5x5,
    number_columns,
    resize,
    sample_row,
)
from vadis.flow.numba_cache import compiled, inlined
from vadis.flow.simd import (
    LANES,
    absolute,
    any_differs,
    blend,
    broadcast,
    copysign,
    fma,
    hypot_float64,
    load,
    load_every_fourth,
    maximum,
    minimum,
    reduce_add,
    rsqrt_estimate,
    select_gt,
    square_residual,
    store,
    view,
)

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

Memory = tuple[Any, ...]  # flat arrays, see ``working_memory``

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
    for x in range(0, 2 * padded, LANES):
        store(state, below + x, load(state, last + x))
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
    """Fill ``taps`` (H + 8, W + 8, 4, flat), zero at first, with ``image`` and its central differences along x and y.

    At the border the missing neighbour is the border pixel itself.
    """
    height, width = image.shape
    half = np.float32(0.5)
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            at = ((y + BORDER) * (width + 2 * BORDER) + x + BORDER) * CHANNELS
            taps[at] = image[y, x]
            taps[at + 1] = half * (image[y, right] - image[y, left])
            taps[at + 2] = half * (image[below, x] - image[above, x])


@inlined
def _linearize(state: Image, image: Image, height: int, width: int, taps: Image, work: Image, samples: Image) -> None:
    """Sample the second image and its gradients at x + u, and fill the fields that the iterations need of them."""
    padded = _padded(width)
    for y in range(height):
        here = _row(padded, y)
        sample_row(taps, height, width, state, here + U1 * padded, here + U2 * padded, y, work, samples)
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
    pixels = [high * wide for high, wide in level_shapes(height, width)]
    sizes = (
        (height + 2) * FIELDS * padded + 2 * LANES,  # state
        (height + 2 * BORDER) * (width + 2 * BORDER) * CHANNELS,  # taps
        (height + 9) * (padded + LANES),  # of the medians
        height * padded,  # the first image
        height * padded,  # squared changes
        11 * padded,  # of a row that is sampled
        CHANNELS * padded,  # its samples
        LANES,  # which of the last pixels of a row have a right neighbour
        2 * sum(pixels),  # both images in all scales
        4 * max(pixels[1:], default=0),  # the flow in a scale and in the next
        width,  # weights, see ``resize``
    )
    arrays = (np.empty(size + LANES, np.float32) for size in sizes)
    aligned = (array[-(array.ctypes.data // array.itemsize) % LANES :] for array in arrays)  # whole cache lines
    return *aligned, np.empty(2 * width, np.int64)


@inlined
def _solve_scale(first: Image, second: Image, u: tuple[Image, Image], memory: Memory) -> int:
    """Run all warps of one scale on u, two of (H, W), the first guess, in place; return the inner iterations done."""
    height, width = first.shape
    padded = _padded(width)
    state, taps_memory, scratch, image, squares, work_memory, samples, inside = memory[:8]
    taps = taps_memory[: (height + 2 * BORDER) * (width + 2 * BORDER) * CHANNELS]
    taps[:] = 0
    with_gradients(second, taps)
    state[: _row(padded, height + 1) + LANES] = 0
    for y in range(height):
        for x in range(width):
            image[y * padded + x] = first[y, x]
            for c in range(2):
                state[_row(padded, y) + c * padded + x] = u[c][y, x]
        image[y * padded + width : (y + 1) * padded] = 0
    work = work_memory[: 11 * padded]
    number_columns(work)
    samples[:] = 0
    edge = (width - 1) // LANES * LANES  # the block of the last column
    inside[:] = 0
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
            for x in range(width):
                u[c][y, x] = state[_row(padded, y) + c * padded + x]
    return done


@inlined
def _fill_pyramid(image: npt.NDArray[np.uint8], shapes: Places, levels: Image, places: Places, weights: Image) -> None:
    """Store ``image`` in all scales in ``levels``, one after the other."""
    height, width = image.shape
    for y in range(height):
        for x in range(width):
            levels[y * width + x] = image[y, x]
    end = 0
    for s in range(1, len(shapes)):
        begin, end = end, end + shapes[s - 1, 0] * shapes[s - 1, 1]
        larger = view(levels, begin, shapes[s - 1, 0], shapes[s - 1, 1])
        smaller = view(levels, end, shapes[s, 0], shapes[s, 1])
        resize(larger, smaller, 1 / SCALE_STEP, 1 / SCALE_STEP, 1.0, places, weights)


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
    levels, guesses, weights, places = memory[8], memory[9], memory[10], memory[11]
    begin = 0
    for s in range(len(shapes)):
        begin += shapes[s, 0] * shapes[s, 1]
    firsts, seconds = levels[:begin], levels[begin:]
    _fill_pyramid(first, shapes, firsts, places, weights)
    _fill_pyramid(second, shapes, seconds, places, weights)
    done = 0
    u = flow[0], flow[1]
    for s in range(len(shapes) - 1, -1, -1):
        height, width = shapes[s]
        size = height * width
        begin -= size
        guess = flow[0], flow[1]
        if s > 0:
            at = s % 2 * (len(guesses) // 4 * 2)  # what this scale is enlarged from lies in the other half
            guess = view(guesses, at, height, width), view(guesses, at + size, height, width)
        for c in range(2):
            if s == len(shapes) - 1:
                guess[c][:] = 0
                continue
            resize(u[c], guess[c], u[c].shape[0] / height, u[c].shape[1] / width, 0.0, places, weights)
            for y in range(height):
                for x in range(width):
                    guess[c][y, x] *= np.float32(1 / SCALE_STEP)
        u = guess
        images = view(firsts, begin, height, width), view(seconds, begin, height, width)
        done += _solve_scale(images[0], images[1], u, memory) * size
    return done
