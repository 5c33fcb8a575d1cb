"""Several processes, one run: what ``torchrun`` says of them, and the few things they tell each other.

    torchrun --standalone --nproc-per-node 8 -m vadis train …

Every process holds the whole network and an equal share of each step's clips; the gradients are averaged once per
step. nccl carries them between GPUs, gloo between CPUs. Without torchrun there is one process, alone, and nothing here
talks to anybody.

**Why not** ``DistributedDataParallel``. It exchanges gradients bucket by bucket while the last backward pass of a step
runs, even where ``no_sync()`` keeps the other micro-batches silent, so there is no moment before it at which processes
could agree that all of them go through with the step. Where one runs out of memory half-way (or meets a loss that is
not finite, or a signal), the others have begun to exchange buckets that it will never send. Tried with two processes
and PyTorch 2.13: what it says next is taken for such a bucket, and gloo ends it for a message of the wrong length. Here
every process finishes its passes, all agree, and only then is there one ``all_reduce``. It costs 0.1 s for the 12.7 M
gradients of an I3D between two processes on a CPU, whose passes take seconds.

**How a run ends.** Well: all meet, then the group is dissolved. By an error: the process that fails ends at once
(``leave``), which closes its connections, so that the others do not wait for it; torchrun ends whoever is left. One
that stands still without ending (stopped, or its machine gone) is missed by its neighbour after 20 s (``_beat``). By a
signal: whoever hears it tells the others, even while it waits for them; they may be in the middle of a long step. Where
torchrun may start them again (``--max-restarts``), the new ones find each other in a corner of its store that those
before have never seen (``_begun_together``).
"""

import hashlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from threading import Thread
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist

# Not used, but imported before there is a group: its functions have ``group=group.WORLD`` as a default. Imported later,
# as ``torch.optim`` does, it holds the group for ever, and ``destroy_process_group`` does not end gloo's threads. One
# that lets go of a tensor while the interpreter ends aborts the process: "terminate called without an active
# exception", https://github.com/pytorch/pytorch/issues/190489
import torch.distributed.nn
from torch import Tensor, nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from vadis.device import resolve_device
from vadis.errors import UsageError, VadisError
from vadis.training.stopping import exit_at_once

GROUP_TIMEOUT = timedelta(minutes=10)  # a process that waits longer than this for the others gives up
STORE_TIMEOUT = timedelta(seconds=20)  # for a word to or from torchrun, on this machine or the first
BEAT_SECONDS = 2.0
GLANCE_SECONDS = 0.05  # between two looks whether the others are there
SILENT_BEATS = 10  # 20 s; torchrun kills a stopped process 30 s after its neighbour has ended: all within a minute
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""On one machine nothing may listen to the network: whoever reaches these ports can run code."""

T = TypeVar("T")


class OthersGoneError(VadisError):
    """An exchange failed, because another process has ended or does not answer."""


@contextmanager
def _exchange() -> Iterator[None]:
    """Around all that waits for others: gloo and nccl say by a RuntimeError that one of them is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise OthersGoneError(
            "another process of this run has ended or does not answer",
            hint="go on from the last checkpoint with `resume=True`",
        ) from error


