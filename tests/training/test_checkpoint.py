import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.matching import containing
from tests.training.kill_while_saving import AMID
from vadis.errors import VadisError
from vadis.training import checkpoint
from vadis.training.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def sample(step: int, size: int = 10) -> Checkpoint:
    tensors = {
        "network.weight": torch.arange(float(size)) * step,
        "network.tracked": torch.tensor(step),
        "momentum.weight": torch.randn(size).t(),
    }
    return Checkpoint(step, tensors, {"progress": {"step": step, "loss": 0.1 + 0.2}, "labels": ["π", "\n"]})


def names(folder: Path) -> list[str]:
    """What is in a folder; of checkpoints without their hash."""
    return sorted(re.sub(r"-[0-9a-f]{64}\.safetensors$", "", path.name) for path in folder.iterdir())


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path):
    before = sample(7)
    path = save_checkpoint(tmp_path / "checkpoints", before)
    assert names(path.parent) == ["step-000000007.000"]
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (7, before.state)
    assert loaded.tensors.keys() == before.tensors.keys()
    for key, value in before.tensors.items():
        assert torch.equal(loaded.tensors[key], value) and loaded.tensors[key].dtype == value.dtype


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 5, 9, 1_000_000):
        save_checkpoint(tmp_path, sample(step))
    assert names(tmp_path) == ["step-000000009.000", "step-001000000.000"]
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 1_000_000


def test_a_step_saved_once_more_does_not_touch_the_first(tmp_path):
    first = save_checkpoint(tmp_path, sample(3))
    for _ in range(10):
        last = save_checkpoint(tmp_path, sample(3))
    assert names(tmp_path) == ["step-000000003.009", "step-000000003.010"] and not first.exists()
    found = load_newest(tmp_path)
    assert found is not None and found[1] == last
    assert list_checkpoints(tmp_path)[-1] == last


def test_nothing_there(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "absent") is None


@pytest.mark.parametrize("fault", ["empty", "cut", "longer", "other"])
def test_a_damaged_one_is_passed_over(tmp_path, fault):
    good, bad = save_checkpoint(tmp_path, sample(1)), save_checkpoint(tmp_path, sample(2))
    damage = {
        "empty": lambda: bad.write_bytes(b""),
        "cut": lambda: bad.write_bytes(bad.read_bytes()[:-1]),
        "longer": lambda: bad.write_bytes(bad.read_bytes() + b" "),
        "other": lambda: shutil.copy(good, bad),
    }
    damage[fault]()
    with pytest.raises(DamagedCheckpointError, match="step-000000002"):
        load_checkpoint(bad)
    found = load_newest(tmp_path)
    assert found is not None
    assert found[0].step == 1 and found[1:] == (good, [bad])


def test_all_damaged(tmp_path):
    save_checkpoint(tmp_path, sample(1)).write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=containing(1, tmp_path)):
        load_newest(tmp_path)


def test_every_flipped_bit_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, sample(12345))
    chance, whole = random.Random(5), path.read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(path)
    path.write_bytes(whole)
    load_checkpoint(path)


def test_nothing_pickled_is_ever_read(tmp_path):
    torch.save({"network.weight": torch.zeros(1)}, save_checkpoint(tmp_path, sample(1)))
    with pytest.raises(DamagedCheckpointError):
        load_newest(tmp_path)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A disk that is full at this point, as the kernel says it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_ones(tmp_path):
    save_checkpoint(tmp_path, sample(1))
    save_checkpoint(tmp_path, sample(2))
    with files_of_at_most(5_000), pytest.raises(VadisError, match=containing("step-000000003")) as error:
        save_checkpoint(tmp_path, sample(3, size=10_000))
    assert "MB" in error.value.message and "`resume=True`" in str(error.value.hint)
    assert names(tmp_path) == ["step-000000001.000", "step-000000002.000"]
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 2


def test_a_full_disk_is_tried_once_more_after_our_own_surplus_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "KEPT", 9)
    for step in range(1, 5):
        save_checkpoint(tmp_path, sample(step))
    monkeypatch.setattr(checkpoint, "KEPT", 2)
    tried = []

    def write(target, content):
        tried.append(len(list_checkpoints(tmp_path)))
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        original(target, content)

    original = checkpoint.write_file
    monkeypatch.setattr(checkpoint, "write_file", write)
    save_checkpoint(tmp_path, sample(5))
    assert tried == [4, 2]
    assert names(tmp_path) == ["step-000000004.000", "step-000000005.000"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VadisError, match=containing("Not a directory")):
        save_checkpoint(tmp_path / "file" / "checkpoints", sample(1))


def test_what_others_put_there_is_left_alone(tmp_path):
    for name in ("notes", "step-12", "step-000001.old"):
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, sample(step))
    assert {"notes", "step-12", "step-000001.old"} < set(names(tmp_path))


def test_one_that_is_not_what_was_written_does_not_cost_the_others(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, sample(step))
    original = checkpoint.write_file

    def write(target, content):
        original(target, content + b" ")

    monkeypatch.setattr(checkpoint, "write_file", write)
    with pytest.raises(DamagedCheckpointError):
        save_checkpoint(tmp_path, sample(3))
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 2


@pytest.mark.slow
def test_kill_9_at_random_moments_of_saving(tmp_path):
    command = [sys.executable, "-m", "tests.training.kill_while_saving", str(tmp_path), "20", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= AMID  # kills fell into a save
