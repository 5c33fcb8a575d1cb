"""The flow of a whole video, chunk by chunk, in step with its frames."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from vadis.flow import to_gray, tvl1


def with_flow(
    chunks: Iterable[NDArray[np.uint8]], device: torch.device
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32] | None]]:
    """Every chunk of frames (T, H, W, 3) with its flow (T, 2, H, W), in pixels per frame, from frame i to frame i + 1.

    A chunk waits for the first frame of the next one, to which its last flow leads; the last flow of the video
    repeats the one before it. A video of one frame has no flow: None.
    """
    frames: NDArray[np.uint8] | None = None
    flow = None
    for following in chunks:
        if frames is not None:
            flow = _flow(frames, following[:1], device)  # (T, 2, H, W)
            yield frames, flow
        frames = following
    if frames is None:
        return
    if len(frames) > 1:
        flow = _flow(frames[:-1], frames[-1:], device)  # (T - 1, 2, H, W)
        yield frames, np.concatenate([flow, flow[-1:]])  # (T, 2, H, W)
    else:
        yield frames, None if flow is None else flow[-1:]


def _flow(frames: NDArray[np.uint8], following: NDArray[np.uint8], device: torch.device) -> NDArray[np.float32]:
    """The flow (T, 2, H, W) of ``frames``, which leads to the one frame ``following``."""
    return tvl1(to_gray(np.concatenate([frames, following])), device=device)
