"""TV-L1 optical flow on any device of PyTorch with float64: many pairs of frames at once.

The same equations as ``tvl1_cpu`` with the same roundings, so that both give the same flow. On CUDA a scale is one
kernel of ``tvl1_triton``, which is compared with the plain steps here; they serve any other device.
"""

from functools import cache
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from vadis.flow.filters import BORDER, MEDIAN, MEDIAN_PLACE, SCALE_STEP, SHARPNESS, SIZE, SORT_FIVE, TAPS, level_shapes
from vadis.flow.tvl1_cpu import EPSILON, INNER_ITERATIONS, L_T, LEAST_GRADIENT, OUTER_ITERATIONS, TAUT, THETA32, WARPS

PIXELS_AT_ONCE = 4_000_000  # in one batch of pairs; about 300 bytes each, 1.2 GB
PIXELS_OF_KERNELS = 24_000_000  # likewise with Triton's kernels, 93 bytes each, 2.2 GB: fewer launches for each pair
CHECK_EVERY = 4  # inner iterations between two checks whether any pair still moves, for which the host waits


def tvl1_torch(gray: npt.NDArray[np.uint8], device: torch.device | str) -> npt.NDArray[np.float32]:
    """uint8 (N, H, W) → float32 (N - 1, 2, H, W), as ``vadis.flow.tvl1``."""
    num_pairs, height, width = gray.shape[0] - 1, *gray.shape[1:]
    where = torch.device(device)
    batch = max(1, (PIXELS_OF_KERNELS if has_kernels(where) else PIXELS_AT_ONCE) // (height * width))
    flow = torch.empty(num_pairs, 2, height, width, pin_memory=where.type == "cuda")
    with torch.inference_mode():
        for start in range(0, num_pairs, batch):
            frames = torch.from_numpy(gray[start : start + batch + 1])  # B + 1, H, W
            on_device = (frames.pin_memory() if where.type == "cuda" else frames).to(where, non_blocking=True)
            flow[start : start + batch].copy_(_flow_of_pairs(on_device.float()))
    return flow.numpy()


@cache  # asked at every scale of every batch
def has_kernels(device: torch.device) -> bool:
    """Return whether ``tvl1_triton`` runs there: NVIDIA, of compute capability 8.0 on, and Triton installed."""
    is_nvidia = device.type == "cuda" and torch.version.cuda is not None
    return is_nvidia and find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def _flow_of_pairs(frames: Tensor) -> Tensor:
    """Frames (B + 1, H, W) → flow (B, 2, H, W), from the coarsest scale to the finest."""
    shapes = level_shapes(frames.shape[1], frames.shape[2])
    pyramid = [frames]
    for shape in shapes[1:]:
        pyramid.append(_resize(pyramid[-1], shape, (1 / SCALE_STEP, 1 / SCALE_STEP), beyond=1))
    u = frames.new_zeros(len(frames) - 1, 2, *shapes[-1])
    for images, (height, width) in zip(reversed(pyramid), reversed(shapes), strict=True):
        if u.shape[2:] != (height, width):
            steps = (u.shape[2] / height, u.shape[3] / width)
            u = _resize(u, (height, width), steps, beyond=0) * (1 / SCALE_STEP)
        u = _solve_scale(u, images[:-1], images[1:])
    return u


def _solve_scale(u: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Run all warps of one scale: u (B, 2, H, W), images (B, H, W)."""
    height, width = first.shape[1:]
    channels, threshold = _with_gradients(second), float(np.float32(EPSILON * EPSILON * (height * width)))
    if has_kernels(u.device):
        from vadis.flow.tvl1_triton import solve_scale

        return solve_scale(u, first, channels, threshold)
    p = u.new_zeros(len(u), 2, 2, height, width)  # B, component of u, direction of its gradient, H, W
    for _ in range(WARPS):
        image, *gradient = _sample(channels, u).unbind(1)
        rho = image - gradient[0] * u[:, 0] - gradient[1] * u[:, 1] - first
        u, p = _iterate(u, p, torch.stack(gradient, dim=1), rho, threshold)
    return u


def _iterate(u: Tensor, p: Tensor, gradient: Tensor, rho: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Run the iterations between two warps; a pair stops, held by a mask, when its u hardly changes any more."""
    square = gradient[:, 0] * gradient[:, 0] + gradient[:, 1] * gradient[:, 1]  # B, H, W
    moving = torch.ones(len(u), 1, 1, 1, dtype=torch.bool, device=u.device)
    for _ in range(OUTER_ITERATIONS):
        u = torch.where(moving, _median(u), u)
        for inner in range(INNER_ITERATIONS):
            new = _update_u(u, p, gradient, square, rho)
            squares = (new - u).square()
            change = (squares[:, 0] + squares[:, 1]).sum((1, 2), dtype=torch.float64)
            u = torch.where(moving, new, u)
            p = torch.where(moving[..., None], _update_p(u, p), p)
            moving = moving & (change > threshold)[:, None, None, None]
            if inner % CHECK_EVERY == 0 and not moving.any():
                return u, p
    return u, p


def _update_u(u: Tensor, p: Tensor, gradient: Tensor, square: Tensor, rho: Tensor) -> Tensor:
    """Move u towards the data term's optimum within its bounds, then along the divergence of p."""
    l_t = float(L_T)
    rho = rho + (gradient[:, 0] * u[:, 0] + gradient[:, 1] * u[:, 1])
    bound = l_t * square
    shift = torch.where(square > float(LEAST_GRADIENT), rho / square, 0.0)
    shift = torch.where(rho > bound, l_t, torch.where(rho < -bound, -l_t, shift))
    return (u - shift[:, None] * gradient) + float(THETA32) * _divergence(p)


def _divergence(p: Tensor) -> Tensor:
    """Return backward differences of p (B, 2, 2, H, W), nothing outside; the first column in OpenCV's order."""
    across, down = p[:, :, 0], p[:, :, 1]  # B, 2, H, W
    result = (across - pad(across, (1, 0))[..., :-1]) + (down - pad(down, (0, 0, 1, 0))[..., :-1, :])
    result[..., 1:, 0] = (across[..., 1:, 0] + down[..., 1:, 0]) - down[..., :-1, 0]
    return result


def _update_p(u: Tensor, p: Tensor) -> Tensor:
    """Move p a step along the gradient of u, shrunk where that is steep."""
    gradient = torch.zeros_like(p)
    torch.sub(u[..., :, 1:], u[..., :, :-1], out=gradient[:, :, 0, :, :-1])
    torch.sub(u[..., 1:, :], u[..., :-1, :], out=gradient[:, :, 1, :-1, :])
    length = gradient.double().square().sum(2, keepdim=True).sqrt().float()  # B, 2, 1, H, W
    return (p + float(TAUT) * gradient) / (1 + float(TAUT) * length)


def _median(u: Tensor) -> Tensor:
    """Return 5×5 medians, borders replicated, by the exchanges of ``vadis.flow.filters``."""
    height, width = u.shape[2:]
    wide = pad(u, (SIZE // 2,) * 4, mode="replicate")
    rows = [wide[..., row : row + height, :] for row in range(SIZE)]
    _exchange(rows, SORT_FIVE)
    values = [rows[row][..., column : column + width] for column in range(SIZE) for row in range(SIZE)]
    _exchange(values, MEDIAN)
    return values[MEDIAN_PLACE]


def _exchange(values: list[Tensor], network: tuple[tuple[int, int], ...]) -> None:
    for a, b in network:
        values[a], values[b] = torch.minimum(values[a], values[b]), torch.maximum(values[a], values[b])


def _with_gradients(images: Tensor) -> Tensor:
    """(B, H, W) → (B, 3, H + 8, W + 8): image and central differences along x and y, with zeros around them."""
    wide = pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along_x = 0.5 * (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2])
    along_y = 0.5 * (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1])
    return pad(torch.stack([images, along_x, along_y], dim=1), (BORDER,) * 4)


def _sample(channels: Tensor, u: Tensor) -> Tensor:
    """Channels (B, 3, H + 8, W + 8) bicubically at x + u → (B, 3, H, W)."""
    height, width = u.shape[2:]
    pitch = width + 2 * BORDER
    x, y = (torch.arange(size, device=u.device, dtype=u.dtype) for size in (width, height))
    left, across = _place_taps(u[:, 0] + x, pitch - TAPS)
    top, down = _place_taps(u[:, 1] + y[:, None], height + 2 * BORDER - TAPS)
    corner = (top * pitch + left).flatten(1)[:, None].expand(-1, channels.shape[1], -1)  # B, 3, H·W
    flat = channels.flatten(2)
    rows = []
    for row in range(TAPS):
        taps = [flat.gather(2, corner + (row * pitch + column)).view(-1, 3, height, width) for column in range(TAPS)]
        rows.append(_weighted_sum(taps, across))
    return _weighted_sum(rows, down)


def _place_taps(position: Tensor, last_start: int) -> tuple[Tensor, list[Tensor]]:
    """Return where the four taps of a position begin in the padded image, and their weights."""
    whole = position.floor()
    t = position - whole
    rest, a, one = 1 - t, float(SHARPNESS), torch.ones_like(t)
    before = a * (t * (rest * rest))
    here = _fma(_fma(t, a + 2, one * (-a - 3)), t * t, one)
    last = -a * (t * t * (t - 1))
    start = (whole.clamp(-BORDER, last_start).long() + (BORDER - 1)).clamp(0, last_start)
    return start, [before, here, one - before - here - last, last]


def _weighted_sum(values: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Return Σ values (B, 3, H, W) · weights (B, H, W), every step rounded once."""
    total = values[0] * weights[0][:, None]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = _fma(value, weight[:, None], total)
    return total


def _fma(a: Tensor, b: Tensor | float, c: Tensor) -> Tensor:
    """Return a · b + c in float32, rounded once (products are exact in float64)."""
    return (a.double() * b + c.double()).float()


def _resize(images: Tensor, shape: tuple[int, int], steps: tuple[float, float], beyond: int) -> Tensor:
    """Bilinear (…, H, W) → (…, *shape), as ``vadis.flow.filters.resize``."""
    left, right, across = _neighbours(shape[1], steps[1], images.shape[-1], beyond, images.device)
    above, below, down = _neighbours(shape[0], steps[0], images.shape[-2], beyond, images.device)
    a, b = images[..., left], images[..., right]
    rows = _fma(b - a, across.double(), a)
    a, b = rows[..., above, :], rows[..., below, :]
    return _fma(b - a, down.double()[:, None], a)


def _neighbours(count: int, step: float, size: int, beyond: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each target pixel the two source pixels around it and the weight (float32) of the second."""
    position = (torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5
    first = position.floor()
    weight = (position - first).float()
    weight[first < 0] = 0
    weight[first >= size - 1] = beyond
    first = first.clamp(0, max(size - 2, 0) if beyond else size - 1).long()
    return first.to(device), (first + 1).clamp(max=size - 1).to(device), weight.to(device)