@dataclass(frozen=True)
class Process:
    """One process of the run; by default the only one. Its methods are collective: all processes call them.

    Raises, from every method:
        OthersGoneError: where another process has ended or does not answer.
    """

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
                with _exchange():
                    dist.broadcast(tensor, src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float tensors of one type, on this process's device, by their means over all processes."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _exchange():
            dist.all_reduce(flat)
        flat /= self.world_size
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def largest(self, *values: int) -> tuple[int, ...]:
        """The greatest of each value over all processes."""
        if self.world_size == 1:
            return values
        with _exchange():
            found = torch.tensor(values, dtype=torch.int64, device=self.device)
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
            return tuple(found.tolist())

    def gather(self, values: Sequence[T]) -> list[T]:
        """The values of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return list(values)
        parts: list[Any] = [None] * self.world_size
        with _exchange():
            dist.all_gather_object(parts, list(values))
        return [value for part in parts for value in part]

    def from_main(self, value: T) -> T:
        """What the main process has."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        with _exchange():
            dist.broadcast_object_list(box, src=0)
        found: T = box[0]
        return found

    def meet(self) -> None:
        """Wait until every process is here: no one leaves while another still writes."""
        self.largest(0)


def is_torchrun() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


@contextmanager
def joined(device: str = "auto") -> Iterator[Process]:
    """This process as a member of the group that torchrun started, or alone.

    ``device`` is as for ``resolve_device``; under torchrun ``auto`` and ``cuda`` mean one GPU per process. The group is
    only dissolved when all went well: after an error that would wait for the others, who may wait for this process.
    ``leave`` is the way out then.

    Raises:
        UsageError: for ``cuda:N`` under torchrun.
        DeviceError: where the device cannot be used, or there are more processes than GPUs.
        OthersGoneError: where another process does not come to the end.
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
    process = Process(target, rank, world_size)
    with _exchange():
        group = _begun_together(_connection(GROUP_TIMEOUT), rank, world_size) if _has_store() else None
    with _pulse(group, rank, world_size):
        with _exchange():
            own = PrefixStore(group, _connection(GROUP_TIMEOUT)) if group else None
            dist.init_process_group(backend, timeout=GROUP_TIMEOUT, rank=rank, world_size=world_size, store=own)
        yield process
        process.meet()
    dist.destroy_process_group()


def _own_device(name: str, local_rank: int) -> torch.device:
    if name.startswith("cuda:"):
        raise UsageError(f"torchrun gives each process a GPU of its own; {name} cannot be meant", hint="use cuda")
    device = resolve_device(name)
    return resolve_device(f"cuda:{local_rank}") if device.type == "cuda" else device


def _has_store() -> bool:
    """Whether torchrun holds a store of words for its processes (it does, unless told not to)."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _connection(timeout: timedelta) -> TCPStore:
    """A connection of its own to that store."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, timeout=timeout, wait_for_workers=False)


def _store() -> PrefixStore:
    """Where the processes that torchrun started with this one tell each other what they say to the user."""
    return PrefixStore(f"vadis-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", _connection(STORE_TIMEOUT))


def _begun_together(store: TCPStore, rank: int, world_size: int) -> str:
    """A name, for a corner of the store, that only the processes know which have been started together.

    torchrun keeps the store when it starts its processes again, with the addresses of those that have ended; and on
    several machines it counts restarts differently on each (one that learns of it from another does not count it), so
    that its number names nothing. So every process brings a word of its own; process 0 proposes the words it finds as
    the group's name, again where one of them changes, and begins when all have taken it.

    Raises:
        OthersGoneError: some process has not come within ``GROUP_TIMEOUT``.
    """
    words, own, deadline = PrefixStore("vadis-begin", store), uuid4().hex, time.monotonic() + GROUP_TIMEOUT.seconds
    words.set(f"word-{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            words.set("proposed", " ".join(_said(words, f"word-{other}") for other in range(world_size)))
        name = _said(words, "proposed")
        if own in name:
            words.set(f"taken-{rank}", name)
        if rank == 0 and all(_said(words, f"taken-{other}") == name for other in range(world_size)):
            words.set("begun", name)
        if own in name and _said(words, "begun") == name:
            return hashlib.sha256(name.encode()).hexdigest()
        time.sleep(GLANCE_SECONDS)
    hint = "look at what torchrun says on the other machines"
    raise OthersGoneError("some process of this run has not begun", hint=hint)


def _said(words: PrefixStore, key: str) -> str:
    """What lies under ``key``, or "" where nothing does."""
    return words.get(key).decode() if words.check([key]) else ""


@contextmanager
def _pulse(name: str | None, rank: int, world_size: int) -> Iterator[None]:
    """Within this block the process shows that it lives, and minds its neighbour in the group of this name."""
    if name is None:
        yield
        return
    heard, wake = os.pipe()  # the number of a signal comes here at once, also where the main thread waits for others
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake)
    arguments = (PrefixStore(name, _connection(STORE_TIMEOUT)), rank, (rank + 1) % world_size, heard)
    thread = Thread(target=_beat, args=arguments, name="vadis-pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)
        thread.join()  # a thread in the middle of a word to the store would abort the end of the interpreter
        os.close(heard)


def _beat(store: PrefixStore, rank: int, neighbour: int, heard: int) -> None:
    """Count up every ``BEAT_SECONDS``; end this process where its neighbour's count stands still.

    The neighbour is silent for so many beats of this process, not seconds: where all are stopped, by Ctrl-Z or a
    machine that sleeps, all go on together. A neighbour that never began may still be on its way; the group's own
    timeout is for that. Where torchrun itself is gone, or another process was asked to end, this one is asked too.
    The numbers of this process's signals come from ``heard``, whose other end is closed when all is over.
    """
    before, silent, is_asked, due = 0, 0, False, time.monotonic() + BEAT_SECONDS
    while True:
        try:
            if select.select([heard], [], [], max(0.0, due - time.monotonic()))[0]:
                signals = os.read(heard, 64)
                if not signals:
                    return
                if not is_asked and {signal.SIGINT, signal.SIGTERM} & set(signals):
                    is_asked = store.add("asked", 1) > 0
                continue
            due = time.monotonic() + BEAT_SECONDS
            store.add(f"beat-{rank}", 1)
            count = store.add(f"beat-{neighbour}", 0)
            if not is_asked and store.add("asked", 0):
                is_asked = True
                os.kill(os.getpid(), signal.SIGTERM)
        except RuntimeError:  # DistNetworkError and its like: nobody holds the store any more
            os.kill(os.getpid(), signal.SIGTERM)
            return
        before, silent = count, silent + 1 if count == before > 0 else 0
        if silent == SILENT_BEATS:
            seconds = BEAT_SECONDS * SILENT_BEATS
            text = f"error: process {neighbour} of this run has stood still for {seconds:.0f} s\n"
            os.write(2, text.encode("ascii"))  # not by print: the main thread waits, and holds who knows what
            os._exit(1)


def tell_once(error: BaseException, tell: Callable[[], object]) -> None:
    """Have the user told of ``error`` by the first process that meets it; the others come back when that is done.

    That another process has gone is told only where none has told why.
    """
    if not _has_store():
        tell()
        return
    name = hashlib.sha256(f"{type(error).__name__}: {error}".encode(errors="replace")).hexdigest()
    try:
        store = _store()
        if isinstance(error, OthersGoneError) and store.add("told", 0) > 0:
            return
        store.add("told", 1)
        is_first = store.add(name, 1) == 1
        if not is_first:  # nobody ends before it is said: torchrun would end the one that says it
            store.wait([f"{name}-done"], STORE_TIMEOUT)
            return
    except RuntimeError:  # no store, or nobody who told: no agreement
        is_first = False
    tell()
    if is_first:
        with suppress(RuntimeError):  # torchrun may be gone by now
            store.set(f"{name}-done", "")


def leave(code: int) -> NoReturn:
    """End this process with an exit code; at once where it is still in a group.

    Without the end of the interpreter, then: it would not end gloo's threads, one of which may abort it (see the
    import of ``torch.distributed.nn``), nor can the group be dissolved while others wait in it.
    """
    if not dist.is_initialized():
        sys.exit(code)
    exit_at_once(code)
