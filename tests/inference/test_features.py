"""Features over time: which numbers, at which seconds, and how they are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.make_model import make_model
from tests.matching import containing
from tests.plain_pass import cropped_clip, plain_outputs, relative_difference
from tests.synthetic import moving_texture, write_video
from vadis.errors import UsageError
from vadis.inference.features import (
    Look,
    extract_features,
    features_of_videos,
    save_features,
    saved_settings,
    settings_of,
)
from vadis.inference.scores import softmax
from vadis.models import Model
from vadis.models.i3d_inference import FEATURES, LAYERS, LOGITS
from vadis.preprocessing import centre_crop, network_input
from vadis.results import Part
from vadis.video.reader import open_video
from vadis.weights.model_file import load_model_file, save_model

pytestmark = pytest.mark.usefixtures("quick_tvl1")

TOLERANCE = 1e-5  # of the largest number: the inference form beside the training form


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model_file(make_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", width=1 / 16, classes=5))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", num_frames=70, size=(96, 64), seed=1)


def test_pooled_features_every_8_frames(model: Model, video: Path) -> None:
    features, seconds = extract_features(video, model)
    assert {stream: array.shape for stream, array in features.items()} == {"rgb": (8, 64), "flow": (8, 64)}
    np.testing.assert_allclose(seconds, [0.32 * (step + 1) for step in range(8)])


@pytest.mark.slow
def test_the_last_layer_makes_the_videos_scores_of_them(model: Model, video: Path) -> None:
    features, _ = extract_features(video, model)
    logits = np.zeros(5)
    for stream, array in features.items():
        last = model.networks[stream].get_submodule("Logits.Conv3d_0c_1x1.conv")
        logits += last(torch.from_numpy(array.mean(axis=0)).view(1, -1, 1, 1, 1)).detach().numpy().reshape(-1)
    by_layer, _ = extract_features(video, model, layer=LOGITS)
    expected = sum(array.mean(axis=0) for array in by_layer.values())
    np.testing.assert_allclose(softmax(logits), softmax(expected), atol=1e-5)


@pytest.mark.parametrize(("layer", "stride"), [("Conv3d_1a_7x7", 2), ("Mixed_3c", 2), ("Mixed_4f", 4), ("Mixed_5c", 8)])
def test_any_endpoint_averaged_over_space(model: Model, video: Path, layer: str, stride: int) -> None:
    rgb = model.only(("rgb",))
    features, seconds = extract_features(video, rgb, layer=layer)
    with open_video(video) as opened:
        frames = np.stack([frame.pixels for frame in opened])
    clip = network_input(centre_crop(frames, "rgb"), "rgb")
    with torch.inference_mode():
        expected = dict(model.networks["rgb"].endpoints(clip))[layer].mean(dim=(3, 4))[0].T.numpy()
    assert features["rgb"].shape == expected.shape == (-(-70 // stride), expected.shape[1])
    assert np.abs(features["rgb"] - expected).max() < TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(seconds, (np.arange(-(-70 // stride)) + 0.5) * stride / 25)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [LOGITS, FEATURES, "Mixed_5c"])
@pytest.mark.parametrize("frames", [65, 67])
def test_both_streams_equal_the_plain_network(model: Model, tmp_path: Path, frames: int, layer: str) -> None:
    path = write_video(tmp_path / "odd.mp4", num_frames=frames, size=(96, 64), seed=frames)
    features, seconds = extract_features(path, model, layer=layer)
    cells = plain_outputs(cropped_clip(path), model, "Mixed_5c" if layer == FEATURES else layer)
    for stream, steps in cells.items():
        expected = (steps[:-1] + steps[1:]) / 2 if layer == FEATURES else steps
        assert relative_difference(features[stream], expected) < TOLERANCE
    centres = np.arange(9) + 0.5 if layer == "Mixed_5c" else np.arange(8) + 1.0
    np.testing.assert_allclose(seconds, 8 * centres / 25)


def test_one_set_per_window(model: Model, video: Path) -> None:
    features, seconds = extract_features(video, model, window=32, stride=32)
    assert features["flow"].shape == (3, 64)
    np.testing.assert_allclose(seconds, [16 / 25, 48 / 25, (38 + 16) / 25])


def test_crops_and_the_files_own_rate_change_nothing_else(model: Model, video: Path, tmp_path: Path) -> None:
    rgb = model.only(("rgb",))
    features, seconds = extract_features(video, rgb)
    crops, times = extract_features(video, rgb, crops=3)
    assert crops["rgb"].shape == (8, 3, 64)
    np.testing.assert_allclose(crops["rgb"][:, 1], features["rgb"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(times, seconds)
    own, times = extract_features(video, rgb, fps=None)  # which is 25
    np.testing.assert_array_equal(own["rgb"], features["rgb"])
    np.testing.assert_allclose(times, seconds)


def test_a_short_video_is_looped_at_any_rate_and_its_times_stay_within(model: Model, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", num_frames=20, fps=10, size=(96, 64), seed=1)
    _, seconds = extract_features(short, model.only(("rgb",)), fps=None)
    np.testing.assert_allclose(seconds, np.sort(0.8 * np.arange(1, 8) % 2), atol=1e-9)
    _, seconds = extract_features(short, model.only(("rgb",)), fps=5, window=16)
    np.testing.assert_allclose(seconds, [8 / 5])


def test_a_model_that_tells_left_from_right_takes_no_mirror_images(model: Model, video: Path) -> None:
    own = replace(model, card=replace(model.card, provenance={"mirror": False}))
    with pytest.raises(UsageError, match=containing(own.card.name)):
        extract_features(video, own, flip=True)


@pytest.mark.slow
def test_a_model_may_be_given_by_its_path(model: Model, video: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "m", model.card, {name: net.state_dict() for name, net in model.networks.items()})
    expected, _ = extract_features(video, model)
    found, _ = extract_features(video, tmp_path / "m")
    np.testing.assert_array_equal(found["rgb"], expected["rgb"])


def test_a_layer_that_is_not_there(model: Model, video: Path) -> None:
    with pytest.raises(UsageError, match=containing("'conv5'")) as caught:
        extract_features(video, model, layer="conv5")
    assert caught.value.hint is not None
    assert all(layer in caught.value.hint for layer in LAYERS)


def test_a_file_holds_features_times_record_and_settings(model: Model, video: Path, tmp_path: Path) -> None:
    settings = settings_of(model)
    ((_, found),) = features_of_videos([str(video)], model)
    path = tmp_path / "clip.npz"
    save_features(found, path, settings)
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays) == {"rgb", "flow", "seconds", "timing", "record", "settings"}
        np.testing.assert_array_equal(arrays["flow"], found.arrays["flow"])
        assert '"status": "ok"' in str(arrays["record"])
    assert saved_settings(path) == settings
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.npz"]


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_cut_off_file_is_no_features_file(model: Model, video: Path, tmp_path: Path, share: float) -> None:
    path = tmp_path / "clip.npz"
    ((_, found),) = features_of_videos([str(video)], model.only(("rgb",)))
    save_features(found, path, {"layer": FEATURES})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert saved_settings(path) is None
    assert saved_settings(tmp_path / "absent.npz") is None


def test_times_count_from_the_start_of_the_file_as_players_do(model: Model, tmp_path: Path) -> None:
    times = [2 + i / 25 for i in range(70)]
    late = write_video(tmp_path / "late.mp4", num_frames=70, size=(96, 64), seed=1, pts_seconds=times, audio=True)
    _, seconds = extract_features(late, model.only(("rgb",)))
    np.testing.assert_allclose(seconds, [2 + 0.32 * (step + 1) for step in range(8)], atol=0.05)


@pytest.mark.parametrize("fps", [25, None, 10])
def test_features_of_a_part_are_those_of_a_file_of_its_frames(model: Model, tmp_path: Path, fps: int | None) -> None:
    pictures, rgb = moving_texture(90, seed=2), model.only(("rgb",))
    late = [1 + i / 25 for i in range(90)]  # behind its sound
    whole = write_video(tmp_path / "whole.mkv", frames=pictures, codec="ffv1", pts_seconds=late, audio=True)
    cut = write_video(tmp_path / "cut.mkv", frames=pictures[20:80], codec="ffv1")
    found, seconds = extract_features(whole, rgb, fps=fps, window=16, start=1.8, end=4.2)
    expected, times = extract_features(cut, rgb, fps=fps, window=16)
    np.testing.assert_allclose(found["rgb"], expected["rgb"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seconds, 1.8 + times, atol=0.03)  # sound of AAC begins a little before time 0
    assert settings_of(rgb, Look(part=Part(1.8, 4.2))) != settings_of(rgb)
