"""The three inner steps of TV-L1 as single kernels of Triton, for CUDA: warping, the median, one iteration.

PyTorch's own operations read and write a field some hundred times per iteration, each once for every operator; here
it is read and written once. ``tvl1_torch`` walks the scales and calls these where Triton is there (it comes with
PyTorch's CUDA builds for Linux). The roundings are those of ``tvl1_torch``: ``enable_fp_fusion=False`` keeps the
compiler from fusing what is not fused there, and ``div_rn`` divides exactly.

In every kernel axis 0 of the grid walks over blocks of pixels, axis 1 over pairs of frames.
"""

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from vadis.flow.median import MEDIAN, MEDIAN_PLACE, SORT_FIVE
from vadis.flow.tvl1_cpu import INNER_ITERATIONS, LEAST_GRADIENT, LIMIT, OUTER_ITERATIONS, PULL, STEP
from vadis.flow.tvl1_torch import LOOK_EVERY
from vadis.flow.warp import BORDER, SHARPNESS, TAPS

BLOCK = 256  # pixels per program; of 256, 512 and 1024 the fastest on an H200
PARTS = 256  # blocks whose changes are summed at least, so that most sizes share one kernel
EXACT = {"enable_fp_fusion": False}
SIZES = ["height", "width", "num_blocks"]  # one kernel for all of them: compiled once, not for every size
FEWER = 0.9  # the share of pairs that still move, at or below which the grid is made smaller
AT_REST = -1.0  # in place of a change: the pair has come to rest, and both buffers hold it

_LIMIT, _PULL, _STEP, _LEAST = (tl.constexpr(float(number)) for number in (LIMIT, PULL, STEP, LEAST_GRADIENT))
_SHARPNESS, _BORDER, _TAPS = tl.constexpr(float(SHARPNESS)), tl.constexpr(BORDER), tl.constexpr(TAPS)
_AT_REST = tl.constexpr(AT_REST)
_SORT_FIVE, _MEDIAN, _MEDIAN_PLACE = tl.constexpr(SORT_FIVE), tl.constexpr(MEDIAN), tl.constexpr(MEDIAN_PLACE)


@triton.jit
def _first_tap(position, most):
    """Where the four taps of a position begin in the padded image, as ``tvl1_torch._place``."""
    start = tl.floor(position).to(tl.int32)
    start = tl.minimum(tl.maximum(start, -_BORDER), most) + (_BORDER - 1)
    return tl.minimum(tl.maximum(start, 0), most)


@triton.jit
def _weights(position):
    """The four bicubic weights of a position."""
    t = position - tl.floor(position)
    rest = 1.0 - t
    before = _SHARPNESS * (t * (rest * rest))
    here = tl.fma(tl.fma(t, t * 0 + (_SHARPNESS + 2), t * 0 + (-_SHARPNESS - 3)), t * t, t * 0 + 1.0)
    last = -_SHARPNESS * (t * t * (t - 1.0))
    return before, here, 1.0 - before - here - last, last


@triton.jit
def _sampled(channel, corner, pitch, a0, a1, a2, a3, d0, d1, d2, d3, inside):
    """One channel (H + 8, W + 8) from 4 × 4 taps: across first, then down, each product fused with the sum."""
    for row in tl.static_range(_TAPS):
        taps = channel + corner + row * pitch
        across = tl.load(taps, inside, 0.0) * a0
        across = tl.fma(tl.load(taps + 1, inside, 0.0), a1, across)
        across = tl.fma(tl.load(taps + 2, inside, 0.0), a2, across)
        across = tl.fma(tl.load(taps + 3, inside, 0.0), a3, across)
        if row == 0:
            total = across * d0
        elif row == 1:
            total = tl.fma(across, d1, total)
        elif row == 2:
            total = tl.fma(across, d2, total)
        else:
            total = tl.fma(across, d3, total)
    return total


