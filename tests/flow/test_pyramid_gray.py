"""Grey is OpenCV's grey, to the last bit."""

import numpy as np
import pytest

from vadis.flow import to_gray


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
