"""A run that goes on with another number of processes, and validation that is exact with any."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
import torch

from tests.training.stand_in import ALONE, TinyClips, run_tiny, tiny_network
from tests.training.test_distributed import ROOT, TOLERANCE, log_of, newest, output_of
from vadis.training.distributed import Process
from vadis.training.validation import validate_clips

SAME_BATCH = {"batch_size": 6, "micro_batch": 1, "validate_every": 3}  # 6 clips are shared by 1, 2 and 3 processes


@dataclass(frozen=True)
class OneOfMany(Process):
    """A process whose exchanges are looked at instead: what it would bring into a mean goes to ``brought``."""

    brought: list[torch.Tensor] = field(default_factory=list)

    def average(self, tensors):
        self.brought.extend(tensor.clone() for tensor in tensors)

    def largest(self, *values):
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
    network, whole = tiny_network(), validate_clips(tiny_network(), TinyClips(size, seed=9), ALONE)
    clips, brought = CountedClips(size), []
    for rank in range(processes):
        validate_clips(network, clips, OneOfMany(torch.device("cpu"), rank, processes, brought), batch_size=2)
    assert clips.loaded == list(range(size))
    loss, accuracy = torch.stack(brought).sum(dim=0).tolist()
    assert (loss, accuracy) == pytest.approx((whole.loss, whole.accuracy), abs=1e-6)


def start(folder, processes, **how):
    """Begin, or go on with, the tiny run in ``folder/run``."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "tests.training.train_under_torchrun", str(folder), json.dumps(how)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_what_two_processes_saved_one_and_three_go_on_with(tmp_path):
    run_tiny(tmp_path / "whole", steps=9, **SAME_BATCH)
    begun = start(tmp_path / "two", 2, steps=6, **SAME_BATCH)
    output = output_of(begun)
    assert begun.returncode == 0, output
    whole = newest(tmp_path / "whole")
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        subprocess.run(["cp", "-r", tmp_path / "two", folder], check=True)
        going_on = start(folder, processes, steps=9, allow_inexact=True, **SAME_BATCH)
        output = output_of(going_on)
        assert going_on.returncode == 0, output
        last = newest(folder / "run")
        assert last.step == 9 and last.state["made_with"]["processes"] == processes
        for key, value in whole.tensors.items():
            assert torch.allclose(value.double(), last.tensors[key].double(), atol=TOLERANCE), key
        steps = [line["step"] for line in log_of(folder / "run") if line["event"] == "StepDone"]
        assert steps == list(range(1, 10))
