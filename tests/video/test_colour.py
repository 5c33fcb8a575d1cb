"""Colours of high dynamic range, of grey, and of matrices that swscale does not know."""

import av
import numpy as np
import pytest

from tests.synthetic import write_video
from tests.video.reading import read
from vadis.video.colour import ColourConverter

LIMITED, FULL = 1, 2  # AVColorRange
BT709, UNSPECIFIED, BT2020, PQ, HLG = 1, 2, 9, 16, 18  # ITU-T H.273

# RGB in BT.709 with white at 203 cd/m², and its Y, Cb, Cr of 10 bits in BT.2020, as zimg 3.0 converts them.
SHOWN = [(255, 255, 255), (220, 40, 40), (40, 60, 220), (230, 190, 60), (128, 128, 128), (200, 150, 120)]
CODED = {
    PQ: [(573, 512, 512), (378, 457, 597), (326, 623, 512), (508, 434, 530), (429, 512, 512), (472, 486, 532)],
    HLG: [(721, 512, 512), (377, 430, 666), (292, 708, 507), (613, 364, 543), (456, 512, 512), (546, 459, 550)],
}


def frame_of(planes, kind, *, matrix=UNSPECIFIED, transfer=UNSPECIFIED, primaries=UNSPECIFIED, color_range=LIMITED):
    """A frame of 64 × 64 pixels, each of its planes of one value."""
    frame = av.VideoFrame(64, 64, kind)
    dtype = np.uint16 if kind.endswith("le") else np.uint8
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, value, dtype).tobytes())
    frame.colorspace, frame.color_trc, frame.color_primaries = matrix, transfer, primaries
    frame.color_range = color_range
    return frame


def converted(frame):
    """The colour in the middle of a frame, and the flags of what converted it."""
    flags = set()
    pixels = ColourConverter(flags).convert(frame, 128, 96)
    assert pixels.shape == (96, 128, 3) and pixels.dtype == np.uint8
    return pixels[48, 64].astype(int), flags


@pytest.mark.parametrize("kind", ["yuv420p10le", "yuv422p10le", "yuv444p12le", "yuv420p10le full", "gbrp10le"])
@pytest.mark.parametrize("transfer", CODED)
def test_high_dynamic_range_becomes_the_colours_that_were_meant(transfer, kind):
    for shown, (luma, blue, red) in zip(SHOWN, CODED[transfer], strict=True):
        tags = {"matrix": BT2020, "transfer": transfer, "primaries": BT2020}
        y, cb, cr = (luma - 64) / 876, (blue - 512) / 896, (red - 512) / 896
        r, b = y + 1.4746 * cr, y + 1.8814 * cb
        g = (y - 0.2627 * r - 0.0593 * b) / 0.678
        if kind == "gbrp10le":
            planes = [round(1023 * each) for each in (g, b, r)]
            frame = frame_of(planes, kind, **tags | {"matrix": 0}, color_range=FULL)
        elif kind.endswith("full"):
            planes = [round(1023 * y), round(512 + 1023 * cb), round(512 + 1023 * cr)]
            frame = frame_of(planes, "yuv420p10le", **tags, color_range=FULL)
        else:
            shift = 2 if "12" in kind else 0
            frame = frame_of([luma << shift, blue << shift, red << shift], kind, **tags)
        colour, flags = converted(frame)
        assert np.abs(colour - shown).max() <= 4
        assert flags == {"hdr"}


def test_high_dynamic_range_without_a_matrix_or_primaries_is_of_bt2020():
    frame = frame_of(CODED[PQ][1], "yuv420p10le", transfer=PQ)
    colour, flags = converted(frame)
    assert np.abs(colour - SHOWN[1]).max() <= 4 and flags == {"hdr"}


def test_no_level_of_10_bits_is_lost_before_the_curve():
    """Steps of 8 bits would be steps of five levels of the result here."""
    levels = [
        converted(frame_of([luma, 512, 512], "yuv420p10le", matrix=BT2020, transfer=PQ, primaries=BT2020))[0]
        for luma in range(420, 570)
    ]
    steps = np.diff(levels, axis=0)
    assert steps.min() >= 0 and steps.max() <= 2
    assert (steps.sum(axis=0) > 120).all()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_what_is_brighter_than_reference_white_is_white(transfer):
    for luma in (730, 800, 940):
        frame = frame_of([luma, 512, 512], "yuv420p10le", matrix=BT2020, transfer=transfer, primaries=BT2020)
        assert (converted(frame)[0] == 255).all()


