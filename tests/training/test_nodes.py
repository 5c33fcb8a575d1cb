"""A run that goes on after a loss on one of two machines; exact validation; the job for Slurm."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
import torch

from tests.training.stand_in import ALONE, TinyClips, run_tiny, tiny_network
from tests.training.test_distributed import ROOT, SAME_BATCH, TOLERANCE, log_of, newest
from vadis.training.distributed import Process
from vadis.training.loop import Context, validate_clips


@dataclass(frozen=True)
class OneOfMany(Process):
    """A process whose exchanges are looked at instead: what it would bring into a mean goes to ``brought``."""

    brought: list[torch.Tensor] = field(default_factory=list)

    def average(self, tensors):
        self.brought.extend(tensor.clone() for tensor in tensors)

    def maximum(self, *values):
        return values


class CountedClips(TinyClips):
    """Notes which clips were loaded."""

    def __init__(self, size: int) -> None:
        super().__init__(size, seed=9)
        self.loaded: list[int] = []

    def clip(self, epoch, index):
        self.loaded.append(index)
        return super().clip(epoch, index)


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("size", [1, 4, 7, 11])
def test_validation_counts_every_clip_once_whatever_the_number_of_processes(processes, size):
    network, whole = tiny_network(), validate_clips(tiny_network(), TinyClips(size, seed=9), Context(ALONE), 6)
    clips, brought = CountedClips(size), []
    for rank in range(processes):
        validate_clips(network, clips, Context(OneOfMany(torch.device("cpu"), rank, processes, brought)), 2)
    assert clips.loaded == list(range(size))
    loss, accuracy = torch.stack(brought).sum(dim=0).tolist()
    assert (loss, accuracy) == pytest.approx((whole.loss, whole.accuracy), abs=1e-6)


STEPS = 12
SLOW = {"steps": STEPS, "seconds": 0.25, **SAME_BATCH}  # 0.75 s for each of its steps on two processes


def agent(folder, port, number):
    """One machine's torchrun, as on a cluster: they find each other, and start their processes again three times."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command += [
        "--rdzv-id",
        "run",
        "--local-addr",
        "127.0.0.1",
        "--rdzv-conf",
        f"is_host={int(number == 0)},join_timeout=40",
    ]
    command += ["-m", "tests.training.train_under_torchrun", str(folder), json.dumps(SLOW)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / f"agent-{number}.log", "wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def steps_done(folder):
    with contextlib.suppress(OSError, ValueError):
        return [line["step"] for line in log_of(folder / "run") if line["event"] == "StepDone"]
    return []


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def kill(agents):
    for one in agents:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()


def run_on_two_machines(folder, lose=lambda agents: None):
    """The run, of whose two machines something is lost after some steps; the exit codes of both."""
    port = free_port()
    agents = [agent(folder, port, number) for number in (0, 1)]
    try:
        wait_for(lambda: len(steps_done(folder)) > 4)
        lose(agents)
        return [one.wait(120) for one in agents]
    finally:
        kill(agents)


def is_complete(folder):
    run_tiny(folder / "whole", steps=STEPS, **SAME_BATCH)
    whole, last = newest(folder / "whole"), newest(folder / "run")
    pairs = [(value.double(), last.tensors[key].double()) for key, value in whole.tensors.items()]
    return steps_done(folder) == list(range(1, STEPS + 1)) and all(
        torch.allclose(*two, atol=TOLERANCE) for two in pairs
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_lost_on_one_of_two_machines_is_started_again(tmp_path, rank):
    codes = run_on_two_machines(
        tmp_path, lambda agents: os.kill(int((tmp_path / f"pid-{rank}").read_text()), signal.SIGKILL)
    )
    assert codes == [0, 0], [path.read_text() for path in tmp_path.glob("agent-*.log")]
    assert is_complete(tmp_path)


@pytest.mark.exhaustive
def test_a_lost_machine_ends_the_run_and_the_same_command_goes_on(tmp_path):
    def lose(agents):
        pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in (0, 1)]
        lost = [pid for pid in pids if parent(pid) == agents[1].pid]
        kill(agents[1:])
        for pid in lost:
            os.kill(pid, signal.SIGKILL)

    assert 0 not in run_on_two_machines(tmp_path, lose)
    assert run_on_two_machines(tmp_path) == [0, 0]
    assert is_complete(tmp_path)


def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


STAND_INS = {
    "scontrol": "echo first; echo second",
    "srun": f'while [ "$1" != -m ]; do echo "$1"; shift; done; exec {sys.executable} "$@"',
}


@pytest.mark.slow
def test_the_job_for_slurm_says_what_vadis_understands(tmp_path):
    (script,) = [part.split("```")[0] for part in (ROOT / "docs/scale.md").read_text().split("```bash\n")[1:]]
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-8]", "SLURM_NNODES": "8", "SLURM_JOB_ID": "17"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = script.replace("/data/", f"{tmp_path}/data/")
    done = subprocess.run(["bash", "-c", job], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert {"first:29500", "8", "17", "c10d"} <= set(done.stdout.split())
    assert done.returncode == 2 and f"{tmp_path}/data/kinetics400" in done.stderr, done.stderr
