"""Videos of camera motions: labels that are right by construction, with room between the classes, from a seed alone."""

from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.matching import containing
from vadis.datasets import find_dataset
from vadis.datasets.camera import (
    CLASSES,
    FEWEST_SECONDS,
    MOST_SECONDS,
    RADIUS,
    SHORTEST,
    CameraPath,
    draw_path,
    draw_scene,
    render,
    video_path,
    videos_of_splits,
    write_dataset,
    write_video,
)
from vadis.errors import UsageError

pytestmark = pytest.mark.usefixtures("cv2")
WINDOW = 32
AXES = {"pan left": (0, -1), "pan right": (0, 1), "tilt up": (1, -1), "tilt down": (1, 1), "zoom in": (2, 1)}
AXES |= {"zoom out": (2, -1), "roll clockwise": (3, 1), "roll counter-clockwise": (3, -1)}
SEEDS = range(60)


def speeds(path: CameraPath) -> np.ndarray:
    """How the view moves from one 1/25 s to the next: px (4, N) along x, y, zoom and roll."""
    places = np.array([path.at(seconds) for seconds in np.arange(0, path.seconds[-1], 1 / 25)]).T  # (4, N + 1)
    steps = np.diff(places)
    cos, sin = np.cos(places[3, :-1]), np.sin(places[3, :-1])
    steps[:2] = np.exp(places[2, :-1]) * [cos * steps[0] + sin * steps[1], cos * steps[1] - sin * steps[0]]
    steps[2:] *= RADIUS
    return steps


def windows(steps: np.ndarray) -> list[np.ndarray]:
    return [steps[:, at : at + WINDOW] for at in range(steps.shape[1] - WINDOW + 1)]


@pytest.mark.parametrize("label", AXES)
def test_every_window_of_a_motion_shows_it_and_little_else(label: str) -> None:
    axis, sign = AXES[label]
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        for window in windows(speeds(draw_path(label, random.uniform(FEWEST_SECONDS, MOST_SECONDS), random))):
            mean = window.mean(axis=1)
            assert 0.85 < sign * mean[axis] <= 12
            assert np.abs(np.delete(mean, axis)).max() < 0.5 * abs(mean[axis])


@pytest.mark.parametrize(("label", "least", "most"), [("static", 0.0, 0.1), ("handheld shake", 0.85, 12.0)])
def test_without_a_motion_nothing_is_left_at_the_end_of_a_window(label: str, least: float, most: float) -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        for window in windows(speeds(draw_path(label, random.uniform(FEWEST_SECONDS, MOST_SECONDS), random))):
            speed = np.sqrt((window**2).sum(axis=0)).mean()
            assert least <= speed <= most
            assert np.linalg.norm(window.mean(axis=1)) <= 0.3 * speed


def seen(cv2: ModuleType, before: np.ndarray, after: np.ndarray) -> tuple[float, float, float, float]:
    """How the picture moves from one view to the next: dx, dy; growth and clockwise turn, at ``RADIUS``, in its px."""
    grays = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (before, after)]
    corners = cv2.goodFeaturesToTrack(grays[0], 300, 0.01, 5)
    found, status, _ = cv2.calcOpticalFlowPyrLK(*grays, corners, None)
    centre = (np.array(before.shape[1::-1], np.float32) - 1) / 2
    old, new = (each[status == 1].reshape(-1, 2) - centre for each in (corners, found))
    (a, _, dx), (b, _, dy) = cv2.estimateAffinePartial2D(old, new, ransacReprojThreshold=1)[0]
    return dx, dy, np.hypot(a, b) * RADIUS - RADIUS, np.arctan2(b, a) * RADIUS


@pytest.mark.parametrize("label", AXES)
def test_the_picture_moves_against_the_camera(cv2: ModuleType, label: str) -> None:
    """In a pan left what is seen moves right; in a tilt up, down; a clockwise roll turns it counter-clockwise."""
    axis, sign = AXES[label]
    signs = {0: -sign, 1: -sign, 2: sign, 3: -sign}
    for seed in range(4):
        random = np.random.default_rng(seed)
        path = draw_path(label, 1.6, random)
        ground = draw_scene(random)[:1]
        views = [render(ground, path, (320, 256), seconds) for seconds in (0.6, 0.64, 0.68)]
        assert min(views[0].shape[:2]) == SHORTEST
        moved = np.mean([seen(cv2, *pair) for pair in pairwise(views)], axis=0)
        expected = speeds(path)[:, 15:17].mean(axis=1) * [-1, -1, 1, -1]
        assert signs[axis] * moved[axis] > 0.3
        assert moved == pytest.approx(expected, abs=0.25 + 0.1 * abs(expected[axis]))


def test_a_video_follows_from_its_seed_and_name(tmp_path: Path) -> None:
    files = {}
    for root in "ab":
        for work in (("train", "pan left", 0), ("test", "pan left", 0), ("train", "pan left", 1)):
            write_video(tmp_path / root, 7, work)
            files[root, work] = video_path(tmp_path / root, work).read_bytes()
    assert [files["a", work] == files["b", work] for root, work in files if root == "a"] == [True] * 3
    assert len(set(files.values())) == 3


@pytest.mark.slow
def test_a_dataset_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_dataset(tmp_path / "v", 3, 0, lambda done, total: told.append((done, total)))
    assert told[0] == (0, 30) and told[-1] == (30, 30)
    found = find_dataset(tmp_path / "v")
    assert found.classes == CLASSES
    assert {split: len(examples) for split, examples in found.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), 10
    )
    lost = video_path(tmp_path / "v", ("val", "static", 0))
    before = lost.read_bytes()
    lost.unlink()
    write_dataset(tmp_path / "v", 3, 0, lambda done, total: None)
    assert lost.read_bytes() == before
    with pytest.raises(UsageError, match=containing(tmp_path / "v")):
        write_dataset(tmp_path / "v", 4, 0, print)


def test_what_cannot_be_made(tmp_path: Path) -> None:
    assert videos_of_splits(180) == {"train": 150, "val": 10, "test": 20}
    with pytest.raises(UsageError, match=containing(2)):
        write_dataset(tmp_path, 2, 0, print)
