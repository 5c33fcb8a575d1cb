"""The 5×5 median against sorting."""

import itertools

import numba
import numpy as np
import pytest

from vadis.flow.filters import MEDIAN, MEDIAN_PLACE, median_5x5


def test_network_finds_every_median():
    """By the zero-one principle, what is right for all sorted columns of zeros and ones is right for all numbers."""
    columns = [[0] * (5 - ones) + [1] * ones for ones in range(6)]
    values = np.array(list(itertools.product(columns, repeat=5))).reshape(-1, 25).T  # 25 places, 7776 cases
    expected = values.sum(0) >= 13
    values = list(values)
    for a, b in MEDIAN:
        values[a], values[b] = np.minimum(values[a], values[b]), np.maximum(values[a], values[b])
    np.testing.assert_array_equal(values[MEDIAN_PLACE], expected)


@numba.njit
def blurred(field, start, stride, height, width, scratch):
    median_5x5(field, start, stride, height, width, scratch)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 2), (9, 15), (7, 16), (6, 33)])
def test_against_sorting(height, width):
    padded = (width // 16 + 1) * 16
    start, stride = 5, 2 * padded
    image = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32)
    field = np.full(start + height * stride, 7, np.float32)
    rows = field[start:].reshape(height, stride)
    rows[:, :width] = image
    blurred(field, start, stride, height, width, np.empty((height + 9) * (padded + 16), np.float32))
    wide = np.pad(image, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (5, 5)).reshape(height, width, 25)
    np.testing.assert_array_equal(rows[:, :width], np.median(windows, axis=-1))
    assert not rows[:, width:padded].any()
    assert (rows[:, padded:] == 7).all()
