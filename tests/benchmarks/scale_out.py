"""A batch on 1, 2 and 4 processes of this machine: foretold from what one process takes, and then run.

    python -m tests.benchmarks scale_out

Two runs of one process alone, on one video and on ``CALIBRATING``, give what a process costs at its start and what a
video costs, in seconds and in processors kept busy. ``simulated`` lays as many processes over the cores as there are
shards, each with the videos that its shard has; while they want more cores than there are, all go slower alike. The
same batch is then run by ``vadis classify --shard 1/N`` and so on, at once. Every process has one thread for the
network, and decoding beside it.

A machine that is shared has fewer cores: those that the rest of it used during a run (/proc/stat) are taken off before
that run is foretold, so the check is of the model, not of the quiet.
"""

import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.machine import Options, all_seconds, facts
from tests.benchmarks.watched import vadis, watch
from tests.make_model import make_model
from tests.synthetic import write_video
from vadis.batch import Shard
from vadis.device import cpu_count

PROCESSES = (1, 2, 4)
VIDEOS, CALIBRATING, ROUNDS = 48, 12, 3
NUM_FRAMES = 50  # of a video; short ones are looped to 64, so all cost the same
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Phase:
    """Work that takes ``seconds`` where nobody else is, and keeps ``cores`` processors busy meanwhile."""

    seconds: float
    cores: float


def simulated(processes: list[list[Phase]], cores: float) -> float:
    """The seconds until the last of these processes, begun at once, has done its phases one after the other.

    While all together want more cores than there are, each gets the same part of what it wants.
    """
    left = [[[phase.seconds, phase.cores] for phase in phases if phase.seconds > 0] for phases in processes]
    now = 0.0
    while running := [phases for phases in left if phases]:
        speed = min(1.0, cores / sum(phases[0][1] for phases in running))
        step = min(phases[0][0] for phases in running) / speed
        now += step
        for phases in running:
            phases[0][0] -= step * speed
            if phases[0][0] < 1e-9:
                phases.pop(0)
    return now


def calibrated(one: tuple[float, float], many: tuple[float, float], num: int) -> tuple[Phase, Phase]:
    """What a start costs, and a video, of (wall, processor) seconds of a run over one video and of one over ``num``."""
    seconds, busy = ((many[i] - one[i]) / (num - 1) for i in (0, 1))
    start = Phase(one[0] - seconds, (one[1] - busy) / (one[0] - seconds))
    return start, Phase(seconds, busy / seconds)


def foretold(paths: list[str], count: int, start: Phase, video: Phase, cores: float) -> float:
    """The seconds of a batch in ``count`` shards, each a process of this machine."""
    shares = [sum(Shard(index, count).has(path) for path in paths) for index in range(1, count + 1)]
    return simulated([[start, Phase(share * video.seconds, video.cores)] for share in shares], cores)


def measure(options: Options, videos: int = VIDEOS, calibrating: int = CALIBRATING) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "narrow.safetensors", width=1 / 16, streams=("rgb",))
        command = vadis("classify", "--model", model, "--jobs", 1)
        paths = batch(folder / "archive", videos)
        alone(command, paths[:1])  # warm-up
        runs = [[alone(command, paths[:num]) for num in (1, calibrating)] for _ in range(ROUNDS)]
        one, many = (min(each) for each in zip(*runs, strict=True))  # on a shared machine the quickest is the truest
        start, video = calibrated(one, many, calibrating)
        found = [(count, *together(command, folder, count)) for count in PROCESSES]
    rows = [
        {
            "processes": count,
            "cores": cores,
            "foretold": foretold(paths, count, start, video, cores),
            "seconds": seconds,
        }
        for count, seconds, cores in found
    ]
    return {
        "videos": videos,
        "cores": cpu_count(),
        "family": facts()["family"],
        "start": [start.seconds, start.cores],
        "video": [video.seconds, video.cores],
        "rows": rows,
    }


def batch(folder: Path, num: int) -> list[str]:
    """So many short videos, of which ``folder`` then has the paths that the command will give them."""
    folder.mkdir()
    clip = write_video(folder.with_name("clip.mp4"), num_frames=NUM_FRAMES, size=(96, 64))
    paths = [folder / f"{number:05}.mp4" for number in range(num)]
    for path in paths:
        path.write_bytes(clip.read_bytes())
    return [str(path) for path in paths]


def alone(command: list[str], paths: list[str]) -> tuple[float, float]:
    """Wall seconds and processor seconds of a process that labels ``paths`` while nothing else of ours runs."""
    before = own_seconds()
    seen = watch([*command, "-f", "jsonl", *paths], **ONE_THREAD)
    return seen.seconds, own_seconds() - before


def own_seconds() -> float:
    """Of processors, of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def together(command: list[str], folder: Path, count: int) -> tuple[float, float]:
    """The seconds from the first start to the last end of ``count`` processes, a shard each; the cores they could have.

    Those are the cores that others did not use meanwhile.
    """
    output = folder / f"of{count}.jsonl"
    environment = {**os.environ, **ONE_THREAD}
    began, own, everything = time.perf_counter(), own_seconds(), all_seconds()
    started = [
        subprocess.Popen(
            [*command, str(folder / "archive"), "-o", str(output), "--shard", f"{index}/{count}"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for index in range(1, count + 1)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"a shard of {count} ended with status {max(codes)}")
    seconds = time.perf_counter() - began
    others = (all_seconds() - everything) - (own_seconds() - own)
    return seconds, cpu_count() - max(others / seconds, 0.0)
