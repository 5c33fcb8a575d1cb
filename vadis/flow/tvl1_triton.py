"""TV-L1 on a CUDA device, many pairs of frames at once: the equations of ``tvl1_cpu``.

What each scale begins with is made by PyTorch; its warps, medians and iterations are a single kernel of Triton.
A group of programs keeps a pair of frames from the first warp to the last; its programs share the pixels and wait for
each other where one reads what another has written, and a pair that converges early makes room for the next one.
Waiting needs all programs of the grid on the device at once, so there is at most one for each multiprocessor, and the
launch is a cooperative one, which fails rather than hangs.

The roundings are those of ``tvl1_cpu``: ``enable_fp_fusion=False`` keeps the compiler from fusing what is not fused
there, and ``div_rn`` divides exactly.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

from vadis.flow import filters
from vadis.flow.filters import BORDER, MEDIAN, MEDIAN_PLACE, SCALE_STEP, SHARPNESS, SORT_FIVE, TAPS, level_shapes
from vadis.flow.tvl1_cpu import EPSILON, INNER_ITERATIONS, L_T, LEAST_GRADIENT, OUTER_ITERATIONS, TAUT, THETA32, WARPS

PIXELS_AT_ONCE = 24_000_000  # in one batch of pairs; 93 bytes each, 2.2 GB
NUM_WARPS = 32  # of 32 threads, with a pixel each: all that fit into one program; with two each no faster on an H200
MIN_RANKS, MAX_RANKS = 8, 16  # programs that share a pair: of 2 to 16, 8 are the fastest where pairs are many
PLANES = 11  # of a group's own: u twice (2 each: the median cannot be had in place), p (4), gradient (2), rho
ALIGNED = 32  # pixels, to which a plane is rounded up, so that rows of threads read whole lines of the cache

_L_T, _TAUT, _THETA, _LEAST = (tl.constexpr(float(number)) for number in (L_T, TAUT, THETA32, LEAST_GRADIENT))
_SHARPNESS, _BORDER, _TAPS = tl.constexpr(float(SHARPNESS)), tl.constexpr(BORDER), tl.constexpr(TAPS)
_SORT_FIVE, _MEDIAN, _MEDIAN_PLACE = tl.constexpr(SORT_FIVE), tl.constexpr(MEDIAN), tl.constexpr(MEDIAN_PLACE)
_WARPS, _OUTER, _INNER = tl.constexpr(WARPS), tl.constexpr(OUTER_ITERATIONS), tl.constexpr(INNER_ITERATIONS)
_RANKS, _PLANES, _BLOCK = tl.constexpr(MAX_RANKS), tl.constexpr(PLANES), tl.constexpr(32 * NUM_WARPS)


@triton.jit
def _first_tap(position, last_start):
    """Where the four taps of a position begin in the padded image."""
    start = tl.floor(position).to(tl.int32)
    start = tl.minimum(tl.maximum(start, -_BORDER), last_start) + (_BORDER - 1)
    return tl.minimum(tl.maximum(start, 0), last_start)


@triton.jit
def _weights(position):
    """The four bicubic weights of a position."""
    t = position - tl.floor(position)
    rest = 1.0 - t
    before = t * (rest * rest) * _SHARPNESS
    here = tl.fma(tl.fma(t, t * 0 + (_SHARPNESS + 2), t * 0 + (-_SHARPNESS - 3)), t * t, t * 0 + 1.0)
    last = t * t * (t - 1.0) * -_SHARPNESS
    return before, here, 1.0 - before - here - last, last


@triton.jit
def _sample_row(taps, weights, inside):
    """Four neighbours in a row by their weights, each product fused with the sum."""
    total = tl.load(taps, inside, 0.0) * weights[0]
    for column in tl.static_range(1, _TAPS):
        total = tl.fma(tl.load(taps + column, inside, 0.0), weights[column], total)
    return total


@triton.jit
def _sample(taps, pitch, across, down, inside):
    """One channel from 4 × 4 taps of the padded image: across first, then down."""
    total = _sample_row(taps, across, inside) * down[0]
    for row in tl.static_range(1, _TAPS):
        total = tl.fma(_sample_row(taps + row * pitch, across, inside), down[row], total)
    return total


@triton.jit
def _barrier(counter, ranks, num_barriers):
    """Wait until all programs of the group are here, for the ``num_barriers``-th time; what they wrote is seen then."""
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="acq_rel") + 1
    while arrived < num_barriers * ranks:
        arrived = tl.atomic_add(counter, 0, sem="acq_rel")
    tl.debug_barrier()


@triton.jit
def _load_pair(u, field, p, begin, end, area, plane):
    """The pair's u (2, H, W) into the group's own planes; p = 0."""
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        for plane_of in tl.static_range(2):
            tl.store(field + plane_of * plane + pixel, tl.load(u + plane_of * area + pixel, inside, 0.0), inside)
        for plane_of in tl.static_range(4):
            tl.store(p + plane_of * plane + pixel, tl.zeros([_BLOCK], tl.float32), inside)


@triton.jit
def _store_pair(field, u, begin, end, area, plane):
    """The group's u into the pair's (2, H, W)."""
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        for plane_of in tl.static_range(2):
            tl.store(u + plane_of * area + pixel, tl.load(field + plane_of * plane + pixel, inside, 0.0), inside)


@triton.jit
def _warp(channels, first, u, gradient, rho, begin, end, height, width, plane):
    """Channels (3, H + 8, W + 8) at x + u, linearised → gradient (2 planes), rho."""
    pitch = width + 2 * _BORDER
    padded = pitch * (height + 2 * _BORDER)
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        u1, u2 = tl.load(u + pixel, inside, 0.0), tl.load(u + plane + pixel, inside, 0.0)
        x, y = u1 + (pixel % width).to(tl.float32), u2 + (pixel // width).to(tl.float32)
        corner = _first_tap(y, height + 2 * _BORDER - _TAPS) * pitch + _first_tap(x, pitch - _TAPS)
        across, down = _weights(x), _weights(y)
        image = _sample(channels + corner, pitch, across, down, inside)
        ix = _sample(channels + padded + corner, pitch, across, down, inside)
        iy = _sample(channels + 2 * padded + corner, pitch, across, down, inside)
        tl.store(gradient + pixel, ix, inside)
        tl.store(gradient + plane + pixel, iy, inside)
        tl.store(rho + pixel, image - ix * u1 - iy * u2 - tl.load(first + pixel, inside, 0.0), inside)


@triton.jit
def _step_u(u, p, gradient, rho, begin, end, width, plane):
    """u (2 planes) of one iteration, in place; the sum of its squared changes."""
    change = tl.zeros([_BLOCK], tl.float64)
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        u1, u2 = tl.load(u + pixel, inside, 0.0), tl.load(u + plane + pixel, inside, 0.0)
        ix, iy = tl.load(gradient + pixel, inside, 0.0), tl.load(gradient + plane + pixel, inside, 0.0)
        square = ix * ix + iy * iy
        residual = tl.load(rho + pixel, inside, 0.0) + (ix * u1 + iy * u2)
        bound, is_flat = square * _L_T, square <= _LEAST
        shift = tl.where(is_flat, 0.0, tl.div_rn(residual, tl.where(is_flat, 1.0, square)))
        shift = tl.where(residual > bound, _L_T, tl.where(residual < -bound, -_L_T, shift))
        is_first = pixel % width == 0
        new1 = (u1 - shift * ix) + _divergence(p, pixel, is_first, width, plane, inside) * _THETA
        new2 = (u2 - shift * iy) + _divergence(p + 2 * plane, pixel, is_first, width, plane, inside) * _THETA
        tl.store(u + pixel, new1, inside)
        tl.store(u + plane + pixel, new2, inside)
        moved = (new1 - u1) * (new1 - u1) + (new2 - u2) * (new2 - u2)
        change += tl.where(inside, moved, 0.0).to(tl.float64)
    return tl.sum(change)


@triton.jit
def _divergence(p, pixel, is_first, width, plane, inside):
    """Backward differences of p (2 planes), nothing outside; the first column is summed in OpenCV's order."""
    across, down = tl.load(p + pixel, inside, 0.0), tl.load(p + plane + pixel, inside, 0.0)
    left = tl.load(p + pixel - 1, inside & ~is_first, 0.0)
    has_above = pixel >= width
    above = tl.load(p + plane + pixel - width, inside & has_above, 0.0)
    return tl.where(is_first & has_above, (across + down) - above, (across - left) + (down - above))


