"""The benchmark of a GPU does all that it does there, here on a processor and in small."""

import re

import pytest
import torch

from tests.benchmarks import gpu
from tests.benchmarks.machine import Options
from tests.make_model import make_model
from tests.synthetic import write_video

SMALL = gpu.Sizes(pairs=2, clips=1, frames=9, width=1 / 32, loaded=1, videos=2, repeats=1)
WAYS = ("RGB in windows of 64, eight in a pass",)


@pytest.mark.slow
def test_it_is_ready_to_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "WAYS", {name: gpu.WAYS[name] for name in WAYS})
    monkeypatch.setattr(gpu, "clip_of_ten_seconds", lambda folder: write_video(folder / "clip.mp4", num_frames=9))
    monkeypatch.setattr(gpu, "CLIPS_AHEAD", 1)
    model = make_model(tmp_path / "tiny.safetensors", width=1 / 32, classes=3)
    found = gpu.all_rows(torch.device("cpu"), Options(model, tmp_path), SMALL)
    assert found["end-point error against the processor's"] == "0 px"
    speeds = [value for name, value in found.items() if name.endswith(tuple(gpu.TYPES)) and "clips/s" in value]
    assert len(speeds) == 2 * len(gpu.TYPES)
    assert all(float(value.split()[0]) > 0 for value in speeds)
    labelled = [value for name, value in found.items() if name.startswith("hours of video labelled")]
    assert len(labelled) == len(WAYS)
    assert all(re.fullmatch(r"-?\d+ \(-?\d+% of decoding alone\)", value) for value in labelled)  # of two, no figure
