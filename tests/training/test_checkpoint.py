import json
import random
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
from vadis.errors import VadisError
from vadis.training import checkpoint
from vadis.training.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
    set_aside,
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
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_bit_by_bit(tmp_path):
    before = sample(7)
    path = save_checkpoint(tmp_path / "checkpoints", before)
    assert path.name == "step-000007"
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (7, before.state)
    assert loaded.tensors.keys() == before.tensors.keys()
    for key, value in before.tensors.items():
        assert torch.equal(loaded.tensors[key], value) and loaded.tensors[key].dtype == value.dtype
    assert names(path) == ["manifest.json", "state.json", "tensors.safetensors"]


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 5, 9, 1_000_000):
        save_checkpoint(tmp_path, sample(step))
    assert names(tmp_path) == ["step-000009", "step-1000000"]
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 1_000_000


def test_a_step_saved_once_more_does_not_touch_the_first(tmp_path):
    first = save_checkpoint(tmp_path, sample(3))
    for _ in range(10):
        last = save_checkpoint(tmp_path, sample(3))
    assert last.name == "step-000003.10" and not first.exists()
    found = load_newest(tmp_path)
    assert found is not None and found[1] == last
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003.9", "step-000003.10"]


def test_nothing_there(tmp_path):
    assert load_newest(tmp_path) is None
    assert load_newest(tmp_path / "absent") is None


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "tensors.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "empty", "cut", "longer", "other"])
def test_a_damaged_one_is_passed_over(tmp_path, name, fault):
    good, bad = save_checkpoint(tmp_path, sample(1)), save_checkpoint(tmp_path, sample(2))
    damage = {
        "missing": lambda file: file.unlink(),
        "empty": lambda file: file.write_bytes(b""),
        "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
        "longer": lambda file: file.write_bytes(file.read_bytes() + b" "),
        "other": lambda file: shutil.copy(good / name, file),
    }
    damage[fault](bad / name)
    with pytest.raises(DamagedCheckpointError, match=containing("step-000002")):
        load_checkpoint(bad)
    found = load_newest(tmp_path)
    assert found is not None
    assert found[0].step == 1 and found[1:] == (good, [bad])
    set_aside(bad)
    found = load_newest(tmp_path)
    assert found is not None and found[2] == []
    assert any(path.name.startswith("step-000002.damaged-") for path in tmp_path.iterdir())


def test_all_damaged(tmp_path):
    (save_checkpoint(tmp_path, sample(1)) / "state.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=containing(1, tmp_path)):
        load_newest(tmp_path)


def test_every_flipped_bit_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, sample(12345))
    chance = random.Random(5)
    files = sorted(path.iterdir())
    for number in range(150):
        file = files[number % 3]
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(DamagedCheckpointError):
            load_checkpoint(path)
        file.write_bytes(whole)
    load_checkpoint(path)


def test_one_of_another_version_is_not_called_damaged(tmp_path):
    path = save_checkpoint(tmp_path, sample(1))
    values = json.loads((path / "manifest.json").read_bytes())
    del values["seal"]
    (path / "manifest.json").write_bytes(checkpoint._sealed({**values, "schema": 2}))
    with pytest.raises(VadisError, match=containing("schema", 2, 1)):
        load_newest(tmp_path)


def test_nothing_pickled_is_ever_read(tmp_path):
    path = save_checkpoint(tmp_path, sample(1))
    torch.save({"network.weight": torch.zeros(1)}, path / "tensors.safetensors")
    with pytest.raises(DamagedCheckpointError):
        load_checkpoint(path)


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
    with files_of_at_most(5_000), pytest.raises(VadisError, match=containing("step-000003")) as error:
        save_checkpoint(tmp_path, sample(3, size=10_000))
    assert "MB" in error.value.message and "`resume=True`" in str(error.value.hint)
    assert names(tmp_path) == ["step-000001", "step-000002"]
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 2


def test_a_full_disk_is_tried_once_more_after_our_own_surplus_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "KEPT", 9)
    for step in range(1, 5):
        save_checkpoint(tmp_path, sample(step))
    monkeypatch.setattr(checkpoint, "KEPT", 2)
    tried = []

    def write(target, contents):
        tried.append(len(list_checkpoints(tmp_path)))
        if len(tried) == 1:
            raise OSError(28, "No space left on device")
        original(target, contents)

    original = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", write)
    save_checkpoint(tmp_path, sample(5))
    assert tried == [4, 2]
    assert names(tmp_path) == ["step-000004", "step-000005"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VadisError, match=containing("Not a directory")):
        save_checkpoint(tmp_path / "file" / "checkpoints", sample(1))


def test_what_others_put_there_has_abandoned_work(tmp_path):
    for name in ("notes", "step-12", "step-000001.old"):
        (tmp_path / name).mkdir()
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, sample(step))
    assert {"notes", "step-12", "step-000001.old"} < set(names(tmp_path))


def test_one_that_is_not_what_was_written_does_not_cost_the_others(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, sample(step))
    original = checkpoint._write

    def write(target, contents):
        original(target, {**contents, "state.json": b"{}"})

    monkeypatch.setattr(checkpoint, "_write", write)
    with pytest.raises(DamagedCheckpointError):
        save_checkpoint(tmp_path, sample(3))
    found = load_newest(tmp_path)
    assert found is not None and found[0].step == 2


def test_kill_9_at_random_moments_of_saving(tmp_path):
    command = [sys.executable, "-m", "tests.training.kill_while_saving", str(tmp_path), "20", "1"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 3  # of 20 kills fell into a save