@triton.jit
def _step_p(u, p, begin, end, area, width, plane):
    """p (4 planes) of one iteration, in place, for the new u (2 planes)."""
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        to_right, to_below = inside & (pixel % width != width - 1), inside & (pixel < area - width)
        _step_component(u, p, pixel, width, plane, inside, to_right, to_below)
        _step_component(u + plane, p + 2 * plane, pixel, width, plane, inside, to_right, to_below)


@triton.jit
def _step_component(u, p, pixel, width, plane, inside, to_right, to_below):
    """One component's p (2 planes) a step along the gradient of u, shrunk where that is steep."""
    here = tl.load(u + pixel, inside, 0.0)
    along_x = tl.where(to_right, tl.load(u + pixel + 1, to_right, 0.0) - here, 0.0)
    along_y = tl.where(to_below, tl.load(u + pixel + width, to_below, 0.0) - here, 0.0)
    dx, dy = along_x.to(tl.float64), along_y.to(tl.float64)
    norm = 1.0 + tl.sqrt(dx * dx + dy * dy).to(tl.float32) * _TAUT
    across, down = tl.load(p + pixel, inside, 0.0), tl.load(p + plane + pixel, inside, 0.0)
    tl.store(p + pixel, tl.div_rn(across + along_x * _TAUT, norm), inside)
    tl.store(p + plane + pixel, tl.div_rn(down + along_y * _TAUT, norm), inside)


