"""The kernel for CUDA against the processor: the same flow, at odd sizes and for one pair too."""

import os
from functools import partial

import numpy as np
import pytest

from tests.synthetic import moving_texture
from vadis.flow import tvl1
from vadis.flow.tvl1_cuda import tvl1_cuda


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
def interpreted(monkeypatch):
    """The kernels' own text, carried out by Triton's interpreter on the processor: one program, for all run in turn."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs Triton (pip install triton) and TRITON_INTERPRET=1")
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from vadis.flow import tvl1_triton as kernels

    def fma(self, x, y, z):  # Triton 3.7's rounds the product too
        total = x.data.astype(np.float64) * y.data + z.data
        return TensorHandle(total.astype(np.float32), z.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)
    for name in ("_SORT_FIVE", "_MEDIAN", "_MEDIAN_PLACE"):  # the compiler takes their values by itself
        monkeypatch.setattr(kernels, name, getattr(kernels, name).value)
    monkeypatch.setattr(kernels, "solve_scale", partial(kernels.solve_scale, grid=(1, 1)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("shape", [(2, 16, 24), (3, 17, 23), (2, 5, 7)])
def test_what_the_kernels_say_is_the_processor_s_flow_to_the_last_bit(shape, interpreted):
    num_frames, height, width = shape
    frames = moving_texture(num_frames, (width, height))[..., 0]
    np.testing.assert_array_equal(tvl1_cuda(frames, "cpu"), tvl1(frames))
