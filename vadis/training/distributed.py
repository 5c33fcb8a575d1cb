"""Several processes, one run: what torchrun says of them, what they exchange, and how a process stops and ends.

Every process holds the whole network and an equal share of each step's clips; the gradients are averaged once per
step, by nccl between GPUs, by gloo between CPUs. A process that fails exits at once, and torchrun ends the rest. One
that hangs is missed by its neighbour after 20 s. One that receives a signal tells the others.
"""

import multiprocessing
import multiprocessing.util
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
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

GROUP_TIMEOUT = timedelta(minutes=10)  # a process that waits longer than this for the others gives up
STORE_TIMEOUT = timedelta(seconds=20)  # for a message to or from torchrun, on this machine or the first
HEARTBEAT_SECONDS = 2.0
POLL_SECONDS = 0.05  # between two looks whether the others are there
MISSED_HEARTBEATS = 10  # 20 s; torchrun kills a stopped process 30 s after its neighbour ended: all within a minute
# On one machine nothing may listen to the network: whoever reaches these ports can run code.
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}

UNWATCHED_SECONDS = 1.0  # work that is done by then does not look at signals: its caller does
SIGNAL_POLL_SECONDS = 0.2
GRACE_SECONDS = 0.3  # for work that is nearly done when a signal comes; 5 s in all are promised, with a checkpoint
CPU = torch.device("cpu")
WORK_THREAD = "vadis-heavy-work"

T = TypeVar("T")


# Why not DistributedDataParallel: it exchanges gradients bucket by bucket while the last backward pass of a step runs,
# even where ``no_sync()`` keeps the other micro-batches silent, so there is no moment before it when processes could
# agree that all of them go through with the step. Where one runs out of memory half-way (or meets a loss that is not
# finite, or a signal), the others have begun to exchange buckets that it will never send. Tried with two processes and
# PyTorch 2.13: what it says next is taken for such a bucket, and gloo ends it for a message of the wrong length. Here
# every process finishes its passes, all agree, and only then is there one ``all_reduce``. It costs 0.1 s for the 12.7 M
# gradients of an I3D between two processes on a CPU, whose passes take seconds.
@contextmanager
def _exchange() -> Iterator[None]:
    """Translate the RuntimeError by which gloo and nccl say that another process is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        message = "another process of this run has ended or does not answer"
        raise VadisError(message, hint="go on from the last checkpoint with `resume=True`") from error


@dataclass(frozen=True)
class Process:
    """One process of the run; by default the only one. Its methods are collective: all processes call them.

    Every method raises VadisError where another process has ended or does not answer.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    @_exchange()
    def broadcast(self, network: nn.Module) -> None:
        """Make parameters and buffers of ``network`` those of the main process."""
        for tensor in network.state_dict().values() if self.world_size > 1 else ():
            dist.broadcast(tensor, src=0)

    @_exchange()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float tensors of one type, on this process's device, by their means over all processes."""
        if self.world_size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world_size
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def maximum(self, *values: int) -> tuple[int, ...]:
        """Return the greatest of each value over all processes."""
        return tuple(map(max, zip(*self.gather(values), strict=True)))

    @_exchange()
    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks: the main process's first."""
        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process is here: none exits while another still writes."""
        self.maximum(0)


def is_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


def _has_store() -> bool:
    """Return whether torchrun holds a key-value store for its processes: it does, unless told not to, or by etcd."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


@contextmanager
def join_group(device: str = "auto") -> Iterator[Process]:
    """Join the group that torchrun started, if any, and give this process; raise VadisError if others do not join.

    ``device`` is as for ``resolve_device``; under torchrun ``auto`` and ``cuda`` mean one GPU per process. After an
    error the way out is ``exit_now``: to dissolve the group would wait for the others, who may wait for this process.
    """
    if not is_torchrun():
        yield Process(resolve_device(device))
        return
    if device.startswith("cuda:"):
        raise UsageError(f"torchrun gives each process a GPU of its own; {device} cannot be meant", hint="use cuda")
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    target = resolve_device(device)
    if target.type == "cuda":
        target = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(target)
    if os.environ.get("LOCAL_WORLD_SIZE", str(world_size)) == str(world_size):
        for name, value in LOOPBACK.items():
            os.environ.setdefault(name, value)
    process = Process(target, rank, world_size)
    with _exchange():
        group = _agree_on_name(_connect(GROUP_TIMEOUT), rank, world_size) if _has_store() else None
    with _heartbeat(group, rank, world_size) if group else nullcontext():
        with _exchange():
            store = PrefixStore(group, _connect(GROUP_TIMEOUT)) if group else None
            backend = "nccl" if target.type == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=GROUP_TIMEOUT, rank=rank, world_size=world_size, store=store)
        yield process
        process.barrier()
    dist.destroy_process_group()


def _connect(timeout: timedelta) -> TCPStore:
    environ = os.environ
    return TCPStore(environ["MASTER_ADDR"], int(environ["MASTER_PORT"]), timeout=timeout, wait_for_workers=False)