@triton.jit(do_not_specialize=SIZES[:2])
def _warp_kernel(channels, first, u, gradient, rho, height, width, BLOCK: tl.constexpr):
    """Channels (B, 3, H + 8, W + 8) at x + u (B, 2, H, W) → gradient (B, 2, H, W), rho (B, H, W)."""
    pixel, pair, area = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64), height * width
    inside, pitch = pixel < area, width + 2 * _BORDER
    padded = pitch * (height + 2 * _BORDER)
    u += pair * 2 * area
    u1, u2 = tl.load(u + pixel, inside, 0.0), tl.load(u + area + pixel, inside, 0.0)
    x, y = u1 + (pixel % width).to(tl.float32), u2 + (pixel // width).to(tl.float32)
    corner = _first_tap(y, height + 2 * _BORDER - _TAPS) * pitch + _first_tap(x, pitch - _TAPS)
    a0, a1, a2, a3 = _weights(x)
    d0, d1, d2, d3 = _weights(y)
    channels += pair * 3 * padded
    image = _sampled(channels, corner, pitch, a0, a1, a2, a3, d0, d1, d2, d3, inside)
    ix = _sampled(channels + padded, corner, pitch, a0, a1, a2, a3, d0, d1, d2, d3, inside)
    iy = _sampled(channels + 2 * padded, corner, pitch, a0, a1, a2, a3, d0, d1, d2, d3, inside)
    tl.store(gradient + pair * 2 * area + pixel, ix, inside)
    tl.store(gradient + pair * 2 * area + area + pixel, iy, inside)
    constant = image - ix * u1 - iy * u2 - tl.load(first + pair * area + pixel, inside, 0.0)
    tl.store(rho + pair * area + pixel, constant, inside)


@triton.jit
def _change_of(change, pair, num_blocks, PARTS: tl.constexpr):
    """The sum over all blocks of what a pair's u changed by in the last iteration."""
    part = tl.arange(0, PARTS)
    return tl.sum(tl.load(change + pair * num_blocks + part, part < num_blocks, 0.0))


@triton.jit
def _new_u(u, p, gradient, rho, x, y, width, area, inside):
    """Both components of u at (x, y) after one iteration, and before it; p outside the image counts as 0."""
    at = y * width + x
    u1, u2 = tl.load(u + at, inside, 0.0), tl.load(u + area + at, inside, 0.0)
    ix, iy = tl.load(gradient + at, inside, 0.0), tl.load(gradient + area + at, inside, 0.0)
    square = ix * ix + iy * iy
    residual = tl.load(rho + at, inside, 0.0) + (ix * u1 + iy * u2)
    bound, is_flat = _LIMIT * square, square <= _LEAST
    shift = tl.where(is_flat, 0.0, tl.div_rn(residual, tl.where(is_flat, 1.0, square)))
    shift = tl.where(residual > bound, _LIMIT, tl.where(residual < -bound, -_LIMIT, shift))
    new1 = (u1 - shift * ix) + _PULL * _divergence(p, at, x, y, width, area, inside)
    new2 = (u2 - shift * iy) + _PULL * _divergence(p + 2 * area, at, x, y, width, area, inside)
    return new1, new2, u1, u2


@triton.jit
def _divergence(p, at, x, y, width, area, inside):
    """Backward differences of p (2, H, W); the first column is summed in OpenCV's order."""
    across, down = tl.load(p + at, inside, 0.0), tl.load(p + area + at, inside, 0.0)
    left = tl.load(p + at - 1, inside & (x > 0), 0.0)
    above = tl.load(p + area + at - width, inside & (y > 0), 0.0)
    return tl.where((x == 0) & (y > 0), (across + down) - above, (across - left) + (down - above))


@triton.jit
def _store_p(p, new_p, at, area, along_x, along_y, inside):
    """One component's p (2, H, W) a step along the gradient of u, shrunk where that is steep."""
    dx, dy = along_x.to(tl.float64), along_y.to(tl.float64)
    norm = 1.0 + _STEP * tl.sqrt(dx * dx + dy * dy).to(tl.float32)
    across, down = tl.load(p + at, inside, 0.0), tl.load(p + area + at, inside, 0.0)
    tl.store(new_p + at, tl.div_rn(across + _STEP * along_x, norm), inside)
    tl.store(new_p + area + at, tl.div_rn(down + _STEP * along_y, norm), inside)


@triton.jit
def _copy(source, target, pixel, area, inside, FIELDS: tl.constexpr):
    for field in tl.static_range(FIELDS):
        tl.store(target + field * area + pixel, tl.load(source + field * area + pixel, inside, 0.0), inside)


@triton.jit(do_not_specialize=SIZES)
def _iterate_kernel(
    pairs, u, p, new_u, new_p, gradient, rho, before, after, enough, height, width, num_blocks,
    BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """u (B, 2, H, W), p (B, 2, 2, H, W) → new ones; ``before`` → ``after``: changes of u (B, blocks).

    The new p needs the new u of the pixels to the right and below; that is computed again here, from the cache.
    A pair whose change is no longer above ``enough`` is copied once to the other buffers, and then left alone.
    """
    block, pair, area = tl.program_id(0), tl.load(pairs + tl.program_id(1)), height * width
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < area
    u, new_u, gradient = u + pair * 2 * area, new_u + pair * 2 * area, gradient + pair * 2 * area
    p, new_p, rho = p + pair * 4 * area, new_p + pair * 4 * area, rho + pair * area
    change = _change_of(before, pair, num_blocks, PARTS)
    slot = after + pair * num_blocks + block
    if change > enough:
        x, y = pixel % width, pixel // width
        to_right, to_below = inside & (x + 1 < width), inside & (y + 1 < height)
        new1, new2, u1, u2 = _new_u(u, p, gradient, rho, x, y, width, area, inside)
        right1, right2, _, _ = _new_u(u, p, gradient, rho, x + 1, y, width, area, to_right)
        below1, below2, _, _ = _new_u(u, p, gradient, rho, x, y + 1, width, area, to_below)
        tl.store(new_u + pixel, new1, inside)
        tl.store(new_u + area + pixel, new2, inside)
        x1, y1 = tl.where(to_right, right1 - new1, 0.0), tl.where(to_below, below1 - new1, 0.0)
        x2, y2 = tl.where(to_right, right2 - new2, 0.0), tl.where(to_below, below2 - new2, 0.0)
        _store_p(p, new_p, pixel, area, x1, y1, inside)
        _store_p(p + 2 * area, new_p + 2 * area, pixel, area, x2, y2, inside)
        moved = (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
        tl.store(slot, tl.sum(tl.where(inside, moved, 0.0).to(tl.float64)))
    else:
        if change >= 0:
            _copy(u, new_u, pixel, area, inside, 2)
            _copy(p, new_p, pixel, area, inside, 4)
        tl.store(slot, _AT_REST)


@triton.jit
def _exchanged(values, pairs: tl.constexpr):
    """Send a tuple of numbers through a network of comparisons."""
    for k in tl.static_range(len(pairs)):
        a, b = values[pairs[k][0]], values[pairs[k][1]]
        values = _replaced(_replaced(values, pairs[k][0], tl.minimum(a, b)), pairs[k][1], tl.maximum(a, b))
    return values


@triton.jit
def _replaced(values, place: tl.constexpr, value):
    return values[:place] + (value,) + values[place + 1 :]


@triton.jit
def _sorted_column(field, x, y, width, height, inside):
    """Five pixels of a column, sorted; the image's border is replicated."""
    x = tl.minimum(tl.maximum(x, 0), width - 1)
    values = ()
    for row in tl.static_range(-2, 3):
        there = tl.minimum(tl.maximum(y + row, 0), height - 1) * width + x
        values = values + (tl.load(field + there, inside, 0.0),)
    return _exchanged(values, _SORT_FIVE)


@triton.jit(do_not_specialize=SIZES)
def _median_kernel(
    pairs, u, new_u, change, enough, height, width, num_blocks, BLOCK: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """5×5 medians of u (B, 2, H, W), where the pair still moves; else its copy."""
    block, pair, area = tl.program_id(0), tl.load(pairs + tl.program_id(1)), height * width
    pixel = block * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < area
    u, new_u = u + pair * 2 * area, new_u + pair * 2 * area
    if _change_of(change, pair, num_blocks, PARTS) > enough:
        x, y = pixel % width, pixel // width
        for field in tl.static_range(2):
            values = ()
            for column in tl.static_range(-2, 3):
                values = values + _sorted_column(u + field * area, x + column, y, width, height, inside)
            tl.store(new_u + field * area + pixel, _exchanged(values, _MEDIAN)[_MEDIAN_PLACE], inside)
    else:
        _copy(u, new_u, pixel, area, inside, 2)


def warped(channels: Tensor, first: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Channels (B, 3, H + 8, W + 8) at x + u (B, 2, H, W), linearised → gradient (B, 2, H, W), rho (B, H, W)."""
    num_pairs, height, width = first.shape
    gradient, rho = torch.empty_like(u), torch.empty_like(first)
    grid = (triton.cdiv(height * width, BLOCK), num_pairs)
    _warp_kernel[grid](channels, first, u, gradient, rho, height, width, BLOCK=BLOCK, **EXACT)
    return gradient, rho


def iterate(
    u: Tensor, p: Tensor, gradient: Tensor, rho: Tensor, enough: float, which_move: Callable[[Tensor], Tensor | None]
) -> tuple[Tensor, Tensor]:
    """The outer and inner iterations between two warps; each pair stops when its u hardly changes any more.

    Pairs that are known to rest are left out of the next grids; by then they have been copied to both buffers.

    Args:
        u: (B, 2, H, W); p: (B, 2, 2, H, W); gradient: (B, 2, H, W); rho: (B, H, W), all float32 and contiguous.
        enough: the sum of squared changes of u, above which a pair goes on.
        which_move: now and then told bool (B,), which pairs go on; gives what it was told the last time, on the host.
    """
    num_pairs, height, width = rho.shape
    num_blocks = triton.cdiv(height * width, BLOCK)
    sizes = (enough, height, width, num_blocks, BLOCK, max(PARTS, triton.next_power_of_2(num_blocks)))
    u, p, new_u, new_p = u.contiguous(), p.contiguous(), torch.empty_like(u), torch.empty_like(p)
    change = torch.full((num_pairs, num_blocks), math.inf, dtype=torch.float64, device=u.device)
    new_change = change.clone()
    pairs = torch.arange(num_pairs, device=u.device)
    for _ in range(OUTER_ITERATIONS):
        _median_kernel[num_blocks, len(pairs)](pairs, u, new_u, change, *sizes, **EXACT)
        u, new_u = new_u, u
        for inner in range(INNER_ITERATIONS):
            fields = (u, p, new_u, new_p, gradient, rho, change, new_change)
            _iterate_kernel[num_blocks, len(pairs)](pairs, *fields, *sizes, **EXACT)
            u, p, change, new_u, new_p, new_change = new_u, new_p, new_change, u, p, change
            if inner % LOOK_EVERY == LOOK_EVERY - 1:
                moving = which_move(change.sum(1) > enough)
                pairs = pairs if moving is None else _fewer(pairs, moving)
                if len(pairs) == 0:
                    return u, p
    return u, p


def _fewer(pairs: Tensor, moving: Tensor) -> Tensor:
    """Of ``pairs``, on the device, only those that move (B,), on the host, where these are clearly fewer."""
    count = int(moving.count_nonzero())
    if count > FEWER * len(pairs):
        return pairs
    return moving.nonzero()[:, 0].pin_memory().to(pairs.device, non_blocking=True)