@pytest.mark.parametrize("kind", ["gray10le", "gbrp10le"])
@pytest.mark.parametrize("transfer", [PQ, UNSPECIFIED])
def test_samples_with_more_bits_than_their_format_has_are_converted_to_something(transfer, kind):
    """A damaged file may hold them, and swscale copies them where it does not scale."""
    frame = frame_of([0xFFFF] * (1 if kind == "gray10le" else 3), kind, transfer=transfer)
    assert ColourConverter(set()).convert(frame, 64, 64).shape == (64, 64, 3)


def test_primaries_of_the_screen_need_no_other_gamut():
    """PQ with the primaries of BT.709: grey levels aside, nothing but the curve changes."""
    luma, blue, red = 378, 457, 597
    wide = converted(frame_of([luma, blue, red], "yuv444p10le", matrix=BT2020, transfer=PQ, primaries=BT2020))[0]
    narrow = converted(frame_of([luma, blue, red], "yuv444p10le", matrix=BT2020, transfer=PQ, primaries=BT709))[0]
    assert wide[0] > narrow[0] + 10 and wide[1] < narrow[1] - 10


@pytest.mark.parametrize("codec", ["libx265", "ffv1"])
def test_a_file_of_high_dynamic_range_says_so(tmp_path, codec):
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        quiet = {"x265-params": "log-level=none:qp=4"} if codec == "libx265" else {}
        stream = container.add_stream(codec, rate=25, options=quiet)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_trc, context.color_primaries, context.color_range = BT2020, PQ, BT2020, 1
        for number in range(3):
            frame = frame_of(CODED[PQ][3], "yuv420p10le", matrix=BT2020, transfer=PQ, primaries=BT2020)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video, frames = read(path)
    assert video.facts.flags == ("hdr",) and video.facts.status == "ok"
    assert np.abs(frames[1].pixels.astype(int) - SHOWN[3]).max() <= 5


def test_ordinary_files_have_no_flag(tmp_path):
    video, _ = read(write_video(tmp_path / "a.mp4", num_frames=2))
    assert video.facts.flags == ()


# The nearest matrix that can be converted, and the weights of red and blue by which a colour is coded in it.
NEAREST = {
    8: BT709,
    10: BT2020,
    11: BT2020,
    13: BT709,
    14: BT2020,
    15: BT2020,
    16: BT709,
    17: BT709,
    0: 5,
    3: 5,
    255: 5,
}


@pytest.mark.parametrize("matrix", NEAREST)
def test_matrices_that_cannot_be_converted_are_replaced_by_the_nearest(matrix):
    planes = (120, 90, 180)
    expected, known = converted(frame_of(planes, "yuv420p", matrix=NEAREST[matrix]))
    colour, unknown = converted(frame_of(planes, "yuv420p", matrix=matrix))
    assert (colour == expected).all()
    assert (unknown, known) == ({"colours_approximated"}, set())


@pytest.mark.parametrize(("primaries", "nearest"), [(1, 1), (9, 9), (6, 7), (2, 1)])
def test_a_matrix_derived_from_the_primaries_follows_them(primaries, nearest):
    frame = frame_of((120, 90, 180), "yuv420p", matrix=12, primaries=primaries)
    assert (converted(frame)[0] == converted(frame_of((120, 90, 180), "yuv420p", matrix=nearest))[0]).all()


@pytest.mark.parametrize("matrix", [0, 8, 14])
@pytest.mark.parametrize("kind", ["gbrp", "rgb24", "bgra", "gray"])
def test_what_has_no_matrix_is_not_approximated(kind, matrix):
    frame = frame_of([90] * {"gbrp": 3}.get(kind, 1), kind, matrix=matrix, color_range=FULL)
    colour, flags = converted(frame)
    assert (colour == 90).all() and not flags


def test_a_matrix_unknown_to_swscale_does_not_refuse_a_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=3, codec="libx264", options={"colorspace": "ycgco"})
    video, frames = read(path)
    assert (video.facts.flags, video.facts.status, len(frames)) == (("colours_approximated",), "ok", 3)


@pytest.mark.parametrize(("kind", "scale"), [("gray", 1), ("gray10le", 4), ("gray12le", 16), ("gray16le", 256)])
def test_grey_of_limited_range_is_stretched(kind, scale):
    for coded, shown in ((16, 0), (235, 255), (126, 128), (30, 16), (4, 0), (250, 255)):
        colour, _ = converted(frame_of([coded * scale], kind, color_range=LIMITED))
        assert np.abs(colour - shown).max() <= 1


@pytest.mark.parametrize("color_range", [0, FULL])
def test_other_grey_is_full_range(color_range):
    assert (converted(frame_of([100], "gray", color_range=color_range))[0] == 100).all()


def test_grey_of_high_dynamic_range():
    frame = frame_of([429], "gray10le", transfer=PQ, color_range=LIMITED)
    assert np.abs(converted(frame)[0] - 128).max() <= 1
