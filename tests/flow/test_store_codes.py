import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vadis.flow.store import BOUND, STEPS, dequantize, quantize


def back_and_forth(values):
    flow = np.asarray(values, np.float32).reshape(1, 1, 1, -1).repeat(2, axis=1)  # (1, 2, 1, W)
    return dequantize(quantize(flow)).reshape(2, -1)[0]


@given(st.lists(st.floats(-BOUND, BOUND, width=32), min_size=1, max_size=50))
def test_a_number_comes_back_within_half_a_step(values):
    assert np.abs(back_and_forth(values) - np.float32(values)).max() <= BOUND / STEPS / 2 + 1e-5


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_the_mirror_image_of_a_code_is_a_code(values):
    assert np.array_equal(back_and_forth([-value for value in values]), -back_and_forth(values))


def test_what_stands_still_stays_still_and_the_bound_is_kept():
    assert back_and_forth([0, 0.07, 20, 54, -20, -1e9]).tolist() == [0, 0, 20, 20, -20, -20]


def test_every_byte_has_a_meaning_within_the_bound():
    assert np.abs(dequantize(np.arange(256, dtype=np.uint8))).max() == BOUND


def test_dx_lies_above_dy():
    flow = np.zeros((3, 2, 4, 5), np.float32)
    flow[:, 0], flow[:, 1] = 20, -20
    codes = quantize(flow)
    assert codes.shape == (3, 8, 5)
    assert set(codes[:, :4].ravel()) == {255}
    assert set(codes[:, 4:].ravel()) == {1}
