"""Where flow is computed, and what a scale of it begins with on a CUDA device."""

import numpy as np
import pytest
import torch

from vadis.flow import filters, tvl1, tvl1_cpu, tvl1_cuda


@pytest.mark.parametrize(("height", "width"), [(1, 9), (9, 1), (2, 2), (57, 73), (40, 21)])
@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_scales_are_those_of_the_processor_to_the_last_bit(height, width, scale):
    image = np.random.default_rng(1).random((height, width), np.float32) * 255
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    steps, beyond = (height / shape[0], width / shape[1]), int(scale < 1)
    expected = np.empty(shape, np.float32)
    filters.resize(image, expected, *steps, float(beyond))
    found = tvl1_cuda.resize(torch.from_numpy(image)[None], shape, steps, beyond)[0].numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(1, 9), (2, 2), (57, 73)])
def test_gradients_are_those_of_the_processor_to_the_last_bit(height, width):
    image = np.random.default_rng(2).random((height, width), np.float32) * 255
    expected = np.zeros((height + 8, width + 8, 4), np.float32)
    tvl1_cpu.with_gradients(image, expected)
    found = tvl1_cuda.with_gradients(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_array_equal(found, expected[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("has_kernel", [True, False])
def test_a_device_without_the_kernel_leaves_flow_to_the_processor(monkeypatch, has_kernel):
    asked, frames = [], np.random.default_rng(3).integers(0, 256, (2, 16, 16), np.uint8)
    elsewhere = np.full((1, 2, 16, 16), 7, np.float32)
    monkeypatch.setattr(tvl1_cuda, "has_kernel", lambda device: asked.append(device) or has_kernel)
    monkeypatch.setattr(tvl1_cuda, "tvl1_cuda", lambda gray, device: elsewhere)
    expected = tvl1(frames, device=torch.device("cpu"))
    assert not asked
    np.testing.assert_array_equal(tvl1(frames, device="cuda:0"), elsewhere if has_kernel else expected)
    assert asked == ["cuda:0"]


def test_only_cuda_has_the_kernel():
    assert not tvl1_cuda.has_kernel("cpu") and not tvl1_cuda.has_kernel("mps")
