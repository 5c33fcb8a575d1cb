import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vadis.errors import VideoError
from vadis.video.picture import LONGEST_SIDE, SHORT_SIDE, FullSize, Orientation, Scaler, scaled_size

# Luma weights of red and blue (ITU-R BT.601, BT.709, BT.2020), and the AVColorSpace numbers that name them.
MATRICES = {
    "601": (0.299, 0.114, 5),
    "709": (0.2126, 0.0722, 1),
    "2020": (0.2627, 0.0593, 9),
    "unknown": (0.299, 0.114, 2),
}
LIMITED, FULL = 1, 2  # AVColorRange
COLOURS = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (64, 128, 192)]


def yuv_frame(rgb, weights, color_range, size=(64, 64)):
    """A frame of one colour, converted to YUV 4:4:4 by the definition of the matrix."""
    red, green, blue = (component / 255 for component in rgb)
    k_red, k_blue, colorspace = weights
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    chroma = (blue - luma) / (2 * (1 - k_blue)), (red - luma) / (2 * (1 - k_red))
    if color_range == FULL:
        values = (luma * 255, 128 + chroma[0] * 255, 128 + chroma[1] * 255)
    else:
        values = (16 + luma * 219, 128 + chroma[0] * 224, 128 + chroma[1] * 224)
    planes = np.stack([np.full(size[::-1], np.clip(np.round(value), 0, 255), np.uint8) for value in values])
    frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    frame.colorspace, frame.color_range = colorspace, color_range
    return frame


def rgb_frame(pixels):
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def picture(frame, aspect=None):
    return Scaler(frame, aspect).picture(frame)


@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("rgb", COLOURS)
def test_colours_follow_the_frames_matrix_and_range(rgb, matrix, color_range):
    pixels = picture(yuv_frame(rgb, MATRICES[matrix], color_range))
    assert np.abs(pixels.astype(int) - rgb).max() <= 3  # rounding to 8 bits, amplified by up to 2.1 in blue


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p12le", "gray", "bgra", "nv12", "p010le"])
def test_pixel_formats_give_the_same_picture(pix_fmt):
    grey = rgb_frame(np.full((64, 96, 3), 120, np.uint8)).reformat(format=pix_fmt)
    pixels = picture(grey)
    assert pixels.shape == (256, 384, 3)
    assert np.abs(pixels.astype(int) - 120).max() <= 3


def test_alpha_is_dropped():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 200
    assert (picture(av.VideoFrame.from_ndarray(pixels, format="rgba"))[..., 0] == 200).all()


def test_fine_patterns_do_not_alias():
    """Stripes too fine for the small picture become grey; taken by points they would come out as 0 or 255."""
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    for pattern in (stripes, stripes.transpose(1, 0, 2)):
        inner = picture(rgb_frame(pattern))[8:-8, 8:-8].astype(int)
        assert np.abs(inner - 127.5).max() <= 3


def test_the_filter_is_a_triangle_as_wide_as_the_reduction():
    """One white column in 4 x as many gives weights that fall off linearly over 2 pixels of the result."""
    line = np.zeros((1024, 1024, 3), np.uint8)
    line[:, 512:516] = 255  # one pixel of the result
    row = picture(rgb_frame(line))[128, 124:134, 0].astype(int)
    assert row.argmax() == 4
    assert row[3] == pytest.approx(row[5], abs=3)
    assert row[:3].max() <= 2
    assert row[6:].max() <= 2
    assert row.sum() == pytest.approx(255, abs=6)


def test_a_picture_of_the_right_size_is_kept_to_the_bit():
    pixels = np.random.default_rng(1).integers(0, 256, (256, 340, 3)).astype(np.uint8)
    assert np.array_equal(picture(rgb_frame(pixels)), pixels)


@pytest.mark.parametrize(
    ("size", "aspect", "scaled"),
    [
        ((340, 256), 1, (340, 256)),
        ((1920, 1080), 1, (455, 256)),  # 455.1
        ((1080, 1920), 1, (256, 455)),
        ((320, 240), 1, (341, 256)),  # 341.3
        ((321, 241), 1, (341, 256)),
        ((200, 200), 1, (256, 256)),
        ((720, 576), Fraction(16, 15), (341, 256)),  # PAL, 4:3
        ((720, 576), Fraction(64, 45), (455, 256)),  # PAL, 16:9
        ((340, 256), Fraction(64, 51), (427, 256)),
        ((720, 1280), Fraction(1, 2), (256, 910)),
        ((4096, 256), 1, (4096, 256)),
    ],
)
def test_sizes(size, aspect, scaled):
    assert scaled_size(*size, Fraction(aspect)) == scaled


