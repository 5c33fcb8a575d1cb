"""Borders that containers say are not to be shown."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from tests.synthetic import write_video
from tests.video.reading import read, remuxed
from vadis.video.picture import Crop, Cropper
from vadis.video.reader import open_source

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
    assert Cropper(Crop(top=48, bottom=48)).crop(frame) is frame


def test_frames_of_several_sizes_are_cut():
    cropper = Cropper(Crop(top=2, left=4, right=8))
    for width, height in ((160, 96), (64, 48), (160, 96)):
        frame = av.VideoFrame(width, height, "yuv420p")
        frame.time_base = Fraction(1, 25)
        cut = cropper.crop(frame)
        assert (cut.width, cut.height, cut.format.name) == (width - 12, height - 2, "yuv420p")
