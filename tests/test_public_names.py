"""What ``import vadis`` gives: exactly ``__all__``, and nothing heavy before it is used."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

import vadis
from tests.synthetic import write_video

ROOT = Path(__file__).parents[1]


def test_all_is_exactly_what_is_visible_and_sorted():
    public = {name: getattr(vadis, name) for name in vadis.__all__}
    visible = {
        name for name, value in vars(vadis).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert visible <= set(public)
    assert dir(vadis) == sorted(vadis.__all__) == vadis.__all__
    assert all(value is not None for value in public.values())


def test_names_come_from_the_rooms_they_are_said_to_live_in():
    from vadis import errors, flow, results
    from vadis.inference import classify
    from vadis.weights import load

    assert vadis.classify is classify.classify and vadis.classify_many is classify.classify_many
    assert vadis.VideoResult is results.VideoResult and vadis.VadisError is errors.VadisError
    assert vadis.load_model is load.load_model and vadis.tvl1 is flow.tvl1


def test_classes_that_signatures_name_are_public():
    functions = [getattr(vadis, name) for name in vadis.__all__ if inspect.isfunction(getattr(vadis, name))]
    assert vadis.classify in functions
    named = set()
    for function in functions:
        for hint in get_type_hints(function, localns={"torch": torch}).values():
            named |= {each for each in classes_in(hint) if each.__module__.startswith("vadis.")}
    assert named == {vadis.FrechetStatistics, vadis.Model, vadis.Progress, vadis.VideoResult}


def classes_in(hint):
    """Every class that a type names."""
    if isinstance(hint, list | tuple):
        return {each for part in hint for each in classes_in(part)}
    parts = get_args(hint)
    return classes_in(list(parts)) if parts else {hint} if isinstance(hint, type) else set()


def test_a_video_by_itself(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=6, size=(64, 48))
    frames, seconds = vadis.read_frames(path)
    assert (frames.shape, frames.dtype) == ((6, 256, 341, 3), np.uint8)
    np.testing.assert_allclose(seconds, np.arange(6) / 25)
    part, times = vadis.read_frames(path, start_frame=2, max_frames=3)
    np.testing.assert_array_equal(part, frames[2:5])
    np.testing.assert_array_equal(times, seconds[2:5])
    assert vadis.to_gray(frames).shape == (6, 256, 341)


def test_a_network_by_itself():
    assert "camera-motion" in vadis.available_models()
    model = vadis.load_model("camera-motion", "cpu")
    network = model.module("rgb")
    assert network is not model.networks["rgb"] and not network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(vadis.UsageError):
        model.module("both")
    assert list(vadis.load_model("camera-motion", "cpu", streams="flow").networks) == ["flow"]
    assert vadis.load_model("camera-motion", "cpu", streams="both").card.streams == ("rgb", "flow")
    for name, streams in (("camera-motion", "sound"), ("i3d-kinetics400-rgb", "both")):
        with pytest.raises(vadis.UsageError, match="stream"):
            vadis.load_model(name, "cpu", streams=streams)
    fresh = vadis.models.i3d(num_classes=5, in_channels=2, width=1 / 32)
    clip = torch.zeros(1, 2, 16, 224, 224)
    assert fresh(clip).shape == (1, 5, 1) and fresh.training
    fresh.eval().new_head(num_classes=3)
    assert dict(fresh.endpoints(clip))["Mixed_4f"].shape == (1, 26, 4, 14, 14)
    assert fresh(clip).shape == (1, 3, 1) and not fresh.Logits.training


def test_any_other_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        _ = vadis.clasify


def test_importing_vadis_imports_no_room():
    program = "import sys, vadis; print([name for name in sys.modules if name.startswith('vadis.')])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