def test_extreme_proportions_are_refused_before_memory_is_asked_for():
    assert scaled_size(16, 16 * 16, Fraction(1)) == (SHORT_SIDE, LONGEST_SIDE)
    with pytest.raises(VideoError) as refused:
        scaled_size(20_000, 2, Fraction(1))
    assert refused.value.code == "too_large"


def test_an_implausible_pixel_aspect_is_ignored():
    frame = rgb_frame(np.zeros((64, 64, 3), np.uint8))
    assert Scaler(frame, Fraction(1000)).size == (256, 256)
    assert Scaler(frame, Fraction(1000)).aspect_ignored
    assert not Scaler(frame, None).aspect_ignored
    assert not Scaler(frame, Fraction(2)).aspect_ignored


def disc(width, height, aspect=1):
    """A white disc, in pixels that are ``aspect`` times as wide as high."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) * aspect) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    return rgb_frame(np.repeat(255 * inside[..., None].astype(np.uint8), 3, axis=2))


def extent(pixels):
    """The width and height of what is white."""
    white = pixels[..., 0] > 128
    return np.ptp(np.flatnonzero(white.any(axis=0))), np.ptp(np.flatnonzero(white.any(axis=1)))


@pytest.mark.parametrize("scaler", [Scaler, FullSize])
@pytest.mark.parametrize(
    ("first", "later"), [((160, 120), (320, 180)), ((320, 180), (160, 120)), ((96, 160), (160, 96))]
)
def test_another_size_on_the_way_keeps_its_proportions(scaler, first, later):
    ours = scaler(disc(*first), None)
    for size in (first, later, first):
        pixels = ours.picture(disc(*size))
        assert pixels.shape[1::-1] == ours.size
        width, height = extent(pixels)
        assert width == pytest.approx(height, abs=3)
    assert ours.size_changes


def test_the_middle_of_a_later_frame_is_what_a_file_of_it_alone_would_show():
    ours = Scaler(disc(160, 120), None)
    alone = picture(disc(320, 180))
    left, width = (alone.shape[1] - 341) // 2, 341
    assert np.array_equal(ours.picture(disc(320, 180)), alone[:, left : left + width])


@pytest.mark.parametrize("scaler", [Scaler, FullSize])
def test_another_pixel_aspect_on_the_way_keeps_its_proportions(scaler):
    first, second = Fraction(16, 15), Fraction(64, 45)
    ours = scaler(disc(180, 144, 16 / 15), first)
    later = disc(180, 144, 64 / 45)
    later.opaque = second
    assert not ours.size_changes
    width, height = extent(ours.picture(later))
    pixel = 1 if scaler is Scaler else 16 / 15
    assert width * pixel == pytest.approx(height, abs=3)
    assert ours.size_changes


def test_a_slightly_other_size_is_made_equal():
    ours = Scaler(rgb_frame(np.zeros((180, 320, 3), np.uint8)), None)
    assert ours.picture(rgb_frame(np.full((90, 161, 3), 255, np.uint8))).min() == 255, "no borders"


def test_another_size_on_the_way_is_scaled_to_that_of_the_first():
    scaler = Scaler(rgb_frame(np.zeros((96, 160, 3), np.uint8)), None)
    assert not scaler.size_changes
    assert scaler.picture(rgb_frame(np.zeros((50, 50, 3), np.uint8))).shape == (256, 427, 3)
    assert scaler.size_changes


# What a display matrix a b / c d does to a picture: x' = a x + c y, y' = b x + d y (FFmpeg, libavutil/display.h).
TURNS = {
    (1, 0, 0, 1): lambda p: p,
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),  # clockwise, the portrait video of a phone
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_display_matrices(matrix):
    a, b, c, d = (each << 16 for each in matrix)
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    turn = Orientation.from_matrix(struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    turned = turn.apply(pixels)
    assert np.array_equal(turned, TURNS[matrix](pixels))
    assert turned.flags.c_contiguous
    assert turn.size(3, 2) == turned.shape[1::-1]


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, 1), (-90, -1), (180, 2), (-180, 2), (88, 1)])
def test_rotations_are_counter_clockwise(degrees, quarters):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(Orientation.from_rotation(degrees).apply(pixels), np.rot90(pixels, quarters))