def _agree_on_name(store: TCPStore, rank: int, world_size: int) -> str:
    """Return a prefix for the store that only the processes know which were started together."""
    # torchrun (with --max-restarts) keeps the store when it restarts its processes, with the addresses of those that
    # have ended; and on several machines it counts restarts differently on each (one that learns of it from another
    # does not count it), so that its number names nothing. So every process brings a random token; process 0 proposes
    # the tokens it finds as the group's name, again where one of them changes, and begins when all have accepted it.
    keys, own, deadline = PrefixStore("vadis-begin", store), uuid4().hex, time.monotonic() + GROUP_TIMEOUT.seconds

    def read(key: str) -> str:
        return keys.get(key).decode() if keys.check([key]) else ""

    keys.set(f"token-{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            keys.set("proposed", " ".join(read(f"token-{other}") for other in range(world_size)))
        name = read("proposed")
        if own in name:
            keys.set(f"accepted-{rank}", name)
        if rank == 0 and all(read(f"accepted-{other}") == name for other in range(world_size)):
            keys.set("begun", name)
        if own in name and read("begun") == name:
            return name
        time.sleep(POLL_SECONDS)
    raise VadisError("some process of this run has not begun", "look at what torchrun says on the other machines")


@contextmanager
def _heartbeat(group: str, rank: int, world_size: int) -> Iterator[None]:
    """Within this block, show that this process lives, and watch its neighbour in the group of this name."""
    # A signal's number comes here at once, also where the main thread waits for others; nothing comes when all is over.
    received, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake)
    arguments = (PrefixStore(group, _connect(STORE_TIMEOUT)), rank, (rank + 1) % world_size, received)
    thread = threading.Thread(target=_watch_neighbour, args=arguments, name="vadis-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(wake)
        thread.join()  # a thread in the middle of a message to the store would abort the end of the interpreter
        os.close(received)


def _watch_neighbour(store: PrefixStore, rank: int, neighbour: int, received: int) -> None:
    """Count up every ``HEARTBEAT_SECONDS``; end this process where its neighbour's count stands still.

    Where torchrun itself is gone, or another process got a signal, this one gets SIGTERM too.
    """
    # The neighbour is silent for so many heartbeats of this process, not seconds: where all are stopped, by Ctrl-Z or a
    # machine that sleeps, all go on together. One that never began may still be on its way; the group's own timeout is
    # for that.
    before, missed, is_stopping, due = 0, 0, False, time.monotonic() + HEARTBEAT_SECONDS
    while missed < MISSED_HEARTBEATS:
        try:
            if select.select([received], [], [], max(0.0, due - time.monotonic()))[0]:
                numbers = os.read(received, 64)
                if not numbers:
                    return
                if not is_stopping and {signal.SIGINT, signal.SIGTERM} & set(numbers):
                    is_stopping = store.add("stop", 1) > 0
                continue
            due = time.monotonic() + HEARTBEAT_SECONDS
            store.add(f"heartbeat-{rank}", 1)
            count = store.add(f"heartbeat-{neighbour}", 0)
            if not is_stopping and store.add("stop", 0):
                is_stopping = True
                os.kill(os.getpid(), signal.SIGTERM)
        except RuntimeError:  # DistNetworkError and its like: nobody holds the store any more
            os.kill(os.getpid(), signal.SIGTERM)
            return
        before, missed = count, missed + 1 if count == before > 0 else 0
    seconds = HEARTBEAT_SECONDS * MISSED_HEARTBEATS
    text = f"error: process {neighbour} of this run has stood still for {seconds:.0f} s\n"
    os.write(2, text.encode("ascii"))  # not by print: the main thread waits, and holds who knows what
    os._exit(1)


def report_once(report: Callable[[], object]) -> None:
    """Call ``report``, of an error, in the first process that has one; the others return when that is done."""
    if not _has_store():
        report()
        return
    is_first = False
    try:
        store = PrefixStore(f"vadis-{os.environ['TORCHELASTIC_RESTART_COUNT']}", _connect(STORE_TIMEOUT))
        is_first = store.add("failed", 1) == 1
        if not is_first:  # none exits before it is reported: torchrun would end the process that does it
            store.wait(["reported"], STORE_TIMEOUT)
            return
    except RuntimeError:  # no store, or no process that reported: no agreement
        pass
    report()
    if is_first:
        with suppress(RuntimeError):  # torchrun may be gone by now
            store.set("reported", "")


def run_unless_stopped(
    work: Callable[[], T], stop_requested: Callable[[], int], device: torch.device = CPU
) -> T | None:
    """Return what ``work`` returns; None where a stop is requested meanwhile: then the way out is ``exit_now``."""
    # On a CPU one pass takes many seconds within a single call, and Python looks at signals between its own
    # instructions. So the work runs in a thread, which cannot be ended from outside, while this one waits and listens.
    # Other devices compute by themselves, and passes are short.
    if device.type != "cpu":
        return work()
    outcome: Future[T] = Future()
    has_gradients = torch.is_grad_enabled()  # which each thread has for itself

    def run() -> None:
        try:
            with torch.set_grad_enabled(has_gradients):
                outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name=WORK_THREAD, daemon=True)
    thread.start()
    thread.join(UNWATCHED_SECONDS)
    while thread.is_alive():
        is_stopping = stop_requested()
        thread.join(GRACE_SECONDS if is_stopping else SIGNAL_POLL_SECONDS)
        if is_stopping and thread.is_alive():
            return None
    return outcome.result()


def has_abandoned_work() -> bool:
    """Return whether work goes on although nobody waits for it."""
    return any(thread.name == WORK_THREAD for thread in threading.enumerate())


def exit_now(code: int) -> NoReturn:
    """End this process with an exit code, by ``os._exit`` where it is still in a group or has abandoned work."""
    # The end of the interpreter would abort in the middle of PyTorch's code, or for gloo's threads (see the import of
    # ``torch.distributed.nn``), and the group cannot be dissolved while others wait in it.
    if not dist.is_initialized() and not has_abandoned_work():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    for child in multiprocessing.active_children():
        child.kill()  # one that is still starting would miss its semaphores, and show a traceback
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]  # or semaphores are reported as leaked
    os._exit(code)
