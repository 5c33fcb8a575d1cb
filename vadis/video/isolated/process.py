"""One process that decodes, as its parent sees it: started, asked, read from, ended."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from vadis.errors import VadisError, VideoError
from vadis.files import os_errors_as, write_all
from vadis.parsing import parse_json
from vadis.video.isolated import protocol
from vadis.video.isolated.sandbox import too_much_memory
from vadis.video.metadata import Limits, more

PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start.pop('path')\n"
    "from vadis.video.isolated.child import main; main(**start)"
)
"""What a child runs, with Python isolated (-I) from modules in the current folder and the user's site-packages. Not
``multiprocessing``, which would import the caller's ``__main__``, and unpickle what the child sends."""

MAX_WAIT_FACTOR = 10  # seconds of waiting for each second of video
START_SECONDS = 60.0  # in which a child must be ready

_KEPT_VARIABLES = ("LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "TZ")
_NO_MEMORY = ("bad_alloc", "MemoryError", "out of memory", "Cannot allocate memory")  # on stderr: C++ aborts then

FAILURES = (protocol.ProtocolError, EOFError, TimeoutError, BrokenPipeError)
"""What the methods of ``Child`` raise where it fails: an invalid message, its end, or silence."""


class DecoderKilled(VideoError):
    """Somebody else killed the child (SIGKILL): on a machine whose memory is full, the system does."""


class Watchdog:
    """The time for which a child may be waited for: ``quiet_seconds`` for a byte, and in all that or ten times the
    duration of the video, by its header or of the frames so far, whichever is longer."""

    def __init__(self, quiet_seconds: float) -> None:
        self.quiet_seconds = quiet_seconds
        self.video_seconds = self.waited_seconds = 0.0

    def seconds_left(self) -> float:
        """Return how long the next byte may be waited for; not positive: no longer."""
        total = max(self.quiet_seconds, MAX_WAIT_FACTOR * self.video_seconds)
        return min(self.quiet_seconds, total - self.waited_seconds)


class Child:
    """One process that decodes, and the pipes to it; one thread at a time uses it, any thread may ``kill`` it.

    ``watchdog`` is the one for what it does now; ``lacking`` what it could not give up, None until it is ready.
    """

    def __init__(self, program: str, limits: Limits) -> None:
        self.watchdog = Watchdog(START_SECONDS)
        self.lacking: tuple[str, ...] | None = None
        self._limits, self._stderr_tail, self._killed_here = limits, "", False
        # It looks for modules in the standard library first, then wherever this process does: so the current folder, or
        # one put in front here (OpenCV's holds a ``typing``), hides no standard module there.
        library = os.path.dirname(os.__file__)  # noqa: PTH120
        path = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]  # noqa: PTH100 ("" is here)
        path.sort(key=lambda entry: entry not in (library, f"{library}/lib-dynload"))
        start = {"path": path, "parent": os.getpid(), "limits": asdict(limits)}
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        with os_errors_as(VadisError, "no process can be started to decode videos"):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", program, json.dumps(start)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is not for it
            )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.pid, self._stdin, self._stdout = self._process.pid, self._process.stdin, self._process.stdout
        self._stderr, self._poll = self._process.stderr, select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        with suppress(AttributeError, OSError):  # where the system has no such setting
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, 1 << 20)  # its 64 KiB make 4 times as many switches

    def wait_until_ready(self) -> tuple[str, ...]:
        """Wait until it serves; return what it could not give up, or raise VadisError where it does not start."""
        try:
            if self.lacking is None:
                (self.lacking,) = protocol.fields(self.receive(), ready=tuple[str, ...])
            return self.lacking
        except FAILURES as error:
            if self._killed_here:
                raise
            self._wait()
            self.end()
            hint = "`vadis doctor` tells what is missing"
            raise VadisError(f"the process that decodes videos does not start{self._exit_reason()}", hint) from error

    def send(self, request: dict[str, Any]) -> None:
        """Request a file, whose name may be any bytes."""
        write_all(self._stdin.fileno(), json.dumps(request).encode("ascii") + b"\n")

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        length = int.from_bytes(self.read(protocol.LENGTH_BYTES), "big")
        protocol.require(length <= protocol.MAX_JSON_BYTES, "length")
        try:
            message = parse_json(self.read(length))
        except ValueError as error:
            raise protocol.ProtocolError("no JSON") from error
        protocol.require(isinstance(message, dict), "no object")
        return message  # type: ignore[no-any-return]

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes."""
        content = bytearray(num_bytes)
        self.read_into(memoryview(content))
        return bytes(content)

    def read_into(self, buffer: memoryview) -> None:
        """Fill ``buffer`` with the next bytes."""
        while buffer:
            left, began = self.watchdog.seconds_left(), time.monotonic()
            is_there = left > 0 and bool(self._poll.poll(left * 1000))
            self.watchdog.waited_seconds += time.monotonic() - began
            if not is_there:
                raise TimeoutError
            num_read = self._stdout.readinto(buffer)  # type: ignore[attr-defined]
            if not num_read:
                raise EOFError
            buffer = buffer[num_read:]

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process, at once; any number of times."""
        self._killed_here |= self.is_alive()
        self._process.kill()

    def end(self) -> None:
        """Kill the process and release its pipes; any number of times."""
        if self._stdout.closed:
            return
        self.kill()
        self._wait()
        os.set_blocking(self._stderr.fileno(), False)
        self._stderr_tail = (self._stderr.read() or b"")[-4096:].decode("utf-8", "replace")
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()

    def error_of(self, failure: Exception) -> VideoError:
        """Return what one of ``FAILURES`` means for the file that the child is at; it can serve no other."""
        if isinstance(failure, protocol.ProtocolError):
            return VideoError("decoder_crash", f"the process that decodes it sent an invalid message ({failure})")
        if isinstance(failure, TimeoutError):
            dog = self.watchdog
            waited = f"the decoder gave nothing for {dog.quiet_seconds:g} s"
            if dog.seconds_left() <= 0:
                waited = f"the decoder was waited for {dog.waited_seconds:.0f} s, more than the video may take"
            return VideoError("timeout", waited, more("max_wait_seconds"))
        self._wait()
        self.end()
        if any(marker in self._stderr_tail for marker in _NO_MEMORY):
            return too_much_memory(self._limits.max_memory_mb)
        is_killed = self._process.returncode == -signal.SIGKILL and not self._killed_here
        kind = DecoderKilled if is_killed else VideoError
        return kind("decoder_crash", f"the process that decodes it ended{self._exit_reason()}")

    def _wait(self) -> None:
        """Wait a moment for its end: a process that has closed its pipe ends by itself, and then its exit is known."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # one that has been killed may be stuck in a dead disk

    def _exit_reason(self) -> str:
        """Return how it ended, as the end of a sentence: the signal, or else the last line on its stderr."""
        code = self._process.returncode
        if code is not None and code < 0:
            return f" ({signal.Signals(-code).name})"
        lines = [line for line in self._stderr_tail.splitlines() if line.strip()]
        last = "".join(filter(str.isprintable, lines[-1]))[:200] if lines else ""
        return f": {last}" if last else ""
