"""One process that decodes, as its parent sees it, and the messages between them, through two pipes.

A request is a line of JSON. An answer is its length (4 bytes, big-endian), so many bytes of JSON, and the pixels or
bytes that the JSON announces. There is no pickle: the decoder is not trusted, and all that it sends is checked.

    to the child    {"path": …, "what": "grid", "source", "sound" or "clip", …}
    from the child  {"ready": [what could not be given up]}                 once, after its start
                    {"size": …, "facts": {…}, …}                            the file is open
                    {"first": index on the grid, "count": …}                the pixels of a picture follow
                    {"end": {facts}}, or {"error": [code, message, hint]}   the next file may be requested,
                                                                            unless it adds "worn": true
"""

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
from fractions import Fraction
from types import NoneType
from typing import Any, get_args, get_type_hints

from vadis.errors import VIDEO_ERROR_CODES, VadisError, VideoError
from vadis.files import os_errors_as, write_all
from vadis.parsing import parse_json
from vadis.video.isolated.sandbox import too_much_memory
from vadis.video.metadata import FLAGS, Limits, VideoFacts, more

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

_LENGTH_BYTES = 4
_MAX_JSON_BYTES = 1 << 16  # of an answer
SAMPLE_PACKETS = 16  # of sound: enough for parsers to find what no header says
MAX_PACKET_BYTES = 16 << 20  # a second of uncompressed sound with 64 channels of 32 bits at 48 kHz has 12 MB

_MAX_TEXT = 500  # characters


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

    ``watchdog`` is the one for what it does now; ``lacking`` what it could not give up, None until it is ready;
    ``is_worn`` says that it is to serve no other file.
    """

    def __init__(self, program: str, limits: Limits) -> None:
        self.watchdog = Watchdog(START_SECONDS)
        self.lacking: tuple[str, ...] | None = None
        self.is_worn = False
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
                (self.lacking,) = check_fields(self.receive(), ready=tuple[str, ...])
            return self.lacking
        except VideoError as error:
            if self._killed_here:
                raise
            self._wait()
            self.end()
            hint = "`vadis doctor` tells what is missing"
            raise VadisError(f"the process that decodes videos does not start{self._exit_reason()}", hint) from error

    def send(self, request: dict[str, Any]) -> None:
        """Request a file, whose name may be any bytes. This and what follows raise VideoError if it fails."""
        try:
            write_all(self._stdin.fileno(), json.dumps(request).encode("ascii") + b"\n")
        except BrokenPipeError as error:
            raise self._crash() from error

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        length = int.from_bytes(self.read(_LENGTH_BYTES), "big")
        require(length <= _MAX_JSON_BYTES, "length")
        content = self.read(length)
        message: Any = None
        with suppress(ValueError):
            message = parse_json(content)
        require(isinstance(message, dict), "no object of JSON")
        self.is_worn |= bool(message.get("worn"))
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
                raise self._silence()
            num_read = self._stdout.readinto(buffer)  # type: ignore[attr-defined]
            if not num_read:
                raise self._crash()
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
        self._process.kill()
        self._wait()
        os.set_blocking(self._stderr.fileno(), False)
        self._stderr_tail = (self._stderr.read() or b"")[-4096:].decode("utf-8", "replace")
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()

    def _silence(self) -> VideoError:
        """Return what it means for the file that the child is at that nothing comes."""
        dog = self.watchdog
        waited = f"the decoder gave nothing for {dog.quiet_seconds:g} s"
        if dog.seconds_left() <= 0:
            waited = f"the decoder was waited for {dog.waited_seconds:.0f} s, more than the video may take"
        return VideoError("timeout", waited, more("max_wait_seconds"))

    def _crash(self) -> VideoError:
        """Return what it means for the file that the child is at that it has ended."""
        self._wait()
        is_killed = self._process.returncode == -signal.SIGKILL and not self._killed_here
        self.end()
        if any(marker in self._stderr_tail for marker in _NO_MEMORY):
            return too_much_memory(self._limits.max_memory_mb)
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


def pack_message(message: dict[str, Any]) -> bytes:
    """Return a message with its length."""
    content = json.dumps(message, allow_nan=False, default=Fraction.as_integer_ratio).encode("ascii")
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def require(is_valid: bool, what: str) -> None:
    """Raise VideoError unless what the child sent is valid."""
    if not is_valid:
        raise VideoError("decoder_crash", f"the process that decodes it sent an invalid message ({what})")


def check_fields(message: Any, **kinds: Any) -> tuple[Any, ...]:
    """Return the values of a JSON object under the names in ``kinds``, each checked by ``check_value``."""
    require(isinstance(message, dict), "no object")
    return tuple(check_value(message.get(name), kind, name) for name, kind in kinds.items())


def check_value(value: Any, kind: Any, name: str = "error") -> Any:
    """Return a JSON value as ``kind``: int (of 64 bits), float (not negative), str, Fraction, a tuple or None of them.

    Or VideoFacts. ``name`` is what the error calls it.
    """
    if kind is VideoFacts:
        return facts_from_json(value)
    make = getattr(kind, "_make", tuple)  # that of a NamedTuple
    kinds = get_args(kind) if make is tuple else tuple(get_type_hints(kind).values())
    if NoneType in kinds:
        return None if value is None else check_value(value, kinds[0], name)
    if kind is Fraction:
        numerator, denominator = check_value(value, tuple[int, int], name)
        require(denominator > 0, name)
        return Fraction(numerator, denominator)
    if kinds:
        require(isinstance(value, list), name)
        kinds = kinds[:1] * len(value) if ... in kinds else kinds
        require(len(value) == len(kinds), name)
        return make(check_value(each, its_kind, name) for each, its_kind in zip(value, kinds, strict=True))
    if kind is float:
        require(type(value) in (int, float) and 0 <= value < 1e9, name)
        return float(value)
    require(type(value) is kind, name)
    in_range = -(1 << 63) <= value < 1 << 63 if kind is int else len(value) <= _MAX_TEXT and value.isprintable()
    require(in_range, name)
    return value


def facts_from_json(message: Any) -> VideoFacts:
    """Return the facts whose ``vars`` were sent."""
    facts = VideoFacts(*check_fields(message, **get_type_hints(VideoFacts)))
    require(facts.status in ("ok", "partial") and FLAGS.keys() >= set(facts.flags), "facts")
    require(min(facts.source_size) > 0 and (facts.source_fps is None or facts.source_fps > 0), "facts")
    require(facts.frames_decoded >= 0 and (facts.num_frames or 0) >= 0, "facts")
    return facts


def error_to_json(error: VideoError) -> list[str | None]:
    """Return ``error`` as plain JSON values."""
    return [error.code, error.message[:_MAX_TEXT], error.own_hint]


def error_from_json(message: Any) -> VideoError:
    """Return the error that ``error_to_json`` gave."""
    code, text, hint = check_value(message, tuple[str, str, str | None])
    require(code in VIDEO_ERROR_CODES, "code")
    return VideoError(code, text, hint)
