"""A command, and what it takes while it runs: wall seconds, memory, and the processors' time of all its threads.

Knows nothing of what the command does. Every ``STEP_SECONDS`` the processors' time of each thread of the process and
of its children is read from /proc (to the nanosecond), and how long threads waited for a processor that others had.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP_SECONDS = 0.05
KINDS = ("main thread", "other threads", "child processes")
WAITED = len(KINDS)  # place of the time waited, after those of the kinds


@dataclass
class Watched:
    """What was seen. ``samples``: (seconds since the start, seconds of processors by kind and waited, since then)."""

    seconds: float = 0.0
    peak_mb: float = 0.0
    samples: list[tuple[float, list[float]]] = field(default_factory=list)

    def steps(self) -> list[tuple[float, float, list[float]]]:
        """(begin, end, processors in use by kind, and wanted but taken by others) of every step."""
        pairs = zip(self.samples, self.samples[1:], strict=False)
        return [
            (t0, t1, [max(b - a, 0) / (t1 - t0) for a, b in zip(before, after, strict=True)])
            for (t0, before), (t1, after) in pairs
            if t1 > t0
        ]


def watch(
    command: list[str], *, directory: Path = ROOT, step: float | None = STEP_SECONDS, **environment: str
) -> Watched:
    """Run ``command`` to its end, silently, with the vadis of this checkout or another; SystemExit where it fails.

    Some videos may fail. With ``step`` None only the wall seconds are there, and nothing is looked at meanwhile: a look
    takes 4 ms of a core.
    """
    known: dict[str, list[float]] = {}
    seen, start = Watched(), time.perf_counter()
    paths = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **environment},
        )
        while True:
            try:
                process.wait(step)
                break
            except subprocess.TimeoutExpired:
                seen.peak_mb = max(seen.peak_mb, _look(process.pid, known))
                sums = [sum(parts) for parts in zip(*known.values(), strict=True)]
                seen.samples.append((time.perf_counter() - start, sums))
        seen.seconds = time.perf_counter() - start
        said.seek(0)
        if process.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)}: status {process.returncode}\n{said.read().decode()}")
    return seen


def vadis(*arguments: object) -> list[str]:
    """The command line of vadis with ``arguments``, quiet."""
    return [sys.executable, "-m", "vadis", "-q", *map(str, arguments)]


def _look(pid: int, known: dict[str, list[float]]) -> float:
    """Update ``known``, by thread its seconds by kind and waited; returns the memory in MB."""
    memory = 0.0
    for process in (pid, *children(pid)):
        with contextlib.suppress(OSError):  # ended meanwhile
            memory += memory_mb(process, own=process == pid)
            for thread in (path.name for path in Path(f"/proc/{process}/task").iterdir()):
                with contextlib.suppress(OSError, ValueError):
                    ran, waited, _ = Path(f"/proc/{process}/task/{thread}/schedstat").read_text().split()
                    kind = 2 if process != pid else int(int(thread) != pid)
                    parts = [0.0] * (WAITED + 1)
                    parts[kind], parts[WAITED] = int(ran) / 1e9, int(waited) / 1e9
                    known[f"{process}/{thread}"] = parts
    return memory


def memory_mb(pid: int, *, own: bool) -> float:
    """All of the process itself; of a child what it does not share."""
    facts = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return int(facts["VmRSS" if own else "RssAnon"].split()[0]) / 1024 if "VmRSS" in facts else 0.0


def children(pid: int) -> list[int]:
    """All processes under ``pid``."""
    parents: dict[int, list[int]] = {}
    for name in (path.name for path in Path("/proc").iterdir()):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
