"""Optical flow to look at: the picture, and beside it the flow in the usual colour wheel (Baker et al. 2007).

The colour says where a pixel moves to, its strength how far: white stands still, the full colour is FULL_PIXELS per
frame, and beyond it colours are darker. A wheel in the corner shows which is which.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vadis.video.encoder import video_file
from vadis.video.metadata import VideoFacts

if TYPE_CHECKING:
    import torch

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB

FULL_PIXELS = 6.0  # per frame; most actions move by less
BEYOND = 0.75  # of the full colour, for what moves further
ARCS = (  # of the wheel: from colour to colour, and how many steps lie between them
    ((255, 0, 0), 15),  # red to yellow
    ((255, 255, 0), 6),  # to green
    ((0, 255, 0), 4),  # to cyan
    ((0, 255, 255), 11),  # to blue
    ((0, 0, 255), 13),  # to magenta
    ((255, 0, 255), 6),  # to red
)
WHEEL_PIXELS = 49  # side of the one in the corner
CHUNK_FRAMES = 8
FPS = 25


def colour_wheel() -> NDArray[np.float64]:
    """The colours around the wheel, (55, 3) in [0, 1], red first."""
    starts = [np.array(colour) for colour, _ in ARCS]
    arcs = [
        start + (end - start) * np.arange(steps)[:, None] / steps
        for start, end, (_, steps) in zip(starts, [*starts[1:], starts[0]], ARCS, strict=True)
    ]
    return np.asarray(np.concatenate(arcs) / 255, np.float64)


def in_colours(flow: NDArray[np.float32], full_pixels: float = FULL_PIXELS) -> Pixels:
    """Flow (2, H, W) in pixels per frame, dx and dy (down), as uint8 RGB (H, W, 3)."""
    wheel = colour_wheel()
    dx, dy = flow.astype(np.float64)
    strength = np.hypot(dx, dy)[..., None] / full_pixels  # (H, W, 1)
    turn = (np.arctan2(-dy, -dx) / np.pi + 1) / 2 * (len(wheel) - 1)  # (H, W), in steps of the wheel
    low = np.floor(turn).astype(int)
    part = (turn - low)[..., None]
    colour = wheel[low] * (1 - part) + wheel[(low + 1) % len(wheel)] * part  # (H, W, 3)
    shown = np.where(strength <= 1, 1 - strength * (1 - colour), colour * BEYOND)
    return np.asarray(255 * shown, np.uint8)


def legend(side: int = WHEEL_PIXELS) -> tuple[Pixels, NDArray[np.bool_]]:
    """The wheel itself, uint8 (side, side, 3), and where it is, (side, side)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return in_colours(np.stack([x, y]).astype(np.float32), 1.0), np.hypot(x, y) <= 1


def write_flow_video(
    video: str,
    path: Path,
    device: "torch.device",
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> VideoFacts:
    """Write the 25 fps grid of ``video`` with its TV-L1 flow to the right of it; returns what is known of ``video``.

    Args:
        video: a file.
        path: with an extension of ``vadis.video.encoder.CONTAINERS``.
        device: where the flow is computed.
        progress: called after each frame with how many are done, and how many the header promises.

    Raises:
        VideoError: where the video cannot be read; ``too_short``, where it has one frame only.
        VadisError: where an encoder is missing, or the disk does not take it.
    """
    from vadis.errors import VideoError
    from vadis.flow.video_flow import with_flow
    from vadis.video.colour import BT709
    from vadis.video.isolated.pool import Decoders
    from vadis.video.windows import chunks

    done, (wheel, is_wheel) = 0, legend()
    with Decoders() as decoders, decoders.open(video) as opened:
        width, height = opened.size
        with video_file(path, (2 * width, height), Fraction(FPS), colours=BT709) as write:
            pairs = with_flow(chunks((frame.pixels for frame in opened), CHUNK_FRAMES), device)
            for frames, flows in pairs:  # (T, H, W, 3), (T, 2, H, W)
                if flows is None:
                    raise VideoError("too_short", "it has one frame only, and flow takes two")
                for frame, flow in zip(frames, flows, strict=True):
                    coloured = in_colours(flow)
                    corner = coloured[-WHEEL_PIXELS - 4 : -4, -WHEEL_PIXELS - 4 : -4]
                    corner[is_wheel] = wheel[is_wheel]
                    write(np.concatenate([frame, coloured], axis=1), Fraction(done, FPS), Fraction(1, FPS))
                    done += 1
                    progress(done, opened.expected_num_frames)
    return opened.facts
