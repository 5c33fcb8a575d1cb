"""Memory that runs out in the middle of the work, that of the device or that of the machine."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from vadis.errors import DeviceError

Made = TypeVar("Made")

MARKERS = ("out of memory", "_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")  # in the text of a RuntimeError


class NoMemoryError(DeviceError):
    """Memory runs out even with the least that can go through at once."""


@dataclass
class Portion:
    """How many frames, or windows, go through at once: ``size``, which falls where memory runs out."""

    size: int
    what: str = "frames"
    is_told: bool = False


def in_portions(
    work: Callable[[int, int], Made],
    count: int,
    portion: Portion,
    device: torch.device,
    notify: Callable[[str], None] = lambda text: None,
) -> Iterator[Made]:
    """What ``work(start, stop)`` makes of each part of ``[0, count)``, in order.

    Where memory runs out, half as much is tried from the same place on; ``portion`` keeps what was found, for the next
    call. ``notify`` hears of it the first time.

    Args:
        work: may be called again from the same ``start`` on where it ran out of memory.
        count: of what ``portion`` counts.
        portion: how much at once.
        device: whose memory it is.
        notify: gets a sentence.

    Raises:
        NoMemoryError: where one at a time is too much.
    """
    start = 0
    while start < count:
        stop = min(start + portion.size, count)
        made: list[Made] = []
        if not runs_out_of_memory(lambda start=start, stop=stop, made=made: made.append(work(start, stop))):  # type: ignore[misc]
            yield made.pop()
            start = stop
            continue
        release(device)
        if stop - start == 1:
            raise NoMemoryError(
                f"memory ran out on {device} with one of the {portion.what} at a time",
                hint='use a device with more memory, or `device="cpu"`',
            )
        portion.size = (stop - start) // 2
        if not portion.is_told:
            portion.is_told = True
            notify(f"memory is short on {device}: fewer {portion.what} go through at once from now on")


def runs_out_of_memory(work: Callable[[], object]) -> bool:
    """Do ``work``; True where memory ran out on the way."""
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
