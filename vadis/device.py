"""cuda or cpu: decided once, said once."""

import os
from typing import TYPE_CHECKING

from vadis.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> "torch.device":
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine.

    Raises:
        UsageError: for any other name.
        DeviceError: where CUDA is asked for by name and cannot be used; ``auto`` takes the CPU instead.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index == "" or index.isdecimal()):
        raise UsageError(f"unknown device {name!r}", hint="use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        raise DeviceError(
            f"no CUDA device can be used (this PyTorch is built with {built})",
            hint="leave out --device to run on the CPU, or install a CUDA build of PyTorch",
        )
    if int(index or 0) >= torch.cuda.device_count():
        message = f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)"
        raise DeviceError(message, hint="they count from cuda:0, and CUDA_VISIBLE_DEVICES may hide some")
    return torch.device(kind, int(index or 0))


def cpu_count() -> int:
    """Processors this process may run on: its affinity, not the machine's size (containers, SLURM)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
