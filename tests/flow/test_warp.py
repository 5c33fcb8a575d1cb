"""Bicubic sampling against the formula in float64."""

import numba
import numpy as np

from vadis.flow.filters import BORDER, CHANNELS, row_work, sample_row, with_gradients

HEIGHT, WIDTH, PADDED = 21, 29, 32


@numba.njit
def sampled(image, state):
    """(H, W, 4): image and gradients where the flow in ``state`` (2, H, PADDED) points."""
    height, width = image.shape
    taps = np.zeros((height + 2 * BORDER, width + 2 * BORDER, CHANNELS), np.float32)
    with_gradients(image, taps)
    work, row = row_work(PADDED), np.zeros(CHANNELS * PADDED, np.float32)
    result = np.empty((height, width, CHANNELS), np.float32)
    for y in range(height):
        sample_row(taps, state.reshape(-1), y * PADDED, (height + y) * PADDED, y, work, row)
        result[y] = row.reshape(-1, CHANNELS)[:width]
    return result


def kernel(distance):
    """The cubic convolution kernel with slope -0.75 at distance 1."""
    a, d = -0.75, np.abs(distance)
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d < 1, near, np.where(d < 2, far, 0))


def test_against_the_formula():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (HEIGHT, WIDTH)).astype(np.float32)
    state = np.zeros((2, HEIGHT, PADDED), np.float32)
    state[..., :WIDTH] = rng.uniform(-6, 6, (2, HEIGHT, WIDTH))
    state[0, 3, 4], state[1, 5, 6] = 1e4, -1e4  # far outside
    wide = np.pad(image, 1, mode="edge").astype(np.float64)
    along_x, along_y = (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2, (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2
    result = sampled(image, state)
    for y, x in np.ndindex(HEIGHT, WIDTH):
        down = kernel(y + state[1, y, x].astype(float) - np.arange(HEIGHT))
        across = kernel(x + state[0, y, x].astype(float) - np.arange(WIDTH))
        expected = [down @ channel @ across for channel in (image, along_x, along_y)]
        np.testing.assert_allclose(result[y, x, :3], expected, atol=2e-3)
    assert not result[3, 4].any()
    assert not result[5, 6].any()
