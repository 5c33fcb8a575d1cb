"""One process that decodes, as the process that started it sees it: started, asked, listened to, ended.

Whatever it does, it is waited for no longer than ``Patience`` has it, and believed no more than ``messages`` does.
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
from vadis.video.isolated.protocol import LENGTH_BYTES, MAX_JSON_BYTES, Nonsense
from vadis.video.metadata import Limits

PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start.pop('path')\n"
    "from vadis.video.isolated.child import main; main(**start)"
)
"""What a child runs. Python is started isolated (-I), so that neither the current folder nor the user's site-packages
can put modules in the way; it finds ours where this process does. Not ``multiprocessing``: that would import the
caller's ``__main__``, and unpickle what the child says."""

SLOWEST = 10  # seconds of waiting for each second of video
START_SECONDS = 60.0  # in which a child must have begun

_PIPE_BYTES = 1 << 20  # asked of the kernel; its default of 64 KiB makes 4 times as many switches
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ")  # of the environment
_NO_MEMORY = ("bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory")  # in a process's last words
_BURIAL_SECONDS = 1.0  # a process that has been killed may be stuck in a dead disk


class Patience:
    """The watchdog's clock. It runs only while the child is being waited for, not while its frames are worked on.

    Too much is ``quiet_seconds`` without a byte; or, in all, more than that and more than ten times the duration, of
    what the header declares or of the frames that have come, whichever is longer.
    """

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self.video_seconds = 0.0
        self.waited = 0.0

    def left(self) -> float:
        """For how many seconds the next byte may be waited for; not positive: no longer."""
        return min(self.quiet_seconds, max(self.quiet_seconds, SLOWEST * self.video_seconds) - self.waited)


class Gone(Exception):
    """The child has closed its pipe."""


class TooSlow(Exception):
    """Patience has run out."""


class Child:
    """One process that decodes, and the two pipes to it."""

    def __init__(self, program: str, limits: Limits) -> None:
        start = {"path": _import_path(), "parent": os.getpid(), "max_memory_mb": limits.max_memory_mb}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        last_words, words = os.pipe()
        os.set_blocking(words, False)  # a child that talks on stderr is not held up by it
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", program, json.dumps(start)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                bufsize=0,
                env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is not for it
            )
        except OSError as error:
            os.close(last_words)
            message = f"no process can be started to decode videos: {error.strerror}"
            raise VadisError(message, hint=what_next(error.errno)) from error
        finally:
            os.close(words)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asked, self._told = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._told, selectors.EVENT_READ)
        _widen(self._told.fileno())
        self._last_words = open(last_words, "rb", buffering=0)  # noqa: SIM115 (closed by ``end``)
        self._turn = threading.Lock()  # a process id means this process only until it is reaped
        self._words = ""
        self.pid = self._process.pid
        self.is_ready = self.has_ended = self._killed_here = False

    def begin(self) -> list[str]:
        """Wait until it serves; what it could not give up (``confinement.confine``)."""
        patience = Patience(START_SECONDS)
        try:
            told = protocol.field(self.hear(patience), "ready")
        except (Gone, TooSlow, Nonsense) as error:
            self.wait_briefly()
            self.end()
            hint = "`vadis doctor` tells what is missing"
            raise VadisError(f"the process that decodes videos does not start{self.reason()}", hint) from error
        self.is_ready = True
        return [str(each) for each in told]

    def ask(self, request: dict[str, Any]) -> None:
        """Ask for a file."""
        try:
            protocol.write_all(self._asked.fileno(), [protocol.packed(request)])
        except BrokenPipeError as error:
            raise Gone from error

    def hear(self, patience: Patience) -> dict[str, Any]:
        """The next message."""
        length = int.from_bytes(self._bytes(LENGTH_BYTES, patience), "big")
        if length > MAX_JSON_BYTES:
            raise Nonsense("length")
        return protocol.unpacked(bytes(self._bytes(length, patience)))

    def read_into(self, buffer: memoryview, patience: Patience) -> None:
        """Fill ``buffer`` with what comes next."""
        while buffer:
            left = patience.left()
            began = time.monotonic()
            is_there = left > 0 and bool(self._selector.select(left))
            patience.waited += time.monotonic() - began
            if not is_there:
                raise TooSlow
            got = self._told.readinto(buffer)  # type: ignore[attr-defined]
            if not got:
                raise Gone
            buffer = buffer[got:]

    def _bytes(self, count: int, patience: Patience) -> bytearray:
        content = bytearray(count)
        self.read_into(memoryview(content), patience)
        return content

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return not self._reap()

    def kill(self) -> None:
        """End the process, at once; from any thread, any number of times."""
        with self._turn:
            if self._process.returncode is None:
                self._killed_here = True
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and forget it; afterwards ``reason`` tells of it. Once is enough."""
        if self.has_ended:
            return
        self.has_ended = True
        self.kill()
        self.wait_briefly()
        if self._process.returncode is None:  # stuck in the kernel: it will go when that lets it
            self._process.returncode = -signal.SIGKILL
        self._selector.close()
        self._asked.close()
        self._told.close()
        self._words = _read_some(self._last_words.fileno())
        self._last_words.close()

    def wait_briefly(self) -> None:
        """Wait for its end, for a moment: a process that has closed its pipe ends by itself, so that it is seen how."""
        deadline = time.monotonic() + _BURIAL_SECONDS
        while not self._reap() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _reap(self) -> bool:
        with self._turn:
            return self._process.poll() is not None

    def ran_out_of_memory(self) -> bool:
        """Whether its last words say so, once it has ended: C++ aborts where it gets none."""
        return any(marker in self._words for marker in _NO_MEMORY)

    def was_killed_by_others(self) -> bool:
        """Whether a SIGKILL ended it that did not come from here."""
        return self._process.returncode == -signal.SIGKILL and not self._killed_here

    def reason(self) -> str:
        """How it ended, to go on a sentence with."""
        code = self._process.returncode
        how = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""
        lines = [line for line in self._words.splitlines() if line.strip()]
        said = "".join(c for c in lines[-1] if c.isprintable())[:200] if lines and not how else ""
        return f"{how}: {said}" if said else how


def _import_path() -> list[str]:
    """Return where a child looks for modules: in the standard library, then wherever this process does.

    Folders that stand before the standard library here must not stand in for modules of it there: the current folder,
    or what another package has put in front (OpenCV, whose folder holds a ``typing``, where it cannot be loaded).
    """
    library = os.path.dirname(os.__file__)  # noqa: PTH120
    path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100 ("" is here)
    return sorted(path, key=lambda entry: entry not in (library, f"{library}/lib-dynload"))


def _widen(descriptor: int) -> None:
    """Let the pipe hold more, where the system has that."""
    with suppress(AttributeError, OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _read_some(descriptor: int) -> str:
    """The end of what lies in a pipe."""
    os.set_blocking(descriptor, False)
    content = b""
    with suppress(BlockingIOError):
        while part := os.read(descriptor, _PIPE_BYTES):
            content = (content + part)[-4096:]
    return content.decode("utf-8", "replace")
