"""Choose the device, count processors, and go on with smaller batches where memory runs out."""

import gc
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vadis.errors import DeviceError, UsageError

if TYPE_CHECKING:
    import torch

CGROUPS, PROCESS_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMORY, CPU_FACTS = Path("/proc/meminfo"), Path("/proc/cpuinfo")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h, in bytes, bytes, arenas

FIRST_RIGHT_CUDNN = 91600  # older ones compute 3D convolutions wrongly in TF32 and bfloat16 (pytorch #163539, #167024)


def resolve_device(name: str = "auto") -> "torch.device":
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine; auto: CUDA if there is.

    PyTorch, which knows no quotas, then computes with at most ``cpu_count`` threads, unless OMP_NUM_THREADS is set. On
    processors, memory that is freed stays with the process.
    Raises UsageError for other names, DeviceError where CUDA is asked for by name and cannot be used.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cpu_count():
        torch.set_num_threads(cpu_count())
    has_cuda = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not has_cuda):
        _keep_freed_memory()
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if name != "auto" and (kind != "cuda" or not (index == "" or index.isdecimal())):
        raise UsageError(f"unknown device {name!r}", hint="use auto, cpu, cuda or cuda:N")
    if not has_cuda:
        message = f"no CUDA device can be used (this PyTorch is built with {torch.version.cuda or 'no CUDA'})"
        raise DeviceError(message, hint="leave out `device` to run on the CPU, or install a CUDA build of PyTorch")
    if int(index or 0) >= torch.cuda.device_count():
        message = f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)"
        raise DeviceError(message, hint="they count from cuda:0, and CUDA_VISIBLE_DEVICES may hide some")
    version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is not None and version < FIRST_RIGHT_CUDNN:
        torch.backends.cudnn.allow_tf32 = False  # it computes in float32, which takes longer
    return torch.device("cuda") if name == "auto" else torch.device("cuda", int(index or 0))


def cudnn_version(device: "torch.device") -> str | None:
    """Return the version of cuDNN that computes on ``device``, such as 9.10.2; None on the CPU."""
    import torch

    number: int | None = torch.backends.cudnn.version() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    return None if number is None else f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def cpu_count() -> int:
    """Return how many processors this process may use: by its affinity and the quota of its cgroups."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = _limits("cpu", ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
    quotas = [share / period for share, period in shares if share > 0]  # -1: none
    return max(1, min(affinity, ceil(min(quotas, default=affinity))))


def memory_bytes() -> float:
    """Return how much memory there is for this process, by what the system has left and its cgroups allow."""
    amounts = [float("inf"), *(amount for [amount] in _limits("memory", ["memory.max"], ["memory.limit_in_bytes"]))]
    with suppress(OSError):
        amounts += [int(each) << 10 for each in re.findall(r"(?m)^MemAvailable: *(\d+) kB", MEMORY.read_text())]
    return min(amounts)


def _limits(controller: str, *forms: list[str]) -> Iterator[list[int]]:
    """Yield the numbers in files, of one form or another, of the cgroups around this process (Docker, SLURM)."""
    for folder in _cgroup_folders(controller):
        for names in forms:
            with suppress(OSError, ValueError):  # not there; "max"
                yield list(map(int, " ".join((folder / name).read_text() for name in names).split()))


def _cgroup_folders(controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups around this process, in which the limits of ``controller`` may stand."""
    lines = list[str]()
    with suppress(OSError):
        lines = PROCESS_CGROUPS.read_text().splitlines()
    for line in lines:
        _, controllers, place = line.split(":", 2)  # version 2 has no controllers
        if controllers and controller not in controllers.split(","):
            continue
        for root in (CGROUPS / controllers, CGROUPS / (controller if controllers else "unified")):
            folder = root / place.lstrip("/")  # in a container it may not exist: its root is the one mounted
            yield from (each for each in (folder, *folder.parents) if each.is_relative_to(root))


