"""One process that decodes, as its parent sees it: started, asked, read from, ended.

It is waited for no longer than a ``Watchdog`` allows, and believed no further than ``protocol`` allows.
"""

import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from vadis.errors import VadisError, what_next
from vadis.video.isolated import protocol
from vadis.video.isolated.protocol import LENGTH_BYTES, MAX_JSON_BYTES, ProtocolError
from vadis.video.metadata import Limits

PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start.pop('path')\n"
    "from vadis.video.isolated.child import main; main(**start)"
)
"""What a child runs. Python is started isolated (-I), so that neither the current folder nor the user's site-packages
can put modules in the way; it finds ours where this process does. Not ``multiprocessing``: that would import the
caller's ``__main__``, and unpickle what the child sends."""

MAX_WAIT_FACTOR = 10  # seconds of waiting for each second of video
START_SECONDS = 60.0  # in which a child must be ready

_PIPE_BYTES = 1 << 20  # requested from the kernel; its default of 64 KiB makes 4 times as many switches
_STDERR_TAIL_BYTES = 4096
_KEPT_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ")
_NO_MEMORY = ("bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory")  # in the stderr tail
REAP_TIMEOUT_SECONDS = 1.0  # a process that has been killed may be stuck in a dead disk


class Watchdog:
    """The time for which a child may be waited for. It runs only then, not while its frames are worked on.

    It ends after ``quiet_seconds`` without a byte; or, in all, after more than that and more than ten times the
    duration, which is that of the header or of the frames so far, whichever is longer.
    """

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self.video_seconds = self.waited_seconds = 0.0

    def seconds_left(self) -> float:
        """Return how long the next byte may be waited for; not positive: no longer."""
        total = max(self.quiet_seconds, MAX_WAIT_FACTOR * self.video_seconds)
        return min(self.quiet_seconds, total - self.waited_seconds)


class ChildExited(Exception):
    """The child has closed its pipe."""


class ChildTimeout(Exception):
    """The watchdog's time is over."""


class Child:
    """One process that decodes, and the pipes to it."""

    def __init__(self, program: str, limits: Limits) -> None:
        start = {"path": _import_path(), "parent": os.getpid(), "max_memory_mb": limits.max_memory_mb}
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._stderr, stderr = os.pipe()
        os.set_blocking(stderr, False)  # a child that prints much is not held up by it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", program, json.dumps(start)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is not for it
            )
        except OSError as error:
            os.close(self._stderr)
            message = f"no process can be started to decode videos: {error.strerror}"
            raise VadisError(message, hint=what_next(error.errno)) from error
        finally:
            os.close(stderr)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        with suppress(AttributeError, OSError):  # where the system has no such setting
            fcntl.fcntl(self._stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._lock = threading.Lock()  # a process id means this process only until it is reaped
        self._stderr_tail = ""
        self.pid = self._process.pid
        self.is_ready = self.has_ended = self._killed_here = False

    def wait_until_ready(self) -> list[str]:
        """Wait until it serves; return what it could not give up (``sandbox.enter_sandbox``)."""
        try:
            lacking = protocol.field(self.receive(Watchdog(START_SECONDS)), "ready")
        except (ChildExited, ChildTimeout, ProtocolError) as error:
            self.wait_briefly()
            self.end()
            hint = "`vadis doctor` tells what is missing"
            raise VadisError(f"the process that decodes videos does not start{self.exit_reason()}", hint) from error
        self.is_ready = True
        return [str(each) for each in lacking]

    def send(self, request: dict[str, Any]) -> None:
        """Request a file."""
        try:
            protocol.send_all(self._stdin.fileno(), [protocol.pack_message(request)])
        except BrokenPipeError as error:
            raise ChildExited from error

    def receive(self, watchdog: Watchdog) -> dict[str, Any]:
        """Return the next message."""
        length = int.from_bytes(self.read(LENGTH_BYTES, watchdog), "big")
        protocol.require(length <= MAX_JSON_BYTES, "length")
        return protocol.unpack_message(self.read(length, watchdog))

    def read(self, num_bytes: int, watchdog: Watchdog) -> bytes:
        """Return the next bytes."""
        content = bytearray(num_bytes)
        self.read_into(memoryview(content), watchdog)
        return bytes(content)

    def read_into(self, buffer: memoryview, watchdog: Watchdog) -> None:
        """Fill ``buffer`` with the next bytes."""
        while buffer:
            left, began = watchdog.seconds_left(), time.monotonic()
            is_there = left > 0 and bool(self._selector.select(left))
            watchdog.waited_seconds += time.monotonic() - began
            if not is_there:
                raise ChildTimeout
            num_read = self._stdout.readinto(buffer)  # type: ignore[attr-defined]
            if not num_read:
                raise ChildExited
            buffer = buffer[num_read:]

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        with self._lock:
            return self._process.poll() is None

    def kill(self) -> None:
        """End the process, at once; from any thread, any number of times."""
        with self._lock:
            if self._process.returncode is None:
                self._killed_here = True
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process and release its pipes; afterwards ``exit_reason`` is known. Once is enough."""
        if self.has_ended:
            return
        self.has_ended = True
        self.kill()
        self.wait_briefly()
        if self._process.returncode is None:  # stuck in the kernel: it will go when that lets it
            self._process.returncode = -signal.SIGKILL
        self._selector.close()
        self._stdin.close()
        self._stdout.close()
        os.set_blocking(self._stderr, False)
        content = b""
        with suppress(BlockingIOError):
            while part := os.read(self._stderr, _PIPE_BYTES):
                content = (content + part)[-_STDERR_TAIL_BYTES:]
        os.close(self._stderr)
        self._stderr_tail = content.decode("utf-8", "replace")

    def wait_briefly(self) -> None:
        """Wait a moment for its end: a process that has closed its pipe ends by itself, and then its exit is known."""
        deadline = time.monotonic() + REAP_TIMEOUT_SECONDS
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)

    def ran_out_of_memory(self) -> bool:
        """Return whether its stderr tail says so, once it has ended: C++ aborts where it gets no memory."""
        return any(marker in self._stderr_tail for marker in _NO_MEMORY)

    def was_killed_by_others(self) -> bool:
        """Return whether a SIGKILL ended it that did not come from here."""
        return self._process.returncode == -signal.SIGKILL and not self._killed_here

    def exit_reason(self) -> str:
        """Return how it ended, as the end of a sentence: the signal, or else the last line on its stderr."""
        code = self._process.returncode
        if code is not None and code < 0:
            return f" ({signal.Signals(-code).name})"
        lines = [line for line in self._stderr_tail.splitlines() if line.strip()]
        last = "".join(filter(str.isprintable, lines[-1]))[:200] if lines else ""
        return f": {last}" if last else ""


def _import_path() -> list[str]:
    """Return where a child looks for modules: in the standard library, then wherever this process does.

    Folders that stand before the standard library here must not stand in for modules of it there: the current folder,
    or what another package has put in front (OpenCV, whose folder holds a ``typing``, where it cannot be loaded).
    """
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100 ("" is here)
    return sorted(path, key=lambda entry: entry not in (library, f"{library}/lib-dynload"))
