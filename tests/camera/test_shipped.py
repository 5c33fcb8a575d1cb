"""A model of camera motion that comes with vadis, as it was learnt: what it says must follow the camera."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.synthetic import Frames, write_video
from vadis import classify
from vadis.datasets.camera import CLASSES, draw_scene
from vadis.models import Model
from vadis.video.encoder import load_opencv
from vadis.weights.catalog import SHIPPED
from vadis.weights.load import load_model

SIZE = (256, 256)
LENGTH = 32  # frames, one window of the model
STILLS = [101, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (102, 103))]  # seeds of no dataset


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("camera-motion", "cpu", offline=True)


def film(seed: int, shift: tuple[float, float], growth: float = 0.0, turn: float = 0.0, length: int = LENGTH) -> Frames:
    """A still, seen by a camera that moves: px per frame, and growth and clockwise turn of the picture per frame."""
    cv2 = load_opencv()
    still = draw_scene(np.random.default_rng(seed))[0].colours
    middle = np.array(still.shape[1::-1]) / 2
    frames = []
    for at in np.arange(length) - length / 2:
        matrix = cv2.getRotationMatrix2D((0, 0), np.degrees(turn * at), np.exp(-growth * at))  # from the frame's px
        matrix[:, 2] = middle + at * np.array(shift) - matrix[:, :2] @ (np.array(SIZE) / 2)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(still, matrix, SIZE, flags=how, borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(frames)


MOTIONS: dict[str, Callable[[int], Frames]] = {
    "pan left": lambda seed: film(seed, (-3.0, 0)),
    "pan right": lambda seed: film(seed, (4.0, 0)),
    "tilt up": lambda seed: film(seed, (0, -3.0)),
    "tilt down": lambda seed: film(seed, (0, 2.5)),
    "zoom in": lambda seed: film(seed, (0, 0), growth=0.012),
    "roll clockwise": lambda seed: film(seed, (0, 0), turn=-0.02),
    "static": lambda seed: film(seed, (0, 0)),
}
MIRRORED = {"pan left": "pan right", "pan right": "pan left", "roll clockwise": "roll counter-clockwise"}
REVERSED = {**MIRRORED, "tilt up": "tilt down", "tilt down": "tilt up", "zoom in": "zoom out"}
UPSIDE_DOWN = {"tilt up": "tilt down", "tilt down": "tilt up", "roll clockwise": "roll counter-clockwise"}


def said_of(frames: Frames, model: Model, folder: Path) -> str:
    path = write_video(folder / "clip.mp4", frames=frames, codec="libx264", options={"crf": "20"})
    return classify(path, model).labels[0].label


def test_it_is_small_and_says_what_it_was_made_for(model: Model) -> None:
    assert SHIPPED[model.card.name].path.stat().st_size <= 4_000_000
    assert model.card.labels == CLASSES
    assert model.card.streams == ("rgb", "flow") and model.card.test_window == 32
    assert model.card.threshold == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize("seed", STILLS)
@pytest.mark.parametrize("label", MOTIONS)
def test_a_still_under_a_moving_camera(label: str, seed: int, model: Model, tmp_path: Path) -> None:
    frames = MOTIONS[label](seed)
    assert said_of(frames, model, tmp_path) == label
    assert said_of(frames[:, :, ::-1], model, tmp_path) == MIRRORED.get(label, label)
    assert said_of(frames[::-1], model, tmp_path) == REVERSED.get(label, label)
    assert said_of(frames[:, ::-1], model, tmp_path) == UPSIDE_DOWN.get(label, label)


@pytest.mark.slow
@pytest.mark.usefixtures("cv2")
def test_one_motion_after_another_is_a_timeline(model: Model, tmp_path: Path) -> None:
    pan, rest = film(101, (-3.0, 0), length=64), film(101, (0, 0), length=64)
    path = write_video(tmp_path / "two.mp4", frames=np.concatenate([pan, rest]), codec="libx264")
    result = classify(path, model)
    assert [segment.labels[0].label for segment in result.segments] == ["pan left", "pan left", "static", "static"]
    assert [(piece.label, piece.start, piece.end) for piece in result.timeline] == [
        ("pan left", 0, pytest.approx(2.56)),
        ("static", pytest.approx(2.56), pytest.approx(5.12)),
    ]
