"""``vadis evaluate`` on a real road: a small random model and a folder dataset of synthetic videos."""

import json
from pathlib import Path

import pytest

from tests.make_model import make_model
from tests.synthetic import write_video


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_model(tmp_path / "model.safetensors", width=1 / 16, classes=2)
    for seed, place in enumerate(["train/class 0", "train/class 1", "test/class 0", "test/class 1"]):
        (tmp_path / "data" / place).mkdir(parents=True)
        write_video(tmp_path / "data" / place / "a.mp4", num_frames=20, seed=seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EVALUATE = ("evaluate", "--data", "data", "-m", "model.safetensors", "--streams", "rgb", "-o", "run")


def test_metrics_on_stdout_and_in_files(run_vadis, inputs):
    ended = run_vadis(*EVALUATE, "--json")
    assert ended.code == 0, ended.err
    metrics = json.loads(ended.out)
    assert metrics == json.loads(Path("run/metrics.json").read_text())
    assert metrics["rgb"]["num_examples"] == 2
    assert Path("run/confusion-rgb.csv").read_text().startswith("true class,class 0,class 1\n")
    again = run_vadis(*EVALUATE)
    assert "0 of them new" in again.err
    assert "top-1" in again.out


def test_a_broken_video_counts_as_wrong_and_is_said(run_vadis, inputs):
    Path("data/test/class 0/b.mp4").write_bytes(b"")
    ended = run_vadis(*EVALUATE, "--json")
    assert ended.code == 3
    assert (json.loads(ended.out)["failed"], json.loads(ended.out)["rgb"]["num_examples"]) == (1, 3)
    assert "1 videos could not be read and count as wrong" in ended.err


def test_other_classes_are_wrong_use(run_vadis, inputs):
    Path("data/test/class 1").rename("data/test/archery")
    Path("data/train/class 1").rename("data/train/archery")
    ended = run_vadis(*EVALUATE)
    assert ended.code == 2
    assert "no class for 1 classes of the dataset: archery" in ended.err
