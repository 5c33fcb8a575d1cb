"""``vadis features`` on a real road: a small random model and synthetic videos."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.bfloat16 import emulated_bfloat16
from tests.make_model import make_model
from tests.matching import containing
from tests.synthetic import write_video


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a model and two videos, one of them empty."""
    make_model(tmp_path / "model.safetensors", width=1 / 16, classes=7)
    (tmp_path / "clips" / "deep").mkdir(parents=True)
    write_video(tmp_path / "clips" / "deep" / "a.mp4", num_frames=70, seed=1)
    (tmp_path / "clips" / "empty.mp4").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FEATURES = ("features", "clips", "-o", "out", "-m", "model.safetensors", "--streams", "rgb")


def test_one_file_per_video_in_the_same_tree(run_vadis, inputs):
    ended = run_vadis(*FEATURES)
    assert (ended.code, ended.out) == (3, "")
    assert "clips/empty.mp4: " in ended.err
    assert ended.err.splitlines()[-1].startswith("1 ok, 1 failed")
    files = [path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()]
    assert files == ["deep/a.mp4.npz"]
    with np.load("out/deep/a.mp4.npz", allow_pickle=False) as arrays:
        assert (arrays["rgb"].shape, arrays["seconds"][0]) == ((8, 64), 0.32)


@pytest.mark.slow
def test_run_again_it_goes_on_where_it_stopped(run_vadis, inputs):
    run_vadis(*FEATURES)
    before = Path("out/deep/a.mp4.npz").stat().st_mtime_ns
    write_video("clips/b.mp4", num_frames=20, seed=2)
    ended = run_vadis(*FEATURES)
    assert ended.err.splitlines()[-1] == "1 ok, 1 skipped, 1 failed"
    assert Path("out/deep/a.mp4.npz").stat().st_mtime_ns == before
    Path("out/deep/a.mp4.npz").write_bytes(b"cut off")
    assert run_vadis(*FEATURES).err.splitlines()[-1] == "1 ok, 1 skipped, 1 failed"


@pytest.mark.slow
@pytest.mark.parametrize("machine", [("--jobs", 1), ("--jobs", 3, "--batch-size", 4)])
def test_jobs_and_batch_size_change_nothing_that_is_kept(run_vadis, inputs, machine):
    separate = (*FEATURES, "--window", 16, "--stride", 8)
    assert run_vadis(*separate[:2], "-o", "plain", *separate[4:]).code == 3
    assert run_vadis(*separate, *machine).code == 3
    kept, plain = (np.load(f"{folder}/deep/a.mp4.npz") for folder in ("out", "plain"))
    assert kept["rgb"].shape == plain["rgb"].shape and len(kept["rgb"]) > 4
    assert np.allclose(kept["rgb"], plain["rgb"], atol=1e-5)  # oneDNN sums batches in another order


@pytest.mark.slow
def test_other_settings_are_refused_with_the_difference(run_vadis, inputs):
    run_vadis(*FEATURES)
    ended = run_vadis(*FEATURES, "--layer", "Mixed_5c")
    assert ended.code == 2
    assert re.search(containing("layer", "Pooled", "Mixed_5c"), ended.err)
    assert run_vadis(*FEATURES, "--layer", "Mixed_5c", "--overwrite").code == 3


def test_a_layer_that_is_not_there_is_wrong_use(run_vadis, inputs):
    ended = run_vadis(*FEATURES, "--layer", "conv5")
    assert ended.code == 2
    assert "Mixed_5c" in ended.err


def test_without_a_video_or_a_model_no_folder_is_left(run_vadis, inputs):
    for arguments, code in (
        (("clips/empty.mp4", "-m", "model.safetensors"), 3),
        (("clips", "-m", "nowhere"), 2),
        (("clips", "-m", "clips/empty.mp4"), 1),
    ):
        ended = run_vadis("features", *arguments, "-o", "new/out")
        assert (ended.code in (code, 1), "bug" in ended.err) == (True, False), ended.err
        assert not Path("new").exists()


def test_a_folder_is_not_named_like_a_file(run_vadis, inputs):
    assert run_vadis("features", "clips", "-o", "out.npz", "-m", "model.safetensors").code == 2
    assert not Path("out.npz").exists()


def test_features_in_bf16_are_others(run_vadis, inputs, monkeypatch):
    monkeypatch.setattr("vadis.models.is_bfloat16_faster", lambda: False)
    refused = run_vadis(*FEATURES, "--precision", "bf16")
    assert (refused.code, list(Path("out").rglob("*.npz"))) == (1, [])
    assert "slower" in refused.err and "--precision" in refused.err
    assert run_vadis(*FEATURES, "--precision", "fp16").code == 2
    assert run_vadis(*FEATURES).code == 3
    with emulated_bfloat16():
        ended = run_vadis(*FEATURES, "--precision", "bf16")
        assert ended.code == 2 and "precision was None, is bf16" in ended.err
        assert run_vadis(*FEATURES, "--precision", "bf16", "--overwrite").code == 3


def test_a_part_is_a_setting_of_its_own(run_vadis, inputs):
    (inputs / "clips" / "empty.mp4").unlink()
    assert run_vadis(*FEATURES, "--start", "0:00.4", "--end", "1.4").code == 0
    with np.load("out/deep/a.mp4.npz", allow_pickle=False) as arrays:
        assert arrays["seconds"].min() > 0.4 and arrays["seconds"].max() < 1.4
    assert run_vadis(*FEATURES, "--start", "0.4", "--end", "1.4").err.splitlines()[-1] == "0 ok, 1 skipped"
    ended = run_vadis(*FEATURES)
    assert ended.code == 2 and re.search(containing("start", 0.4), ended.err)
    assert run_vadis(*FEATURES, "--start", "9", "--overwrite").code == 3
