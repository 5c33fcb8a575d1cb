"""Clips → what a network eats."""

import numpy as np
import pytest
import torch

from tests.matching import containing
from vadis.preprocessing import STREAMS, centre_crop, cut_views, flow_input, network_input, rgb_input

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 256, 340, 3), dtype=np.uint8)
FLOW = RNG.normal(scale=15, size=(5, 2, 256, 340)).astype(np.float32)
ARRAYS = {"rgb": FRAMES, "flow": FLOW}


def test_rgb_is_scaled_to_plus_minus_one() -> None:
    x = rgb_input(np.array([0, 51, 255], dtype=np.uint8).reshape(1, 1, 1, 3))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_flow_is_truncated_at_20_pixels() -> None:
    x = flow_input(np.array([-50, 10], dtype=np.float32).reshape(1, 2, 1, 1))
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, 0.5]))


def test_flow_input_leaves_the_flow_as_it_is() -> None:
    before = FLOW.copy()
    flow_input(FLOW)
    np.testing.assert_array_equal(FLOW, before)


@pytest.mark.parametrize("stream", STREAMS)
def test_axes_of_a_network_input(stream: str) -> None:
    x = network_input(centre_crop(ARRAYS[stream], stream), stream)
    assert x.shape == (1, STREAMS[stream].channels, 5, 224, 224)
    pixel = {"rgb": FRAMES[2, 16 + 7, 58 + 9, 1] * 2 / 255 - 1, "flow": np.clip(FLOW[2, 1, 16 + 7, 58 + 9] / 20, -1, 1)}
    assert x[0, 1, 2, 7, 9].item() == pytest.approx(pixel[stream], abs=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_mirror_image_comes_second_in_the_batch(stream: str) -> None:
    clip = centre_crop(ARRAYS[stream], stream)
    x = network_input(clip, stream, flip=True)
    assert x.shape[0] == 2
    torch.testing.assert_close(x[:1], network_input(clip, stream))
    torch.testing.assert_close(STREAMS[stream].mirror(x[1:]), x[:1])


def test_mirroring_turns_motion_to_the_left_into_motion_to_the_right() -> None:
    to_the_right = np.zeros((1, 2, 4, 4), dtype=np.float32)
    to_the_right[:, 0], to_the_right[:, 1] = 10, 4
    x = STREAMS["flow"].mirror(flow_input(to_the_right))
    assert x[0, 0].unique().tolist() == [-0.5]
    torch.testing.assert_close(x[0, 1], torch.full((1, 4, 4), 0.2))


@pytest.mark.parametrize("stream", STREAMS)
def test_a_crop_keeps_no_hold_of_the_whole_frames(stream: str) -> None:
    crop = centre_crop(ARRAYS[stream], stream)
    assert crop.base is None
    assert crop.flags.c_contiguous


def test_no_frame_is_smaller_than_the_crop() -> None:
    with pytest.raises(AssertionError, match=containing(224)):
        centre_crop(np.zeros((1, 200, 300, 3), dtype=np.uint8), "rgb")


@pytest.mark.parametrize("stream", STREAMS)
def test_ten_crops_are_five_places_and_their_mirror_images(stream: str) -> None:
    x = network_input(ARRAYS[stream], stream, crops=10)
    assert x.shape == (10, STREAMS[stream].channels, 5, 224, 224)
    torch.testing.assert_close(x[2:3], network_input(centre_crop(ARRAYS[stream], stream), stream))
    torch.testing.assert_close(x[5:], STREAMS[stream].mirror(x[:5]))
    whole = STREAMS[stream].to_input(ARRAYS[stream])[0]
    corners = whole[..., :224, :224], whole[..., :224, -224:], whole[..., -224:, :224], whole[..., -224:, -224:]
    torch.testing.assert_close(x[[0, 1, 3, 4]], torch.stack(corners))


@pytest.mark.parametrize("shape", [(256, 340), (340, 256)])
def test_three_crops_lie_along_the_longer_side(shape: tuple[int, int]) -> None:
    rows, columns = (axis.ravel() for axis in np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij"))
    places = np.stack([rows, columns, rows], axis=1).reshape(1, *shape, 3)
    firsts = [tuple(view[0, 0, 0, :2]) for view in cut_views(places, "rgb", 3, 224)]
    assert firsts == ([(16, 0), (16, 58), (16, 116)] if shape[0] < shape[1] else [(0, 16), (58, 16), (116, 16)])
