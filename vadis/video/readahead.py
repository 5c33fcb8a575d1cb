"""Frames on their way: work that runs ahead of its consumer, in a thread of its own and never far, and chunks."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Closable = TypeVar("Closable", bound=Any)  # with ``close``

# Of a processor; 1.28 s: full speed already (tests/benchmarks/network_speed.py), 51 MB after the first layer
CHUNK_FRAMES = 32


class Stopped(Exception):
    """Raised in the thread of a ``Prefetcher`` that has been closed."""


class Prefetcher(Generic[Item]):
    """Runs an iterator in a thread of its own, at most ``size`` items ahead of ``items``.

    ``make`` returns it, in the thread, and may call ``report_stage`` and ``check``; ``cancel`` ends what it waits for.
    """

    def __init__(
        self,
        make: "Callable[[Prefetcher[Item]], Generator[Item, None, None]]",
        size: int,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self._cancel, self._room = cancel, threading.Semaphore(size)
        self._messages: SimpleQueue[tuple[str, Any]] = (
            SimpleQueue()
        )  # kind and value: "item", "stage", or "end" with error
        self._stopped = False
        self._thread = threading.Thread(target=self._work, args=(make,), name="ahead", daemon=True)
        self._thread.start()

    def report_stage(self, stage: str) -> None:
        """Report, in the thread, which stage begins; ``items`` passes it on. Raises Stopped as ``check``."""
        self.check()
        self._messages.put(("stage", stage))

    def check(self) -> None:
        """Raise Stopped if ``close`` has been called; to be called in the thread."""
        if self._stopped:
            raise Stopped

    def items(self, on_stage: Callable[[str], None] = lambda stage: None) -> Iterator[Item]:
        """Yield the items in order; ``on_stage`` gets the stages, in this thread. Raises errors of the thread here."""
        while True:
            kind, value = self._messages.get()
            if kind == "end":
                self._messages.put(("end", None))  # for another iteration
                if value is not None:
                    raise value
                return
            if kind == "stage":
                on_stage(value)
            else:
                self._room.release()
                yield value
            del value  # or it would stay while the next one is waited for

    def close(self) -> None:
        """Stop, and wait for the thread to end."""
        self._stopped = True
        self._room.release()
        self._cancel()
        self._thread.join()

    def _work(self, make: "Callable[[Prefetcher[Item]], Generator[Item, None, None]]") -> None:
        failure: BaseException | None = None
        try:
            with closing(make(self)) as items:
                for item in items:
                    self._room.acquire()
                    self.check()
                    self._messages.put(("item", item))
                    del item  # or the last one would wait here for the next
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            failure = error
        self._messages.put(("end", failure))


def prefetch(
    begin: Callable[[Item], Closable], items: Iterable[Item], num: Callable[[], int]
) -> Generator[tuple[Item, Closable], None, None]:
    """Yield every item with what ``begin`` makes of it, closed when the next is taken; at most ``num()`` are open."""
    waiting: deque[tuple[Item, Closable]] = deque()
    source, end = iter(items), None
    try:
        while True:
            while end is None and len(waiting) < num():
                try:
                    item = next(source)
                except Exception as error:  # noqa: BLE001 (raised when those before it are done)
                    end = error
                else:
                    waiting.append((item, begin(item)))
            if not waiting:
                break
            yield waiting[0]
            waiting.popleft()[1].close()
        if end is not None and not isinstance(end, StopIteration):
            raise end
    finally:
        for _, opened in waiting:
            opened.close()


def chunks(frames: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Yield consecutive frames (H, W, 3) stacked into arrays (T, H, W, 3), T = ``size`` but for the last."""
    coming = iter(frames)
    while gathered := list(islice(coming, size)):
        yield np.stack(gathered)
