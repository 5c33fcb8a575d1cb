"""Heavy work that is left alone where a signal comes: on a CPU one pass takes many seconds within a single call.

Python looks at signals between its own instructions, and a backward pass is one of them. So the work runs in a thread
of its own while this one waits and listens. A thread cannot be ended from outside; one that is left alone goes on until
its process ends, which then has to be by ``os._exit`` (``is_left_alone``): the ordinary end of the interpreter would
abort in the middle of PyTorch's code.
"""

import multiprocessing
import multiprocessing.util
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

import torch

FIRST_LOOK_SECONDS = 1.0  # work that is done by then is not asked about: whoever does it looks at signals himself
LOOK_SECONDS = 0.2
GRACE_SECONDS = 0.3  # for work that is nearly done when a signal comes; 5 s in all are promised, with a checkpoint
CPU = torch.device("cpu")
THREAD_NAME = "vadis-heavy-work"

Made = TypeVar("Made")


def unless_stopped(
    work: Callable[[], Made], stop_requested: Callable[[], int], device: torch.device = CPU
) -> Made | None:
    """Return what ``work`` returns; None where a stop is requested meanwhile: then it is left alone.

    On other devices than the CPU ``work`` is simply called: they compute by themselves, and passes are short.
    """
    if device.type != "cpu":
        return work()
    task = _Task(work)
    task.thread.start()
    task.thread.join(FIRST_LOOK_SECONDS)
    while task.thread.is_alive():
        if stop_requested():
            task.thread.join(GRACE_SECONDS)
            if task.thread.is_alive():
                return None
        task.thread.join(LOOK_SECONDS)
    return task.outcome()


def is_left_alone() -> bool:
    """Return whether there is work that goes on although nobody waits for it."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def exit_at_once(code: int) -> NoReturn:
    """End this process without the end of the interpreter, and the processes that load clips for it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    for child in multiprocessing.active_children():
        child.kill()  # one that is still starting would miss its semaphores, and show a traceback
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]  # or semaphores are reported as leaked
    os._exit(code)


class _Task(Generic[Made]):
    """Work in a thread: what it returns, or what it raises, is had from ``outcome``."""

    def __init__(self, work: Callable[[], Made]) -> None:
        self._work, self._has_gradients = work, torch.is_grad_enabled()  # which is a matter of each thread
        self._made: list[Made] = []
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def outcome(self) -> Made:
        """Return what the work returned, once its thread has ended; raise what it raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._made[0]

    def _run(self) -> None:
        try:
            with torch.set_grad_enabled(self._has_gradients):
                self._made.append(self._work())
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            self._error = error