@triton.jit
def _exchange(values, pairs: tl.constexpr):
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
    return _exchange(values, _SORT_FIVE)


@triton.jit
def _median(u, new_u, begin, end, height, width, plane):
    """5×5 medians of u (2 planes), borders replicated."""
    for start in range(begin, end, _BLOCK):
        pixel = start + tl.arange(0, _BLOCK)
        inside = pixel < end
        x, y = pixel % width, pixel // width
        for field in tl.static_range(2):
            values = ()
            for column in tl.static_range(-2, 3):
                values = values + _sorted_column(u + field * plane, x + column, y, width, height, inside)
            tl.store(new_u + field * plane + pixel, _exchange(values, _MEDIAN)[_MEDIAN_PLACE], inside)


@triton.jit(do_not_specialize=["height", "width", "num_pairs", "ranks"])
def _scale_kernel(
    u, channels, first, planes, changes, tickets, counters, threshold, height, width, plane, num_pairs, ranks
):
    """All warps of one scale, in place: u (B, 2, H, W); channels (B, 3, H + 8, W + 8), first (B, H, W).

    Of a group's own: planes (groups, 11, plane), changes (groups, 16), counters (groups + 1), the last one counts the
    pairs that have been taken; tickets (groups), the pair that it has now.
    """
    group, rank, groups = tl.program_id(0) // ranks, tl.program_id(0) % ranks, tl.num_programs(0) // ranks
    area = height * width
    share = tl.cdiv(tl.cdiv(area, ranks), _BLOCK) * _BLOCK
    begin = tl.minimum(rank * share, area)
    end = tl.minimum(begin + share, area)
    planes += group.to(tl.int64) * _PLANES * plane
    p, gradient, rho = planes + 4 * plane, planes + 8 * plane, planes + 10 * plane
    changes, counter, ticket = changes + group * _RANKS, counters + group, tickets + group
    if rank == 0:
        tl.store(ticket, tl.atomic_add(counters + groups, 1))
    num_barriers = 1
    _barrier(counter, ranks, num_barriers)
    pair = tl.load(ticket, volatile=True)
    while pair < num_pairs:
        of_pair = pair.to(tl.int64)
        side = 0  # where in the planes u is now: 0, or 2 planes further
        _load_pair(u + of_pair * 2 * area, planes, p, begin, end, area, plane)
        for _ in range(_WARPS):
            frame = channels + of_pair * 3 * (height + 2 * _BORDER) * (width + 2 * _BORDER)
            now = planes + side * plane
            _warp(frame, first + of_pair * area, now, gradient, rho, begin, end, height, width, plane)
            num_barriers += 1
            _barrier(counter, ranks, num_barriers)
            change = tl.full([], float("inf"), tl.float64)
            outer = 0
            while (outer < _OUTER) & (change > threshold):
                _median(planes + side * plane, planes + (2 - side) * plane, begin, end, height, width, plane)
                side = 2 - side
                num_barriers += 1
                _barrier(counter, ranks, num_barriers)
                inner = 0
                while (inner < _INNER) & (change > threshold):
                    now = planes + side * plane
                    tl.store(changes + rank, _step_u(now, p, gradient, rho, begin, end, width, plane))
                    _barrier(counter, ranks, num_barriers + 1)
                    change = tl.sum(tl.load(changes + tl.arange(0, _RANKS), tl.arange(0, _RANKS) < ranks, 0.0))
                    _step_p(now, p, begin, end, area, width, plane)
                    num_barriers += 2
                    _barrier(counter, ranks, num_barriers)
                    inner += 1
                outer += 1
        _store_pair(planes + side * plane, u + of_pair * 2 * area, begin, end, area, plane)
        if rank == 0:
            tl.store(ticket, tl.atomic_add(counters + groups, 1))
        num_barriers += 1
        _barrier(counter, ranks, num_barriers)
        pair = tl.load(ticket, volatile=True)


