"""Batches as programs: ``vadis classify`` on many small videos, with the real road or with the fake one."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.make_model import make_model
from tests.synthetic import write_video

ROOT = Path(__file__).parents[2]
ENDS_WITHIN_SECONDS = 5.0  # after SIGINT or SIGTERM: the promise


@dataclass(frozen=True)
class Batch:
    """A folder of videos, and the command that labels them into ``output``."""

    videos: Path
    command: tuple[str, ...]
    seconds: float  # that it takes, about
    environment: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def start(self, output: Path, *more: str) -> subprocess.Popen[str]:
        """The run, in a process group of its own."""
        place = ("--output-dir", str(output)) if output.suffix == "" else ("-o", str(output))
        return subprocess.Popen(
            [*self.command, "classify", str(self.videos), *self.options, *place, *more],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, output: Path, *more: str) -> int:
        """The exit code of a whole run; its last words are not looked at."""
        process = self.start(output, *more)
        process.communicate(timeout=600)
        return process.returncode


def fake_batch(folder: Path, num_videos: int, seconds: float = 0.005) -> Batch:
    """Names with the fake road: some fail, some are partial."""
    folder.mkdir()
    for number in range(num_videos):
        kind = {3: "bad", 4: "cut"}.get(number % 10, "fine")
        (folder / f"{number:05}-{kind}.mp4").write_bytes(b"not looked at")
    command = (sys.executable, "-m", "tests.fake_road")
    return Batch(folder, command, 0.3 + num_videos * seconds, {"FAKE_SECONDS": str(seconds)})


def real_batch(folder: Path, num_videos: int) -> Batch:
    """Small videos and a small model, some of them damaged, on the real road."""
    folder.mkdir()
    make_model(folder.parent / "model.safetensors", width=1 / 32, classes=5)
    for number in range(num_videos):
        path = write_video(folder / f"{number:05}.mp4", num_frames=10, size=(48, 32), seed=number)
        if number % 10 == 3:
            path.write_bytes(path.read_bytes()[: 400 + number])
    options = ("-m", str(folder.parent / "model.safetensors"), "--streams", "rgb", "--device", "cpu")
    return Batch(folder, (sys.executable, "-m", "vadis"), 4 + 0.04 * num_videos, {"OMP_NUM_THREADS": "1"}, options)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for the whole process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def members(run: int) -> list[int]:
    """The living processes of a run: its group, and the decoders, whose command line names it as their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                is_decoder = f'"parent": {run},'.encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if state != "Z" and (int(group) == run or is_decoder):
                found.append(int(entry.name))
    return found


def left_of(process: subprocess.Popen[str], within_seconds: float = 2.0) -> list[int]:
    """The processes of an ended run that are still there after a moment."""
    deadline = time.monotonic() + within_seconds
    while (found := members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def ended(process: subprocess.Popen[str], signum: int) -> tuple[int, float, list[int]]:
    """Exit code, seconds until the end, and the processes left of its group, after ``signum`` for the main process."""
    began = time.monotonic()
    process.send_signal(signum)
    process.communicate(timeout=60)
    took = time.monotonic() - began
    return process.returncode, took, left_of(process)


def records(output: Path) -> list[dict[str, object]]:
    """The records of a results file, without its header."""
    found = [json.loads(line) for line in output.read_text().splitlines()]
    return [record for record in found if "run" not in record]


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
