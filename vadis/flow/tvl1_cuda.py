"""TV-L1 optical flow on a CUDA device, many pairs of frames at once: what each scale begins with, in PyTorch.

A scale itself is one kernel of ``tvl1_triton``. The equations and the roundings are those of ``tvl1_cpu``.
"""

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from vadis.flow.filters import BORDER, SCALE_STEP, level_shapes
from vadis.flow.tvl1_cpu import EPSILON

PIXELS_AT_ONCE = 24_000_000  # in one batch of pairs; 93 bytes each, 2.2 GB


def has_kernel(device: torch.device | str) -> bool:
    """Return whether ``tvl1_triton`` runs there: NVIDIA, of compute capability 8.0 on, and Triton installed."""
    is_nvidia = torch.device(device).type == "cuda" and torch.version.cuda is not None
    return is_nvidia and find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


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
    from vadis.flow.tvl1_triton import solve_scale

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


def _neighbours(count: int, step: float, size: int, beyond: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each target pixel the two source pixels around it and the weight (float32) of the second."""
    position = (torch.arange(count, dtype=torch.float64) + 0.5) * step - 0.5
    first = position.floor()
    weight = (position - first).float()
    weight[first < 0] = 0
    weight[first >= size - 1] = beyond
    first = first.clamp(0, max(size - 2, 0) if beyond else size - 1).long()
    return first.to(device), (first + 1).clamp(max=size - 1).to(device), weight.to(device)
