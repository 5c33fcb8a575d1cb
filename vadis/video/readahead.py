"""Work that runs ahead of its consumer, in a thread of its own, and never far."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made", bound="Closable")

_MAX_NOTES = 64  # kept; older ones have lost their interest


class Stopped(Exception):
    """Nobody wants the rest."""


class Closable(Protocol):
    """Work in progress that has to be ended."""

    def close(self) -> None:
        """End it."""
        ...


class Prefetcher(Generic[Item]):
    """Runs an iterator in a thread of its own, at most ``size`` items ahead of ``walk``.

    Args:
        make: gives the iterator, in the thread, where it is closed too. May ``note`` and ``check``.
        size: items that may wait.
        cancel: ends what the thread may be waiting for; from another thread.
    """

    def __init__(
        self,
        make: "Callable[[Prefetcher[Item]], Generator[Item, None, None]]",
        size: int,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self._size, self._cancel = size, cancel
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._notes: deque[str] = deque(maxlen=_MAX_NOTES)
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self._thread = threading.Thread(target=self._work, args=(make,), name="ahead", daemon=True)
        self._thread.start()

    def note(self, text: str) -> None:
        """Report, in the thread, what begins; ``walk`` passes it on. Raises Stopped where nobody wants the rest."""
        self.check()
        with self._changed:
            self._notes.append(text)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise Stopped, in the thread, where nobody wants the rest."""
        if self._stopped:
            raise Stopped

    def walk(self, hear: Callable[[str], None] = lambda text: None) -> Iterator[Item]:
        """Yield the items in order; ``hear`` gets the notes, in this thread. Raises here an error of the thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._notes or self._items or self._ended)
                notes = list(self._notes)
                self._notes.clear()
                items = [self._items.popleft()] if self._items and not notes else []
                self._changed.notify_all()
            for text in notes:
                hear(text)
            yield from items
            if not notes and not items:
                break
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Stop, and wait for the thread to end."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()
        self._cancel()
        self._thread.join()

    def _work(self, make: "Callable[[Prefetcher[Item]], Generator[Item, None, None]]") -> None:
        try:
            with closing(make(self)) as items:
                for item in items:
                    with self._changed:
                        self._changed.wait_for(lambda: self._stopped or len(self._items) < self._size)
                        self.check()
                        self._items.append(item)
                        self._changed.notify_all()
                    del item  # or the last one would wait here for the next
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def prefetch(
    begin: Callable[[Item], Made], items: Iterable[Item], num: Callable[[], int]
) -> Iterator[tuple[Item, Made]]:
    """Yield every item with what ``begin`` makes of it, in order; at most ``num()`` of them are open at a time.

    Whoever takes one is done with it when he asks for the next.
    """
    waiting: deque[tuple[Item, Made]] = deque()
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
        for _, made in waiting:
            made.close()
