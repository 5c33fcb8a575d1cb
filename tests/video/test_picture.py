"""From decoded frames to pictures: colours, sizes, turns, pixel aspects, and borders that containers crop off."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.synthetic import write_video
from tests.video.reading import read, remuxed
from vadis.errors import VideoError
from vadis.video.picture import LONGEST_SIDE, SCALERS, SHORT_SIDE, Cropper, Orientation, Scaler, scaled_size
from vadis.video.reader import open_source

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
    assert Scaler(frame, Fraction(1000)).flags == {"pixel_aspect_ignored"}
    assert not Scaler(frame, None).flags
    assert not Scaler(frame, Fraction(2)).flags


def disc(width, height, aspect=1):
    """A white disc, in pixels that are ``aspect`` times as wide as high."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) * aspect) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    return rgb_frame(np.repeat(255 * inside[..., None].astype(np.uint8), 3, axis=2))


def extent(pixels):
    """The width and height of what is white."""
    white = pixels[..., 0] > 128
    return np.ptp(np.flatnonzero(white.any(axis=0))), np.ptp(np.flatnonzero(white.any(axis=1)))


@pytest.mark.parametrize("scaler", [Scaler, SCALERS["full"]])
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
    assert ours.flags == {"size_changes"}


def test_the_middle_of_a_later_frame_is_what_a_file_of_it_alone_would_show():
    ours = Scaler(disc(160, 120), None)
    alone = picture(disc(320, 180))
    left, width = (alone.shape[1] - 341) // 2, 341
    assert np.array_equal(ours.picture(disc(320, 180)), alone[:, left : left + width])


@pytest.mark.parametrize("scaler", [Scaler, SCALERS["full"]])
def test_another_pixel_aspect_on_the_way_keeps_its_proportions(scaler):
    first, second = Fraction(16, 15), Fraction(64, 45)
    ours = scaler(disc(180, 144, 16 / 15), first)
    later = disc(180, 144, 64 / 45)
    later.opaque = second
    assert not ours.flags
    width, height = extent(ours.picture(later))
    pixel = 1 if scaler is Scaler else 16 / 15
    assert width * pixel == pytest.approx(height, abs=3)
    assert ours.flags == {"size_changes"}


def test_a_slightly_other_size_is_made_equal():
    ours = Scaler(rgb_frame(np.zeros((180, 320, 3), np.uint8)), None)
    assert ours.picture(rgb_frame(np.full((90, 161, 3), 255, np.uint8))).min() == 255, "no borders"


def test_another_size_on_the_way_is_scaled_to_that_of_the_first():
    scaler = Scaler(rgb_frame(np.zeros((96, 160, 3), np.uint8)), None)
    assert not scaler.flags
    assert scaler.picture(rgb_frame(np.zeros((50, 50, 3), np.uint8))).shape == (256, 427, 3)
    assert scaler.flags == {"size_changes"}


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
def test_display_matrices(tmp_path, matrix):
    a, b, c, d = matrix
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "rgb24"
        stream.set_display_matrix([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(rgb_frame(pixels)))
        container.mux(stream.encode(None))
    turned = TURNS[matrix](pixels)
    with open_source(path) as video:
        frames = [frame.pixels for frame in video.source_frames()]
    assert np.array_equal(frames, [turned])
    assert frames[0].flags.c_contiguous
    assert video.size == turned.shape[1::-1]


@pytest.mark.parametrize(("degrees", "quarters"), [(0, 0), (90, 1), (-90, -1), (180, 2), (-180, 2), (88, 1)])
def test_rotations_are_counter_clockwise(degrees, quarters):
    """They turn a frame whose side data PyAV refuses to list, too."""

    class Frame:
        rotation = degrees

        @property
        def side_data(self):
            raise ValueError

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(Orientation.of_frame(Frame()).apply(pixels), np.rot90(pixels, quarters))


def test_a_pixel_aspect_that_changes_is_followed_from_its_own_frame_on(tmp_path):
    """MPEG-2 holds a frame back, so the decoder knows the new aspect before the last old frame is out."""
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        for part, aspect in enumerate((Fraction(16, 15), Fraction(64, 45))):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = 180, 144, "yuv420p"
            encoder.time_base, encoder.framerate, encoder.sample_aspect_ratio = Fraction(1, 25), Fraction(25), aspect
            encoder.max_b_frames = 2
            if part == 0:
                stream.width, stream.height, stream.pix_fmt = 180, 144, "yuv420p"
                stream.codec_context.sample_aspect_ratio = aspect
            for number in range(12):
                y, x = np.mgrid[:144, :180]
                disc = ((x - 90) * float(aspect)) ** 2 + (y - 72) ** 2 < 48**2
                frame = av.VideoFrame.from_ndarray(np.repeat(np.uint8(255) * disc[..., None], 3, 2), format="rgb24")
                frame.pts, frame.time_base = 12 * part + number, Fraction(1, 25)
                mux(container, stream, encoder.encode(frame))
            mux(container, stream, encoder.encode(None))
    video, frames = read(path)
    assert len(frames) == 24 and video.facts.flags == ("size_changes",)
    for frame in frames:
        white = frame.pixels[..., 0] > 128
        width, height = (np.ptp(np.flatnonzero(white.any(axis=axis))) for axis in (0, 1))
        assert width == pytest.approx(height, abs=4), frame.seconds


def mux(container, stream, packets):
    for packet in packets:
        packet.stream = stream
        container.mux(packet)


BORDER = 16


def bordered(num_frames=3):
    """White pictures of 160 × 96 with black borders above and below."""
    frames = np.zeros((num_frames, 96, 160, 3), np.uint8)
    frames[:, BORDER:-BORDER] = 235
    return frames


def clean_aperture(path):
    """An MP4 file with a clap box, of 160 × 64 pixels in the middle."""
    write_video(path, frames=bordered(), codec="libx264", options={"crf": "1"})
    content = bytearray(path.read_bytes())
    box = struct.pack(">I4s8i", 40, b"clap", 160, 1, 64, 1, 0, 1, 0, 1)
    kinds = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    places = [content.rindex(kind) - 4 for kind in kinds]
    at = places[-1]
    end = at + struct.unpack_from(">I", content, at)[0]
    content[end:end] = box
    for place in places:
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + len(box))
    path.write_bytes(content)
    return path


def pixel_crop(path):
    """The same as PixelCrop, as FFmpeg writes it into Matroska."""
    return remuxed(clean_aperture(path.with_suffix(".mp4")), path)


@pytest.mark.parametrize(("write", "name"), [(pixel_crop, "a.mkv"), (clean_aperture, "a.mp4")])
def test_borders_are_cut_off(tmp_path, write, name):
    path = write(tmp_path / name)
    video, frames = read(path)
    assert video.facts.source_size == (160, 96 - 2 * BORDER)
    assert video.size == (640, 256)
    assert all(frame.pixels.min() > 200 for frame in frames)
    with open_source(path) as source:
        assert source.size == (160, 64)
        assert all(frame.pixels.min() > 200 for frame in source.source_frames())


def test_borders_as_large_as_the_picture_are_none():
    frame = av.VideoFrame(160, 96, "rgb24")
    assert Cropper(top=48, bottom=48).crop(frame) is frame


def test_frames_of_several_sizes_are_cut():
    cropper = Cropper(top=2, left=4, right=8)
    for width, height in ((160, 96), (64, 48), (160, 96)):
        frame = av.VideoFrame(width, height, "yuv420p")
        frame.time_base = Fraction(1, 25)
        cut = cropper.crop(frame)
        assert (cut.width, cut.height, cut.format.name) == (width - 12, height - 2, "yuv420p")
