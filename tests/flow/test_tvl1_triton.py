"""The kernels for CUDA against the plain steps in PyTorch: the same flow, at odd sizes and for one pair too."""

import numpy as np
import pytest

from tests.synthetic import moving_texture
from vadis.flow import tvl1
from vadis.flow import tvl1_torch as portable

LEAST_EXACT = 1e-3  # px, mean end-point error; sums over an image add in another order, so a pair may stop elsewhere


def end_point_error(found, expected):
    return np.linalg.norm(found - expected, axis=1).mean()


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(2, 64, 96), (5, 97, 131), (9, 256, 340), (2, 17, 301), (3, 5, 7)])
def test_kernels_equal_the_plain_steps(shape, monkeypatch):
    num_frames, height, width = shape
    frames = moving_texture(num_frames, (width, height))[..., 0]  # N, H, W
    found = tvl1(frames, device="cuda")
    assert end_point_error(found, tvl1(frames)) <= 0.01  # px, what is required of every device
    monkeypatch.setattr(portable, "has_kernels", lambda device: False)
    assert end_point_error(found, tvl1(frames, device="cuda")) <= LEAST_EXACT


@pytest.mark.cuda
def test_a_pair_is_the_same_alone_and_among_others():
    frames = moving_texture(6, (160, 120))[..., 0]
    together = tvl1(frames, device="cuda")
    for i in range(5):
        np.testing.assert_array_equal(tvl1(frames[i : i + 2], device="cuda")[0], together[i])
