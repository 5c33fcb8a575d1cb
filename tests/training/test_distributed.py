import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.stand_in import ALONE, run_tiny
from vadis.device import resolve_device
from vadis.errors import UsageError
from vadis.training.checkpoint import Checkpoint, load_newest
from vadis.training.distributed import Process, joined
from vadis.training.run_folder import checkpoints_in

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # sums of gradients in another order, 12 steps long


def start_two(folder: Path, seconds: float = 0.0, clips_in_memory: int = 99, **changes) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.training.train_under_torchrun", str(folder), str(seconds), str(clips_in_memory)]
    command += [json.dumps(changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def run_two(folder: Path, **changes) -> None:
    started = start_two(folder, **changes)
    output, _ = started.communicate(timeout=100)
    assert started.returncode == 0, output.decode()


def newest(folder: Path) -> Checkpoint:
    found = load_newest(checkpoints_in(folder))
    assert found is not None
    return found[0]


def log_of(folder: Path) -> list[dict]:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, step: int, started: subprocess.Popen) -> None:
    while not any(line["event"] == "StepDone" and line["step"] >= step for line in log_of(folder)):
        assert started.poll() is None
        time.sleep(0.05)


def is_alive(folder: Path, rank: int) -> bool:
    stat = Path("/proc", (folder / f"pid-{rank}").read_text(), "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory) -> Path:
    """A whole run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    run_two(folder)
    return folder / "run"


@pytest.mark.torchrun
def test_two_processes_follow_one(tmp_path, shared_run):
    """Batch norm, dropout, running averages, validation, schedule: all as in one process with the same batch."""
    one, two = tmp_path / "one", shared_run
    run_tiny(one)
    alone, shared = newest(one), newest(two)
    assert alone.tensors.keys() == shared.tensors.keys()
    for key, value in alone.tensors.items():
        assert torch.allclose(value.double(), shared.tensors[key].double(), atol=TOLERANCE), key
    lines = [line for line in log_of(two) if line["event"] in ("StepDone", "Validated")]
    reference = [line for line in log_of(one) if line["event"] in ("StepDone", "Validated")]
    assert len(lines) == len(reference) == 15  # one log, and nothing twice
    for line, expected in zip(lines, reference, strict=True):
        assert (line["event"], line["step"]) == (expected["event"], expected["step"])
        for key in ("loss", "accuracy", "smoothed_accuracy", "learning_rate", "gradient_norm"):
            assert line.get(key) == pytest.approx(expected.get(key), abs=TOLERANCE)
    assert shared.state["made_with"]["processes"] == 2


@pytest.mark.torchrun
def test_a_signal_stops_all_and_the_run_goes_on_exactly(tmp_path, shared_run):
    folder = tmp_path / "stopped"
    started = start_two(folder, seconds=0.1)
    wait_for_step(folder / "run", 3, started)
    os.kill(int((folder / "pid-1").read_text()), signal.SIGTERM)  # one hears it, all must agree
    started.communicate(timeout=60)
    assert started.returncode != 0
    outcomes = [json.loads((folder / f"outcome-{rank}").read_text()) for rank in (0, 1)]
    assert outcomes[0] == outcomes[1] and outcomes[0][1] == signal.SIGTERM
    stopped_at = newest(folder / "run").step
    assert 3 <= stopped_at == outcomes[0][0] < 12
    run_two(folder)
    before, after = newest(shared_run), newest(folder / "run")
    assert after.state == before.state
    assert all(torch.equal(value, after.tensors[key]) for key, value in before.tensors.items())


@pytest.mark.torchrun
def test_when_one_process_dies_all_end_and_a_checkpoint_is_there(tmp_path):
    started = start_two(tmp_path, seconds=0.1, checkpoint_seconds=0)
    wait_for_step(tmp_path / "run", 3, started)
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    began = time.monotonic()
    started.communicate(timeout=60)
    assert started.returncode != 0 and time.monotonic() - began < 60
    assert not is_alive(tmp_path, 0) and not is_alive(tmp_path, 1)
    assert newest(tmp_path / "run").step >= 2


@pytest.mark.torchrun
def test_where_memory_is_short_in_one_process_all_take_smaller_pieces(tmp_path):
    run_tiny(tmp_path / "one", micro_batch=1)
    run_two(tmp_path / "two", clips_in_memory=1)
    alone, shared = newest(tmp_path / "one"), newest(tmp_path / "two" / "run")
    assert shared.state["progress"]["micro_batch"] == 1
    for key, value in alone.tensors.items():
        assert torch.allclose(value.double(), shared.tensors[key].double(), atol=TOLERANCE), key


def test_alone_nothing_is_exchanged():
    network = nn.Linear(2, 2)
    ALONE.copy_main(network)
    tensor = torch.ones(3)
    ALONE.average([tensor])
    assert ALONE.is_main and torch.equal(tensor, torch.ones(3))
    assert ALONE.largest(3, 0) == (3, 0)
    assert ALONE.gather(["a"]) == ["a"] and ALONE.from_main("b") == "b"
    assert not Process(torch.device("cpu"), rank=1, world_size=2).is_main


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as process:
        assert process == Process(torch.device("cpu"))
    with joined() as process:
        assert process.device == resolve_device()


def test_under_torchrun_no_process_chooses_its_gpu(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match="gives each process a GPU of its own"), joined("cuda:0"):
        pass
