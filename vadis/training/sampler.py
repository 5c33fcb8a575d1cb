"""Which clip comes when: one endless row of positions, cut into steps, shared out to processes and micro-batches.

    position   0 1 2 3 4 5 6 7 8 …            counted from the beginning of training
    epoch      position // len(dataset)       each epoch is a permutation of its own, drawn from (seed, epoch)
    step       position // batch_size         so a batch may span two epochs, and no clip is ever left out
    process    an equal share of each step, in order; micro-batches divide the share

Nothing else decides what is loaded, so a run goes on at any step without replaying the ones before, and neither the
number of loader workers nor that of processes changes what a step learns from.
"""

import hashlib
import os
import signal
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from multiprocessing.util import Finalize
from types import FrameType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vadis.errors import UsageError, VadisError
from vadis.training.recipes import Recipe

CLIPS_AHEAD = 4  # per worker, loaded before they are asked for; an RGB clip of 64 frames has 39 MB
GRACE_SECONDS = 30  # from SIGTERM to the end of a worker; a checkpoint takes a few


class ClipDataset(Protocol):
    """Clips by number. All that is random in a clip depends on (seed, epoch, index) and nothing else.

    It must be picklable: loader workers are new processes.
    """

    def __len__(self) -> int:
        """The number of clips in an epoch."""

    def clip(self, epoch: int, index: int) -> tuple[tuple[Tensor, ...], int, str]:
        """What the network takes, without the axis B: (C, T, H, W) by stream; class number; name for messages."""


class Clip(NamedTuple):
    """A clip with its place in the row."""

    position: int
    tensors: tuple[Tensor, ...]  # (C, T, H, W) by stream
    label: int
    name: str


def derived_seed(*parts: int | str) -> int:
    """A seed in [0, 2^63) for what ``parts`` name; different parts give unrelated seeds, on every machine."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def permutation(seed: int, epoch: int, size: int) -> list[int]:
    """The order of the clips in an epoch."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def share_of_step(recipe: Recipe, step: int, rank: int, world_size: int) -> range:
    """The positions that process ``rank`` of ``world_size`` takes in the step after ``step`` others.

    Raises:
        UsageError: where the batch cannot be divided equally.
    """
    if recipe.batch_size % world_size:
        raise UsageError(
            f"a batch of {recipe.batch_size} clips cannot be shared equally among {world_size} processes",
            hint="choose a batch_size that is a multiple of the number of processes",
        )
    size = recipe.batch_size // world_size
    start = step * recipe.batch_size + rank * size
    return range(start, start + size)


def micro_batches(share: range, size: int) -> list[range]:
    """``share`` cut into pieces of ``size``; the last may be smaller."""
    return [share[start : start + size] for start in range(0, len(share), size)]


class ClipOrder(Sampler[tuple[int, int, int]]):
    """(position, epoch, index) of every clip for one process, from a step on, without end."""

    def __init__(self, size: int, recipe: Recipe, step: int, rank: int = 0, world_size: int = 1) -> None:
        self._size, self._recipe, self._step = size, recipe, step
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        step, drawn, order = self._step, -1, []
        while True:
            for position in share_of_step(self._recipe, step, self._rank, self._world_size):
                epoch, place = divmod(position, self._size)
                if epoch != drawn:
                    drawn, order = epoch, permutation(self._recipe.seed, epoch, self._size)
                yield position, epoch, order[place]
            step += 1


class _Failure(NamedTuple):
    """A VadisError on its way from a worker, as what is sure to come through a pipe."""

    message: str
    hint: str | None


class _Keyed(Dataset[Clip | _Failure]):
    """A clip dataset as ``DataLoader`` wants it: one key per clip."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips

    def __getitem__(self, key: tuple[int, int, int]) -> Clip | _Failure:
        position, epoch, index = key
        try:
            return Clip(position, *self._clips.clip(epoch, index))
        except VadisError as error:
            return _Failure(error.message, error.hint)


def stream_clips(
    clips: ClipDataset, order: Iterable[tuple[int, int, int]], workers: int, *, pin_memory: bool = False
) -> Generator[Clip, None, None]:
    """The clips in ``order``, loaded by ``workers`` processes (0: in this one), each on one thread.

    Raises:
        VadisError: what the dataset raises, or where a worker dies.
    """
    keyed = _Keyed(clips)
    loaded = _in_workers(keyed, order, workers, pin_memory) if workers else (keyed[key] for key in order)
    with closing(loaded):
        for clip in loaded:
            if isinstance(clip, _Failure):
                raise VadisError(clip.message, clip.hint)
            yield clip


def _in_workers(
    keyed: _Keyed, order: Iterable[tuple[int, int, int]], workers: int, pin_memory: bool
) -> Generator[Clip | _Failure, None, None]:
    loader = DataLoader(
        keyed,
        batch_size=None,  # single clips: a micro-batch may become smaller on the way
        sampler=order,
        num_workers=workers,
        prefetch_factor=CLIPS_AHEAD,
        multiprocessing_context="spawn",  # a fork would copy threads' locks, but not the threads
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # its own, or every start would draw from that of dropout
        pin_memory=pin_memory,
    )
    received = iter(loader)
    try:
        yield from received
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise VadisError(
            "a process that loads clips was killed",
            hint="often memory or shared memory ran out: use fewer `workers` (0 for none), "
            "or give a container more by --shm-size",
        ) from error
    finally:  # now, and not whenever nothing refers to it any more: a traceback would hold it
        received._shutdown_workers()  # type: ignore[attr-defined]


def _prepare_worker(worker: int) -> None:
    """Go on loading when a signal goes to the whole process group: the training process decides when to stop.

    Not for ever, though: where it ends without a word to its workers, SIGTERM is all that Python sends them. A worker
    ends by ``os._exit``, because the thread that hands over its clips may be in the middle of one, and the ordinary end
    of the interpreter would abort in it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_soon)
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)  # the last of all


def _end_soon(signum: int, frame: FrameType | None) -> None:
    signal.alarm(GRACE_SECONDS)
