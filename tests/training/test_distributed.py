import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import TCPStore

from tests.matching import containing
from tests.training.stand_in import ALONE, run_tiny
from vadis.device import resolve_device
from vadis.errors import UsageError, VadisError
from vadis.training.checkpoint import CHECKPOINTS_NAME, Checkpoint, load_newest
from vadis.training.distributed import Process, exit_now, join_group, report_once

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # sums of gradients in another order, 12 steps long
LISTENING, LOOPBACK = "0A", "0100007F"  # as /proc/net/tcp writes a state, and 127.0.0.1


def start(runs: dict[Path, dict[str, object]], processes: int = 2) -> subprocess.Popen:
    """Begin, or go on with, the tiny runs of these folders, one after the other; see ``train_under_torchrun``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "tests.training.train_under_torchrun"]
    for folder, how in runs.items():
        folder.mkdir(exist_ok=True)
        command += [str(folder), json.dumps(how)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def start_two(folder: Path, **how) -> subprocess.Popen:
    """Begin the tiny run in ``folder/run`` with two processes."""
    return start({folder: how})


def output_of(started: subprocess.Popen, seconds: float = 100) -> str:
    """All that the run said; it ends within ``seconds``."""
    output, _ = started.communicate(timeout=seconds)
    return output.decode()


def end_well(started: subprocess.Popen) -> None:
    output = output_of(started)
    assert started.returncode == 0, output


def newest(folder: Path) -> Checkpoint:
    found = load_newest(folder / CHECKPOINTS_NAME)
    assert found is not None
    return found[0]


def log_of(folder: Path) -> list[dict]:
    path = folder / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(folder: Path, step: int, started: subprocess.Popen) -> None:
    while not any(line["event"] == "StepDone" and line["step"] >= step for line in log_of(folder)):
        assert started.poll() is None, output_of(started)
        time.sleep(0.05)


def pid(folder: Path, rank: int) -> int:
    return int((folder / f"pid-{rank}").read_text())


def is_alive(folder: Path, rank: int) -> bool:
    stat = Path("/proc", str(pid(folder, rank)), "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def addresses_listened_on(process: int) -> set[str]:
    """The local addresses, in hexadecimal, on which a process accepts connections."""
    sockets = {str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


SAME_BATCH = {"batch_size": 6, "micro_batch": 1, "validate_every": 3}  # 6 clips are shared by 1, 2 and 3 processes


@dataclass(frozen=True)
class Stopped:
    """A run that a signal stopped after ``step``: what torchrun said of it, and how its processes ended."""

    folder: Path
    output: str
    outcomes: list[tuple[int, int]]
    step: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Stopped:
    folder = tmp_path_factory.mktemp("stopped")
    started = start_two(folder, seconds=0.1)
    wait_for_step(folder / "run", 3, started)
    os.kill(pid(folder, 1), signal.SIGTERM)  # one hears it, all must agree
    output = output_of(started, 60)
    outcomes = [tuple(json.loads((folder / f"outcome-{rank}").read_text())) for rank in (0, 1)]
    return Stopped(folder, output, outcomes, newest(folder / "run").step)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory, stopped) -> Path:
    """The folder of runs of two processes, which have ended as the stopped one has: one start, of seconds, for all."""
    folder = tmp_path_factory.mktemp("two")
    short, six = {"clips_in_memory": 1}, {"steps": 6, **SAME_BATCH}
    runs = {folder / "whole": {}, stopped.folder: {}, folder / "short": short, folder / "six": six}
    end_well(start({**runs, folder / "bf16": {"precision": "bf16"}}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("whole", "fp32"), ("bf16", "bf16")])
def test_two_processes_follow_one(tmp_path, whole_runs, name, precision):
    """Batch norm, dropout, running averages, validation, schedule: all as in one process with the same batch."""
    one, two = tmp_path / "one", whole_runs / name / "run"
    run_tiny(one, precision=precision)
    alone, both = newest(one), newest(two)
    assert alone.tensors.keys() == both.tensors.keys()
    for key, value in alone.tensors.items():
        assert torch.allclose(value.double(), both.tensors[key].double(), atol=TOLERANCE), key
    lines = [line for line in log_of(two) if line["event"] in ("StepDone", "Validated")]
    reference = [line for line in log_of(one) if line["event"] in ("StepDone", "Validated")]
    assert len(lines) == len(reference) == 15  # one log, and nothing twice
    for line, expected in zip(lines, reference, strict=True):
        assert (line["event"], line["step"]) == (expected["event"], expected["step"])
        for key in ("loss", "accuracy", "smoothed_accuracy", "learning_rate", "gradient_norm"):
            assert line.get(key) == pytest.approx(expected.get(key), abs=TOLERANCE)
    assert both.state["made_with"]["processes"] == 2


@pytest.mark.slow
def test_no_thread_of_the_group_outlives_it(whole_runs):
    """One that did would now and then abort the process as it ends."""
    for rank in (0, 1):
        threads = json.loads((whole_runs / "whole" / f"threads-{rank}").read_text())
        assert not [name for name in threads if "gloo" in name or "vadis" in name]


@pytest.mark.slow
def test_a_signal_stops_all_and_the_run_goes_on_exactly(stopped, whole_runs):
    assert "exitcode  : 143" in stopped.output and stopped.output.count("interrupted\n") == 1, stopped.output
    assert stopped.outcomes == [(stopped.step, signal.SIGTERM)] * 2
    assert 3 <= stopped.step < 12
    before, after = newest(whole_runs / "whole" / "run"), newest(stopped.folder / "run")
    assert after.state == before.state
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(value, after.tensors[key]) for key, value in before.tensors.items())
    steps = [line["step"] for line in log_of(stopped.folder / "run") if line["event"] == "StepDone"]
    assert steps == list(range(1, 13))  # one log, of both runs


@pytest.mark.slow
def test_a_signal_to_one_that_waits_stops_another_in_the_middle_of_a_long_pass(tmp_path):
    started = start_two(tmp_path, clips_until_long=5, heartbeat_seconds=0.2)
    wait_for_step(tmp_path / "run", 1, started)
    time.sleep(1)  # now one waits for the other's share of a step
    os.kill(pid(tmp_path, 1), signal.SIGTERM)
    output = output_of(started, 30)
    assert "exitcode  : 143" in output and output.count("interrupted\n") == 1, output
    assert newest(tmp_path / "run").step >= 1


@pytest.mark.slow
def test_when_one_process_dies_all_end_and_a_checkpoint_is_there(tmp_path):
    started = start_two(tmp_path, seconds=0.1, checkpoint_seconds=0)
    wait_for_step(tmp_path / "run", 3, started)
    assert addresses_listened_on(pid(tmp_path, 0)) | addresses_listened_on(pid(tmp_path, 1)) == {LOOPBACK}
    os.kill(pid(tmp_path, 1), signal.SIGKILL)
    output = output_of(started, 60)
    assert started.returncode != 0
    assert output.count("error: ") == 1
    assert not is_alive(tmp_path, 0) and not is_alive(tmp_path, 1)
    assert newest(tmp_path / "run").step >= 2


@pytest.mark.slow
def test_a_process_that_stands_still_is_missed(tmp_path):
    started = start_two(tmp_path, seconds=0.1, heartbeat_seconds=0.2)
    wait_for_step(tmp_path / "run", 3, started)
    os.kill(pid(tmp_path, 1), signal.SIGSTOP)
    began = time.monotonic()
    while is_alive(tmp_path, 0):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    os.kill(pid(tmp_path, 1), signal.SIGKILL)  # torchrun does it too, but gives it 30 s
    output = output_of(started, 60)
    assert started.returncode != 0 and not is_alive(tmp_path, 1)
    assert len(re.findall(r"error: .*\b1\b.*\b2 s", output)) == 1


@pytest.mark.slow
def test_an_error_of_one_process_is_told_once_and_ends_all(tmp_path):
    output = output_of(start_two(tmp_path, clips_until_failure=5), 60)
    assert "exitcode  : 1 " in output and "rank      : 1 " in output
    assert output.count("error: ") == 1 and ".avi" in output, output
    assert "terminate" not in output and not is_alive(tmp_path, 0) and not is_alive(tmp_path, 1)


@pytest.mark.slow
def test_where_memory_is_short_in_one_process_all_take_smaller_pieces(tmp_path, whole_runs):
    run_tiny(tmp_path / "one", micro_batch=1)
    alone, both = newest(tmp_path / "one"), newest(whole_runs / "short" / "run")
    assert both.state["progress"]["micro_batch"] == 1
    for key, value in alone.tensors.items():
        assert torch.allclose(value.double(), both.tensors[key].double(), atol=TOLERANCE), key


@pytest.mark.slow
def test_what_two_processes_saved_one_and_three_go_on_with(tmp_path, whole_runs):
    run_tiny(tmp_path / "whole", steps=9, **SAME_BATCH)
    whole, going_on = newest(tmp_path / "whole"), {"steps": 9, "allow_inexact": True, **SAME_BATCH}
    for processes in (1, 3):
        folder = tmp_path / str(processes)
        shutil.copytree(whole_runs / "six", folder)
        if processes == 1:
            run_tiny(folder / "run", resume=True, **going_on)
        else:
            end_well(start({folder: going_on}, processes))
        last = newest(folder / "run")
        assert last.step == 9 and last.state["made_with"]["processes"] == processes
        for key, value in whole.tensors.items():
            assert torch.allclose(value.double(), last.tensors[key].double(), atol=TOLERANCE), key
        steps = [line["step"] for line in log_of(folder / "run") if line["event"] == "StepDone"]
        assert steps == list(range(1, 10))


@pytest.fixture
def store(monkeypatch) -> TCPStore:
    """The store that torchrun holds for its processes, of which this is one."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"TORCHELASTIC_USE_AGENT_STORE": True, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    place["TORCHELASTIC_RESTART_COUNT"] = 0
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    return store


