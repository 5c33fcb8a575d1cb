"""Several processes, one run: what ``torchrun`` says of them, and the few things they tell each other.

    torchrun --standalone --nproc-per-node 8 -m vadis train …

Every process holds the whole network and an equal share of each step's clips; the gradients are averaged once per
step. nccl carries them between GPUs, gloo between CPUs. Without torchrun there is one process, alone, and nothing here
talks to anybody.

``DistributedDataParallel`` is not used. It exchanges gradients during the last backward pass of a step, and sometimes
(when it lays its buckets anew) during a forward pass, so a process that must give up a step half-way, because memory
runs out, a loss is not finite or a signal comes, leaves the others waiting or mixes up what they say. With several
micro-batches to a step there is little to gain by it: the exchange takes milliseconds, once.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vadis.device import resolve_device
from vadis.errors import UsageError

GROUP_TIMEOUT = timedelta(minutes=10)  # a process that waits longer than this for the others gives up
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""On one machine nothing may listen to the network: whoever reaches these ports can run code."""

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """One process of the run; by default the only one. Its methods are collective: all processes call them."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0

    def copy_main(self, network: nn.Module) -> None:
        """Make parameters and buffers of ``network`` those of the main process."""
        if self.world_size > 1:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float tensors of one type, on this process's device, by their means over all processes."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world_size
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def largest(self, *values: int) -> tuple[int, ...]:
        """The greatest of each value over all processes."""
        if self.world_size == 1:
            return values
        found = torch.tensor(values, dtype=torch.int64, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return list(values)
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, list(values))
        return [value for part in parts for value in part]

    def from_main(self, value: T) -> T:
        """What the main process has."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


@contextmanager
def joined(device: str = "auto") -> Iterator[Process]:
    """This process as a member of the group that torchrun started, or alone.

    ``device`` is as for ``resolve_device``; under torchrun ``auto`` and ``cuda`` mean one GPU per process. The group is
    only dissolved when all went well: after an error the others may wait in it for ever, and torchrun ends them.

    Raises:
        UsageError: for ``cuda:N`` under torchrun.
        DeviceError: where the device cannot be used, or there are more processes than GPUs.
    """
    if not is_torchrun():
        yield Process(resolve_device(device))
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    target = _own_device(device, int(os.environ["LOCAL_RANK"]))
    if os.environ.get("LOCAL_WORLD_SIZE", str(world_size)) == str(world_size):
        for name, value in LOOPBACK.items():
            os.environ.setdefault(name, value)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    backend = "nccl" if target.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=GROUP_TIMEOUT, rank=rank, world_size=world_size)
    yield Process(target, rank, world_size)
    dist.barrier()  # nobody leaves while another still talks
    dist.destroy_process_group()


def _own_device(name: str, local_rank: int) -> torch.device:
    if name.startswith("cuda:"):
        raise UsageError(f"torchrun gives each process a GPU of its own; {name} cannot be meant", hint="use cuda")
    device = resolve_device(name)
    return resolve_device(f"cuda:{local_rank}") if device.type == "cuda" else device
