"""A child that decodes, and fails as the name of a file says: ``crash.mp4`` crashes it, and so on (``FAULTS``).

``Decoders(program=PROGRAM)`` starts it in place of the real one; users have no way to.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from vadis.video.isolated import child
from vadis.video.isolated.process import pack_message

PROGRAM = (
    "import json, sys; start = json.loads(sys.argv[1]); sys.path[:] = start.pop('path')\n"
    "from tests.video.faulty_child import main; main(**start)"
)


def crash():
    ctypes.string_at(0)


def abort():
    os.abort()


def leave():
    os._exit(3)


def bug():
    raise RuntimeError("\x1b[2Ja bug")


def hang():
    time.sleep(600)


def fill():
    """Real memory, until there is no more."""
    kept = []
    while True:
        kept.append(bytearray(b"\1") * (16 << 20))


def fill_and_die():
    try:
        fill()
    except MemoryError:
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()


def chatter():
    """More than a pipe holds, on both streams that are not the messages."""
    for stream in (1, 2):
        with contextlib.suppress(BlockingIOError):
            os.write(stream, b"x" * 10_000_000)


FAULTS = {f.__name__: f for f in (crash, abort, leave, bug, hang, fill, fill_and_die, chatter)}

INVALID = {
    "text": b"\0\0\0\4four",
    "list": b"\0\0\0\2[]",
    "long": b"\xff\xff\xff\xff",
    "deep": (60_000).to_bytes(4, "big") + b"[" * 60_000,
    "nan": b"\0\0\0\x0c" + b'{"end": NaN}',
    "empty": pack_message({}),
    "error": pack_message({"error": ["no_such_code", "x", None]}),
    "error-code": pack_message({"error": [[], "x", None]}),
    "error-text": pack_message({"error": ["no_frames", "\x1b[2J", None]}),
    "no-frames": pack_message({"first": 0, "count": 0}),
    "endless-frame": pack_message({"first": 0, "count": 10**12}),
    "endless-number": pack_message({"first": 0, "count": 10**400}),
    "frame-of-yesterday": pack_message({"first": 7, "count": 1}),
    "half-a-frame": pack_message({"first": 0, "count": 0.5}),
    "true-frame": pack_message({"first": 0, "count": True}),
    "no-facts": pack_message({"end": None}),
    "wrong-facts": pack_message({"end": {"status": "wonderful"}}),
}


def tell(what):
    """What this child is and may do, as the message of an error."""
    return pack_message({"error": ["no_frames", what, None]})


def answers(request, limits):
    name = Path(request["path"]).stem
    if name.startswith("confined-"):
        yield [tell(attempts(int(name.partition("-")[2])))]
    elif name == "modules":
        yield [tell(" ".join(sorted({module.partition(".")[0] for module in sys.modules} & HEAVY)) or "none")]
    elif name == "environment":
        yield [tell(" ".join(sorted(os.environ)))]
    else:
        for number, parts in enumerate(plain_answers(request, limits)):
            kind, _, which = name.partition("_")
            if name in FAULTS and number == 1 + name.count("hang"):
                FAULTS[name]()
            yield [INVALID[which]] if kind == "invalid" and number == 1 else parts


HEAVY = {"torch", "numba", "cv2", "matplotlib", "av", "numpy"}


def attempts(port):
    """Everything that a decoder must not be able to do, and what came of it."""
    tried = {
        "connect": lambda: socket.create_connection(("127.0.0.1", port), 5),
        "write": lambda: Path("/tmp/vadis-was-here").write_text("x"),
        "append": lambda: open(__file__, "ab"),  # noqa: SIM115
        "unlink": lambda: Path(__file__).unlink(),
        "rename": lambda: Path(__file__).rename("/tmp/vadis-was-here"),
        "chmod": lambda: Path(__file__).chmod(0o777),
        "program": lambda: subprocess.run(["true"], check=True),
        "fork": os.fork,
        "kill": lambda: os.kill(os.getppid(), 0),
        "memory": lambda: bytearray(1 << 40),
    }
    return "; ".join(f"{name} {outcome(attempt)}" for name, attempt in tried.items())


def outcome(attempt):
    try:
        attempt()
    except Exception as error:
        return type(error).__name__
    return "succeeded"


plain_answers = child.serve_request


def main(**start):
    child.serve_request = answers
    child.main(**start)
