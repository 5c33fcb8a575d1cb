"""Flow as bytes and back: what a flow store keeps of a number.

A component in pixels per frame, truncated to ±20, becomes one of 255 levels: 128 is exactly 0, 1 is −20, 255 is +20.
So the mirror image of a level is a level, and what stands still stays still. The two components of a frame are one
grey picture, dx above dy.
"""

import numpy as np
from numpy.typing import NDArray

BOUND = 20.0  # px per frame; what networks are given is truncated there too (paper, section 2.5)
ZERO = 128
STEPS = 127  # on either side of zero, of BOUND / STEPS = 0.157 px each; rounding is off by half of that at most


def encoded(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (T, 2, H, W) in pixels per frame → uint8 (T, 2 H, W)."""
    length, _, height, width = flow.shape
    levels = np.rint(np.clip(flow, -BOUND, BOUND) * np.float32(STEPS / BOUND)) + np.float32(ZERO)
    codes: NDArray[np.uint8] = levels.astype(np.uint8)
    return codes.reshape(length, 2 * height, width)  # (T, 2, H, W) → (T, 2 H, W)


def decoded(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Levels, uint8 of any shape → float32 in pixels per frame."""
    return _PIXELS[codes]


_PIXELS: NDArray[np.float32] = ((np.maximum(np.arange(256), 1) - ZERO) * (BOUND / STEPS)).astype(np.float32)
"""By level; a lossy codec may make a 0 of a 1."""
