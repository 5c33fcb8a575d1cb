"""The portable implementation gives the flow of the one for the processor."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vadis.flow import tvl1
from vadis.flow import tvl1_torch as portable

SMALL_GOLDEN = Path(__file__).parents[1] / "golden" / "tvl1_opencv_small.npz"


@pytest.fixture
def one_torch_thread():
    """Small tensors: threads that wait for each other would take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frames():
    """Four frames whose pairs converge after different numbers of iterations: moving, still, moving back."""
    first, second = np.load(SMALL_GOLDEN)["frames"][0]
    return np.stack([first, second, second, first])


def error(a, b):
    return np.linalg.norm(a - b, axis=1).mean()


def test_agrees_with_numba(frames, one_torch_thread):
    flow = portable.tvl1_torch(frames, "cpu")
    assert flow.shape == (3, 2, 57, 73)
    assert flow.dtype == np.float32
    assert not flow[1].any()
    assert error(flow, tvl1(frames)) <= 0.01


def test_batches_do_not_matter(frames, one_torch_thread, monkeypatch):
    together = portable.tvl1_torch(frames[:, :30, :41], "cpu")
    monkeypatch.setattr(portable, "PIXELS_AT_ONCE", 1)
    np.testing.assert_array_equal(portable.tvl1_torch(frames[:, :30, :41], "cpu"), together)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2), (16, 21), (5, 32)])
def test_small_frames(height, width, one_torch_thread):
    frames = np.random.default_rng(1).integers(0, 256, (2, height, width), np.uint8)
    assert error(portable.tvl1_torch(frames, "cpu"), tvl1(frames)) <= 0.01


def test_another_device_gets_the_portable_one(frames, monkeypatch):
    seen = []
    monkeypatch.setattr(portable, "tvl1_torch", lambda gray, device: seen.append(str(device)))
    tvl1(frames, device="cuda:0")
    tvl1(frames, device=torch.device("cpu"))
    assert seen == ["cuda:0"]


@pytest.mark.cuda
def test_cuda_agrees_with_numba(frames):
    flow = tvl1(frames, device="cuda")
    assert not flow[1].any()
    assert error(flow, tvl1(frames)) <= 0.01
