"""A terminal for programs under test: ``on_a_terminal`` runs one on a pseudo-terminal and returns what it wrote."""

import os
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]


def on_a_terminal(*command, columns=80):
    """Everything that ``command`` writes to a pseudo-terminal as its stdout and stderr, and its exit code."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    received = bytearray()

    def read():
        try:
            while chunk := os.read(ours, 65536):
                received.extend(chunk)
        except OSError:  # Linux says EIO when the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait(60)
    reader.join(60)
    os.close(ours)
    return bytes(received).decode("utf-8"), code
