"""The flow is OpenCV's, whatever the number of threads and the size of the frames."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest

from tests.matching import containing
from vadis.flow import tvl1
from vadis.flow.simd import LANES, load, store
from vadis.flow.tvl1_cpu import _is_near, _lengths, _sum_in_opencvs_order

SMALL_GOLDEN = Path(__file__).parents[1] / "golden" / "tvl1_opencv_small.npz"  # made by tests/benchmarks/tvl1_opencv.py


def end_point_errors(frames, expected):
    """Errors in pixels of the flow of every pair; frames (P, 2, H, W), expected (P, H, W, 2)."""
    flow = np.concatenate([tvl1(pair) for pair in frames]).transpose(0, 2, 3, 1)
    return np.linalg.norm(flow - expected, axis=-1)


def texture(height, width, seed=0):
    """A smooth random texture, float in 0…255, periodic."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal((height, width)))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    smooth = np.fft.irfft2(spectrum * np.exp(-((fx**2 + fy**2) / 0.01)), s=(height, width))
    return (smooth - smooth.min()) / np.ptp(smooth) * 255


@pytest.fixture(scope="module")
def moving():
    """Seven frames of a texture that moves by (1, -2) pixels per frame."""
    image = texture(60, 75)
    return np.stack([np.roll(image, (-2 * i, i), (0, 1)) for i in range(7)]).astype(np.uint8)


def test_small_golden():
    golden = np.load(SMALL_GOLDEN)
    errors = end_point_errors(golden["frames"], golden["flow"])
    assert np.abs(golden["flow"]).max() > 3  # something moves
    assert errors.max() <= 1e-3


def test_shared_golden(shared):
    golden = np.load(shared / "golden" / "tvl1_opencv.npz")
    errors = end_point_errors(golden["frames"], golden["flow"])
    assert errors.mean() <= 0.01
    assert np.percentile(errors, 99) <= 0.1


def test_shape_and_type(moving):
    flow = tvl1(moving)
    assert flow.shape == (6, 2, 60, 75)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


def test_translation_is_recovered(moving):
    inner = tvl1(moving)[..., 10:-10, 10:-10]
    assert np.abs(inner - np.array([1, -2])[:, None, None]).mean() < 0.1


def test_threads_do_not_matter(moving):
    one = tvl1(moving, threads=1)
    for threads in (2, 5, 16):
        np.testing.assert_array_equal(tvl1(moving, threads=threads), one)


def test_calls_that_say_how_many_threads_do_not_wait_for_each_other(moving):
    both_are_at_work = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(tvl1, moving[:2], threads=1, check=both_are_at_work.wait) for _ in range(2)]
        assert all(np.isfinite(call.result()).all() for call in calls)


def test_chunks_join(moving):
    whole = tvl1(moving)
    np.testing.assert_array_equal(np.concatenate([tvl1(moving[:3]), tvl1(moving[2:])]), whole)


def test_what_does_not_move_has_no_flow():
    still = np.repeat(texture(40, 50).astype(np.uint8)[None], 3, axis=0)
    assert not tvl1(still).any()


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (40, 1), (2, 3), (15, 100), (16, 16), (17, 31), (20, 48)]
)
def test_any_size(height, width):
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width), np.uint8)
    flow = tvl1(frames)
    assert flow.shape == (1, 2, height, width)
    assert np.isfinite(flow).all()
    assert not tvl1(frames[[0, 0]]).any()


def test_one_value_everywhere_is_still():
    assert not tvl1(np.stack([np.full((30, 30), 10, np.uint8), np.full((30, 30), 200, np.uint8)])).any()


def test_read_only_and_strided_frames(moving):
    expected = tvl1(np.ascontiguousarray(moving[:2, ::-1, ::2]))
    view = moving[:2, ::-1, ::2]
    view.flags.writeable = False
    np.testing.assert_array_equal(tvl1(view), expected)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 20, 20), np.float32),
        np.zeros((20, 20), np.uint8),
        np.zeros((2, 20, 20, 3), np.uint8),
        np.zeros((1, 20, 20), np.uint8),
        np.zeros((2, 0, 20), np.uint8),
    ],
    ids=["float", "one image", "colour", "one frame", "empty"],
)
def test_bad_frames(frames):
    with pytest.raises(ValueError, match=containing(str(frames.shape))):
        tvl1(frames)


@numba.njit
def lengths_of(x, y, found):
    for i in range(0, len(x), LANES):
        length, _ = _lengths(load(x, i), load(y, i), load(y, i), load(x, i))
        store(found, i, length)


def test_lengths_are_those_of_hypot():
    """To the last bit, also so near a tie that float32 alone does not tell on which side."""
    rng = np.random.default_rng(0)
    x, y = (10.0 ** rng.uniform(-9, 1, (2, 1 << 21))).astype(np.float32) * rng.choice([-1, 1], (2, 1 << 21))
    x, y = np.append(x, np.zeros(LANES)).astype(np.float32), np.append(y, np.zeros(LANES)).astype(np.float32)
    x[-LANES], y[-LANES] = 0.21306849, -0.072687864  # of a real video: 1.2e-7 of a last place from a tie
    found = np.empty_like(x)
    lengths_of(x, y, found)
    expected = np.sqrt(x.astype(np.float64) ** 2 + y.astype(np.float64) ** 2).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@numba.njit
def change_in_order(squares, height, padded, width):
    return _sum_in_opencvs_order(squares, height, padded, width)


def test_changes_are_added_sum_in_opencvs_order():
    squares = np.random.default_rng(0).random((40, 48), np.float32) ** 8
    one_by_one = np.cumsum(squares[:, :37].ravel(), dtype=np.float32)[-1]
    assert change_in_order(squares.ravel(), 40, 48, 37) == one_by_one != squares[:, :37].sum()


@numba.njit
def in_doubt(change, target, pixels):
    return _is_near(change, target, pixels)


def test_a_change_is_is_near_where_another_order_could_decide_otherwise():
    target, pixels = np.float32(8.7), 87040  # an error of half a per cent at most
    assert in_doubt(np.float32(8.72), target, pixels)
    assert in_doubt(np.float32(8.68), target, pixels)
    assert not in_doubt(np.float32(8.8), target, pixels)
    assert not in_doubt(np.float32(8.6), target, pixels)


def test_bad_number_of_threads(moving):
    with pytest.raises(ValueError, match="threads"):
        tvl1(moving, threads=0)
