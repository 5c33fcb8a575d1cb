"""The flow of a whole video, chunk by chunk, in step with its frames."""

import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.flow import to_gray, tvl1
from vadis.flow.first import FirstFlow
from vadis.memory import Portion, in_portions

Frames = NDArray[np.uint8]  # (T, H, W, 3)


def with_flow(
    chunks: Iterable[Frames],
    device: torch.device,
    check: Callable[[], None] = lambda: None,
    first: FirstFlow | None = None,
) -> Iterator[tuple[Frames, NDArray[np.float32] | None]]:
    """Every chunk of frames (T, H, W, 3) with its flow (T, 2, H, W), in pixels per frame, from frame i to frame i + 1.

    A chunk waits for the first frame of the next one, to which its last flow leads; the last flow of the video
    repeats the one before it. A video of one frame has no flow: None. ``check`` is that of ``tvl1``; what ``first`` has
    is not computed again.
    """
    frames: Frames | None = None
    flow = None
    portion = Portion(sys.maxsize, "pairs of frames")  # less where memory is short
    for following in chunks:
        if frames is not None:
            flow = _flow(frames, following[:1], device, check, portion, first)  # (T, 2, H, W)
            first = None
            yield frames, flow
        frames = following
    if frames is None:
        return
    if len(frames) > 1:
        flow = _flow(frames[:-1], frames[-1:], device, check, portion, first)  # (T - 1, 2, H, W)
        yield frames, np.concatenate([flow, flow[-1:]])  # (T, 2, H, W)
    else:
        yield frames, None if flow is None else flow[-1:]


def _flow(
    frames: Frames,
    following: Frames,
    device: torch.device,
    check: Callable[[], None],
    portion: Portion,
    first: FirstFlow | None,
) -> NDArray[np.float32]:
    """The flow (T, 2, H, W) of ``frames``, which leads to the one frame ``following``."""
    gray = to_gray(np.concatenate([frames, following]))  # (T + 1, H, W)
    at_hand = first.of(gray, check) if first is not None and device.type == "cpu" else None
    if at_hand is not None:
        return at_hand

    def part(start: int, stop: int) -> NDArray[np.float32]:
        return tvl1(gray[start : stop + 1], device=device, check=check)

    parts = list(in_portions(part, len(frames), portion, device))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
