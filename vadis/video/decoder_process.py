"""One process that decodes, as the process that started it sees it: started, asked, listened to, ended.

Whatever it does, it is waited for no longer than ``Patience`` has it, and believed no more than ``messages`` does.
"""

import fcntl
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from vadis.errors import VadisError
from vadis.video import messages
from vadis.video.facts import Limits
from vadis.video.messages import LENGTH_BYTES, MAX_JSON_BYTES, Nonsense

PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start.pop('path')\n"
    "from vadis.video.child import main; main(**start)"
)
"""What a child runs. Python is started isolated (-I), so that neither the current folder nor the user's site-packages
can put modules in the way; it finds ours where this process does. Not ``multiprocessing``: that would import the
caller's ``__main__``, and unpickle what the child says."""

SLOWEST = 10  # seconds of waiting for each second of video
START_SECONDS = 60.0  # in which a child must have begun

_PIPE_BYTES = 1 << 20  # asked of the kernel; its default of 64 KiB makes 4 times as many switches
_KEPT = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ")  # of the environment
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
    """Patience has run out, after a last wait of ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Child:
    """One process that decodes, and the two pipes to it."""

    def __init__(self, program: str, limits: Limits) -> None:
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100 ("" is here)
        start = {"path": path, "parent": os.getpid(), "max_memory_mb": limits.max_memory_mb}
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._our_most_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.last_words, words = os.pipe()
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
            os.close(self.last_words)
            raise VadisError(f"no process can be started to decode videos: {error.strerror}") from error
        finally:
            os.close(words)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asked, self._told = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._told, selectors.EVENT_READ)
        _widen(self._told.fileno())
        self.pid = self._process.pid
        self.is_ready = False
        self._usage: Any = None
        self._is_over = False

    def begin(self) -> list[str]:
        """Wait until it serves; what it could not give up (``confinement.confine``)."""
        patience = Patience(START_SECONDS)
        try:
            told = messages.field(self.hear(patience), "ready")
        except (Gone, TooSlow, Nonsense) as error:
            self.end()
            hint = "`vadis doctor` tells what is missing"
            raise VadisError(f"the process that decodes videos does not start{self.reason()}", hint) from error
        self.is_ready = True
        return [str(each) for each in told]

    def ask(self, request: dict[str, Any]) -> None:
        """Ask for a file."""
        try:
            messages.write_all(self._asked.fileno(), [messages.packed(request)])
        except BrokenPipeError as error:
            raise Gone from error

    def hear(self, patience: Patience) -> dict[str, Any]:
        """The next message."""
        length = int.from_bytes(self._bytes(LENGTH_BYTES, patience), "big")
        if length > MAX_JSON_BYTES:
            raise Nonsense("length")
        return messages.unpacked(bytes(self._bytes(length, patience)))

    def read_into(self, buffer: memoryview, patience: Patience) -> None:
        """Fill ``buffer`` with what comes next."""
        while buffer:
            left = patience.left()
            began = time.monotonic()
            is_there = left > 0 and bool(self._selector.select(left))
            patience.waited += time.monotonic() - began
            if not is_there:
                raise TooSlow(left)
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
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and forget it, once; afterwards ``reason`` and ``peak_mb`` tell of it."""
        if self._is_over:
            return
        self._is_over = True
        self.kill()
        deadline = time.monotonic() + _BURIAL_SECONDS
        while not self._reap() and time.monotonic() < deadline:
            time.sleep(0.001)
        if self._process.returncode is None:  # stuck in the kernel: it will go when that lets it
            self._process.returncode = -signal.SIGKILL
        self._selector.close()
        self._asked.close()
        self._told.close()
        self._words = _read_some(self.last_words)
        os.close(self.last_words)

    def wait_briefly(self) -> None:
        """Give a process that has closed its pipe the time to end by itself, so that it can be seen how."""
        deadline = time.monotonic() + _BURIAL_SECONDS
        while not self._reap() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _reap(self) -> bool:
        if self._process.returncode is None:
            try:
                pid, status, self._usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has
                pid, status = self.pid, 0
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode is not None

    def peak_mb(self) -> int:
        """The most memory that it had, once it has ended; 0 where that is not known.

        Linux counts what this process held when it started the other one as that one's.
        """
        most_kb = 0 if self._usage is None else self._usage.ru_maxrss
        return most_kb >> 10 if most_kb > self._our_most_kb else 0

    def reason(self) -> str:
        """How it ended, to go on a sentence with."""
        code = self._process.returncode
        how = f" ({signal.Signals(-code).name})" if code is not None and code < 0 else ""
        lines = [line for line in self._words.splitlines() if line.strip()]
        said = "".join(c for c in lines[-1] if c.isprintable())[:200] if lines and not how else ""
        return f"{how}: {said}" if said else how


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
