"""A video of fourteen scenes, cut together hard: the timeline and the headline say what happens in it."""

from pathlib import Path

import pytest

from tests.benchmarks.timeline import fit, scenes_in
from vadis import classify, load_model
from vadis.inference.scores import SHORTEST_SECONDS
from vadis.weights.catalog import STAND_IN


@pytest.mark.slow
def test_the_timeline_of_a_montage(shared: Path) -> None:
    scenes = scenes_in(shared / "montage" / "truth.json")
    result = classify(shared / "montage" / "montage.mp4", load_model(STAND_IN, "cpu", offline=True))
    figures = fit(result, scenes)
    assert figures.right >= 0.95
    assert figures.changes <= 16
    assert max(figures.borders) <= 0.7
    assert min(figures.unclear) > 0.5
    assert min(piece.end - piece.start for piece in result.timeline) >= SHORTEST_SECONDS - 1e-6
    happens = {label for scene in scenes for label in scene.labels}
    assert {label.label for label in result.labels[:5]} <= happens
