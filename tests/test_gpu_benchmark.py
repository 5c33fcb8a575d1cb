"""The benchmark of a GPU does all that it does there, here on a processor and in small."""

import re

import pytest
import torch
from torch.nn import functional

from tests.benchmarks import gpu, gpu_layers
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


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding"),
    [(3, (7, 7, 7), (2, 2, 2), (2, 0, 0)), (16, (3, 3, 3), (1, 1, 1), (1, 1, 1)), (8, (1, 1, 1), (1, 1, 1), (0, 0, 0))],
)
def test_every_way_of_a_layer_computes_the_same(channels, kernel, stride, padding) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, channels, 9, 14, 12, generator=generator)
    weight, bias = torch.randn(8, channels, *kernel, generator=generator) / 30, torch.randn(8, generator=generator)
    layer = gpu_layers.Layer("", tuple(x.shape), weight, bias, kernel, stride, padding)
    expected = functional.conv3d(x, weight, bias, stride, padding).relu()
    for call, memory_format in gpu_layers.convolutions(layer, torch.float32, torch.device("cpu")).values():
        torch.testing.assert_close(call(x.contiguous(memory_format=memory_format)), expected, rtol=1e-4, atol=1e-5)
    layer = layer._replace(weight=None, kernel=(3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1))
    expected = functional.max_pool3d(x, 3, 2, 1, ceil_mode=True)
    for call, memory_format in gpu_layers.poolings(layer).values():
        assert torch.equal(call(x.contiguous(memory_format=memory_format)), expected)


@pytest.mark.slow
def test_the_layers_are_ready_to_run(monkeypatch) -> None:
    for setting in ("benchmark", "allow_tf32"):  # which it changes; they come back
        monkeypatch.setattr(torch.backends.cudnn, setting, True)
    found = gpu_layers.measure(torch.device("cpu"), clips=1, frames=9, width=1 / 32, repeats=1)
    assert len(found["layers"]) == 2 * (57 + 13)  # all convolutions but the last, and poolings, in two types
    assert not [row for row in found["layers"] for taken in row["milliseconds"].values() if isinstance(taken, str)]
    assert [(row["way"], row["type"]) for row in found["network"]] == [
        (way, kind) for way in ("as it is", "2D") for kind in ("fp32", "tf32", "bf16")
    ]
    for row in found["network"]:
        assert row["change"] < (0.05 if row["type"] == "bf16" else 1e-5)
        assert row["clips_per_second"] > 0
    assert all(row["clips_per_second"] > 0 for row in found["training"])