def told(*errors: str) -> list[str]:
    """What a user reads, where processes meet ``errors`` one after the other."""
    said: list[str] = []
    for error in errors:
        report_once(lambda error=error: said.append(error))
    return said


def test_the_first_error_is_told_and_no_other(store):
    assert told("no folder x", "no folder x", "another has ended") == ["no folder x"]
    assert told("another has ended") == []


def test_nobody_goes_before_it_is_told(store):
    said = []

    def tell_slowly():
        time.sleep(0.3)
        said.append("x")

    first = Thread(target=report_once, args=(tell_slowly,))
    first.start()
    time.sleep(0.1)
    report_once(said.clear)
    assert said == ["x"]
    first.join()


def test_after_a_restart_errors_are_told_again(store, monkeypatch):
    assert told("x") == ["x"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert told("x") == ["x"]


def test_without_torchrun_everything_is_told():
    assert told("x", "x") == ["x", "x"]


def test_a_failed_exchange_says_that_another_is_gone(monkeypatch):
    def fail(*arguments, **options):
        raise error

    for name in ("all_reduce", "broadcast", "all_gather_object"):
        monkeypatch.setattr(torch.distributed, name, fail)
    process = Process(torch.device("cpu"), rank=0, world_size=2)
    exchanges = (
        process.barrier,
        lambda: process.average([torch.ones(2)]),
        lambda: process.broadcast(nn.Linear(1, 1)),
        lambda: process.gather("a"),
    )
    error = RuntimeError("[pair.cc:537] Connection closed by peer [127.0.0.1]:6062")
    for exchange in exchanges:
        with pytest.raises(VadisError):
            exchange()
    error = torch.OutOfMemoryError("CUDA out of memory")
    for exchange in exchanges:
        with pytest.raises(torch.OutOfMemoryError):
            exchange()


def test_alone_a_process_leaves_as_usual():
    with pytest.raises(SystemExit, match="143"):
        exit_now(143)


def test_alone_nothing_is_exchanged():
    network = nn.Linear(2, 2)
    ALONE.broadcast(network)
    tensor = torch.ones(3)
    ALONE.average([tensor])
    ALONE.barrier()
    assert ALONE.is_main and torch.equal(tensor, torch.ones(3))
    assert ALONE.maximum(3, 0) == (3, 0)
    assert ALONE.gather("a") == ["a"]
    assert not Process(torch.device("cpu"), rank=1, world_size=2).is_main


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with join_group("cpu") as process:
        assert process == Process(torch.device("cpu"))
    with join_group() as process:
        assert process.device == resolve_device()


def test_processes_without_a_store_of_torchruns_are_a_group_too(monkeypatch):
    """As with etcd: otherwise each would train by itself."""
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with join_group("cpu") as process:
        assert dist.is_initialized() and process == Process(torch.device("cpu"), rank=0, world_size=1)


def test_under_torchrun_no_process_chooses_its_gpu(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(UsageError, match=containing("torchrun", "cuda:0")), join_group("cuda:0"):
        pass
