"""Where flow is computed; on CUDA against the processor: the same flow, at odd sizes and for one pair too."""

import os
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.synthetic import moving_texture
from vadis import flow
from vadis.flow import filters, tvl1, tvl1_cpu


@pytest.fixture
def kernels():
    """The module, which is there where Triton is."""
    pytest.importorskip("triton")
    from vadis.flow import tvl1_triton

    return tvl1_triton


@pytest.mark.parametrize(("height", "width"), [(1, 9), (9, 1), (2, 2), (57, 73), (40, 21)])
@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_scales_are_those_of_the_processor_to_the_last_bit(kernels, height, width, scale):
    image = np.random.default_rng(1).random((height, width), np.float32) * 255
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    steps, beyond = (height / shape[0], width / shape[1]), int(scale < 1)
    expected = np.empty(shape, np.float32)
    filters.resize(image, expected, *steps, float(beyond))
    found = kernels.resize(torch.from_numpy(image)[None], shape, steps, beyond)[0].numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(1, 9), (2, 2), (57, 73)])
def test_gradients_are_those_of_the_processor_to_the_last_bit(kernels, height, width):
    image = np.random.default_rng(2).random((height, width), np.float32) * 255
    expected = np.zeros((height + 8, width + 8, 4), np.float32)
    tvl1_cpu.with_gradients(image, expected)
    found = kernels.with_gradients(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_array_equal(found, expected[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("has_kernel", [True, False])
def test_a_device_without_the_kernel_leaves_flow_to_the_processor(monkeypatch, has_kernel):
    asked, frames = [], np.random.default_rng(3).integers(0, 256, (2, 16, 16), np.uint8)
    elsewhere = np.full((1, 2, 16, 16), 7, np.float32)
    monkeypatch.setattr(flow, "has_kernel", lambda device: asked.append(device) or has_kernel)
    kernels = SimpleNamespace(tvl1_cuda=lambda gray, device: elsewhere)
    monkeypatch.setitem(sys.modules, "vadis.flow.tvl1_triton", kernels)
    expected = tvl1(frames, device=torch.device("cpu"))
    assert not asked
    np.testing.assert_array_equal(tvl1(frames, device="cuda:0"), elsewhere if has_kernel else expected)
    assert asked == ["cuda:0"]


def test_only_cuda_has_the_kernel():
    assert not flow.has_kernel("cpu") and not flow.has_kernel("mps")


def end_point_error(found, expected):
    return np.linalg.norm(found - expected, axis=1).mean()


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(2, 64, 96), (5, 97, 131), (9, 256, 340), (2, 17, 301), (3, 5, 7)])
def test_the_kernel_gives_the_flow_of_the_processor(shape):
    num_frames, height, width = shape
    frames = moving_texture(num_frames, (width, height))[..., 0]  # N, H, W
    assert end_point_error(tvl1(frames, device="cuda"), tvl1(frames)) <= 0.01  # px, what is required of every device


@pytest.mark.cuda
def test_a_pair_at_rest_has_no_flow():
    frames = moving_texture(2, (73, 57))[..., 0]
    flow = tvl1(frames[[0, 1, 1, 0]], device="cuda")
    assert not flow[1].any()


@pytest.mark.cuda
def test_a_pair_is_the_same_alone_and_among_others():
    frames = moving_texture(6, (160, 120))[..., 0]
    together = tvl1(frames, device="cuda")
    for i in range(5):
        np.testing.assert_array_equal(tvl1(frames[i : i + 2], device="cuda")[0], together[i])


@pytest.fixture
def interpreted(kernels, monkeypatch):
    """The kernels' own text, carried out by Triton's interpreter on the processor: one program, for all run in turn."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs Triton (pip install triton) and TRITON_INTERPRET=1")
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fma(self, x, y, z):  # Triton 3.7's rounds the product too
        total = x.data.astype(np.float64) * y.data + z.data
        return TensorHandle(total.astype(np.float32), z.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)
    for name in ("_SORT_FIVE", "_MEDIAN", "_MEDIAN_PLACE"):  # the compiler takes their values by itself
        monkeypatch.setattr(kernels, name, getattr(kernels, name).value)
    monkeypatch.setattr(kernels, "solve_scale", partial(kernels.solve_scale, grid=(1, 1)))
    return kernels


@pytest.mark.exhaustive
@pytest.mark.parametrize("shape", [(2, 16, 24), (3, 17, 23), (2, 5, 7)])
def test_what_the_kernels_say_is_the_processor_s_flow_to_the_last_bit(shape, interpreted):
    num_frames, height, width = shape
    frames = moving_texture(num_frames, (width, height))[..., 0]
    np.testing.assert_array_equal(interpreted.tvl1_cuda(frames, "cpu"), tvl1(frames))
