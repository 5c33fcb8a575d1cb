"""The image operations of TV-L1: scales, grey, medians, and sampling where the flow points."""

import itertools

import numba
import numpy as np
import pytest

from vadis.flow import to_gray
from vadis.flow.filters import BORDER, MEDIAN, MEDIAN_PLACE, level_shapes, resize
from vadis.flow.tvl1_cpu import CHANNELS, median_5x5, row_work, sample_row, with_gradients


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


# --- Grey is OpenCV's grey, to the last bit --------------------------------------------------------------------------


def test_equals_opencv(cv2):
    colours = np.random.default_rng(0).integers(0, 256, (3, 120, 161, 3), np.uint8)
    expected = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in colours])
    np.testing.assert_array_equal(to_gray(colours), expected)


def test_equals_opencv_along_every_channel(cv2):
    levels = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels[::5], levels[::3], indexing="ij"), axis=-1).reshape(1, 256, -1, 3)
    np.testing.assert_array_equal(to_gray(colours)[0], cv2.cvtColor(colours[0], cv2.COLOR_RGB2GRAY))


def test_grey_stays_grey():
    frames = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(to_gray(frames)[0], frames[0, ..., 0])


def test_strided_and_read_only_frames():
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    view = frames[::2, ::-1, 3:-3]
    view.flags.writeable = False
    np.testing.assert_array_equal(to_gray(view), to_gray(view.copy()))


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4, 4), np.uint8)],
    ids=["float", "one frame", "four channels"],
)
def test_bad_frames(frames):
    with pytest.raises(ValueError, match="uint8"):
        to_gray(frames)


# --- The 5×5 median against sorting ----------------------------------------------------------------------------------


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


# --- Bicubic sampling against the formula in float64 -----------------------------------------------------------------


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


@pytest.mark.slow
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
