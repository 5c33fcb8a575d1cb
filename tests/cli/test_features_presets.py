"""Each preset's files, read as the program reads them that the preset is named after, and options of their own."""

import errno
import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from tests.make_model import make_model
from tests.synthetic import write_video

pytestmark = pytest.mark.usefixtures("quick_tvl1")

CHANNELS = 64  # of the pooled layer of a model of this width: 1024 of a real one
FRAMES, FPS = 44, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a video of 44 frames at 10 per second: 110 of the 25 fps grid."""
    folder = tmp_path_factory.mktemp("presets")
    make_model(folder / "model.safetensors", width=1 / 16, classes=3)
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "a.mp4", num_frames=FRAMES, fps=FPS, size=(96, 64), seed=1)
    return folder


@pytest.fixture
def extract(run_vadis, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """``extract(option, …)`` → the folder with the files."""
    monkeypatch.chdir(folder)

    def run(*options: object, code: int = 0) -> Path:
        ended = run_vadis("features", "clips", "-o", tmp_path / "out", "-m", "model.safetensors", *options)
        assert ended.code == code, ended.err
        return tmp_path / "out"

    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_actionformer_reads_an_array_by_the_videos_id(extract) -> None:
    """libs/datasets/thumos14.py: (T, C) of ``feat_folder/<id>.npy``, and where a second lies among its rows."""
    out = extract("--preset", "actionformer")
    rows = np.load(out / "a.npy").astype(np.float32)
    assert rows.shape == ((FRAMES - 16) // 4 + 1, 2 * CHANNELS)
    assert np.ascontiguousarray(rows.transpose()).shape[0] == 2 * CHANNELS
    stated = json.loads((out / "a.json").read_text())
    assert (stated["frame_rate"], stated["stride"], stated["receptive_field"]) == (FPS, 4, 16)
    grid = (np.array(stated["seconds"]) * stated["frame_rate"] - 0.5 * stated["receptive_field"]) / stated["stride"]
    np.testing.assert_allclose(grid, np.arange(len(rows)), atol=1e-6)
    assert names_in(out) == ["a.json", "a.npy"]


@pytest.mark.slow
def test_video_features_has_a_file_for_each_kind_of_number(extract) -> None:
    """utils/utils.py, make_path: <stem>_<key>.npy; models/i3d/extract_i3d.py: when the frame behind a stack begins."""
    out = extract("--preset", "video-features", "--window", 16, "--stride", 16)
    loaded = {key: np.load(out / f"a_{key}.npy") for key in ("rgb", "flow", "fps", "timestamps_ms")}
    assert loaded["rgb"].shape == loaded["flow"].shape == (FRAMES // 16, CHANNELS)
    assert loaded["fps"].shape == () and loaded["fps"] == FPS
    np.testing.assert_allclose(loaded["timestamps_ms"], [1600, 3200])


@pytest.mark.slow
def test_anomaly_detection_reads_ten_crops(extract, folder: Path) -> None:
    """RTFM, dataset.py: (T, 10, C), of which it makes (10, T, C) and puts together each crop's rows."""
    out = extract("--preset", "anomaly")
    rows = np.array(np.load(out / "a.npy", allow_pickle=True), np.float32)
    assert rows.shape == (FRAMES // 16, 10, CHANNELS)
    assert rows.transpose(1, 0, 2).shape == (10, FRAMES // 16, CHANNELS)
    centre = extract("--preset", "anomaly", "--crops", 1, "--overwrite")
    np.testing.assert_allclose(rows[:, 2], np.load(centre / "a.npy"), rtol=1e-4, atol=1e-5)
    assert len({row.tobytes() for row in rows[0]}) == 10


def test_a_whole_video_is_an_array_every_8_frames_of_25_per_second(extract) -> None:
    out = extract("--preset", "whole-video", "--dtype", "float16")
    rows = np.load(out / "a.npy")
    assert (rows.shape, rows.dtype) == ((13, CHANNELS), np.float16)
    stated = json.loads((out / "a.json").read_text())
    assert (stated["frame_rate"], stated["stride"], stated["receptive_field"]) == (25, 8, 107)
    assert stated["record"]["num_frames"] == 110
    np.testing.assert_allclose(stated["seconds"], 0.32 * (np.arange(13) + 1))


def test_frames_at_another_rate_and_of_another_size(extract, run_vadis, tmp_path: Path) -> None:
    own = ("--streams", "rgb", "--window", 16, "--stride", 8, "--whole-windows", "--fps", 5, "--resize", "square224")
    out = extract(*own)
    with np.load(out / "a.mp4.npz", allow_pickle=False) as arrays:
        assert arrays["rgb"].shape == (1, CHANNELS)  # 22 frames
        np.testing.assert_allclose(arrays["seconds"], [8 / 5])
        assert json.loads(str(arrays["timing"])) == {"frame_rate": 5, "stride": 8, "receptive_field": 16}
        settings = json.loads(str(arrays["settings"]))
        assert (settings["fps"], settings["resize"], settings["sliding"]["regular"]) == (5, "square224", True)
    ended = run_vadis("features", "clips", "-o", out, "-m", "model.safetensors", *own)
    assert ended.err.splitlines()[-1] == "0 ok, 1 skipped"


@pytest.mark.parametrize(
    "options",
    [
        ("--fps", "0"),
        ("--fps", "often"),
        ("--resize", "square224", "--crops", "3"),
        ("--whole-windows",),
        ("--crops", "10", "--flip"),
        ("--preset", "nobody"),
        ("--dtype", "int8"),
    ],
)
def test_what_cannot_be_is_wrong_use(extract, options) -> None:
    assert not extract(*options, code=2).exists()


def test_two_videos_of_one_name_are_not_written_over_one_another(run_vadis, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_bytes(b"x")
    ended = run_vadis("features", "a.mp4", "a.avi", "-o", "out", "-m", folder / "model.safetensors", "-f", "npy")
    assert ended.code == 2
    assert "a.avi" in ended.err and not (tmp_path / "out").exists()


def test_an_array_that_is_gone_is_made_again(extract) -> None:
    out = extract("--preset", "whole-video")
    rows = np.load(out / "a.npy")
    (out / "a.npy").unlink()
    np.testing.assert_array_equal(np.load(extract("--preset", "whole-video") / "a.npy"), rows)


def test_no_description_is_left_beside_an_array_of_other_settings(extract, monkeypatch: pytest.MonkeyPatch) -> None:
    out = extract("--preset", "whole-video")
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("vadis.inference.features.np.save", Mock(side_effect=full))
    extract("--preset", "whole-video", "--dtype", "float16", "--overwrite", code=1)
    assert names_in(out) == ["a.npy"]


def test_a_single_frame_has_no_half_of_a_joined_row(run_vadis, folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "one.mp4", num_frames=1)
    how = ("-m", folder / "model.safetensors", "-o", tmp_path / "out")
    ended = run_vadis("features", tmp_path / "one.mp4", *how, "--preset", "actionformer")
    assert ended.code == 3 and "one.mp4" in ended.err and not (tmp_path / "out").exists()
    assert run_vadis("features", tmp_path / "one.mp4", *how, "--preset", "video-features").code == 0
    assert "one_flow.npy" not in names_in(tmp_path / "out")