def solve_scale(
    u: Tensor, first: Tensor, channels: Tensor, threshold: float, grid: tuple[int, int] | None = None
) -> Tensor:
    """Run all warps of one scale on u (B, 2, H, W), for the frames ``first`` (B, H, W); return the new u.

    ``channels`` (B, 3, H + 8, W + 8) are the second frames with their gradients; a pair goes on above a ``threshold``
    of squared changes of u. ``grid``: how many groups of how many programs, by default as many as there is room for.
    """
    num_pairs, height, width = first.shape
    if grid is None:
        programs = torch.cuda.get_device_properties(u.device).multi_processor_count
        ranks = min(max(programs // num_pairs, MIN_RANKS), MAX_RANKS)
        grid = max(1, min(programs // ranks, num_pairs)), ranks
    groups, ranks = grid
    plane = triton.cdiv(height * width, ALIGNED) * ALIGNED
    u = u.clone(memory_format=torch.contiguous_format)
    planes = u.new_empty(groups, PLANES, plane)
    changes = u.new_empty(groups, MAX_RANKS, dtype=torch.float64)
    tickets, counters = (u.new_zeros(groups + 1, dtype=torch.int32) for _ in range(2))
    _scale_kernel[(groups * ranks,)](
        u, channels.contiguous(), first.contiguous(), planes, changes, tickets, counters, threshold, height, width,
        plane, num_pairs, ranks, num_warps=NUM_WARPS, enable_fp_fusion=False, launch_cooperative_grid=True,
    )  # fmt: skip
    return u


def tvl1_cuda(gray: npt.NDArray[np.uint8], device: torch.device | str) -> npt.NDArray[np.float32]:
    """uint8 (N, H, W) → float32 (N - 1, 2, H, W), as ``vadis.flow.tvl1``."""
    num_pairs, height, width = gray.shape[0] - 1, *gray.shape[1:]
    batch = max(1, PIXELS_AT_ONCE // (height * width))
    is_cuda = torch.device(device).type == "cuda"  # else Triton's interpreter
    flow = torch.empty(num_pairs, 2, height, width, pin_memory=is_cuda)
    with torch.inference_mode():
        for start in range(0, num_pairs, batch):
            frames = torch.from_numpy(gray[start : start + batch + 1])  # B + 1, H, W
            on_device = (frames.pin_memory() if is_cuda else frames).to(device, non_blocking=True)
            flow[start : start + batch].copy_(_flow_of_pairs(on_device.float()))
    return flow.numpy()


def _flow_of_pairs(frames: Tensor) -> Tensor:
    """Frames (B + 1, H, W) → flow (B, 2, H, W), from the coarsest scale to the finest."""
    shapes = level_shapes(frames.shape[1], frames.shape[2])
    pyramid = [frames]
    for shape in shapes[1:]:
        pyramid.append(resize(pyramid[-1], shape, (1 / SCALE_STEP, 1 / SCALE_STEP), beyond=1))
    u = frames.new_zeros(len(frames) - 1, 2, *shapes[-1])
    for images, (height, width) in zip(reversed(pyramid), reversed(shapes), strict=True):
        if u.shape[2:] != (height, width):
            steps = (u.shape[2] / height, u.shape[3] / width)
            u = resize(u, (height, width), steps, beyond=0) * (1 / SCALE_STEP)
        threshold = float(np.float32(EPSILON * EPSILON * (height * width)))  # of the sum of squared changes of u
        u = solve_scale(u, images[:-1], with_gradients(images[1:]), threshold)
    return u


def with_gradients(images: Tensor) -> Tensor:
    """(B, H, W) → (B, 3, H + 8, W + 8): image and central differences along x and y, with zeros around them."""
    wide = pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_x = 0.5 * (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2])
    along_y = 0.5 * (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1])
    return pad(torch.stack([images, along_x, along_y], dim=1), (BORDER,) * 4)


def resize(images: Tensor, shape: tuple[int, int], steps: tuple[float, float], beyond: int) -> Tensor:
    """Bilinear (…, H, W) → (…, *shape), as ``vadis.flow.filters.resize``."""
    left, right, across = _neighbours(shape[1], steps[1], images.shape[-1], beyond, images.device)
    above, below, down = _neighbours(shape[0], steps[0], images.shape[-2], beyond, images.device)
    rows = _interpolate(images[..., left], images[..., right], across)
    return _interpolate(rows[..., above, :], rows[..., below, :], down[:, None])


def _interpolate(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return a + (b - a) · weight in float32, rounded once (products are exact in float64)."""
    return ((b - a).double() * weight.double() + a.double()).float()


@lru_cache(64)
def _neighbours(count: int, step: float, size: int, beyond: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each target pixel the two source pixels around it and the weight (float32) of the second."""
    found = [filters.neighbours.py_func(i, step, size, beyond) for i in range(count)]
    first, second, weight = (torch.from_numpy(np.array(each)).to(device) for each in zip(*found, strict=True))
    return first, second, weight