def multiplies_bfloat16() -> bool:
    """Return whether this processor has instructions that multiply bfloat16: AVX-512 BF16 or AMX."""
    return _cpu_matches(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b")


def is_bfloat16_faster() -> bool:
    """Return whether this processor computes faster in bfloat16 than in float32: with AMX, or AMD's AVX-512 BF16.

    Intel's AVX-512 BF16, where a virtual machine hides AMX, multiplies at half the rate of float32 (performance.md).
    """
    return _cpu_matches(r"\bamx_bf16\b") or (_cpu_matches(r"\bAuthenticAMD\b") and multiplies_bfloat16())


def _cpu_matches(pattern: str) -> bool:
    """Return whether ``pattern`` is found in what Linux says of the processor."""
    with suppress(OSError):
        return re.search(pattern, CPU_FACTS.read_text(), re.MULTILINE) is not None
    return False


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next layer, where that is glibc, in one arena for all threads.

    Networks pass on tens of megabytes at a time. The system would take them back, and give them anew page by page,
    which takes longer than writing them.
    """
    import ctypes

    with suppress(AttributeError, OSError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, 1 << 30)
        set_option(M_TRIM_THRESHOLD, (1 << 31) - 1)
        set_option(M_ARENA_MAX, 1)


class Cores:
    """The processors on which several threads compute at once, each with an equal share of them, one at least."""

    def __init__(self, count: int) -> None:
        self.count, self.threads = count, set[int]()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Within this block the thread has a share, which grows when others leave theirs (see ``take_share``)."""
        self.threads.add(threading.get_ident())
        _of_thread.cores = self
        try:
            yield
        finally:
            _of_thread.cores = None
            self.threads.discard(threading.get_ident())


_of_thread = threading.local()


def take_share() -> None:
    """Let PyTorch compute with this thread's share of the processors from now on, if the thread shares any."""
    cores: Cores | None = getattr(_of_thread, "cores", None)
    if cores is not None:
        import torch

        torch.set_num_threads(max(1, cores.count // len(cores.threads)))


_log = logging.getLogger(__name__)

Made = TypeVar("Made")


class NoMemoryError(DeviceError):
    """Memory runs out even with one frame or window at a time."""


@dataclass
class BatchLimit:
    """How many frames, or windows, go through at once: ``size``, which is halved where memory runs out."""

    size: int
    what: str = "frames"
    is_logged: bool = False  # no more to be said


def run_in_batches(
    work: Callable[[int, int], Made], count: int, limit: BatchLimit, device: "torch.device"
) -> Iterator[Made]:
    """Yield ``work(start, stop)`` of each part of ``[0, count)``, in order; back off to smaller parts on out-of-memory.

    ``work`` is then called again from the same ``start``, and ``limit`` keeps the size for the next call. Raises
    NoMemoryError where one at a time is too much.
    """
    start = 0
    while start < count:
        stop = min(start + limit.size, count)
        made: list[Made] = []
        if not runs_out_of_memory(lambda start=start, stop=stop, made=made: made.append(work(start, stop))):  # type: ignore[misc]
            yield made.pop()
            start = stop
            continue
        release(device)
        if stop - start == 1:
            message = f"memory ran out on {device} with one of the {limit.what} at a time"
            raise NoMemoryError(message, hint='use a device with more memory, or `device="cpu"`')
        limit.size = (stop - start) // 2
        if not limit.is_logged:
            limit.is_logged = True
            _log.warning("memory is short on %s: fewer %s go through at once from now on", device, limit.what)


def runs_out_of_memory(work: Callable[[], object]) -> bool:
    """Do ``work``, and return whether memory ran out on the way."""
    try:
        work()
        return False
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not re.search("out of memory|_STATUS_ALLOC_FAILED|DefaultCPUAllocator", str(error)):
            raise
    return True  # outside of `except`, whose traceback would keep the tensors


def release(device: "torch.device") -> None:
    """Return memory that nothing refers to any more to the device."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
