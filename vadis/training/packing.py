"""Clips as bytes: on their way from the process that loads them to the device they take a quarter of their numbers.

Pictures are bytes anyway, and flow is kept as levels (``vadis.flow.codes``). What makes a network's input of them is
done on the device, value by value as ``vadis.streams`` does it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vadis.flow.codes import ZERO, decoded
from vadis.streams import STREAMS, flow_input

_FLOW_INPUT = flow_input(decoded(np.arange(256, dtype=np.uint8)).reshape(1, 1, 1, 256)).flatten()  # by level


def packed(frames: NDArray[np.uint8], stream: str, *, mirror: bool) -> Tensor:
    """Pictures (T, H, W, 3) or levels (T, 2, H, W), with left and right exchanged or not → uint8 (C, T, H, W)."""
    if stream == "rgb":
        pictures = torch.from_numpy(frames).permute(3, 0, 1, 2)  # (3, T, H, W)
        return pictures.flip(-1) if mirror else pictures
    levels = torch.from_numpy(frames).transpose(0, 1)  # (2, T, H, W)
    return _mirrored(levels) if mirror else levels


def _mirrored(levels: Tensor) -> Tensor:
    """What moved left moves right: dx changes its sign. A level's opposite lies as far on the other side of zero."""
    levels = levels.flip(-1)
    levels[0] = ((2 * ZERO) - levels[0].clamp(min=1).short()).byte()
    return levels


def unpacked(x: Tensor) -> Tensor:
    """Packed clips (…, C, T, H, W), C = 3 (rgb) or 2 (flow) → float32 in [-1, 1]; other numbers stay as they are."""
    if x.dtype != torch.uint8:
        return x
    if x.shape[-4] == STREAMS["rgb"].channels:
        return x.float().mul_(2 / 255).sub_(1)
    return _FLOW_INPUT.to(x.device)[x.int()]
