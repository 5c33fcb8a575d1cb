"""Memory that runs out in the middle of a step."""

import gc
from collections.abc import Callable

import torch

MARKERS = ("out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")  # in the text of a RuntimeError


def runs_out_of_memory(work: Callable[[], object]) -> bool:
    """Do ``work``; True where memory ran out on the way, that of the device or that of the machine."""
    try:
        work()
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not any(marker in str(error) for marker in MARKERS):
            raise
    else:
        return False
    return True  # outside of `except`, whose traceback would keep the tensors


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
