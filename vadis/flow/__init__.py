"""Frames → TV-L1 optical flow (Zach, Pock and Bischof 2007), to the last bit what OpenCV 5's ``DualTVL1`` gives on x86.

The published flow weights were trained on OpenCV's flow with default parameters. One sum in another order moves whole
regions by tenths of a pixel, because a scale then stops one iteration earlier; so every rounding here is OpenCV's.

``tvl1_cpu`` is for processors, ``tvl1_triton`` for NVIDIA's.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vadis.device import cpu_count

if TYPE_CHECKING:
    import torch

__all__ = ["to_gray", "tvl1"]


def to_gray(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return uint8 grey (T, H, W), as OpenCV's ``RGB2GRAY``; raise ValueError unless it is uint8 RGB (T, H, W, 3)."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(f"expected uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    from vadis.flow.filters import fill_gray  # which comes with numba

    gray = np.empty(frames.shape[:3], np.uint8)
    fill_gray(np.require(frames, requirements=["C", "W"]).reshape(-1), gray.reshape(-1))
    return gray


_PROCESSORS = threading.Lock()  # of calls that take them all, one at a time: several would be no faster


def tvl1(
    gray: npt.NDArray[np.uint8],
    *,
    device: "torch.device | str | None" = None,
    threads: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float32]:
    """Return the optical flow from frame i to i + 1: float32 (N - 1, 2, H, W), pixels, axis 1 = (dx, dy).

    The first call ever compiles for some ten seconds; the machine code is kept on disk (``vadis.flow.numba_cache``).

    Args:
        gray: uint8 (N, H, W), N ≥ 2, of any size; ValueError for anything else.
        device: where to compute it: NVIDIA's of compute capability 8.0 on, with Triton; others mean the processor, too.
        threads: there, how many pairs at once; by default one per processor, and such calls wait for each other.
        check: is called before every pair, there, and may raise to stop the work.
    """
    gray = np.asarray(gray)
    if gray.dtype != np.uint8 or gray.ndim != 3 or gray.shape[0] < 2 or 0 in gray.shape:
        raise ValueError(f"expected at least two frames, uint8 (N, H, W), got {gray.dtype} {gray.shape}")
    if threads is not None and threads < 1:
        raise ValueError(f"{threads = } is not positive")
    gray = np.require(gray, requirements=["C", "W"])  # one memory layout, compiled once
    if device is not None and str(device).partition(":")[0] != "cpu" and has_kernel(device):
        from vadis.flow.tvl1_triton import tvl1_cuda

        return tvl1_cuda(gray, device)
    with _PROCESSORS if threads is None else nullcontext():
        return _on_processors(gray, threads or cpu_count(), check)


def has_kernel(device: "torch.device | str") -> bool:
    """Return whether ``tvl1_triton`` runs there: NVIDIA, of compute capability 8.0 on, and Triton installed."""
    import torch

    is_nvidia = torch.device(device).type == "cuda" and torch.version.cuda is not None
    return is_nvidia and find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def _on_processors(gray: npt.NDArray[np.uint8], threads: int, check: Callable[[], None]) -> npt.NDArray[np.float32]:
    """Compute one pair per thread; numba's functions run without the GIL."""
    from vadis.flow.filters import level_shapes
    from vadis.flow.tvl1_cpu import flow_of_pair, working_memory

    num_pairs, height, width = gray.shape[0] - 1, *gray.shape[1:]
    flow = np.empty((num_pairs, 2, height, width), np.float32)
    shapes = np.array(level_shapes(height, width))
    pairs = iter(range(num_pairs))  # shared: each thread takes the next one

    def work() -> None:
        memory = working_memory(height, width)
        for i in pairs:
            check()
            flow_of_pair(gray[i], gray[i + 1], shapes, memory, flow[i])

    workers = min(threads, num_pairs)
    with ThreadPoolExecutor(workers, thread_name_prefix="flow") as pool:
        try:
            for job in [pool.submit(work) for _ in range(workers)]:
                job.result()
        finally:
            deque(pairs, maxlen=0)  # a key press or an error does not wait for the pairs not begun
    return flow
