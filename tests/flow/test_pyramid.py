"""Scales and bilinear resizing."""

import numpy as np
import pytest

from vadis.flow.filters import level_shapes, resize


def test_level_shapes():
    assert level_shapes(256, 340) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert level_shapes(24, 100) == [(24, 100), (19, 80)]  # the next would be 15 px high
    assert level_shapes(1, 1) == [(1, 1)]


@pytest.mark.parametrize(
    ("source", "target"), [((20, 33), (16, 26)), ((16, 26), (20, 33)), ((7, 5), (7, 5)), ((1, 4), (1, 5))]
)
@pytest.mark.parametrize("beyond", [0.0, 1.0])
def test_resize_against_interpolation(source, target, beyond):
    image = np.random.default_rng(0).standard_normal(source).astype(np.float32)
    result = np.empty(target, np.float32)
    steps = (source[0] / target[0], source[1] / target[1])
    resize(image, result, *steps, beyond)
    places = [(np.arange(target[axis]) + 0.5) * steps[axis] - 0.5 for axis in (0, 1)]
    rows = np.stack([np.interp(places[1], np.arange(source[1]), row) for row in image])
    expected = np.stack([np.interp(places[0], np.arange(source[0]), column) for column in rows.T], axis=1)
    np.testing.assert_allclose(result, expected, atol=1e-6)
