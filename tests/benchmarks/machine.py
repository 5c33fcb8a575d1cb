"""What a benchmark is given, and on what it ran."""

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vadis.device import cpu_count

PACKAGES = ("torch", "numba", "numpy", "av")


@dataclass(frozen=True)
class Options:
    """``peer``: the Python of the environment with the peers; ``video``: a real clip; ``plots``: folder of pictures."""

    model: Path
    plots: Path
    peer: str | None = None
    video: Path | None = None

    def peer_python(self) -> str:
        if self.peer is None:
            raise SystemExit("give the Python of the peers' environment: --peer peer/bin/python")
        return self.peer


def facts() -> dict[str, Any]:
    """The machine, as it says of itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {name.strip(): value.strip() for name, value in words.items()}
    return {
        "processor": names.get("model name", platform.machine()),
        "family": f"{names.get('cpu family', '?')}.{names.get('model', '?')}",
        "cores": cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def all_seconds() -> float:
    """Of processors, of everything on this machine since it was started."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, interrupt, soft, stolen = (int(word) for word in words[:8])
    return (user + nice + system + interrupt + soft + stolen) / os.sysconf("SC_CLK_TCK")


def cores_busy(seconds: float = 1.0) -> float:
    """How many processors are at work while this process waits."""
    began, before = time.perf_counter(), all_seconds()
    time.sleep(seconds)
    return (all_seconds() - before) / (time.perf_counter() - began)
